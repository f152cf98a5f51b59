"""The newest decisions, heard from Kafka as they are made."""

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

import msgspec
import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

RETRY_S: Final = 1.0
METADATA_S: Final = 2.0
MANY: Final = 1_000

log = structlog.get_logger()


class _Named(msgspec.Struct):
    decision_id: str


class DecisionFeed:
    """Remembers decisions by id, the oldest forgotten first, and wakes who waits for one.

    It begins with those that the topic already holds, as many as it remembers. A decision is immutable, so
    hearing one again changes nothing.
    """

    def __init__(self, config: Mapping[str, str], topic: str, remembered: int) -> None:
        """config: of a librdkafka client; remembered: how many decisions."""
        self._config, self._topic, self._remembered = config, topic, remembered
        self._found: OrderedDict[str, bytes] = OrderedDict()
        self._waiting: dict[str, list[tuple[asyncio.AbstractEventLoop, asyncio.Future[bytes]]]] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._named = msgspec.json.Decoder(_Named)
        self._thread = threading.Thread(target=self._run, name="decisions", daemon=True)
        self.listening = threading.Event()
        """Set once the topic is read."""

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stopped.set()
        self._thread.join()

    def get(self, decision_id: str) -> bytes | None:
        """The decision as it stands in Kafka."""
        with self._lock:
            return self._found.get(decision_id)

    def wait(self, decision_id: str) -> asyncio.Future[bytes]:
        """A future of the decision; see `forget`."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bytes] = loop.create_future()
        with self._lock:
            known = self._found.get(decision_id)
            if known is None:
                self._waiting.setdefault(decision_id, []).append((loop, future))
        if known is not None:
            future.set_result(known)
        return future

    def forget(self, decision_id: str, future: asyncio.Future[bytes]) -> None:
        """Who waited does not any more."""
        with self._lock:
            others = [entry for entry in self._waiting.pop(decision_id, []) if entry[1] is not future]
            if others:
                self._waiting[decision_id] = others

    def heard(self, value: bytes) -> None:
        """Take in one decision."""
        try:
            decision_id = self._named.decode(value).decision_id
        except (msgspec.MsgspecError, UnicodeError):
            return  # not written by the scoring job
        with self._lock:
            self._found[decision_id] = value
            if len(self._found) > self._remembered:
                self._found.popitem(last=False)
            waiting = self._waiting.pop(decision_id, [])
        for loop, future in waiting:
            loop.call_soon_threadsafe(_resolve, future, value)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._listen()
            except KafkaException as error:
                log.warning("decisions.away", error=str(error.args[0]))
                self.listening.clear()
                self._stopped.wait(RETRY_S)

    def _listen(self) -> None:
        consumer = Consumer(
            {**self._config, "group.id": "fraudstream-gateway", "enable.auto.commit": "false",
             "auto.offset.reset": "latest", "fetch.wait.max.ms": "100"}
        )  # fmt: skip
        try:
            consumer.assign(self._places(consumer))
            self.listening.set()
            while not self._stopped.is_set():
                # poll returns with the first message, consume only when there are many.
                first = consumer.poll(0.2)
                if first is None:
                    continue
                for message in (first, *consumer.consume(MANY, timeout=0)):
                    value = message.value()
                    if message.error() is None and value is not None:
                        self.heard(value)
        finally:
            consumer.close()

    def _places(self, consumer: Consumer) -> list[TopicPartition]:
        partitions = consumer.list_topics(self._topic, timeout=METADATA_S).topics[self._topic].partitions
        if not partitions:
            raise KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
        each = self._remembered // len(partitions)
        places = []
        for partition in partitions:
            first, end = consumer.get_watermark_offsets(
                TopicPartition(self._topic, partition), timeout=METADATA_S
            )
            places.append(TopicPartition(self._topic, partition, max(first, end - each)))
        return places


def _resolve(future: asyncio.Future[bytes], value: bytes) -> None:
    if not future.done():
        future.set_result(value)
