"""What the commands send to a real broker and read from it."""

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Producer

from cli import kafka
from events.control import ModelUpdate, Rule
from events.decision import DeadLetter, Decision
from events.topics import TOPICS
from flink_jobs.settings import FIRST_MODEL
from stack import services
from stack.settings import Settings
from tests.cli.commands import Said, fraudstream

pytestmark = pytest.mark.stack

EXAMPLES = {topic.name: topic.example for topic in TOPICS}


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    port, controller = (int(s.getsockname()[1]) for s in sockets)
    for s in sockets:
        s.close()
    with tempfile.TemporaryDirectory(prefix="fs-") as home:
        settings = Settings(
            home=Path(home), downloads=Settings().downloads, kafka_port=port, kafka_controller_port=controller
        )
        try:
            services.up(settings, ["kafka"])
            yield settings.kafka_bootstrap
        finally:
            services.down(settings.home, wipe=True)


def ask(broker: str, *arguments: str | Path, stdin: bytes | None = None) -> Said:
    return fraudstream(*arguments, "--bootstrap", broker, stdin=stdin)


def held(broker: str, topic: str) -> list[bytes]:
    return [value for _, value in kafka.stored(kafka.client_config(broker, None), topic, None)]


def fill(broker: str, topic: str, records: list[msgspec.Struct]) -> None:
    """Write records one by one, over all partitions, so that their broker times ascend."""
    producer = Producer({"bootstrap.servers": broker})
    for i, record in enumerate(records):
        producer.produce(topic, msgspec.json.encode(record), f"key-{i}")
        assert producer.flush(10) == 0


def test_topics_are_created_once(broker: str) -> None:
    assert "created twice.transactions" in ask(broker, "topics", "--topic-prefix", "twice.").text
    assert ask(broker, "topics", "--topic-prefix", "twice.") == (0, "all topics exist")


def test_model_updates_arrive_as_the_job_reads_them(broker: str) -> None:
    for arguments in ((FIRST_MODEL,), ("--thresholds", "0.2,0.8"), ("--remove", "thresholds")):
        said = ask(broker, "model", "send", *arguments)
        assert said.status == 0, said.text
        assert "model-updates[0]@" in said.text

    model, thresholds = (
        msgspec.json.decode(value, type=ModelUpdate) for value in held(broker, "model-updates")
    )
    assert model.artefact == str(FIRST_MODEL)
    assert thresholds.thresholds is not None
    assert (thresholds.thresholds.review, thresholds.thresholds.block) == (0.2, 0.8)


def test_rules_arrive_as_the_job_reads_them(broker: str) -> None:
    rule = EXAMPLES["rules"]
    assert (
        "rule night-electronics, version 3: rules[0]@0"
        in ask(broker, "rule", "send", "-", stdin=msgspec.json.encode(rule)).text
    )
    assert "rules[0]@1" in ask(broker, "rule", "send", "--remove", "night-electronics").text
    assert [msgspec.json.decode(value, type=Rule) for value in held(broker, "rules")] == [rule]


def test_the_newest_decisions_over_all_partitions(broker: str) -> None:
    example = EXAMPLES["decisions"]
    assert isinstance(example, Decision)
    assert "there are no decisions" in ask(broker, "decisions", "show").text
    fill(
        broker,
        "decisions",
        [msgspec.structs.replace(example, transaction_id=f"tx-{i:02}") for i in range(20)],
    )

    newest = ask(broker, "decisions", "show", "--limit", "5")
    assert [f"tx-{i:02}" in newest.text for i in range(20)] == [i >= 15 for i in range(20)]
    assert "tx-03" in ask(broker, "decisions", "show", "--transaction", "tx-03", "--limit", "1").text


def test_dead_letters_of_the_topic(broker: str) -> None:
    example = EXAMPLES["dead-letter"]
    assert isinstance(example, DeadLetter)
    fill(broker, "dead-letter", [example, msgspec.structs.replace(example, reason="empty", payload=b"")])

    assert ask(broker, "dead-letters", "show").text.endswith("out_of_range 1, empty 1")
    assert ask(broker, "dead-letters", "show", "--reason", "empty").text.endswith("empty 1")


def test_a_topic_that_does_not_exist_is_not_made(broker: str) -> None:
    said = ask(broker, "rule", "send", "--remove", "x", "--topic-prefix", "none.")

    assert said.status == 1
    assert "no such topic" in said.text
    assert "no such topic" in ask(broker, "dead-letters", "show", "--topic-prefix", "none.").text
