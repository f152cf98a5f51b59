"""When each record is sent: transactions and labels merged in event time and mapped to the wall clock."""

import heapq
import queue
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np
import pandas as pd

from simulator.columns import encode_labels, encode_transactions
from simulator.rows import Bools, Floats, Ints

ROWS_PER_BATCH: Final = 5_000
EVENT_TIME: Final = b'"event_time":'


@dataclass(frozen=True, slots=True)
class Pace:
    """`tps` transactions a second, or event time at `speed` times the wall clock; neither: at once."""

    tps: float | None = None
    speed: float | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for a pace that nothing can keep."""
        for name, value in (("tps", self.tps), ("speed", self.speed)):
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name} must be a number above 0, not {value}")
        if self.tps is not None and self.speed is not None:
            raise ValueError("tps and speed exclude each other")


class Record(msgspec.Struct, frozen=True, gc=False):
    """A record for Kafka. If its time is to be set on sending, that goes between `value` and `tail`."""

    topic: str
    key: bytes
    value: bytes
    tail: bytes | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Records with the second after the start at which each is due, in ascending order."""

    due: Floats
    records: list[Record]
    is_transaction: Bools


@dataclass(slots=True)
class Schedule:
    """Makes batches of (transactions, labels) frames; labels wait until event time has reached them.

    With `live` prefix, transaction ids begin with it and event_time is left open, to be set to the
    time of sending. `waiting` says how many labels are not due at the end.
    """

    pace: Pace
    topic: str
    labels_topic: str
    live: str | None = None
    _sent: int = 0
    _first_ms: int | None = None
    _labels: list[tuple[int, int, bytes, bytes]] = field(default_factory=list)
    _order: int = 0

    @property
    def waiting(self) -> int:
        """Number of labels that event time has not reached."""
        return len(self._labels)

    def batches(self, frames: Iterable[tuple[pd.DataFrame, pd.DataFrame | None]]) -> Iterator[Batch]:
        """Batches of at most ROWS_PER_BATCH transactions and the labels due among them."""
        for transactions, labels in frames:
            if labels is not None:
                self._hold(labels)
            for begin in range(0, len(transactions), ROWS_PER_BATCH):
                yield self._batch(transactions.iloc[begin : begin + ROWS_PER_BATCH])

    def _hold(self, labels: pd.DataFrame) -> None:
        keys = [user.encode() for user in labels["user_id"]]
        times = labels["labelled_at"].tolist()
        for time, key, value in zip(times, keys, encode_labels(labels), strict=True):
            self._order += 1
            heapq.heappush(self._labels, (time, self._order, key, value))

    def _batch(self, transactions: pd.DataFrame) -> Batch:
        if self.live is not None:
            transactions = transactions.assign(transaction_id=self.live + transactions["transaction_id"])
        times = transactions["event_time"].tolist()
        latest = max(times)
        records = [
            self._open(Record(self.topic, user.encode(), value))
            for user, value in zip(transactions["user_id"], encode_transactions(transactions), strict=True)
        ]
        while self._labels and self._labels[0][0] <= latest:
            time, _, key, value = heapq.heappop(self._labels)
            times.append(time)
            records.append(Record(self.labels_topic, key, value))

        # Transactions keep their order, late ones too; a label follows once event time has passed it.
        reached = np.array(times)
        reached[: len(transactions)] = np.maximum.accumulate(reached[: len(transactions)])
        order = np.argsort(reached, kind="stable")
        is_transaction = order < len(transactions)
        due = self._due(reached[order], is_transaction)
        return Batch(due, [records[i] for i in order.tolist()], is_transaction)

    def _open(self, record: Record) -> Record:
        if self.live is None:
            return record
        head, name, rest = record.value.partition(EVENT_TIME)
        return Record(record.topic, record.key, head + name, rest[rest.index(b",") :])

    def _due(self, times: Ints, is_transaction: Bools) -> Floats:
        if self._first_ms is None:
            self._first_ms = int(times[0])
        number = self._sent + np.cumsum(is_transaction)
        self._sent = int(number[-1])
        if self.pace.tps is not None:
            return np.maximum(number - 1, 0) / self.pace.tps
        if self.pace.speed is not None:
            return np.maximum.accumulate((times - self._first_ms) / 1000.0 / self.pace.speed)
        return np.zeros(len(times))


def ahead(batches: Iterator[Batch], depth: int = 20) -> Iterator[Batch]:
    """The same batches, prepared up to `depth` ahead by a thread, so that sending need not wait for them.

    The first one comes when all `depth` are ready, or fewer are all there is.
    """
    waiting: queue.Queue[Batch | BaseException | None] = queue.Queue(depth)
    stopped, ready = threading.Event(), threading.Event()
    thread = threading.Thread(
        target=_prepare, args=(batches, waiting, stopped, ready), name="prepare-batches", daemon=True
    )
    # The sender wakes every millisecond: let it have the interpreter sooner than after the usual 5 ms.
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    thread.start()
    try:
        ready.wait()
        while (item := waiting.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join(timeout=5)
        sys.setswitchinterval(interval)


def _prepare(
    batches: Iterator[Batch],
    waiting: queue.Queue[Batch | BaseException | None],
    stopped: threading.Event,
    ready: threading.Event,
) -> None:
    """Put every batch, then None or the exception that ended them; `ready` is set when the queue is full."""

    def put(item: Batch | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                waiting.put(item, timeout=0.1)
            except queue.Full:
                ready.set()
            else:
                return

    try:
        for batch in batches:
            put(batch)
            if stopped.is_set():
                return
        put(None)
    except BaseException as error:  # noqa: BLE001 - the consumer raises it
        put(error)
    finally:
        ready.set()
