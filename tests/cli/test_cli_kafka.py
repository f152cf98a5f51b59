"""What the commands send to a real broker and read from it."""

import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import Producer
from typer.testing import CliRunner

from cli import kafka
from cli.main import app
from events.audit import AuditEvent
from events.codec import Decoder
from events.control import ModelUpdate, OnlineCommand, OnlineWeights, Rule, Thresholds
from events.decision import DeadLetter, Decision
from events.feedback import Feedback
from events.topics import TOPICS
from models.signing import generate_keys, read_private_key
from serving import broker as kafka_broker
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
    return [value for _, value in kafka_broker.stored(kafka.client_config(broker, None), topic, None)]


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


def rules_of(broker: str) -> dict[str, dict[str, Any]]:
    return {rule["rule_id"]: rule for rule in json.loads(ask(broker, "rules", "list", "--json").text)}


def test_rules_arrive_as_the_job_reads_them(broker: str) -> None:
    example = EXAMPLES["rules"]
    assert "there are no rules" in ask(broker, "rules", "list").text
    put = ask(broker, "rules", "put", "-", stdin=msgspec.json.encode(example))
    assert "rule night-electronics, version 3, live: rules[0]@0" in put.text
    deleted = ask(broker, "rules", "delete", "night-electronics")
    assert "rule night-electronics deleted: rules[0]@1" in deleted.text
    assert [msgspec.json.decode(value, type=Rule) for value in held(broker, "rules")] == [example]
    assert rules_of(broker) == {}


