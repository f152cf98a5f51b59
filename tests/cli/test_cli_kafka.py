"""What the commands send to a real broker and read from it."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Producer

from cli import kafka
from events.control import ModelUpdate, Rule, Thresholds
from events.decision import DeadLetter, Decision
from events.topics import TOPICS
from models.signing import generate_keys, read_private_key
from stack.cluster import isolated_stack
from tests.cli.commands import Said, fraudstream
from tests.models.artefacts import write_small

pytestmark = pytest.mark.stack

EXAMPLES = {topic.name: topic.example for topic in TOPICS}


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    with isolated_stack(names=("kafka",)) as cluster:
        cluster.topics("")
        yield cluster.bootstrap


def ask(broker: str, *arguments: str | Path, stdin: bytes | None = None) -> Said:
    return fraudstream(*arguments, "--bootstrap", broker, stdin=stdin)


def held(broker: str, topic: str) -> list[bytes]:
    return [value for _, value in kafka.stored(kafka.client_config(broker, None), topic, None)]


def produce(broker: str, topic: str, key: str, value: bytes | None) -> None:
    producer = Producer({"bootstrap.servers": broker})
    producer.produce(topic, value, key)
    assert producer.flush(10) == 0


def fill(broker: str, topic: str, records: list[msgspec.Struct]) -> None:
    """Write records one by one, over all partitions, so that their broker times ascend."""
    producer = Producer({"bootstrap.servers": broker})
    for i, record in enumerate(records):
        producer.produce(topic, msgspec.json.encode(record), f"key-{i}")
        assert producer.flush(10) == 0


def test_topics_are_created_once(broker: str) -> None:
    assert "created twice.transactions" in ask(broker, "topics", "--topic-prefix", "twice.").text
    assert ask(broker, "topics", "--topic-prefix", "twice.") == (0, "all topics exist")


def in_force(broker: str, slot: str) -> ModelUpdate:
    updates = [msgspec.json.decode(value, type=ModelUpdate) for value in held(broker, "model-updates")]
    return [update for update in updates if update.slot == slot][-1]


def test_thresholds_arrive_as_the_job_reads_them(broker: str) -> None:
    for arguments in (("0.2,0.8",), ("--remove",)):
        said = ask(broker, "models", "thresholds", *arguments)
        assert said.status == 0, said.text
        assert "model-updates[0]@" in said.text
    assert in_force(broker, "thresholds").thresholds == Thresholds(0.2, 0.8)


def test_models_are_promoted_and_rolled_back(broker: str, tmp_path: Path) -> None:
    private, _ = generate_keys(tmp_path / "keys")
    key = read_private_key(private)
    registry = tmp_path / "registry"
    for name in ("a", "b", "c"):
        write_small(registry / name, key, model_version=f"gbt-{name}")
    trust = ("--trusted-keys", tmp_path / "keys")
    known = (*trust, "--registry", registry)

    def in_use() -> str:
        listing = json.loads(ask(broker, "models", "list", *known, "--json").text)
        assert listing["unknown"] is None
        return Path(listing["promoted"] or "nothing").name

    def rolled_back() -> Said:
        return ask(broker, "models", "rollback", *trust, "--by", "tester")

    assert in_use() == "nothing"
    assert "no artefact was promoted before" in rolled_back().text
    for name in ("a", "b", "c", "c"):
        said = ask(broker, "models", "promote", f"gbt-{name}", *known, "--by", "tester")
        assert f"model gbt-{name}: model-updates[0]@" in said.text
        assert in_use() == name
    update = in_force(broker, "model")
    assert update.artefact == str((registry / "c").resolve())
    assert update.issued_by == "tester"
    assert "gbt-c" in ask(broker, "models", "list", *known).text

    produce(broker, "model-updates", "model", b"rubbish")
    assert in_use() == "c", "what no job can read changes nothing"

    assert "back to model gbt-b" in rolled_back().text
    assert in_use() == "b"
    (registry / "a" / "trees.onnx").write_bytes(b"spoilt")
    said = rolled_back()
    assert said.status == 1
    assert "SHA-256" in said.text
    assert in_use() == "b"

    shutil.rmtree(registry / "a")
    write_small(registry / "a", key, model_version="gbt-a")
    assert "back to model gbt-a" in rolled_back().text
    assert in_use() == "a"
    assert "no artefact was promoted before" in rolled_back().text
    assert in_use() == "a"

    produce(broker, "model-updates", "model", None)
    assert in_use() == "nothing"


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
