"""The feedback join in Flink: verdicts meet the decisions they speak of."""

import math
import time
from collections.abc import Iterator
from typing import Any

import msgspec
from pyflink.common import Row, Types
from pyflink.datastream import KeyedProcessFunction, OutputTag, RuntimeContext
from pyflink.datastream.state import MapStateDescriptor

from online_learning.join import FeedbackJoin, Joined, JoinSettings
from online_learning.waiting import Received
from operators.records import DEAD_LETTERS, RECORD, Source, dead_letter, kind_of
from operators.state import profile_state
from operators.watch import Level

FEEDBACK, DECISION, ANOMALY = range(3)
"""Kinds of records: feedback, decisions by transaction, and those not approved again, by their own id."""
EXAMPLES = OutputTag("examples", RECORD)
FORWARDED = OutputTag("forwarded", RECORD)
TICK_MS = 10_000  # feedback is refused at most so long after its time
END_OF_INPUT = 2**63 - 1  # the watermark that follows the last record

encode = msgspec.json.Encoder().encode


class FeedbackJoinSettings(msgspec.Struct, frozen=True):
    """What the stage needs to know of the job."""

    join: JoinSettings
    decision_ttl_days: int
    topics: tuple[str, str, str]
    """Names for dead letters, by kind of record."""
    max_dead_letter_bytes: int


class FeedbackJoinStage(KeyedProcessFunction):
    """Joins the feedback and the decisions of one shard of transaction ids.

    Input: Row(payloads bytes[], keys str[], positions int[]). Output: Row(user id, label). Side outputs:
    examples with their user id, feedback to be sent again with its key, dead letters.
    """

    def __init__(self, settings: FeedbackJoinSettings) -> None:
        self._settings = settings

    def open(self, runtime_context: RuntimeContext) -> None:
        days = self._settings.decision_ttl_days
        self._decisions = profile_state(runtime_context, "decisions", days)
        self._anomalies = profile_state(runtime_context, "anomalies", days)
        # Who waits does not expire by itself: it becomes a dead letter.
        waiting = MapStateDescriptor("waiting", Types.STRING(), Types.PICKLED_BYTE_ARRAY())
        self._waiting_state = runtime_context.get_map_state(waiting)
        self._joins: dict[int, FeedbackJoin] = {}
        self._timers: dict[int, int] = {}
        metrics = runtime_context.get_metrics_group()
        self._feedback_in = metrics.counter("join_feedback_in_total")
        self._totals = {name: metrics.counter(f"join_{name}_total") for name in Joined.__struct_fields__}
        self._waiting = Level(metrics.counter("join_waiting"))

    def process_element(self, value: Row, ctx: KeyedProcessFunction.Context) -> Iterator[Any]:
        kinds: tuple[list[Received], ...] = ([], [], [])
        for payload, key, position in zip(*value, strict=True):
            kinds[kind_of(position)].append(Received(position, key, payload))
        self._feedback_in.inc(len(kinds[FEEDBACK]))
        joined = self._join(ctx).join(kinds[DECISION], kinds[ANOMALY], kinds[FEEDBACK], _now())
        yield from self._emit(joined, ctx)

    def on_timer(self, timestamp: int, ctx: KeyedProcessFunction.OnTimerContext) -> Iterator[Any]:
        self._timers.pop(ctx.get_current_key(), None)
        join = self._join(ctx)
        yield from self._emit(join.close() if timestamp == END_OF_INPUT else join.join(now_ms=_now()), ctx)

    def _join(self, ctx: Any) -> FeedbackJoin:
        """The join of the current shard. The states are those of the current key whatever the shard."""
        shard = ctx.get_current_key()
        if shard not in self._joins:
            self._joins[shard] = FeedbackJoin(
                self._settings.join, self._decisions, self._anomalies, self._waiting_state
            )
        return self._joins[shard]

    def _emit(self, joined: Joined, ctx: Any) -> Iterator[Any]:
        for example in joined.examples:
            yield EXAMPLES, Row(example.user_id.encode(), encode(example))
        for feedback in joined.forwarded:
            name = feedback.transaction_id or feedback.anomaly_id or ""
            yield FORWARDED, Row(name.encode(), encode(feedback))
        for invalid, (position, key, payload) in joined.refused:
            source = Source.at(position, self._settings.topics[kind_of(position)], key, payload)
            yield DEAD_LETTERS, dead_letter(invalid, source, self._settings.max_dead_letter_bytes)
        for label in joined.labels:
            yield Row(label.user_id.encode(), encode(label))
        self._count(joined)
        self._tick(ctx)

    def _count(self, joined: Joined) -> None:
        for name, total in self._totals.items():
            emitted = getattr(joined, name)
            total.inc(emitted if isinstance(emitted, int) else len(emitted))
        self._waiting.set(sum(join.waiting for join in self._joins.values()))

    def _tick(self, ctx: Any) -> None:
        """See to it that nobody waits for ever where no more records come."""
        shard = ctx.get_current_key()
        expiry = self._joins[shard].next_expiry_ms
        if expiry is None:
            return
        timers = ctx.timer_service()
        if shard not in self._timers:
            timers.register_event_time_timer(END_OF_INPUT)
        at = math.ceil(expiry / TICK_MS) * TICK_MS
        if self._timers.get(shard, END_OF_INPUT) > at:
            timers.register_processing_time_timer(at)
            self._timers[shard] = at


def _now() -> int:
    return round(time.time() * 1000)
