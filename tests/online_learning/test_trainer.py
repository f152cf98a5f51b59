"""The trainer: what it learns, that it learns the same however it is cut, and what it makes of bad labels."""

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any, cast

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from events.audit import AuditEvent
from events.control import ModelUpdate, OnlineCommand, OnlineWeights
from events.example import Example
from models.online import OnlinePart
from online_learning.gate import GateSettings
from online_learning.inputs import probability
from online_learning.snapshot import SnapshotRefusedError
from online_learning.trainer import Outcome, Tombstone, Trainer, TrainerSettings
from state.contract import CONTRACT_VERSION, DAY_MS, N_FEATURES
from tests.online_learning.labelled import (
    START_MS,
    Traffic,
    examples,
    interleaved,
    ordinary,
    shuffled,
    unseen_frauds,
)

SETTINGS = TrainerSettings()
EAGER = TrainerSettings(gate=GateSettings(min_frauds=5, min_legitimate=10, error=0.2, report_every=50))
NOW = START_MS + 30 * DAY_MS


@cache
def later() -> tuple[Traffic, Traffic]:
    """Ordinary traffic and unseen frauds to score, that nobody learns from."""
    return ordinary(6_000, 901), unseen_frauds(300, 902)


@cache
def mixed() -> tuple[Example, ...]:
    """Some of everything: an unseen pattern, three sources, second labels, what is missing or refused."""
    analysts = examples(shuffled(1, unseen_frauds(60, 2), ordinary(140, 3)), "a")
    second = [
        msgspec.structs.replace(
            e, example_id=f"c{e.example_id}", source="chargeback", analyst_id=None, is_fraud=i % 10 != 0,
            corrects=i % 10 == 0, labelled_at=e.labelled_at + 20 * 60_000, sampled=0.2,
        )
        for i, e in enumerate(analysts) if e.is_fraud
    ]  # fmt: skip
    customers = examples(ordinary(30, 4, missing=0.9), "b", source="customer", analyst_id=None)
    refused = [
        msgspec.structs.replace(e, example_id=f"r{e.example_id}", features=b"") for e in analysts[::40]
    ]
    presumed = examples(ordinary(80, 5), "p", source="presumed", analyst_id=None, is_fraud=False, sampled=0.1)
    return tuple(interleaved(analysts, second, customers, refused, analysts[::7], presumed))


def command(kind: str, identity: str = "1") -> OnlineCommand:
    return OnlineCommand(
        command_id=f"command-{identity}", command=cast(Any, kind), issued_at=NOW, issued_by="ana"
    )


def told(outcomes: Sequence[Outcome]) -> list[AuditEvent]:
    return [o for o in outcomes if isinstance(o, AuditEvent)]


def steps(outcomes: Sequence[Outcome]) -> list[str]:
    return [event.step for event in told(outcomes) if event.step != "evaluated"]


def promoted(outcomes: Sequence[Outcome]) -> list[OnlineWeights]:
    return [o.online for o in outcomes if isinstance(o, ModelUpdate) and o.online is not None]


def weights(trainer: Trainer) -> NDArray[np.float64]:
    return trainer._state.weights()


def challenger(trainer: Trainer, traffic: Traffic) -> NDArray[np.float64]:
    """Scores f8 [n] that the trainer would give if it promoted now."""
    return OnlinePart(trainer.candidate("online-x")).score(traffic.features, traffic.offline)[1]


def found(score: NDArray[np.float64], of: NDArray[np.float64]) -> float:
    """Share of frauds with a score above all but 5 % of ordinary traffic."""
    return float((of > np.quantile(score, 0.95)).mean())


def worsened(trainer: Trainer) -> float:
    """By how much ordinary traffic is ranked worse than by the ensemble alone (area under the curve)."""
    traffic, _ = later()
    before = roc_auc_score(traffic.is_fraud, traffic.offline)
    return float(before - roc_auc_score(traffic.is_fraud, challenger(trainer, traffic)))


