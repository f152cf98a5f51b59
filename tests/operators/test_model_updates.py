"""The terminal stage and its model: swapped while it runs, kept where an update is refused."""

import collections
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pyflink.common import Row
from pyflink.datastream import OutputTag

from events.control import ModelUpdate
from events.decision import DeadLetter, Decision
from events.transaction import Transaction
from models import heuristic
from models.model import Part
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
        self._sent += 1
        now = int(time.time() * 1000)
        (batch,) = sub_batches([Transaction(f"t{self._sent}", "u", now, 10.0)])
        emitted = list(self._stage.process_element(batch, self.context))
        (row,) = (row for row in emitted if not isinstance(row[0], OutputTag))
        return msgspec.json.decode(row[1][0], type=Decision).model_version

    def promote(self, folder: Path) -> list[DeadLetter]:
        update = ModelUpdate(
            slot="model", artefact=str(folder), issued_at=1_790_000_000_000, issued_by="tester"
        )
        record = Row("model-updates", "model", msgspec.json.encode(update), 0, 0)
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
