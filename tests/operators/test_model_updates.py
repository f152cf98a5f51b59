"""The terminal stage and its model: swapped while it runs, kept where an update is refused."""

import collections
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pyflink.common import Row
from pyflink.datastream import OutputTag

from events.control import Condition, ModelUpdate, Rule
from events.decision import DeadLetter, Decision
from events.transaction import Transaction
from models import heuristic
from models.model import Part
from models.scorer import SAFE_VERSION
from operators.terminal_stage import TerminalStage, TerminalStageSettings
from tests.models.artefacts import TREES, trusting, write_small
from tests.operators.contexts import SHARD, Context, Entries
from tests.operators.test_terminal_stage import sub_batches

KEY = Ed25519PrivateKey.generate()


class Counting(Context):
    """Keeps the counters of a stage by name."""

    def __init__(self, states: dict[str, Entries]) -> None:
        super().__init__(0, states)
        self.counts: collections.Counter[str] = collections.Counter()

    def counter(self, name: str) -> Any:
        return _Counter(self.counts, name)

    def add_group(self, *_names: str) -> Any:
        return self


class _Counter:
    def __init__(self, counts: collections.Counter[str], name: str) -> None:
        self._counts, self._name = counts, name

    def inc(self, by: int = 1) -> None:
        self._counts[self._name] += by


class Stage:
    """The stage as Flink drives it, started with a model or none, from a checkpoint or none."""

    def __init__(self, model: Path | None = None, states: dict[str, Entries] | None = None) -> None:
        self.context: Any = Counting(states if states is not None else {})
        self._sent = 0
        self._stage = TerminalStage(
            TerminalStageSettings(
                model=str(model) if model is not None else None, keyring=trusting(tester=KEY),
                shard_keys=(SHARD,), risk_delay_ms=0, state_ttl_days=90,
                model_updates_topic="model-updates", submitted_at_ms=0, thread_mode=False,
                decisions_topic=None, kafka_client={},
            )
        )  # fmt: skip
        self._stage.open(self.context)

    def decided_by(self) -> str:
        """Version of what decides on a transaction now."""
        return self.decided().model_version

    def decided(self) -> Decision:
        """The decision on a transaction now."""
        self._sent += 1
        now = int(time.time() * 1000)
        (batch,) = sub_batches(
            [Transaction(f"t{self._sent}", "u", now, 10.0, correlation_id=f"c{self._sent}")]
        )
        emitted = list(self._stage.process_element(batch, self.context))
        (row,) = (row for row in emitted if not isinstance(row[0], OutputTag))
        return msgspec.json.decode(row[1][0], type=Decision)

    def promote(self, folder: Path) -> list[DeadLetter]:
        update = ModelUpdate(
            slot="model", artefact=str(folder), issued_at=1_790_000_000_000, issued_by="tester"
        )
        return self.tell("model-updates", "model", msgspec.json.encode(update))

    def tell(self, topic: str, key: str, payload: bytes | None) -> list[DeadLetter]:
        record = Row(topic, key, payload, 0, 0)
        letters = self._stage.process_broadcast_element(record, self.context)
        return [msgspec.json.decode(raw, type=DeadLetter) for _, raw in letters]


def artefact(folder: Path, key: Ed25519PrivateKey | None = KEY) -> Path:
    return write_small(folder, key, model_version=folder.name)


def test_model_is_swapped_while_the_stage_runs(tmp_path: Path) -> None:
    stage = Stage(artefact(tmp_path / "one"))
    assert stage.decided_by() == "one"
    assert stage.promote(artefact(tmp_path / "two")) == []
    assert stage.decided_by() == "two"
    assert stage.context.counts["control_applied_total"] == 1

    resumed = Stage(tmp_path / "one", stage.context.states)
    assert resumed.decided_by() == "two"


