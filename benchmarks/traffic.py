"""A generator and a consumer for measurements: paced transactions in, latency of the decisions out."""

import gc
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from datetime import date
from multiprocessing.synchronize import Event
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from numpy.typing import NDArray

from simulator.columns import encode_transactions
from simulator.config import SimulationConfig
from simulator.simulation import simulate_days

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import Synchronized

SLICE_S = 0.002
RUN_MS = 100 * 86_400_000  # event time between the starts of two runs: the same users, going on
RECORDED = 600_000  # distinct transactions of a run; a longer one repeats them with later times and new ids
SAMPLE_EVERY = 4  # decisions whose latency is read, 1 in so many; all are counted


class Measured(NamedTuple):
    """latency_ms: f8, one per sampled decision that was due after the warm-up; lag_s: how long after the last
    transaction the last decision came."""

    sent: int
    received: int
    seconds: float
    latency_ms: NDArray[np.float64]
    lag_s: float
    second_half_median_ms: float


class _Sent(msgspec.Struct, gc=False):
    transaction_id: str
    user_id: str
    event_time: int


_DECODE = msgspec.json.Decoder(_Sent).decode


class Recorded(NamedTuple):
    """One simulated transaction, encoded but for its ids."""

    user: bytes
    event_time: int
    rest: bytes


def record(users: int, count: int, seed: int = 7) -> list[Recorded]:
    """The first `count` transactions of a simulated world, so that behaviour and anomalies are as in life."""
    config = SimulationConfig(users=users, terminals=users // 4, days=400, seed=seed, start=date(2020, 1, 1))
    recorded: list[Recorded] = []
    for day in simulate_days(config):
        for value in encode_transactions(day.transactions):
            seen = _DECODE(value)
            # The wire form begins with the ids and event_time; the rest is kept as it is.
            rest = value.split(b'"event_time":%d' % seen.event_time, 1)[1]
            recorded.append(Recorded(seen.user_id.encode(), seen.event_time, rest))
        if len(recorded) >= count:
            return recorded[:count]
    raise AssertionError("400 days are not enough")


def encoded(users: int, count: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of the first `count` transactions of a simulated world."""
    for n, (user, event_time, rest) in enumerate(record(users, count)):
        yield user, b'{"transaction_id":"%d","user_id":"%b","event_time":%d%b' % (n, user, event_time, rest)


def generate(  # noqa: PLR0913, PLR0917 - the arguments of a process
    bootstrap: str, topic: str, rate: int, seconds: float, users: int, run: int, ready: Event,
    sent: "Synchronized[int]",
) -> None:  # fmt: skip
    """Send `rate` transactions a second for `seconds`; the id tells the wall clock (ms) of sending."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "linger.ms": 4,
            "batch.num.messages": 2000,
            "queue.buffering.max.messages": 1_000_000,
            "acks": 1,
        }
    )
    records = record(users, min(int(rate * seconds), RECORDED))
    span = records[-1].event_time - records[0].event_time + 1
    gc.freeze()
    ready.set()
    start = time.perf_counter()
    n = 0
    while (elapsed := time.perf_counter() - start) < seconds:
        due = int(elapsed * rate)
        now = int(time.time() * 1000)
        while n < due:
            again, at = divmod(n, len(records))
            user, event_time, rest = records[at]
            value = b'{"transaction_id":"%d-%d-%d","user_id":"%b","event_time":%d%b' % (
                now, run, n, user, event_time + run * RUN_MS + again * span, rest,
            )  # fmt: skip
            try:
                producer.produce(topic, value, user)
            except BufferError:
                producer.poll(0.01)
                continue
            n += 1
        producer.poll(0)
        sent.value = n
        time.sleep(SLICE_S)
    producer.flush()
    sent.value = n


def _sent_at(message: Message) -> int:
    """When the transaction of a decision was sent, in ms."""
    return int(_DECODE(message.value() or b"").transaction_id.partition("-")[0])


def measure(  # noqa: PLR0913, PLR0917 - independent numbers
    bootstrap: str, rate: int, seconds: float, warm_up: float, run: int, users: int = 20_000, prefix: str = ""
) -> Measured:
    """Latency of a running job at a rate: from sending a transaction to receiving its decision.

    run: 0, 1, ... for the runs against one job, so that event time goes on from one to the next.
    Raises ChildProcessError where the generator fails.
    """
    decided = f"{prefix}decisions"
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "benchmark",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 4,
            "fetch.min.bytes": 8192,
            "queued.max.messages.kbytes": 262_144,
        }
    )
    partitions = consumer.list_topics(decided).topics[decided].partitions
    ends = [consumer.get_watermark_offsets(TopicPartition(decided, p))[1] for p in partitions]
    consumer.assign([TopicPartition(decided, p, end) for p, end in zip(partitions, ends, strict=True)])
    consumer.consume(1, timeout=0.5)

    # Not by fork: the child would free, and crash on, Kafka clients whose threads it does not have.
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    sent: Synchronized[int] = context.Value("q", 0)
    process = context.Process(
        target=generate,
        args=(bootstrap, f"{prefix}transactions", rate, warm_up + seconds, users, run, ready, sent),
    )
    process.start()
    while not ready.wait(1):
        if not process.is_alive():
            raise ChildProcessError(f"the generator ended with {process.exitcode}")
    begun = time.time()
    received, idle_since = 0, time.time()
    stamps: list[tuple[float, int]] = []
    last = begun
    finished = 0.0
    while True:
        messages = consumer.consume(2000, timeout=0.005)
        now = time.time()
        if messages:
            stamps += [(now, _sent_at(m)) for m in messages[received % SAMPLE_EVERY :: SAMPLE_EVERY]]
            received += len(messages)
            last = idle_since = now
        if not process.is_alive():
            finished = finished or now
            if received >= sent.value or now - idle_since > 20:
                break
    process.join()
    consumer.close()
    data = np.array(stamps, np.float64).reshape(-1, 2)
    due = data[:, 1] / 1000 - data[0, 1] / 1000
    latency = data[:, 0] * 1000 - data[:, 1]
    second_half = latency[due > warm_up + seconds / 2]
    return Measured(
        sent.value,
        received,
        seconds,
        latency[due > warm_up],
        max(0.0, last - finished),
        float(np.median(second_half)),
    )


def summary(rate: int, measured: Measured) -> str:
    """One line of a table."""
    p50, p90, p99 = np.percentile(measured.latency_ms, [50, 90, 99])
    return (
        f"{rate:>7,}/s  sent {measured.sent:>9,}  decided {measured.received:>9,}  "
        f"p50 {p50:6.1f}  p90 {p90:6.1f}  p99 {p99:6.1f} ms  lag at the end {measured.lag_s:.2f} s"
    )


def main(arguments: Sequence[str]) -> None:
    """RATE SECONDS WARM_UP RUN, where RUN counts the runs against one job from 0 on."""
    rate, seconds, warm_up, run = (
        int(arguments[0]),
        float(arguments[1]),
        float(arguments[2]),
        int(arguments[3]),
    )
    print(summary(rate, measure("127.0.0.1:9092", rate, seconds, warm_up, run)), flush=True)


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
