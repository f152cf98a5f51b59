"""The generated description is current, complete, and true of what the decoder takes."""

from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import yaml

from events.__main__ import FOLDER, generated, main
from events.asyncapi import document
from events.topics import TOPICS, Topic

TREE: dict[str, Any] = yaml.safe_load(document())


def test_committed_files_are_current(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 0, capsys.readouterr().err


def test_check_names_stale_and_missing_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate"], tmp_path) == 0
    assert main(["check"], tmp_path) == 0
    (tmp_path / "schemas/rule.avsc").unlink()
    (tmp_path / "asyncapi.yaml").write_text("asyncapi: 2.0.0\n")

    assert main(["check"], tmp_path) == 1
    errors = capsys.readouterr().err
    assert "events/asyncapi.yaml" in errors
    assert "events/schemas/rule.avsc" in errors
    assert "transaction.avsc" not in errors


def test_generation_is_deterministic() -> None:
    assert dict(generated()) == dict(generated())


def test_all_topics_of_the_design_are_described() -> None:
    assert list(TREE["channels"]) == [
        "transactions", "decisions", "anomalies", "feedback", "labels", "model-updates", "rules",
        "examples", "online-commands", "audit", "alerts", "dead-letter",
    ]  # fmt: skip
    compacted = [
        name
        for name, channel in TREE["channels"].items()
        if "topicConfiguration" in channel["bindings"]["kafka"]
    ]
    assert compacted == ["model-updates", "rules"]


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if "$ref" in node else []
        return own + [reference for child in node.values() for reference in _references(child)]
    if isinstance(node, list):
        return [reference for child in node for reference in _references(child)]
    return []


def test_every_reference_leads_somewhere() -> None:
    references = _references(TREE)
    assert len(references) > 50
    for reference in references:
        if not reference.startswith("#/"):
            assert (FOLDER / reference).is_file()
            continue
        node = TREE
        for part in reference[2:].split("/"):
            node = node[part]


def _validator(name: str) -> jsonschema.Draft202012Validator:
    schema = {"$ref": f"#/components/schemas/{name}", "components": TREE["components"]}
    return jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_examples_keep_to_their_schema(topic: Topic) -> None:
    name = topic.record_type.__name__
    [example] = TREE["components"]["messages"][name]["examples"]

    _validator(name).validate(example["payload"])
    assert msgspec.convert(example["payload"], topic.record_type) == topic.example


@pytest.mark.parametrize(
    "change",
    [
        {"amount": -1},
        {"user_id": "a;b"},
        {"country": "fr"},
        {"ip": "1.2.3"},
        {"event_time": 5},
        {"amount": None},
    ],
    ids=str,
)
def test_the_schema_refuses_what_the_decoder_refuses(change: dict[str, Any]) -> None:
    [example] = TREE["components"]["messages"]["Transaction"]["examples"]

    with pytest.raises(jsonschema.ValidationError):
        _validator("Transaction").validate(example["payload"] | change)