def test_a_pattern_never_seen_gets_through_with_200_labelled_frauds() -> None:
    trainer = Trainer(SETTINGS)
    stream = examples(shuffled(5, unseen_frauds(200, 6), ordinary(600, 7)), "a")
    outcomes = trainer.learn(stream, NOW)
    traffic, frauds = later()

    assert found(traffic.offline, frauds.offline) < 0.15
    part = OnlinePart(promoted(outcomes)[-1])
    ordinary_now, frauds_now = (part.score(t.features, t.offline)[1] for t in (traffic, frauds))
    assert found(ordinary_now, frauds_now) > 0.9
    assert np.median(frauds_now) > 10 * np.median(frauds.offline)
    assert worsened(trainer) < 0.1
    first = next(event for event in told(outcomes) if event.step == "promoted")
    assert first.figures["frauds"] < 60
    assert first.figures["gain_at_least"] > 0


def presumed(n: int, seed: int, prefix: str) -> list[Example]:
    """Approved transactions that nobody labels."""
    return examples(
        ordinary(n, seed), prefix, source="presumed", analyst_id=None, is_fraud=False, sampled=0.01
    )


def test_what_is_presumed_keeps_ordinary_traffic_from_being_scored_as_the_frauds_are() -> None:
    """Analysts here see nothing but frauds and what the ensemble finds suspicious."""
    hard = ordinary(2_000, 7)
    reviewed = shuffled(5, unseen_frauds(100, 6), hard.rows(np.argsort(-hard.offline)[:200]))
    verdicts = examples(reviewed, "a")
    alone, beside = Trainer(SETTINGS), Trainer(SETTINGS)
    alone.learn(verdicts, NOW)
    beside.learn(interleaved(verdicts, presumed(300, 8, "p")), NOW)

    assert worsened(beside) < worsened(alone)
    traffic, frauds = later()
    assert found(challenger(beside, traffic), challenger(beside, frauds)) > 0.9


def test_nobody_is_blamed_for_what_was_presumed_and_a_label_counts_as_the_first() -> None:
    trainer = Trainer(EAGER)
    frauds = unseen_frauds(300, 6)
    trainer.learn(
        examples(frauds, "a", source="presumed", analyst_id=None, is_fraud=False, sampled=0.01), NOW
    )
    before = trainer._state.gate.evaluated
    later_told = [msgspec.structs.replace(e, example_id=f"l{e.example_id}") for e in examples(frauds, "a")]
    outcomes = trainer.learn(later_told, NOW)

    assert not {"source_distrusted", "source_silenced"} & set(steps(outcomes))
    assert trainer._state.gate.evaluated - before == len(later_told)


def test_what_was_labelled_is_not_presumed() -> None:
    trainer = Trainer(SETTINGS)
    trainer.learn(examples(unseen_frauds(20, 6), "a"), NOW)
    before = weights(trainer)
    trainer.learn(
        [
            msgspec.structs.replace(
                e, example_id=f"p{e.example_id}", source="presumed", analyst_id=None, is_fraud=False
            )
            for e in examples(unseen_frauds(20, 6), "a")
        ],
        NOW,
    )
    np.testing.assert_array_equal(weights(trainer), before)


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_promoted_where_there_is_nothing_to_learn(seed: int) -> None:
    outcomes = Trainer(SETTINGS).learn(examples(ordinary(2_000, 20 + seed, base=-3.0), "a"), NOW)

    assert promoted(outcomes) == []


def test_what_is_promoted_scores_as_what_was_evaluated() -> None:
    trainer = Trainer(SETTINGS)
    trainer.learn(mixed(), NOW)
    state = trainer._state
    traffic = ordinary(200, 31)
    expected = [
        probability(float(state.weights() @ state.inputs.vector(x, p) @ state.averaging.weights()))
        for x, p in zip(traffic.features, traffic.offline.tolist(), strict=True)
    ]

    np.testing.assert_allclose(challenger(trainer, traffic), expected, rtol=1e-4)


@settings(max_examples=15)
@given(st.lists(st.integers(0, len(mixed())), max_size=8), st.integers(0, 10**9))
def test_how_labels_are_cut_into_calls_makes_no_difference(cuts: list[int], now_ms: int) -> None:
    whole = Trainer(EAGER)
    expected = whole.learn(mixed(), START_MS)
    trainer, outcomes = Trainer(EAGER), []
    bounds = [0, *sorted(cuts), len(mixed())]
    for start, end in pairwise(bounds):
        outcomes += trainer.learn(mixed()[start:end], START_MS + now_ms)

    assert trainer.snapshot() == whole.snapshot()
    assert [type(o) for o in outcomes] == [type(o) for o in expected]
    assert promoted(outcomes) == promoted(expected)
    assert len(promoted(expected)) > 1


