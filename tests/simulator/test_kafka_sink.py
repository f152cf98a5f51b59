import os
import time
import uuid
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient, NewTopic

from events.codec import Decoder
from events.feedback import Label
from events.transaction import Transaction
from simulator.config import SimulationConfig
from simulator.kafka import KafkaSink, KafkaUnavailableError
from simulator.schedule import Pace, Schedule
from simulator.simulation import simulate_days

CONFIG = SimulationConfig(users=100, terminals=40, days=6, label_delay_days=2.0)


def test_a_broker_that_is_away_is_reported_within_ten_seconds() -> None:
    begin = time.monotonic()
    with pytest.raises(KafkaUnavailableError, match="no Kafka broker answers at localhost:1:"):
        KafkaSink("localhost:1").require(["transactions"])
    assert time.monotonic() - begin < 10


def test_a_setting_that_the_client_does_not_know_is_named() -> None:
    with pytest.raises(KafkaUnavailableError, match=r"no\.such\.setting"):
        KafkaSink("localhost:1", {"no.such.setting": "1"})


@pytest.fixture
def bootstrap() -> str:
    address = os.environ.get("FRAUDSTREAM_BOOTSTRAP")
    if not address:
        pytest.skip("FRAUDSTREAM_BOOTSTRAP names no broker")
    return address


@pytest.fixture
def topics(bootstrap: str) -> Iterator[tuple[str, str]]:
    """Two topics of two partitions, for one test."""
    name = f"simulator-test-{uuid.uuid4().hex[:12]}"
    transactions, labels = f"{name}-transactions", f"{name}-labels"
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.create_topics([NewTopic(t, 2, 1) for t in (transactions, labels)]).values():
        future.result(10)
    yield transactions, labels
    for future in admin.delete_topics([transactions, labels]).values():
        future.result(10)


def consumed(bootstrap: str, topic: str, count: int) -> list[tuple[int | None, bytes, bytes, int]]:
    """(partition, key, value, broker timestamp) of `count` records, or what arrived within 20 s."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": uuid.uuid4().hex, "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([topic])
    records: list[tuple[int | None, bytes, bytes, int]] = []
    deadline = time.monotonic() + 20
    while len(records) < count and time.monotonic() < deadline:
        for message in consumer.consume(5_000, 0.5):
            assert message.error() is None
            key, value = message.key(), message.value()
            assert key is not None
            assert value is not None
            records.append((message.partition(), key, value, message.timestamp()[1]))
    consumer.close()
    return records


@pytest.mark.stack
def test_all_transactions_and_due_labels_arrive_keyed_by_user(
    bootstrap: str, topics: tuple[str, str]
) -> None:
    schedule = Schedule(Pace(), *topics)
    sink = KafkaSink(bootstrap)
    sink.require(topics)
    delivery = sink.send(schedule.batches((day.transactions, day.labels) for day in simulate_days(CONFIG)))
    assert (delivery.failed, delivery.interrupted) == (0, False)
    total = sum(len(day.transactions) for day in simulate_days(CONFIG))
    assert delivery.transactions == total
    assert delivery.labels == total - schedule.waiting > 0

    partitions: dict[bytes, set[int | None]] = {}
    decoders: list[Decoder[Transaction] | Decoder[Label]] = [Decoder(Transaction), Decoder(Label)]
    counts = (delivery.transactions, delivery.labels)
    for topic, decoder, count in zip(topics, decoders, counts, strict=True):
        records = consumed(bootstrap, topic, count)
        answers = decoder.decode([value for _, _, value, _ in records])
        assert len(answers) == count
        for (partition, key, _, _), answer in zip(records, answers, strict=True):
            assert isinstance(answer, Transaction | Label)
            assert key == answer.user_id.encode()
            partitions.setdefault(key, set()).add(partition)
    assert all(len(where) == 1 for where in partitions.values())


@pytest.mark.stack
def test_live_traffic_has_the_time_and_the_rate_of_sending(bootstrap: str, topics: tuple[str, str]) -> None:
    batches = list(
        Schedule(Pace(tps=1_000.0), *topics, live="r0-").batches(
            (day.transactions, None) for day in simulate_days(CONFIG)
        )
    )
    sink = KafkaSink(bootstrap)
    sink.require(topics)
    delivery = sink.send(batches)
    assert delivery.rate == pytest.approx(1_000.0, rel=0.1)
    records = consumed(bootstrap, topics[0], delivery.transactions)
    answers = Decoder(Transaction).decode([value for _, _, value, _ in records])
    assert len(answers) == delivery.transactions
    for (_, _, _, written_ms), answer in zip(records, answers, strict=True):
        assert isinstance(answer, Transaction)
        assert isinstance(answer.event_time, int)
        assert 0 <= written_ms - answer.event_time < 500


@pytest.mark.stack
def test_a_topic_that_does_not_exist_is_named(bootstrap: str) -> None:
    with pytest.raises(KafkaUnavailableError, match="no-such-topic"):
        KafkaSink(bootstrap).require([f"no-such-topic-{uuid.uuid4().hex}"])
