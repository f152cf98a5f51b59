"""Sending to Kafka at a steady pace, with every delivery accounted for."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from simulator.schedule import Batch, Record

SLICE_S: Final = 0.001
"""Shortest pause between two rounds of sending: what is due meanwhile goes out together."""
LONGEST_PAUSE_S: Final = 0.05
TOPIC_CREATION_S: Final = 5.0


class KafkaUnavailableError(RuntimeError):
    """No broker answers, or a topic cannot be had."""


@dataclass(slots=True)
class Delivery:
    """What became of a run; failed records, of either kind, are counted among the sent ones too."""

    transactions: int = 0
    labels: int = 0
    failed: int = 0
    first_error: str | None = None
    seconds: float = 0.0
    """From the first record to the hand-over of the last one to the client."""
    worst_lag_ms: float = 0.0
    """How late the latest record was, against the pace asked for."""
    interrupted: bool = False

    @property
    def rate(self) -> float:
        """Transactions a second."""
        return self.transactions / self.seconds if self.seconds > 0 else 0.0


class KafkaSink:
    """A producer that keys records by user and gives up on a broker that is away.

    `settings` are further librdkafka settings, such as those of a secured cluster. A record that is
    not acknowledged within `delivery_timeout_s` has failed, and ends the run.
    """

    def __init__(
        self, bootstrap: str, settings: Mapping[str, str] | None = None, delivery_timeout_s: float = 8.0
    ) -> None:
        """Raises KafkaUnavailableError for settings that the client refuses."""
        self._bootstrap = bootstrap
        self._timeout_s = delivery_timeout_s
        self._delivery = Delivery()
        self._lost = self._stopped = False
        try:
            self._producer = Producer(
                {
                    "bootstrap.servers": bootstrap,
                    "client.id": "fraudstream-simulator",
                    "enable.idempotence": True,
                    "linger.ms": 1,
                    "queue.buffering.max.messages": 500_000,
                    "message.timeout.ms": round(delivery_timeout_s * 1000),
                    # As Java producers do, so that a user stays in one partition whoever writes.
                    "partitioner": "murmur2_random",
                    "delivery.report.only.error": True,
                    "log_level": 2,
                    **(settings or {}),
                },
            )
        except KafkaException as error:
            raise KafkaUnavailableError(f"Kafka settings: {_reason(error)}") from error

    def require(self, topics: Iterable[str]) -> None:
        """Make sure that a broker answers and has the topics, or creates them on being asked.

        Raises KafkaUnavailableError, within 10 s.
        """
        deadline = time.monotonic() + TOPIC_CREATION_S
        for topic in topics:
            while (error := self._topic_error(topic)) is not None:
                if time.monotonic() > deadline:
                    raise KafkaUnavailableError(f"topic {topic} on {self._bootstrap}: {error.str()}")
                time.sleep(0.2)

    def _topic_error(self, topic: str) -> KafkaError | None:
        try:
            found = self._producer.list_topics(topic, timeout=TOPIC_CREATION_S - 1.0)
        except KafkaException as error:
            raise KafkaUnavailableError(
                f"no Kafka broker answers at {self._bootstrap}: {_reason(error)}"
            ) from error
        failure: KafkaError | None = found.topics[topic].error
        return failure

    def stop(self) -> None:
        """Let a running `send` end early, as if its input ended; for signal handlers."""
        self._stopped = True

    def send(self, batches: Iterable[Batch], progress: Callable[[Delivery], None] | None = None) -> Delivery:
        """Send every record when it is due, counted from the first; returns when all are accounted for.

        Ends early after `stop`, or when a record could not be delivered in time. `progress` is called
        about ten times a second.
        """
        self._delivery = Delivery()
        self._stopped = self._lost = False
        try:
            self._send_all(batches, progress or (lambda _: None))
        finally:
            self._settle()
        self._delivery.interrupted = self._stopped
        return self._delivery

    def _send_all(self, batches: Iterable[Batch], progress: Callable[[Delivery], None]) -> None:
        delivery = self._delivery
        shown = 0.0
        start: float | None = None
        for batch in batches:
            # The clock starts when there is something to send.
            start = time.perf_counter() if start is None else start
            sent, total = 0, len(batch.records)
            while sent < total:
                if self._stopped or self._lost:
                    return
                now = time.perf_counter() - start
                upto = int(np.searchsorted(batch.due, now, side="right"))
                if upto > sent:
                    # Without a pace everything is due at once, and nothing is late.
                    late_s = now - float(batch.due[sent]) if batch.due[-1] > 0 else 0.0
                    delivery.worst_lag_ms = max(delivery.worst_lag_ms, 1000 * late_s)
                    self._produce(batch.records[sent:upto])
                    transactions = int(np.count_nonzero(batch.is_transaction[sent:upto]))
                    delivery.transactions += transactions
                    delivery.labels += upto - sent - transactions
                    sent = upto
                self._producer.poll(0)
                delivery.seconds = time.perf_counter() - start
                if delivery.seconds > shown + 0.1:
                    shown = delivery.seconds
                    progress(delivery)
                if sent < total:
                    time.sleep(min(max(float(batch.due[sent]) - delivery.seconds, SLICE_S), LONGEST_PAUSE_S))

    def _produce(self, records: list[Record]) -> None:
        now = b"%d" % (time.time_ns() // 1_000_000)
        for record in records:
            value = record.value if record.tail is None else record.value + now + record.tail
            while True:
                try:
                    self._producer.produce(record.topic, value, record.key, on_delivery=self._on_failure)
                    break
                except BufferError:
                    self._producer.poll(0.01)
                    if self._lost:
                        return

    def _on_failure(self, error: KafkaError | None, _message: Message) -> None:
        if error is None:
            return
        self._delivery.failed += 1
        self._delivery.first_error = self._delivery.first_error or error.str()
        self._lost = self._lost or error.code() == KafkaError._MSG_TIMED_OUT  # noqa: SLF001 - the library's public constant

    def _settle(self) -> None:
        """Wait for what is still on its way; what stays unanswered has failed."""
        if self._lost or self._producer.flush(self._timeout_s + 1.0):
            self._producer.purge()
        self._producer.flush(1.0)


def _reason(error: KafkaException) -> str:
    cause = error.args[0]
    return cause.str() if isinstance(cause, KafkaError) else str(cause)