@settings(max_examples=15)
@given(st.integers(0, len(mixed())), st.sampled_from(["promote", "rollback", "freeze", "unfreeze"]))
def test_a_restart_goes_on_bit_for_bit(cut: int, kind: str) -> None:
    steady, restarted = Trainer(EAGER), Trainer(EAGER)
    for trainer in (steady, restarted):
        trainer.learn(mixed()[:cut], NOW)
        trainer.command(command(kind), NOW)
    restarted = Trainer.restore(restarted.snapshot(), EAGER)
    again = [trainer.learn(mixed()[cut:], NOW) for trainer in (steady, restarted)]

    assert again[0] == again[1]
    assert restarted.snapshot() == steady.snapshot()


def test_what_was_learnt_before_does_nothing() -> None:
    trainer = Trainer(EAGER)
    trainer.learn(mixed(), NOW)
    before = trainer.snapshot()

    assert trainer.learn(mixed(), NOW + 1) == []
    assert trainer.snapshot() == before


def test_commands_change_what_scores_and_not_what_is_learnt() -> None:
    left_alone, told_what_to_do = Trainer(EAGER), Trainer(EAGER)
    for i, start in enumerate(range(0, len(mixed()), 20)):
        part = mixed()[start : start + 20]
        left_alone.learn(part, NOW)
        told_what_to_do.learn(part, NOW)
        kinds = ("promote", "rollback", "freeze", "rollback", "unfreeze")
        told_what_to_do.command(command(kinds[i % 5], str(i)), NOW)

    assert weights(told_what_to_do).tobytes() == weights(left_alone).tobytes()
    assert told_what_to_do.snapshot() != left_alone.snapshot()


def test_a_trainer_without_a_past_ends_what_may_be_live() -> None:
    trainer = Trainer(SETTINGS)
    assert trainer.learn([], NOW) == []
    first, note = trainer.learn(mixed()[:1], NOW)

    assert first == Tombstone("online")
    assert isinstance(note, AuditEvent)
    assert (note.step, note.version, note.at) == ("rolled_back", None, NOW)
    assert trainer.learn(mixed()[1:2], NOW) == []


def test_steps_of_the_audit_are_numbered() -> None:
    events = told(Trainer(EAGER).learn(mixed(), NOW))

    assert [event.event_id.split("-")[1] for event in events] == [str(i + 1) for i in range(len(events))]
    # After the loss of all state other labels would lead to other steps.
    others = told(Trainer(EAGER).learn(mixed()[1:], NOW))
    assert not {event.event_id for event in events[:1]} & {event.event_id for event in others}
    assert {"evaluated", "promoted", "refused", "rolled_back"} <= {event.step for event in events}
    assert all(np.isfinite(list(event.figures.values())).all() for event in events)


@pytest.mark.parametrize(
    ("traffic", "prefix"),
    [(unseen_frauds(400, 41), "frauds"), (ordinary(2_000, 42, base=-20.0), "legitimate")],
    ids=["frauds", "legitimate"],
)
def test_one_class_alone_promotes_nothing_and_spoils_little(traffic: Traffic, prefix: str) -> None:
    trainer = Trainer(SETTINGS)

    assert promoted(trainer.learn(examples(traffic, prefix), NOW)) == []
    assert np.isfinite(weights(trainer)).all()
    assert worsened(trainer) < 0.1


