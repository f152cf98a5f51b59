"""A generator and a consumer for measurements: paced transactions in, latency of the decisions out."""

import multiprocessing
import time
from collections.abc import Sequence
from multiprocessing.sharedctypes import Synchronized
from typing import NamedTuple

import msgspec
import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition
from numpy.typing import NDArray

SLICE_S = 0.002
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


class _Timed(msgspec.Struct, gc=False):
    event_time: int


def templates(users: int, terminals: int, count: int, seed: int = 7) -> list[tuple[bytes, bytes]]:
    """Key and the part of the JSON behind id and time, for `count` transactions drawn from a population."""
    rng = np.random.default_rng(seed)
    user = rng.integers(0, users, count)
    terminal = rng.zipf(1.3, count) % terminals
    amount = np.round(rng.gamma(2.0, 25.0, count), 2)
    country = np.array(["DE", "FR", "NL", "ES"])[rng.choice(4, count, p=[0.9, 0.05, 0.03, 0.02])]
    return [
        (
            b"user-%d" % u,
            b',"user_id":"user-%d","amount":%.2f,"terminal_id":"terminal-%d","currency":"EUR",'
            b'"merchant_category":"grocery","transaction_type":"purchase","channel":"pos","country":"%b",'
            b'"latitude":%.4f,"longitude":%.4f,"device_id":"device-%d","ip":"10.%d.%d.7","card_present":true}'
            % (u, a, t, c.encode(), 50 + t % 100 / 100, 8 + t % 70 / 100, u * 2 + t % 2, t % 250, u % 250),
        )
        for u, t, a, c in zip(user.tolist(), terminal.tolist(), amount.tolist(), country.tolist(), strict=True)
    ]


def generate(bootstrap: str, rate: int, seconds: float, users: int, terminals: int, sent: "Synchronized[int]") -> None:
    """Send `rate` transactions a second for `seconds`, event time now."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "linger.ms": 1,
            "batch.num.messages": 1000,
            "queue.buffering.max.messages": 1_000_000,
            "acks": 1,
        }
    )
    bodies = templates(users, terminals, 100_000)
    run = int(time.time() * 1000)
    start = time.perf_counter()
    n = 0
    while (elapsed := time.perf_counter() - start) < seconds:
        due = int(elapsed * rate)
        now = int(time.time() * 1000)
        while n < due:
            key, rest = bodies[n % len(bodies)]
            value = b'{"transaction_id":"b%d-%d","event_time":%d%b' % (run, n, now, rest)
            try:
                producer.produce("transactions", value, key)
            except BufferError:
                producer.poll(0.01)
                continue
            n += 1
        producer.poll(0)
        sent.value = n
        time.sleep(SLICE_S)
    producer.flush()
    sent.value = n


def measure(bootstrap: str, rate: int, seconds: float, warm_up: float, users: int, terminals: int) -> Measured:
    """Latency of a running job at a rate: from the event time to the consumer's receipt of the decision."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "benchmark",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 5,
            "queued.max.messages.kbytes": 262_144,
        }
    )
    partitions = consumer.list_topics("decisions").topics["decisions"].partitions
    ends = [consumer.get_watermark_offsets(TopicPartition("decisions", p))[1] for p in partitions]
    consumer.assign([TopicPartition("decisions", p, end) for p, end in zip(partitions, ends, strict=True)])
    consumer.consume(1, timeout=0.5)

    sent: Synchronized[int] = multiprocessing.Value("q", 0)  # type: ignore[assignment]
    process = multiprocessing.get_context("fork").Process(
        target=generate, args=(bootstrap, rate, warm_up + seconds, users, terminals, sent)
    )
    process.start()
    decode = msgspec.json.Decoder(_Timed).decode
    begun = time.time()
    received, idle_since = 0, time.time()
    stamps: list[tuple[float, int]] = []
    last = begun
    finished = 0.0
    while True:
        messages = consumer.consume(2000, timeout=0.005)
        now = time.time()
        if messages:
            for k in range(received % SAMPLE_EVERY, len(messages), SAMPLE_EVERY):
                stamps.append((now, decode(messages[k].value() or b"").event_time))
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
        sent.value, received, seconds, latency[due > warm_up], max(0.0, last - finished), float(np.median(second_half))
    )


def summary(rate: int, measured: Measured) -> str:
    """One line of a table."""
    p50, p90, p99 = np.percentile(measured.latency_ms, [50, 90, 99])
    return (
        f"{rate:>7,}/s  sent {measured.sent:>9,}  decided {measured.received:>9,}  "
        f"p50 {p50:6.1f}  p90 {p90:6.1f}  p99 {p99:6.1f} ms  lag at the end {measured.lag_s:.2f} s"
    )


def main(arguments: Sequence[str]) -> None:
    """RATE SECONDS WARM_UP"""
    rate, seconds, warm_up = int(arguments[0]), float(arguments[1]), float(arguments[2])
    print(summary(rate, measure("127.0.0.1:9092", rate, seconds, warm_up, 20_000, 5_000)), flush=True)


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
