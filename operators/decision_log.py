"""What was already answered: the tail of the decisions topic, read when a job resumes.

After a failure the job starts again from its last checkpoint and sees the transactions since then a second
time. Their user features come out the same, but the transactions of one terminal may arrive in another
order, a model may have been swapped, and the score could differ from the one already given. So the
terminal stage reads what it answered since the checkpoint, and answers the same again.
"""

import time
from collections.abc import Iterator, Mapping

import msgspec
from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_random_exponential

CLOCK_MARGIN_MS = 5_000  # how far the clocks of broker and TaskManagers may differ
TIMEOUT_S = 30.0


class Answered(msgspec.Struct, gc=False):
    """The part of a decision that tells which one it is."""

    user_id: str
    decision_id: str
    decided_at: int
    terminal_id: str | None = None


class DecisionLog:
    """Reads back decisions from Kafka. `config` is that of a librdkafka client."""

    def __init__(self, config: Mapping[str, str], topic: str) -> None:
        self._config = {
            **config,
            "group.id": "fraudstream-decision-log",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
        self._topic = topic

    def since(self, timestamp_ms: int) -> Iterator[tuple[Answered, bytes]]:
        """Every decision made after `timestamp_ms` and written by now, raw beside it.

        Raises KafkaException where the topic cannot be read within TIMEOUT_S.
        """
        decode = msgspec.json.Decoder(Answered).decode
        consumer = Consumer(self._config)
        try:
            unfinished = self._seek(consumer, timestamp_ms - CLOCK_MARGIN_MS)
            deadline = time.monotonic() + TIMEOUT_S
            while unfinished:
                messages = consumer.consume(10_000, timeout=1.0)
                if messages:
                    deadline = time.monotonic() + TIMEOUT_S
                elif time.monotonic() > deadline:
                    raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"reading {self._topic}"))
                for message in messages:
                    error = message.error()
                    if error is not None:
                        if error.code() != KafkaError._PARTITION_EOF:
                            raise KafkaException(error)
                        unfinished.discard(message.partition())
                    elif (value := message.value()) and (answered := decode(value)).decided_at > timestamp_ms:
                        yield answered, value
        finally:
            consumer.close()

    # librdkafka gives up at once where a partition has just moved to another leader.
    @retry(
        retry=retry_if_exception_type(KafkaException),
        stop=stop_after_delay(TIMEOUT_S),
        wait=wait_random_exponential(0.1, max=2.0),
        reraise=True,
    )
    def _seek(self, consumer: Consumer, timestamp_ms: int) -> set[int]:
        """Assign all partitions from the timestamp on; the partitions that hold something from there."""
        topic = consumer.list_topics(self._topic, timeout=TIMEOUT_S).topics[self._topic]
        if topic.error is not None:
            raise KafkaException(topic.error)
        wanted = [TopicPartition(self._topic, p, max(timestamp_ms, 0)) for p in topic.partitions]
        starts = consumer.offsets_for_times(wanted, timeout=TIMEOUT_S)
        held = [tp for tp in starts if tp.offset != OFFSET_END]
        if held:
            consumer.assign(held)
        return {tp.partition for tp in held}