def test_frauds_of_three_in_ten_thousand() -> None:
    trainer = Trainer(SETTINGS)
    stream = shuffled(6, ordinary(10_000, 43, base=-20.0), unseen_frauds(3, 44))
    outcomes = trainer.learn(examples(stream, "i", source="chargeback", analyst_id=None), NOW)
    traffic, frauds = later()

    assert promoted(outcomes) == []
    assert np.isfinite(weights(trainer)).all()
    assert worsened(trainer) < 0.05
    # Too few to promote anything, but not in vain.
    before = found(traffic.offline, frauds.offline)
    assert found(challenger(trainer, traffic), challenger(trainer, frauds)) >= before


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_features_that_are_no_numbers(value: float) -> None:
    stream = shuffled(7, unseen_frauds(100, 45), ordinary(400, 46))
    hidden = np.random.default_rng(47).random(stream.features.shape) < 0.3
    stream.features[hidden] = value
    trainer = Trainer(SETTINGS)
    outcomes = trainer.learn(examples(stream, "n"), NOW)
    traffic, _ = later()

    assert np.isfinite(weights(trainer)).all()
    assert all(
        np.isfinite(OnlinePart(w).score(traffic.features, traffic.offline)).all() for w in promoted(outcomes)
    )
    assert worsened(trainer) < 0.1


def test_one_label_in_ten_is_wrong() -> None:
    stream = shuffled(8, unseen_frauds(200, 48), ordinary(800, 49))
    wrong = np.random.default_rng(50).random(1_000) < 0.1
    trainer = Trainer(SETTINGS)
    outcomes = trainer.learn(examples(stream._replace(is_fraud=stream.is_fraud ^ wrong), "w"), NOW)
    traffic, frauds = later()

    assert promoted(outcomes)
    assert found(challenger(trainer, traffic), challenger(trainer, frauds)) > 0.8
    assert worsened(trainer) < 0.1


@pytest.mark.parametrize("manner", ["by chance", "the other way round", "always fraud", "never fraud"])
def test_an_analyst_who_labels_garbage_is_caught(manner: str) -> None:
    rng = np.random.default_rng(51)
    known = shuffled(9, ordinary(3_000, 52, base=-2.0), unseen_frauds(100, 53))
    said = {
        "by chance": rng.random(1_500) < 0.5,
        "the other way round": ~known.is_fraud[1_500:3_000],
        "always fraud": np.ones(1_500, np.bool_),
        "never fraud": np.zeros(1_500, np.bool_),
    }[manner]
    honest = examples(known.rows(slice(1_500)), "good", analyst_id="good")
    theirs = known.rows(slice(1_500, 3_000))._replace(is_fraud=said)
    garbage = examples(theirs, "bad", analyst_id="bad")
    chargebacks = [
        msgspec.structs.replace(
            e, example_id=f"c{e.example_id}", source="chargeback", analyst_id=None, is_fraud=bool(truth),
            labelled_at=e.labelled_at + 30 * 60_000,
        )
        for e, truth in zip(honest + garbage, known.is_fraud, strict=False) if truth or rng.random() < 0.1
    ]  # fmt: skip
    trainer = Trainer(SETTINGS)
    outcomes = trainer.learn(interleaved(honest, garbage, chargebacks), NOW)

    caught = [event for event in told(outcomes) if event.step == "source_distrusted"]
    assert [event.detail for event in caught] == ["analyst:bad"]
    assert caught[0].figures["error"] > 0.35
    assert worsened(trainer) < 0.1

    before = weights(trainer)
    trainer.learn(examples(ordinary(50, 54), "more", NOW, analyst_id="bad"), NOW)
    assert weights(trainer).tobytes() == before.tobytes()


def test_a_flood_from_one_source_is_cut_off() -> None:
    few = TrainerSettings(labels_per_day=100)
    stream = [
        msgspec.structs.replace(e, labelled_at=START_MS)
        for e in examples(shuffled(10, ordinary(300, 55), unseen_frauds(100, 56)), "f")
    ]
    flooded, stopped = Trainer(few), Trainer(few)
    outcomes = flooded.learn(stream, NOW)
    stopped.learn(stream[:100], NOW)

    assert steps(outcomes).count("source_silenced") == 1
    assert weights(flooded)[1:3].tobytes() == weights(stopped)[1:3].tobytes()
    others = examples(ordinary(20, 57), "o", analyst_id="analyst-2")
    flooded.learn(others, NOW)
    assert weights(flooded)[1:3].tobytes() != weights(stopped)[1:3].tobytes()


