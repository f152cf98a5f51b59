"""When what was learnt scores, and when no longer."""

from collections.abc import Iterator
from typing import Any, cast

import msgspec
import numpy as np
import pytest

from events.audit import AuditEvent
from events.control import ModelUpdate, OnlineCommand, OnlineWeights
from models.artefact import FEATURES_SHA256
from online_learning.audit import Audit, Outcome, Tombstone
from online_learning.gate import LOOK_EVERY, MAX_PREVIOUS, Gate, GateSettings
from online_learning.prequential import ROUND_FRAUDS, ROUND_LABELS, Foretold

SETTINGS = GateSettings(report_every=10**9)
STRICT = GateSettings(report_every=10**9, error=0.02)


def candidate(version: str, bias: float = 0.0) -> OnlineWeights:
    return OnlineWeights(
        version=version, features_sha256=FEATURES_SHA256, features=[], centre=[], scale=[], weight=[],
        limit=3.0, offline=1.0, bias=bias, share=0.5,
    )  # fmt: skip


def labels(n: int, seed: int, frauds: float = 0.3, **foretold: float) -> Iterator[Foretold]:
    """Labels of which each foretells about as well as `foretold` says, between 0.5 (nothing) and 1."""
    rng = np.random.default_rng(seed)
    quality = {"offline": 0.6, "live": 0.6, "former": 0.6, "challenger": 0.6} | foretold
    for _ in range(n):
        is_fraud = bool(rng.random() < frauds)
        right = {name: float(np.clip(rng.normal(q, 0.1), 0.01, 0.99)) for name, q in quality.items()}
        yield Foretold(is_fraud, 1.0, **{name: q if is_fraud else 1 - q for name, q in right.items()})


