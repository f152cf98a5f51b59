"""The terminal stage over restarts, its state in dicts so that a test chooses where a checkpoint falls."""

import copy
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from pyflink.common import Row
from pyflink.datastream import OutputTag

from events.decision import Decision
from events.transaction import Transaction
from models.signing import TRUSTED_KEYS, Keyring
from operators import decision_log
from operators.terminal_stage import TerminalStage, TerminalStageSettings
from operators.user_stage import UserStage, UserStageSettings
from stack.cluster import Cluster, isolated_stack
from tests.operators.contexts import SHARD, Context, Entries

pytestmark = pytest.mark.stack

SUBMITTED_MS = int(time.time() * 1000)
FIRST = Path(__file__).resolve().parents[2] / "models" / "artefacts" / "first"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with isolated_stack(names=("kafka",)) as running:
        running.topics("op.")
        yield running


def sub_batches(transactions: list[Transaction]) -> list[bytes]:
    stage = UserStage(UserStageSettings("t", "l", (SHARD,), 10_000, 1 << 20, 90, checks_key=False))
    context: Any = Context(0, {})
    stage.open(context)
    payloads = [msgspec.json.encode(t) for t in transactions]
    rows = (stage.process_element(Row([p], [None], [n]), context) for n, p in enumerate(payloads))
    return [row[1] for emitted in rows for row in emitted]


class Run:
    """One run of the stage, from its start or a restart to the next failure."""

    def __init__(self, cluster: Cluster, states: dict[str, Entries], attempt: int, model: str | None) -> None:
        self.context: Any = Context(attempt, states)
        self._cluster = cluster
        self._stage = TerminalStage(
            TerminalStageSettings(
                model=model, keyring=Keyring.read(TRUSTED_KEYS), shard_keys=(SHARD,), risk_delay_ms=0,
                state_ttl_days=90, model_updates_topic="model-updates", submitted_at_ms=SUBMITTED_MS,
                thread_mode=False,
                decisions_topic="op.decisions", kafka_client={"bootstrap.servers": cluster.bootstrap},
            )
        )  # fmt: skip
        self._stage.open(self.context)

    def answer(self, batches: list[bytes]) -> list[Decision]:
        """Decide and publish."""
        raw = [
            value
            for batch in batches
            for out in self._stage.process_element(batch, self.context)
            if not isinstance(out[0], OutputTag)
            for value in out[1]
        ]
        self._cluster.produce("op.decisions", [(b"u", value) for value in raw])
        return [msgspec.json.decode(value, type=Decision) for value in raw]

    def checkpoint(self) -> dict[str, Entries]:
        return copy.deepcopy(self.context.states)


def test_answers_stay_the_same_over_a_failure_in_the_middle_of_a_replay(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decision_log, "CLOCK_MARGIN_MS", 0)
    now = int(time.time() * 1000)
    batches = sub_batches([Transaction(f"t{n}", f"u{n}", now + n, 10.0 + n) for n in range(12)])

    run = Run(cluster, {}, 0, str(FIRST))
    first = run.answer(batches[:2])
    checkpoint = run.checkpoint()
    first += run.answer(batches[2:10])

    run = Run(cluster, checkpoint, 1, None)  # another model, so that a new answer would be another one
    assert run.answer(batches[2:6]) == first[2:6]
    checkpoint = run.checkpoint()
    time.sleep(0.05)
    assert run.answer(batches[6:7]) == first[6:7]

    run = Run(cluster, checkpoint, 2, None)
    assert run.answer(batches[6:10]) == first[6:10]
    assert not run.checkpoint()["answered"].entries, "nothing is kept of what was given again"
    assert all(d.degraded for d in run.answer(batches[10:])), "what was never answered is decided anew"


def test_a_failure_before_the_first_checkpoint(cluster: Cluster) -> None:
    now = int(time.time() * 1000)
    batches = sub_batches([Transaction(f"b{n}", f"u{n}", now + n, 10.0 + n) for n in range(4)])
    first = Run(cluster, {}, 0, str(FIRST)).answer(batches)
    assert Run(cluster, {}, 1, None).answer(batches) == first


def test_answers_are_read_back_while_a_partition_changes_its_leader(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Moving(Consumer):
        refusals = 2

        def offsets_for_times(self, *args: Any, **kwargs: Any) -> list[TopicPartition]:
            if Moving.refusals:
                Moving.refusals -= 1
                raise KafkaException(KafkaError(KafkaError.NOT_LEADER_FOR_PARTITION))
            return super().offsets_for_times(*args, **kwargs)

    now = int(time.time() * 1000)
    batches = sub_batches([Transaction(f"m{n}", f"u{n}", now + n, 10.0 + n) for n in range(4)])
    first = Run(cluster, {}, 0, str(FIRST)).answer(batches)
    monkeypatch.setattr(decision_log, "Consumer", Moving)
    assert Run(cluster, {}, 1, None).answer(batches) == first
    assert not Moving.refusals