def test_the_life_of_a_rule(broker: str, tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    text = """
        - {rule_id: large, owner: o, verdict: block, shadow: true, description: Zu groß,
           all: [{feature: amount, operator: ">", value: LIMIT}]}
        - {rule_id: users, owner: o, verdict: block,
           all: [{field: user_id, operator: in, values: ["7", b, c, d]}]}
        """

    def put(limit: int, *options: str) -> str:
        file.write_text(text.replace("LIMIT", str(limit)))
        return ask(broker, "rules", "put", file, *options).text

    assert "rule large, version 1, shadow: " in put(100)
    assert put(100) == "rule large, version 1: unchanged rule users, version 1: unchanged"
    assert "rule large, version 2, shadow: " in put(200)
    assert "large, version 3, live: " in ask(broker, "rules", "enable", "large", "--live").text
    assert "large, version 4, disabled: " in ask(broker, "rules", "disable", "large").text
    assert "large, version 5, live: " in ask(broker, "rules", "enable", "large").text
    assert rules_of(broker)["large"]["state"] == "live"

    shown = ask(broker, "rules", "list").text
    assert "large 5 o block live amount > 200" in shown
    assert "users 1 o block (block list) live user_id in [7, b, c, 1 more]" in shown
    whole = fraudstream("rules", "show", "large", "--bootstrap", broker)
    assert "description: Zu groß" in whole.text
    raw = CliRunner().invoke(app, ["rules", "show", "users", "--bootstrap", broker]).output
    assert "unchanged" in ask(broker, "rules", "put", "-", stdin=raw.encode()).text

    file.write_text(raw.replace("- d", "- e"))
    assert "version 1 is not newer than 1" in ask(broker, "rules", "put", file).text
    assert "rule large, version 6, shadow: " in put(300, "--days", "30")
    ends = rules_of(broker)["users"]["expires_at"]
    assert ends == pytest.approx(1000 * (time.time() + 30 * 86_400), abs=60_000)
    for rule_id in ("large", "users"):
        assert ask(broker, "rules", "delete", rule_id).status == 0
    for command in ("show", "delete", "disable", "enable"):
        assert "there is no rule large" in ask(broker, "rules", command, "large").text


def test_what_no_job_takes_is_listed_and_can_be_deleted(broker: str) -> None:
    produce(broker, "rules", "rubbish", b"{\x1b[31m")
    produce(broker, "rules", "other", msgspec.json.encode(EXAMPLES["rules"]))
    found = rules_of(broker)
    assert {name: rule["state"] for name, rule in found.items()} == {"rubbish": "refused", "other": "refused"}
    assert "malformed_json" in found["rubbish"]["refused"]
    assert "night-electronics under another key" in found["other"]["refused"]
    assert "refused" in ask(broker, "rules", "list").text
    assert "refused by the jobs" in ask(broker, "rules", "show", "rubbish").text
    assert "refused by the jobs" in ask(broker, "rules", "disable", "rubbish").text
    assert "near are rubbish" in ask(broker, "rules", "delete", "rubish").text
    for name in found:
        assert ask(broker, "rules", "delete", name).status == 0
    assert rules_of(broker) == {}


def test_feedback_arrives_as_the_job_reads_it(broker: str) -> None:
    example = EXAMPLES["feedback"]
    assert isinstance(example, Feedback)
    sent = [msgspec.structs.replace(example, transaction_id=f"tx-{n}") for n in range(3000)]
    lines = b"\n".join([*map(msgspec.json.encode, sent), b"{}"])
    said = ask(broker, "feedback", "send", "-", stdin=lines)
    assert said.status == 1
    assert "line 3001: " in said.text
    assert said.text.endswith("3,000 sent, 1 refused, 0 not acknowledged")
    stored = {f.transaction_id: f for f in Decoder(Feedback).decode(held(broker, "feedback"))
              if isinstance(f, Feedback)}  # fmt: skip
    assert [stored[f.transaction_id] for f in sent] == sent


def test_the_examples_of_the_documentation_send_what_the_job_reads(
    broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(__file__).resolve().parents[2]
    monkeypatch.chdir(root)
    examples = re.findall(r"```python\n(.*?)```", (root / "docs" / "feedback.md").read_text(), re.DOTALL)
    for example in examples:
        exec(example.replace("127.0.0.1:9092", broker), {})
    records = Decoder(Feedback).decode(held(broker, "feedback"))
    named = {r.transaction_id: r.label for r in records if isinstance(r, Feedback)}
    assert len(examples) == 2
    assert (named["tx-42"], named["tx-43"]) == ("fraud", "legitimate")


def test_the_online_learner_is_told_and_asked(broker: str) -> None:
    update, event = EXAMPLES["model-updates"], EXAMPLES["audit"]
    assert isinstance(update, ModelUpdate)
    assert isinstance(event, AuditEvent)
    weights = OnlineWeights(
        version="online-3", features_sha256="0" * 64, features=[], centre=[], scale=[], limit=4.0, weight=[],
        offline=1.0, bias=0.0, share=0.25,
    )  # fmt: skip
    live = msgspec.structs.replace(update, slot="online", thresholds=None, online=weights)

    def status() -> Any:
        return json.loads(ask(broker, "online", "status", "--json").text)

    assert "the ensemble alone" in ask(broker, "online", "status").text
    for command in ("promote", "rollback", "freeze", "unfreeze"):
        said = ask(broker, "online", command, "--by", "tester", "--reason", "a test")
        assert f"{command}: online-commands[0]@" in said.text
    commands = [msgspec.json.decode(value, type=OnlineCommand) for value in held(broker, "online-commands")]
    assert [c.command for c in commands] == ["promote", "rollback", "freeze", "unfreeze"]
    assert len({c.command_id for c in commands}) == 4

    produce(broker, "model-updates", "online", msgspec.json.encode(live))
    produce(broker, "model-updates", "online", b"rubbish")
    fill(broker, "audit", [msgspec.structs.replace(event, event_id=f"e-{n}") for n in (1, 2, 2)])
    fill(broker, "audit", [msgspec.structs.replace(event, event_id="e-3", step="frozen")])
    found = status()
    assert (found["live"], found["share"], found["since"]) == ("online-3", 0.25, update.issued_at)
    assert found["frozen"] is True
    assert [step["event_id"] for step in found["steps"]] == ["e-1", "e-2", "e-3"]
    assert "online-3, share 0.25" in ask(broker, "online", "status").text

    produce(broker, "model-updates", "online", None)
    fill(broker, "audit", [msgspec.structs.replace(event, event_id="e-4", step="unfrozen")])
    found = status()
    assert (found["live"], found["frozen"]) == (None, False)


def test_safe_mode_is_switched_and_shown(broker: str) -> None:
    def status() -> Any:
        return json.loads(ask(broker, "models", "safe-mode", "status", "--json").text)

    assert status()["on"] is False
    said = ask(broker, "models", "safe-mode", "on", "--reason", "Scores ran wild.", "--by", "tester")
    assert "safe mode on: model-updates[0]@" in said.text
    found = status()
    assert (found["on"], found["reason"], found["by"]) == (True, "Scores ran wild.", "tester")
    assert "by tester: Scores ran wild." in ask(broker, "models", "safe-mode", "status").text
    refused = ask(broker, "models", "safe-mode", "on", "--reason", "")
    assert refused.status == 1
    assert "reason" in refused.text
    assert "safe mode off: model-updates[0]@" in ask(broker, "models", "safe-mode", "off").text
    assert ask(broker, "models", "safe-mode", "status").text == "off"


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
    said = ask(broker, "rules", "delete", "x", "--topic-prefix", "none.")

    assert said.status == 1
    assert "no such topic" in said.text
    assert "no such topic" in ask(broker, "dead-letters", "show", "--topic-prefix", "none.").text