def test_ten_thousand_repeats_of_a_label_are_one() -> None:
    once, often = Trainer(SETTINGS), Trainer(SETTINGS)
    (label,) = examples(unseen_frauds(1, 58), "r")
    once.learn([label], NOW)
    often.learn([label] * 10_000, NOW)

    assert often.snapshot() == once.snapshot()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"contract_version": CONTRACT_VERSION - 1}, f"feature contract {CONTRACT_VERSION - 1}"),
        ({"features": bytes(4 * N_FEATURES - 4)}, f"{4 * N_FEATURES - 4} bytes are not"),
        ({"features": b""}, "0 bytes are not"),
    ],
)
def test_an_example_that_nothing_can_be_learnt_from(fields: dict[str, Any], reason: str) -> None:
    trainer = Trainer(SETTINGS)
    trainer.learn(mixed()[:1], NOW)
    before = weights(trainer)
    bad = [msgspec.structs.replace(e, **fields) for e in examples(ordinary(20, 59), "bad", analyst_id="b")]
    events = told(trainer.learn(bad, NOW))

    # The 1st, 2nd, 4th, 8th and 16th.
    assert [event.step for event in events] == ["refused"] * 5
    assert reason in events[0].detail
    assert weights(trainer).tobytes() == before.tobytes()


def test_a_second_label_of_a_transaction_teaches_but_proves_nothing() -> None:
    trainer = Trainer(SETTINGS)
    analysts = examples(ordinary(50, 60), "a")
    chargebacks = [
        msgspec.structs.replace(e, example_id=f"c{e.example_id}", source="chargeback", analyst_id=None)
        for e in analysts
    ]
    trainer.learn(analysts, NOW)
    before = weights(trainer)
    trainer.learn(chargebacks, NOW)

    assert trainer._state.gate.evaluated == 50
    after = weights(trainer)
    assert after[1:3].tobytes() == before[1:3].tobytes()
    assert (after[3:] != before[3:]).any(axis=1).all()


def test_a_seldom_kept_decision_counts_for_those_that_were_not() -> None:
    moved = []
    for sampled in (1.0, 0.5, 1 / 3, 0.001):
        trainer = Trainer(SETTINGS)
        trainer.learn(examples(unseen_frauds(1, 61), "s", sampled=sampled), NOW)
        moved.append(float(np.abs(weights(trainer)[1] - weights(trainer)[0]).sum()))

    assert moved[0] < moved[1] < moved[2]
    assert moved[3] == moved[2]


def test_a_drift_is_noticed() -> None:
    trainer = Trainer(SETTINGS)
    trainer.learn(examples(ordinary(500, 62), "calm"), NOW)
    outcomes = trainer.learn(examples(unseen_frauds(30, 63), "drift"), NOW)

    assert "drift" in steps(outcomes)


def test_scores_by_the_ensemble_are_taken_from_before_the_online_part() -> None:
    (first,) = examples(ordinary(1, 64), "p")
    pooled = msgspec.structs.replace(
        first, parts={"gbt": 0.3, "offline": first.score, "online": 0.9}, score=0.7
    )
    plain, with_part = Trainer(SETTINGS), Trainer(SETTINGS)
    plain.learn([first], NOW)
    with_part.learn([pooled], NOW)

    assert with_part.snapshot() == plain.snapshot()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a snapshot"),
        (b"\x80\x04K\x01.", "not a snapshot"),
        (msgspec.msgpack.encode({"format": 2, "features_sha256": ""}), "of format 2"),
        (msgspec.msgpack.encode({"format": 1, "features_sha256": "0" * 64}), "another feature contract"),
    ],
)
def test_what_is_no_snapshot_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(SnapshotRefusedError, match=reason):
        Trainer.restore(data, SETTINGS)


@settings(max_examples=60)
@given(st.data())
def test_a_damaged_snapshot_is_refused(data: st.DataObject) -> None:
    snapshot = bytearray(_snapshot())
    snapshot[data.draw(st.integers(0, len(snapshot) - 1))] ^= data.draw(st.integers(1, 255))

    with pytest.raises(SnapshotRefusedError):
        Trainer.restore(bytes(snapshot), SETTINGS)


@cache
def _snapshot() -> bytes:
    trainer = Trainer(EAGER)
    trainer.learn(mixed()[:50], NOW)
    return trainer.snapshot()
