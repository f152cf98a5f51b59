"""The trainer over failures: it ends as one that never failed, wherever the checkpoints fell."""

import copy
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyflink.common import Row
from pyflink.datastream import OutputTag

from events.audit import AuditEvent
from events.control import ModelUpdate, OnlineCommand
from events.decision import DeadLetter
from events.example import Example
from online_learning.trainer import Trainer, TrainerSettings
from operators.records import DEAD_LETTERS, PARTITION_UNIT
from operators.trainer_stage import COMMAND, MODEL_UPDATES, TrainerStage, TrainerStageSettings
from state.contract import CONTRACT_VERSION, N_FEATURES
from tests.online_learning.feedback import EVENT_MS
from tests.operators.contexts import Context

SETTINGS = TrainerSettings()


def example(n: int) -> Example:
    rng = np.random.default_rng(n)
    is_fraud = n % 3 == 0
    features = rng.normal(is_fraud, 1, N_FEATURES).astype("<f4").tobytes()
    return Example(
        example_id=f"e-{n}", transaction_id=f"t-{n}", user_id="u", event_time=EVENT_MS + n,
        labelled_at=EVENT_MS + 1000 * n, is_fraud=is_fraud, source="chargeback",
        contract_version=CONTRACT_VERSION, features=features, score=0.1, model_version="m-1",
    )  # fmt: skip


def command(name: str = "promote", number: int = 1) -> bytes:
    told = OnlineCommand(command_id=f"c-{number}", command=name, issued_at=EVENT_MS, issued_by="tester")  # type: ignore[arg-type]
    return msgspec.json.encode(told)


EXAMPLES = [example(n) for n in range(90)]
ENCODED = [msgspec.json.encode(x) for x in EXAMPLES]


class Run:
    """One run of the stage, from its start or a restart to the next failure."""

    def __init__(self, states: dict[str, Any], snapshot_ms: int) -> None:
        self.states = states
        self._context: Any = Context(0, states)
        self._stage = TrainerStage(TrainerStageSettings(SETTINGS, ("x", "c"), snapshot_ms, 1 << 20))
        self._stage.open(self._context)

    def give(self, *payloads: bytes, kind: int = 0) -> Iterator[Any]:
        positions = [kind * PARTITION_UNIT + n for n in range(len(payloads))]
        keys = [None] * len(payloads)
        return self._stage.process_element(Row(list(payloads), keys, positions), self._context)

    def checkpoint(self) -> dict[str, Any]:
        return copy.deepcopy(self.states)

    @property
    def knows(self) -> bytes:
        return known(self._stage._trainer or self._stage._restore())


def known(trainer: Trainer) -> bytes:
    """A restored trainer has floats where a new one has whole numbers: the same, but not in bytes."""
    return Trainer.restore(trainer.snapshot(), SETTINGS).snapshot()


def uninterrupted() -> bytes:
    trainer = Trainer(SETTINGS)
    trainer.learn(EXAMPLES, EVENT_MS)
    return known(trainer)


@settings(max_examples=25)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=6), st.sampled_from([0, 10**9]), st.data())
def test_after_any_failures_the_weights_are_those_of_an_uninterrupted_run(
    steps: list[int], snapshot_ms: int, data: st.DataObject
) -> None:
    """Each run learns some batches, is checkpointed, learns some more, and fails."""
    run, done = Run({}, snapshot_ms), 0
    for size in steps:
        for payload in ENCODED[done : done + size]:
            list(run.give(payload))
        done = min(done + size, len(ENCODED))
        saved = run.checkpoint()
        lost = data.draw(st.integers(0, 20))
        list(run.give(*ENCODED[done : done + lost]))
        run = Run(saved, snapshot_ms)
    list(run.give(*ENCODED[done:]))
    assert run.knows == uninterrupted()


def test_repeats_of_the_log_change_nothing() -> None:
    run = Run({}, 0)
    list(run.give(*ENCODED, *ENCODED))
    list(run.give(*ENCODED[:50]))
    assert run.knows == uninterrupted()


@pytest.mark.parametrize("snapshot_ms", [0, 10**9])
def test_what_is_said_goes_where_it_belongs_and_is_not_said_again_on_restoring(snapshot_ms: int) -> None:
    run = Run({}, snapshot_ms)
    list(run.give(*ENCODED[:20]))
    told = list(
        run.give(command("promote"), b"rubbish", command("rollback", 2), command("promote"), kind=COMMAND)
    )
    side = [out for out in told if isinstance(out[0], OutputTag)]
    audit = [msgspec.json.decode(row[1], type=AuditEvent) for row in told if row not in side]
    assert [event.step for event in audit] == ["promoted", "rolled_back"]
    updates = [row for tag, row in side if tag is MODEL_UPDATES]
    assert [bytes(row[0]) for row in updates] == [b"online", b"online"]
    live = msgspec.json.decode(updates[0][1], type=ModelUpdate)
    assert live.online is not None
    assert live.online.version == audit[0].version
    assert updates[1][1] is None, "a tombstone: the ensemble alone"
    (letter,) = (msgspec.json.decode(value, type=DeadLetter) for tag, value in side if tag is DEAD_LETTERS)
    assert (letter.reason, letter.topic, letter.offset, letter.payload) == (
        "malformed_json",
        "c",
        1,
        b"rubbish",
    )

    again = Run(run.checkpoint(), snapshot_ms)
    assert list(again.give(command("promote"), kind=COMMAND)) == [], "a command is done once"
    assert again.knows == run.knows


@pytest.mark.parametrize("payload", [b"", b"{}", b"\xff", ENCODED[0][:-1], b"[" * 10_000])
def test_what_is_no_example_is_refused_and_the_others_are_learnt(payload: bytes) -> None:
    run = Run({}, 0)
    told = list(run.give(*ENCODED[:40], payload, *ENCODED[40:]))
    letters = [out for out in told if out[0] is DEAD_LETTERS]
    assert len(letters) == 1
    assert run.knows == uninterrupted()
