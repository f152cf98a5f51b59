"""The AsyncAPI description of all topics, made from the structs."""

from typing import Any

import msgspec
import yaml

from events.avro import stem_of, summary_of
from events.topics import TOPICS, Topic

_BINDING = "0.5.0"


def document() -> str:
    """The AsyncAPI 3.0 document as YAML."""
    record_types = [topic.record_type for topic in TOPICS]
    _, schemas = msgspec.json.schema_components(record_types, ref_template="#/components/schemas/{name}")
    tree = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "fraudstream",
            "version": "1",
            "description": (
                "Real-time card-fraud detection. A value that does not keep to its schema goes to dead-letter "  # noqa: E501
                "with reason, field, topic, partition and offset. Keys of a JSON object must be unique; unknown "  # noqa: E501
                "ones are ignored, save in a rule, which is refused. An Avro value carries its schema in Confluent's framing or as the fingerprint "  # noqa: E501
                "of the single-object encoding."
            ),
        },
        "defaultContentType": "application/json",
        "channels": {topic.name: _channel(topic) for topic in TOPICS},
        "operations": {_operation_name(topic): _operation(topic) for topic in TOPICS},
        "components": {
            "messages": {name: message for topic in TOPICS for name, message in _messages(topic).items()},
            "schemas": schemas,
        },
    }
    text: str = yaml.dump(tree, Dumper=_WithoutAliases, sort_keys=False, width=110, allow_unicode=True)
    return text


class _WithoutAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's signature
        return True


def _channel(topic: Topic) -> dict[str, Any]:
    kafka: dict[str, Any] = {"topic": topic.name, "bindingVersion": _BINDING}
    if topic.compacted:
        kafka["topicConfiguration"] = {"cleanup.policy": ["compact"]}
    return {
        "address": topic.name,
        "description": summary_of(topic.record_type),
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in _messages(topic)},
        "bindings": {"kafka": kafka},
    }


def _operation_name(topic: Topic) -> str:
    return f"{'receive' if topic.from_outside else 'send'}-{topic.name}"


def _operation(topic: Topic) -> dict[str, Any]:
    return {
        "action": "receive" if topic.from_outside else "send",
        "channel": {"$ref": f"#/channels/{topic.name}"},
        "messages": [{"$ref": f"#/channels/{topic.name}/messages/{name}"} for name in _messages(topic)],
    }


def _messages(topic: Topic) -> dict[str, dict[str, Any]]:
    """The JSON message of a topic and, where it comes from outside, its Avro twin; by name."""
    name = topic.record_type.__name__
    kafka: dict[str, Any] = {"bindingVersion": _BINDING}
    if topic.key:
        kafka["key"] = {"type": "string", "description": " or else ".join(topic.key)}
    messages: dict[str, dict[str, Any]] = {
        name: {
            "contentType": "application/json",
            "payload": {"$ref": f"#/components/schemas/{name}"},
            "bindings": {"kafka": kafka},
            "examples": [{"payload": msgspec.to_builtins(topic.example)}],
        }
    }
    if topic.from_outside:
        messages[f"{name}Avro"] = {
            "contentType": "avro/binary",
            "payload": {
                "schemaFormat": "application/vnd.apache.avro;version=1.9.0",
                "schema": {"$ref": f"schemas/{stem_of(topic.record_type)}.avsc"},
            },
            "bindings": {
                "kafka": kafka | {"schemaIdLocation": "payload", "schemaIdPayloadEncoding": "confluent"}
            },
        }
    return messages
