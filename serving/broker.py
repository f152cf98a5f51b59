"""One record sent to Kafka, or what a topic holds now: for people and services that ask now and then."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from serving.errors import BrokerError

TIMEOUT_S = 10.0


def send(config: Mapping[str, str], topic: str, key: str | None, value: bytes | None) -> str:
    """Send one record (None is a tombstone) and return where it lies, as TOPIC[PARTITION]@OFFSET.

    Raises BrokerError where no broker answers, the topic does not exist or the record is not acknowledged
    within TIMEOUT_S.
    """
    failures: list[str] = []
    places: list[str] = []

    def delivered(error: KafkaError | None, record: Message) -> None:
        if error is not None:
            failures.append(error.str())
        else:
            places.append(f"{record.topic()}[{record.partition()}]@{record.offset()}")

    try:
        # The topic must exist: a broker that creates it on being asked would not compact it.
        producer = Producer({**config, "message.timeout.ms": round(TIMEOUT_S * 1000)})
        _partitions(producer, config, topic, TIMEOUT_S)
        producer.produce(topic, value, key, on_delivery=delivered)
        producer.flush(TIMEOUT_S + 1)
    except KafkaException as error:
        raise BrokerError(f"Kafka: {_reason(error)}") from error
    if not places:
        raise BrokerError(f"the record was not acknowledged: {', '.join(failures) or 'no answer'}")
    return places[0]


def send_all(
    config: Mapping[str, str], topic: str, records: Iterable[tuple[str, str | None, bytes]]
) -> tuple[int, list[str]]:
    """Send records (name, key, value) as they come; how many were acknowledged, and why the others were not.

    A failure is told under the name of its record. Raises BrokerError where no broker answers or the topic
    does not exist.
    """
    failures: list[str] = []
    acknowledged = 0

    def delivered(name: str, error: KafkaError | None, _record: Message) -> None:
        nonlocal acknowledged
        if error is None:
            acknowledged += 1
        else:
            failures.append(f"{name}: {error.str()}")

    try:
        producer = Producer({**config, "message.timeout.ms": round(TIMEOUT_S * 1000), "linger.ms": 20})
        _partitions(producer, config, topic, TIMEOUT_S)
        for name, key, value in records:
            while True:
                try:
                    producer.produce(topic, value, key, on_delivery=partial(delivered, name))
                    break
                except BufferError:
                    producer.poll(0.1)
                except KafkaException as error:  # of this record alone: it is too large
                    failures.append(f"{name}: {_reason(error)}")
                    break
            producer.poll(0)
        producer.flush(TIMEOUT_S + 1)
    except KafkaException as error:
        raise BrokerError(f"Kafka: {_reason(error)}") from error
    return acknowledged, failures


def stored(config: Mapping[str, str], topic: str, newest: int | None) -> Iterator[tuple[int, bytes]]:
    """Broker time (ms since the epoch) and value of what the topic holds now, by partition.

    With `newest` only that many at the end of each partition. Raises BrokerError where no broker answers or
    the topic does not exist.
    """
    for message in _messages(config, topic, newest, TIMEOUT_S):
        if value := message.value():
            yield message.timestamp()[1], value


def values(
    config: Mapping[str, str], topic: str, key: str, timeout_s: float | None = None
) -> Iterator[bytes | None]:
    """What the topic holds now under a key, the oldest first; None is a tombstone.

    Raises BrokerError where no broker answers within the timeout, by default TIMEOUT_S, or the topic does not
    exist.
    """
    for message in _messages(config, topic, None, timeout_s or TIMEOUT_S):
        if message.key() == key.encode():
            yield message.value()


def latest(config: Mapping[str, str], topic: str) -> dict[str, bytes]:
    """The last value under each key of a compacted topic, without those that were deleted.

    A record without a key is left out: compaction takes none. Raises BrokerError as `stored` does.
    """
    found: dict[str, bytes | None] = {}
    for message in _messages(config, topic, None, TIMEOUT_S):
        if (key := message.key()) is not None:
            found[key.decode(errors="backslashreplace")] = message.value()
    return {key: value for key, value in found.items() if value is not None}


def _messages(
    config: Mapping[str, str], topic: str, newest: int | None, timeout_s: float
) -> Iterator[Message]:
    settings: dict[str, str | int | bool] = {
        **config,
        "group.id": "fraudstream-reader",
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
    }
    try:
        consumer = Consumer(settings)
        try:
            for partition in _partitions(consumer, config, topic, timeout_s):
                yield from _stored(consumer, TopicPartition(topic, partition), newest)
        finally:
            consumer.close()
    except KafkaException as error:
        raise BrokerError(f"Kafka: {_reason(error)}") from error


def _stored(consumer: Consumer, place: TopicPartition, newest: int | None) -> Iterator[Message]:
    first, end = consumer.get_watermark_offsets(place, timeout=TIMEOUT_S)
    reached = first if newest is None else max(first, end - newest)
    if reached < end:
        consumer.assign([TopicPartition(place.topic, place.partition, reached)])
    while reached < end:
        for message in consumer.consume(min(end - reached, 10_000), timeout=1.0):
            if (error := message.error()) is not None:
                raise KafkaException(error)
            if (message.offset() or 0) < end:
                yield message
        # Offsets may be empty, after compaction or where a transaction ended: ask for the position.
        (position,) = consumer.position([place])
        reached = max(reached, position.offset)


def _partitions(
    client: Consumer | Producer, config: Mapping[str, str], topic: str, timeout_s: float
) -> list[int]:
    try:
        topics = client.list_topics(timeout=timeout_s).topics
    except KafkaException as error:
        raise BrokerError(
            f"no Kafka broker answers at {config['bootstrap.servers']}: {_reason(error)}"
        ) from error
    if topic not in topics:
        raise BrokerError(
            f"no such topic at {config['bootstrap.servers']}: {topic}; `fraudstream topics` creates it"
        )
    return sorted(topics[topic].partitions)


def _reason(error: KafkaException) -> str:
    cause = error.args[0]
    return cause.str() if isinstance(cause, KafkaError) else str(cause)
