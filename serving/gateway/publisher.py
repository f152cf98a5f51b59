"""Records into Kafka, acknowledged by it before whoever sent them is told so."""

import asyncio
import threading
import time
from collections.abc import Mapping
from functools import partial
from typing import Final

from confluent_kafka import KafkaException, Message, Producer

from serving.gateway.problems import unavailable

FULL_PAUSE_S: Final = 0.005
ANSWERS_PAUSE_S: Final = 0.001
"""Acknowledgements are taken this far apart: one by one they would take the interpreter from the requests."""
KEPT_S: Final = 120
"""How long a record waits in memory for a broker that is away."""


class Delivery:
    """The records of one request on their way. The event loop sends, the poll thread counts answers."""

    def __init__(self, correlation_id: str) -> None:
        self.headers: list[tuple[str, str | bytes]] = [("correlation_id", correlation_id.encode())]
        self.sent = 0
        self.refused: list[tuple[int, str]] = []
        """By number in the order of sending, what Kafka did not take, and why."""
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._answered = 0
        self._closed = False
        self._all_answered = asyncio.Event()

    def answered(self, number: int, error: object | None, _message: Message | None = None) -> None:
        with self._lock:
            self._answered += 1
            if error is not None:
                self.refused.append((number, str(error)))
            self._look()

    async def complete(self, within_s: float) -> bool:
        """Whether Kafka has answered for all of them in time; nothing is sent after this."""
        with self._lock:
            self._closed = True
            self._look()
        try:
            async with asyncio.timeout(max(0.0, within_s)):
                await self._all_answered.wait()
        except TimeoutError:
            return False
        return True

    def _look(self) -> None:
        if self._closed and self._answered == self.sent and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._all_answered.set)


class Publisher:
    """One producer and the thread that hears its acknowledgements."""

    def __init__(self, config: Mapping[str, str]) -> None:
        """config: of a librdkafka client."""
        self._producer = Producer(
            {
                "linger.ms": "2",
                "compression.type": "lz4",
                "queue.buffering.max.messages": "200000",
                **config,
                "acks": "all",
                "enable.idempotence": "true",
                "message.timeout.ms": str(KEPT_S * 1000),
            }
        )
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="kafka-acknowledgements", daemon=True)
        self._thread.start()

    async def send(self, topic: str, key: str, value: bytes, delivery: Delivery, within_s: float) -> None:
        """Hand one record over. Raises Problem where Kafka is so far behind that there is no room for it."""
        ends = time.monotonic() + within_s
        while True:
            try:
                self._producer.produce(
                    topic,
                    value,
                    key,
                    headers=delivery.headers,
                    on_delivery=partial(delivery.answered, delivery.sent),
                )
            except BufferError:
                if time.monotonic() > ends:
                    raise unavailable("kafka-away", "Kafka takes no more records", 5) from None
                await asyncio.sleep(FULL_PAUSE_S)
                continue
            except KafkaException as error:  # of this record alone: it is too large
                delivery.answered(delivery.sent, str(error.args[0]))
            delivery.sent += 1
            return

    def reachable(self) -> bool:
        """Whether a broker answers now; takes up to a second."""
        try:
            self._producer.list_topics(timeout=1.0)
        except KafkaException:
            return False
        return True

    def close(self, within_s: float = 10.0) -> int:
        """How many records are lost because Kafka did not take them in time."""
        left = self._producer.flush(within_s)
        self._stopped.set()
        self._thread.join()
        return left

    def _poll(self) -> None:
        while not self._stopped.is_set():
            if self._producer.poll(0.1):
                self._stopped.wait(ANSWERS_PAUSE_S)