class Run:
    """A gate and all that followed."""

    def __init__(self, settings: GateSettings = SETTINGS) -> None:
        self.gate, self.settings = Gate(), settings
        self._log = Audit(0, 1_764_000_000_000)

    def judge(self, *streams: Iterator[Foretold]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for stream in streams:
            for label in stream:
                outcomes += self.gate.judge(label, candidate, self.settings, self._log)
        return outcomes

    def command(self, kind: str, identity: str = "1") -> list[Outcome]:
        command = OnlineCommand(
            command_id=identity, command=cast(Any, kind), issued_at=1_764_000_000_000, issued_by="ana",
            reason="because",
        )  # fmt: skip
        return self.gate.command(command, candidate, self.settings, self._log)


def shape(outcomes: list[Outcome]) -> list[str]:
    """What followed, in short."""
    return [
        o.step if isinstance(o, AuditEvent)
        else o.online.version if isinstance(o, ModelUpdate) and o.online
        else type(o).__name__
        for o in outcomes
    ]  # fmt: skip


def test_what_foretells_better_is_promoted_with_the_figures() -> None:
    run = Run()
    outcomes = run.judge(labels(300, 1, challenger=0.9, live=0.6))
    update, event = outcomes[:2]

    assert shape(outcomes[:2]) == ["online-1", "promoted"]
    assert isinstance(update, ModelUpdate)
    assert update.issued_by == "gate"
    assert isinstance(event, AuditEvent)
    assert event.version == "online-1"
    assert SETTINGS.min_frauds <= event.figures["frauds"] < 2 * SETTINGS.min_frauds
    assert event.figures["gain"] > event.figures["gain_at_least"] > 0
    assert event.figures["log_loss_challenger"] < event.figures["log_loss_live"]


@pytest.mark.parametrize("seed", range(5))
def test_what_foretells_as_well_or_worse_is_not(seed: int) -> None:
    run = Run(STRICT)
    assert run.judge(labels(3_000, seed), labels(1_000, seed, challenger=0.55)) == []


def test_what_is_no_better_passes_hardly_more_often_than_the_error_says() -> None:
    runs = [Run().judge(labels(600, seed)) for seed in range(60)]
    passed = sum("promoted" in shape(outcomes) for outcomes in runs)
    # Binomial with the error as its chance: more than 13 of 60 in less than 1 % of all samples of seeds.
    assert passed <= 13


def test_what_finds_frauds_with_fewer_alarms_is_promoted_though_its_probabilities_are_no_truer() -> None:
    """What is live takes one legitimate transaction in twenty for fraud, and is the surer of the others."""
    rng = np.random.default_rng(4)

    def stream() -> Iterator[Foretold]:
        for _ in range(600):
            if rng.random() < 0.3:
                score = float(rng.uniform(0.4, 0.6))
                yield Foretold(True, 1.0, score, score, score, score)
                continue
            live = 0.9 if rng.random() < 0.05 else 0.1
            yield Foretold(False, 1.0, live, live, live, 0.21)

    outcomes = Run().judge(stream())
    (first, *_) = [o for o in outcomes if isinstance(o, AuditEvent)]
    assert first.step == "promoted"
    assert first.figures["fewer_alarms_at_least"] > 0 > first.figures["gain"]


@pytest.mark.parametrize("frauds", [0.0, 1.0, 0.001])
def test_a_promotion_takes_labels_of_both_kinds(frauds: float) -> None:
    assert Run().judge(labels(1_000, 2, frauds, challenger=0.95)) == []


def test_what_only_raises_every_score_is_not_promoted() -> None:
    run = Run()
    raised = (
        label._replace(challenger=0.9 if label.is_fraud else 0.6, live=0.3 if label.is_fraud else 0.2)
        if i % 5 else label._replace(challenger=0.9, live=0.25)
        for i, label in enumerate(labels(2_000, 3, 0.5))
    )  # fmt: skip

    assert run.judge(raised) == []


def test_a_worse_ranking_is_not_promoted_whatever_the_loss() -> None:
    run = Run()
    for i, label in enumerate(labels(1_000, 4, 0.3)):
        # Nearer to the truth in the middle, but with some on top that are no frauds.
        usual = (0.3, 0.7) if label.is_fraud else (0.29, 0.71 if i % 10 == 0 else 0.05)
        assert run.judge(iter([label._replace(live=usual[0], challenger=usual[1])])) == []

    assert run.gate.round.gain.at_least(SETTINGS.error) > 0


def test_frozen_the_gate_promotes_nothing() -> None:
    run = Run()
    assert shape(run.command("freeze")) == ["frozen"]
    assert run.judge(labels(300, 5, challenger=0.9)) == []
    assert shape(run.command("unfreeze", "2")) == ["unfrozen"]
    assert shape(run.judge(labels(LOOK_EVERY, 6, challenger=0.9)))[:2] == ["online-1", "promoted"]


def promoted_twice() -> Run:
    run = Run()
    run.command("promote", "a")
    run.command("promote", "b")
    assert run.gate.version == "online-2"
    return run


def test_what_foretells_worse_than_the_ensemble_goes_back_to_what_was_before() -> None:
    run = promoted_twice()
    outcomes = run.judge(labels(400, 7, live=0.5, offline=0.7, former=0.8, challenger=0.5))

    assert shape(outcomes)[:2] == ["online-1", "rolled_back"]
    event = outcomes[1]
    assert isinstance(event, AuditEvent)
    assert (event.actor, event.version) == ("gate", "online-1")
    assert event.figures["harm_at_least"] > 0


def test_it_goes_back_to_the_ensemble_alone_where_that_is_no_better_either() -> None:
    run = promoted_twice()
    outcomes = run.judge(labels(400, 8, live=0.5, offline=0.7, former=0.6, challenger=0.5))

    assert shape(outcomes)[:2] == ["Tombstone", "rolled_back"]
    assert outcomes[0] == Tombstone("online")
    assert run.gate.live is None
    assert run.gate.previous == []


def test_it_also_goes_back_while_frozen() -> None:
    run = promoted_twice()
    run.command("freeze", "c")

    assert "rolled_back" in shape(run.judge(labels(400, 9, live=0.5, offline=0.7)))


@pytest.mark.parametrize("seed", range(5))
def test_what_does_no_harm_stays(seed: int) -> None:
    run = promoted_twice()
    run.settings = STRICT

    assert run.judge(labels(3_000, seed, live=0.6, offline=0.6)) == []
    assert run.gate.version == "online-2"


def test_people_go_back_step_by_step_to_the_ensemble_alone() -> None:
    run = promoted_twice()

    assert shape(run.command("rollback", "c")) == ["online-1", "rolled_back"]
    assert shape(run.command("rollback", "d")) == ["Tombstone", "rolled_back"]
    assert shape(run.command("rollback", "e")) == ["refused"]
    # Versions are never given twice.
    assert shape(run.command("promote", "f")) == ["online-3", "promoted"]


def test_a_command_is_done_once() -> None:
    run = promoted_twice()

    assert run.command("rollback", "b") == []
    assert run.gate.version == "online-2"


def test_only_so_much_of_the_past_is_kept() -> None:
    run = Run()
    for i in range(MAX_PREVIOUS + 5):
        run.command("promote", str(i))

    assert [w.version for w in run.gate.previous] == [f"online-{i}" for i in range(5, MAX_PREVIOUS + 5)]


def test_weights_that_the_scorer_would_refuse_are_not_published() -> None:
    run = Run()

    def broken(version: str) -> OnlineWeights:
        return msgspec.structs.replace(candidate(version), bias=float("nan"))

    outcomes = run.gate._promote(broken, "ana", "because", SETTINGS, Audit(0, 1_764_000_000_000))
    assert shape(outcomes) == ["refused"]
    assert run.gate.live is None
    assert run.gate.promotions == 0


def test_a_round_ends() -> None:
    run = Run()
    run.judge(labels(ROUND_LABELS, 10, frauds=1.2 * ROUND_FRAUDS / ROUND_LABELS))

    assert run.gate.round.gain.labels < ROUND_LABELS / 2
    assert run.gate.round.harm.labels < ROUND_LABELS / 2


@pytest.mark.parametrize("good", [500, 20_000])
def test_a_good_past_does_not_cover_for_what_turned_bad(good: int) -> None:
    run = promoted_twice()
    assert run.judge(labels(good, 12, frauds=0.02, live=0.8, challenger=0.8)) == []
    bad = labels(1_500, 13, frauds=0.02, live=0.45, challenger=0.45)

    assert "rolled_back" in shape(run.judge(bad))


def test_a_bad_beginning_does_not_hold_back_what_became_better() -> None:
    run = Run()
    assert run.judge(labels(10_000, 14, challenger=0.5)) == []

    assert shape(run.judge(labels(200, 15, challenger=0.9)))[:2] == ["online-1", "promoted"]


def test_evaluations_are_told_at_intervals() -> None:
    run = Run(GateSettings(report_every=100))
    outcomes = run.judge(labels(250, 11))

    assert shape(outcomes) == ["evaluated", "evaluated"]
    event = outcomes[-1]
    assert isinstance(event, AuditEvent)
    assert event.figures["labels"] == 200
    assert {"average_precision_live", "recall_challenger", "log_loss_offline"} <= event.figures.keys()