def test_refused_artefact_changes_nothing(tmp_path: Path) -> None:
    stage = Stage(artefact(tmp_path / "one"))
    unsigned = artefact(tmp_path / "unsigned", None)
    strange = artefact(tmp_path / "strange", Ed25519PrivateKey.generate())
    spoilt = artefact(tmp_path / "spoilt")
    (spoilt / TREES).write_bytes(b"spoilt")
    for folder, reason in (
        (unsigned, "there is no signature"),
        (strange, "not among the trusted keys"),
        (spoilt, "SHA-256"),
        (tmp_path / "nowhere", "is missing"),
    ):
        (letter,) = stage.promote(folder)
        assert letter.reason == "control_refused"
        assert reason in letter.detail
        assert stage.decided_by() == "one"
    assert stage.context.counts["control_refused_total"] == 4


def test_artefact_that_went_bad_before_a_restart(tmp_path: Path) -> None:
    stage = Stage(artefact(tmp_path / "one"))
    stage.promote(artefact(tmp_path / "two"))
    (tmp_path / "two" / TREES).write_bytes(b"spoilt")
    assert stage.decided_by() == "two", "what is loaded is not read again"

    resumed = Stage(tmp_path / "one", stage.context.states)
    assert resumed.decided_by() == "one"
    assert resumed.context.counts["control_refused_total"] == 1


def test_failures_of_parts_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(artefact(tmp_path / "one"))
    assert stage.decided_by() == "one"
    assert stage.context.counts["model_part_failures_total"] == 0

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Part, "raw", fail)
    assert stage.decided_by() == heuristic.VERSION
    assert stage.decided_by() == heuristic.VERSION
    assert stage.context.counts["model_part_failures_total"] == 2
    assert stage.context.counts["model_failures_total"] == 2


def safe_mode(**changes: str) -> bytes:
    update = {"slot": "safe_mode", "reason": "a test", "issued_at": 1_790_000_000_000, "issued_by": "tester"}
    return msgspec.json.encode(update | changes)


def test_safe_mode_lasts_over_a_restart_until_it_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heuristic, "heuristic", lambda features: np.full(len(features), 0.99))
    stage = Stage(artefact(tmp_path / "one"))
    assert stage.tell("model-updates", "safe_mode", safe_mode()) == []
    decision = stage.decided()
    assert (decision.model_version, decision.decision, decision.degraded) == (SAFE_VERSION, "review", True)
    counts = stage.context.counts
    assert (counts["safe_mode"], counts["degraded_total"], counts["model_failures_total"]) == (1, 1, 0)

    resumed = Stage(tmp_path / "one", stage.context.states)
    assert resumed.decided_by() == SAFE_VERSION
    assert resumed.context.counts["safe_mode"] == 1
    assert resumed.promote(artefact(tmp_path / "two")) == []
    assert resumed.decided_by() == SAFE_VERSION
    assert resumed.tell("model-updates", "safe_mode", None) == []
    assert resumed.decided_by() == "two"
    assert resumed.context.counts["safe_mode"] == 0
    assert Stage(tmp_path / "one", resumed.context.states).decided_by() == "two"


def test_in_safe_mode_rules_block(tmp_path: Path) -> None:
    stage = Stage(artefact(tmp_path / "one"))
    rule = Rule(
        rule_id="all", version=1, owner="o", verdict="block",
        all=[Condition(feature="amount", operator=">", value=1.0)],
    )  # fmt: skip
    stage.tell("model-updates", "safe_mode", safe_mode())
    assert stage.decided().decision != "block"
    stage.tell("rules", "all", msgspec.json.encode(rule))
    decision = stage.decided()
    assert (decision.model_version, decision.decision, decision.rules) == (SAFE_VERSION, "block", ["all"])


def test_safe_mode_without_a_reason_is_refused(tmp_path: Path) -> None:
    stage = Stage(artefact(tmp_path / "one"))
    (letter,) = stage.tell("model-updates", "safe_mode", safe_mode(reason=""))
    assert letter.reason == "control_refused"
    assert stage.decided_by() == "one"


def test_a_decision_carries_the_correlation_id_of_its_transaction(tmp_path: Path) -> None:
    stage = Stage(artefact(tmp_path / "one"))
    assert [stage.decided().correlation_id for _ in range(2)] == ["c1", "c2"]
