"""The terminal stage with an online part beside the ensemble, and reviews by chance."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from pyflink.common import Row
from pyflink.datastream import OutputTag

from events.control import ModelUpdate
from events.decision import DeadLetter, Decision
from events.transaction import Transaction
from models.exploration import explored
from models.rules import VERDICTS
from operators.terminal_stage import ANOMALIES, TerminalStage, TerminalStageSettings
from tests.models.online_weights import online_update
from tests.models.small_models import UNSIGNED, VERSION, write_small_artefact
from tests.operators.contexts import SHARD, Context, Entries
from tests.operators.test_terminal_stage import sub_batches

START_MS = 1_764_000_000_000


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_artefact(tmp_path_factory.mktemp("models") / "small", {"gbt": 1.0})


class Run:
    """A run of the stage, from a checkpoint or none."""

    def __init__(self, artefact: Path, states: dict[str, Entries], **settings: Any) -> None:
        self.context: Any = Context(0, states)
        self.anomalies = 0
        self._stage = TerminalStage(
            TerminalStageSettings(
                model=str(artefact), keyring=UNSIGNED, shard_keys=(SHARD,), risk_delay_ms=0,
                state_ttl_days=90, model_updates_topic="model-updates", submitted_at_ms=START_MS,
                thread_mode=False, decisions_topic=None, kafka_client={}, **settings,
            )
        )  # fmt: skip
        self._stage.open(self.context)

    def tell(self, update: ModelUpdate | None) -> list[DeadLetter]:
        payload = None if update is None else msgspec.json.encode(update)
        letters = self._stage.process_broadcast_element(
            Row("model-updates", "online", payload, 0, 0), self.context
        )
        return [msgspec.json.decode(raw, type=DeadLetter) for _, raw in letters]

    def decide(self, n: int) -> list[Decision]:
        transactions = [Transaction(f"t{i}", f"u{i % 9}", START_MS + i, 10.0 + i % 97) for i in range(n)]
        outputs = [
            out
            for batch in sub_batches(transactions)
            for out in self._stage.process_element(batch, self.context)
        ]
        self.anomalies = sum(out[0] is ANOMALIES for out in outputs)
        return [
            msgspec.json.decode(value, type=Decision)
            for out in outputs
            if not isinstance(out[0], OutputTag)
            for value in out[1]
        ]


def test_decisions_tell_what_the_online_part_made_of_them(artefact: Path) -> None:
    run = Run(artefact, {})
    (alone,) = run.decide(1)
    assert run.tell(online_update()) == []
    (pooled,) = run.decide(1)

    assert alone.model_version == VERSION
    assert pooled.model_version == f"{VERSION}+online-7"
    assert pooled.parts.keys() == {"gbt", "offline", "online"}
    assert pooled.parts["offline"] == alone.score
    assert min(pooled.parts["offline"], pooled.parts["online"]) < pooled.score < max(pooled.parts.values())


def test_the_online_part_outlasts_a_restart_and_ends_with_a_tombstone(artefact: Path) -> None:
    run = Run(artefact, {})
    run.tell(online_update())
    resumed = Run(artefact, run.context.states)
    assert resumed.decide(1)[0].model_version == f"{VERSION}+online-7"
    assert resumed.tell(None) == []
    assert resumed.decide(1)[0].model_version == VERSION
    assert Run(artefact, resumed.context.states).decide(1)[0].model_version == VERSION


def test_refused_weights_become_a_dead_letter_and_the_last_ones_go_on(artefact: Path) -> None:
    run = Run(artefact, {})
    run.tell(online_update())
    (letter,) = run.tell(online_update(version="online-8", bias=1e308, features_sha256="0" * 64))

    assert letter.reason == "control_refused"
    assert "online-8: the feature list differs" in letter.detail
    assert run.decide(1)[0].model_version == f"{VERSION}+online-7"


def test_a_share_of_what_would_be_approved_is_reviewed_by_chance(artefact: Path) -> None:
    off, run = Run(artefact, {}), Run(artefact, {}, explore_share=0.2, explore_seed=5)
    usual, decided = off.decide(300), run.decide(300)

    approved = [d.decision == "approve" for d in usual]
    assert any(approved)
    for before, after, by_score in zip(usual, decided, approved, strict=True):
        drawn = by_score and explored(after.decision_id, 0.2, 5)
        assert after.explored == drawn
        assert after.decision == ("review" if drawn else before.decision)
        assert after.score == before.score
    assert 0 < sum(d.explored for d in decided) < 0.4 * sum(approved)
    assert run.anomalies == sum(d.decision != VERDICTS[0] for d in decided)
    assert not any(d.explored for d in usual)
