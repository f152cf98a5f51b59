"""The user stage: decode, refuse, recognise repeats, compute the user's features, pass on by terminal."""

import time
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import msgspec
import numpy as np
from pyflink.common import Row
from pyflink.datastream import KeyedProcessFunction, OutputTag, RuntimeContext
from xxhash import xxh32_intdigest

from events.codec import Decoder, Invalid
from events.feedback import Label
from events.transaction import Transaction
from operators.records import DEAD_LETTERS, Source, dead_letter, kind_of
from operators.state import profile_state
from operators.sub_batch import SubBatch, encode
from state.columns import field_values, label_array, transaction_array
from state.engine import UserEngine
from state.user_kernel import Status

Keyed = TypeVar("Keyed", Transaction, Label)

REFUSED = {
    Status.CONFLICT: Invalid(
        "conflicting_repeat", "transaction_id was used before with another time or amount", "transaction_id"
    )
}


class UserStageSettings(msgspec.Struct, frozen=True):
    """What the user stage needs to know of the job."""

    transactions_topic: str
    labels_topic: str
    shard_keys: tuple[int, ...]
    """Key values, one per shard; see `flink_jobs.shards`."""
    max_future_ms: int
    max_dead_letter_bytes: int
    state_ttl_days: int
    checks_key: bool
    """False where the records carry no key of their own: files, or keys taken from the payload."""


def terminal_shard(terminal_id: str | None, user_id: str, shards: int) -> int:
    """The shard of a terminal; a transaction without one stays spread by its user."""
    return int(xxh32_intdigest((terminal_id or user_id).encode())) % shards


class UserStage(KeyedProcessFunction):
    """Turns one micro-batch of raw records of a user shard into sub-batches, one per terminal shard.

    Input: Row(payloads bytes[], keys str[], positions int[]). Output: Row(shard key, SubBatch bytes).
    Side output: dead letters.
    """

    def __init__(self, settings: UserStageSettings) -> None:
        self._settings = settings

    def open(self, runtime_context: RuntimeContext) -> None:
        self._engine = UserEngine(profile_state(runtime_context, "users", self._settings.state_ttl_days))
        self._transactions = Decoder(Transaction)
        self._labels = Decoder(Label)
        metrics = runtime_context.get_metrics_group()
        self._events_in = metrics.counter("stream_events_in_total")
        self._repeats = metrics.counter("stream_repeats_total")
        self._late = metrics.counter("stream_late_total")
        self._dead = metrics.counter("stream_dead_letters_total")
        self._labels_in = metrics.counter("stream_labels_in_total")

    def process_element(self, value: Row, ctx: KeyedProcessFunction.Context) -> Iterator[Any]:
        payloads, keys, positions = value
        is_label = list(map(kind_of, positions))
        if not any(is_label):
            yield from self._score(payloads, keys, positions)
            return
        first = [k for k, label in enumerate(is_label) if not label]
        second = [k for k, label in enumerate(is_label) if label]
        yield from self._score(*([column[k] for k in first] for column in (payloads, keys, positions)))
        yield from self._learn(*([column[k] for k in second] for column in (payloads, keys, positions)))

    def _score(
        self, payloads: Sequence[bytes | None], keys: Sequence[str | None], positions: Sequence[int]
    ) -> Iterator[Any]:
        self._events_in.inc(len(payloads))
        latest = int(time.time() * 1000) + self._settings.max_future_ms
        records = self._transactions.decode(payloads, latest)
        valid: list[Transaction] = []
        origin: list[int] = []
        for k, record in enumerate(records):
            checked = self._check_key(record, keys[k])
            if isinstance(checked, Invalid):
                yield self._dead_letter(checked, self._source(payloads[k], keys[k], positions[k]))
            else:
                valid.append(checked)
                origin.append(k)
        if not valid:
            return

        rows = [field_values(t) for t in valid]
        array = transaction_array(rows)
        features, status = self._engine.features([t.user_id for t in valid], array)
        shards = len(self._settings.shard_keys)
        members: list[list[int]] = [[] for _ in range(shards)]
        for i, (t, s) in enumerate(zip(valid, status.tolist(), strict=True)):
            if s <= Status.LATE:
                members[terminal_shard(t.terminal_id, t.user_id, shards)].append(i)
            elif s == Status.REPEAT:
                self._repeats.inc()
            else:
                k = origin[i]
                yield self._dead_letter(REFUSED[Status(s)], self._source(payloads[k], keys[k], positions[k]))
        late = status == Status.LATE
        if late.any():
            self._late.inc(int(late.sum()))
        for shard, chosen in enumerate(members):
            if chosen:
                batch = SubBatch(
                    rows=[rows[i] for i in chosen],
                    transactions=array[chosen].tobytes(),
                    features=features[chosen].tobytes(),
                    late=np.flatnonzero(late[chosen]).tolist(),
                )
                yield Row(self._settings.shard_keys[shard], encode(batch))

    def _learn(
        self, payloads: Sequence[bytes | None], keys: Sequence[str | None], positions: Sequence[int]
    ) -> Iterator[Any]:
        self._labels_in.inc(len(payloads))
        known: list[Label] = []
        for k, record in enumerate(self._labels.decode(payloads)):
            checked = self._check_key(record, keys[k])
            if isinstance(checked, Invalid):
                yield self._dead_letter(checked, self._source(payloads[k], keys[k], positions[k]))
            else:
                known.append(checked)
        if not known:
            return

        array = label_array(known)
        self._engine.label([label.user_id for label in known], array)
        shards = len(self._settings.shard_keys)
        members: dict[int, list[int]] = {}
        for i, label in enumerate(known):
            if label.terminal_id is not None:
                shard = terminal_shard(label.terminal_id, label.user_id, shards)
                members.setdefault(shard, []).append(i)
        for shard, chosen in members.items():
            batch = SubBatch(
                labelled=[str(known[i].terminal_id) for i in chosen], labels=array[chosen].tobytes()
            )
            yield Row(self._settings.shard_keys[shard], encode(batch))

    def _check_key(self, record: Keyed | Invalid, key: str | None) -> Keyed | Invalid:
        """A record under another key than its user would split that user's state over two shards."""
        if isinstance(record, Invalid) or not self._settings.checks_key or key == record.user_id:
            return record
        if key is None:
            return Invalid("missing_key", "the record has no key; it must be the user_id", "key")
        return Invalid("key_mismatch", "the record's key is not its user_id", "key")

    def _source(self, payload: bytes | None, key: str | None, position: int) -> Source:
        settings = self._settings
        topic = settings.labels_topic if kind_of(position) else settings.transactions_topic
        return Source.at(position, topic, key, payload)

    def _dead_letter(self, invalid: Invalid, source: Source) -> tuple[OutputTag, bytes]:
        self._dead.inc()
        return DEAD_LETTERS, dead_letter(invalid, source, self._settings.max_dead_letter_bytes)
