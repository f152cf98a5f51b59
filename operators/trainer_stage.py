"""The trainer in Flink: examples and commands in, online weights and their audit out."""

import time
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import msgspec
from pyflink.common import Row, Types
from pyflink.datastream import KeyedProcessFunction, OutputTag, RuntimeContext
from pyflink.datastream.state import ListStateDescriptor, ValueStateDescriptor

from events.audit import AuditEvent
from events.codec import DECODING_ERRORS, Decoder
from events.control import ModelUpdate, OnlineCommand
from events.example import Example
from events.invalid import Invalid
from events.strict_json import explain
from online_learning.trainer import Outcome, Trainer, TrainerSettings
from operators.records import DEAD_LETTERS, RECORD, Source, dead_letter, kind_of

EXAMPLE, COMMAND = range(2)
"""Kinds of records."""
MODEL_UPDATES = OutputTag("model-updates", RECORD)
PACKED = Types.PICKLED_BYTE_ARRAY()
MAX_JOURNAL = 5_000  # records; giving them again takes a second

encode = msgspec.json.Encoder().encode


class TrainerStageSettings(msgspec.Struct, frozen=True):
    """What the stage needs to know of the job."""

    trainer: TrainerSettings
    topics: tuple[str, str]
    """Names for dead letters, by kind of record."""
    snapshot_ms: int
    """How often the whole trainer is written to state; in between it is what it was given."""
    max_dead_letter_bytes: int


class Batch(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """What the trainer was given at one time, so that it can be given the same again."""

    now_ms: int
    positions: list[int]
    payloads: list[bytes]


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(Batch).decode


class TrainerStage(KeyedProcessFunction):
    """The one trainer, live in memory.

    State holds a snapshot of it and the batches since, so a restart continues bit for bit: what a checkpoint
    does not hold comes again from the topic in the same order.

    Input: Row(payloads bytes[], keys str[], positions int[]) of examples and commands. Output: Row(event id,
    audit event). Side outputs: model updates with their slot (no value for a tombstone), dead letters.
    """

    def __init__(self, settings: TrainerStageSettings) -> None:
        self._settings = settings

    def open(self, runtime_context: RuntimeContext) -> None:
        self._snapshot = runtime_context.get_state(ValueStateDescriptor("trainer", PACKED))
        self._journal = runtime_context.get_list_state(ListStateDescriptor("journal", PACKED))
        self._trainer: Trainer | None = None
        self._saved_ms = self._since = 0
        self._example = msgspec.json.Decoder(Example).decode
        self._commands = Decoder(OnlineCommand)
        metrics = runtime_context.get_metrics_group()
        self._examples_in = metrics.counter("trainer_examples_in_total")
        self._commands_in = metrics.counter("trainer_commands_in_total")
        self._updates_out = metrics.counter("trainer_updates_total")
        self._audit_out = metrics.counter("trainer_audit_total")
        self._refused = metrics.counter("trainer_refused_total")

    def process_element(self, value: Row, ctx: KeyedProcessFunction.Context) -> Iterator[Any]:
        payloads, _, positions = value
        batch = Batch(round(time.time() * 1000), list(positions), [bytes(p or b"") for p in payloads])
        if self._trainer is None:
            self._trainer = self._restore()
        for said in self._give(self._trainer, batch):
            yield self._told(said, batch)
        self._since += len(payloads)
        if self._since >= MAX_JOURNAL or batch.now_ms - self._saved_ms >= self._settings.snapshot_ms:
            self._snapshot.update(self._trainer.snapshot())
            self._journal.clear()
            self._saved_ms, self._since = batch.now_ms, 0
        else:
            self._journal.add(_pack(batch))

    def _restore(self) -> Trainer:
        """The trainer as it was when the checkpoint was taken; what it says on the way was said before."""
        settings, data = self._settings.trainer, self._snapshot.value()
        trainer = Trainer(settings) if data is None else Trainer.restore(bytes(data), settings)
        for packed in list(self._journal.get() or ()):
            for _ in self._give(trainer, _unpack(bytes(packed))):
                pass
        return trainer

    def _give(self, trainer: Trainer, batch: Batch) -> Iterator[Outcome | tuple[int, Invalid]]:
        """What follows from a batch, in order; a record that is refused by its place in the batch."""
        for kind, places in groupby(range(len(batch.payloads)), lambda i: kind_of(batch.positions[i])):
            if kind == COMMAND:
                yield from self._command(trainer, batch, list(places))
            else:
                yield from self._learn(trainer, batch, list(places))

    def _learn(
        self, trainer: Trainer, batch: Batch, places: list[int]
    ) -> Iterator[Outcome | tuple[int, Invalid]]:
        self._examples_in.inc(len(places))
        examples = []
        for place in places:
            try:
                examples.append(self._example(batch.payloads[place]))
            except DECODING_ERRORS as error:
                yield place, explain(error)
        yield from trainer.learn(examples, batch.now_ms)

    def _command(
        self, trainer: Trainer, batch: Batch, places: list[int]
    ) -> Iterator[Outcome | tuple[int, Invalid]]:
        self._commands_in.inc(len(places))
        records = self._commands.decode([batch.payloads[place] for place in places])
        for place, record in zip(places, records, strict=True):
            if isinstance(record, Invalid):
                yield place, record
            else:
                yield from trainer.command(record, batch.now_ms)

    def _told(self, said: Outcome | tuple[int, Invalid], batch: Batch) -> Any:
        if isinstance(said, tuple):
            self._refused.inc()
            place, invalid = said
            topic = self._settings.topics[kind_of(batch.positions[place])]
            source = Source.at(batch.positions[place], topic, None, batch.payloads[place])
            return DEAD_LETTERS, dead_letter(invalid, source, self._settings.max_dead_letter_bytes)
        if isinstance(said, AuditEvent):
            self._audit_out.inc()
            return Row(said.event_id.encode(), encode(said))
        self._updates_out.inc()
        value = encode(said) if isinstance(said, ModelUpdate) else None
        return MODEL_UPDATES, Row(said.slot.encode(), value)
