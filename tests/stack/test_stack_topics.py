"""What the broker is asked for."""

import socket

import pytest
from confluent_kafka.admin import NewTopic

from events.topics import TOPICS
from stack.errors import StackError
from stack.topics import definition, ensure_topics


def _defined(partitions: int = 4) -> dict[str, NewTopic]:
    return {topic.name: definition(topic, partitions, 1) for topic in TOPICS}


def test_ordered_topics_have_one_partition_and_the_others_as_many_as_asked() -> None:
    partitions = {name: topic.num_partitions for name, topic in _defined(partitions=6).items()}

    ordered = {"model-updates", "rules", "examples", "online-commands", "audit"}
    assert {name for name, count in partitions.items() if count == 1} == ordered
    assert {count for name, count in partitions.items() if name not in ordered} == {6}


def test_configuration_of_the_topics() -> None:
    configured = {name: topic.config for name, topic in _defined().items() if topic.config}

    assert configured == {
        "transactions": {"message.timestamp.type": "LogAppendTime"},
        "decisions": {"message.timestamp.type": "LogAppendTime"},
        "model-updates": {"cleanup.policy": "compact"},
        "rules": {"cleanup.policy": "compact"},
        "examples": {"retention.ms": "8640000000"},
        "dead-letter": {"max.message.bytes": "8388608"},
    }


def test_a_broker_that_does_not_answer_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        bootstrap = f"127.0.0.1:{silent.getsockname()[1]}"

        with pytest.raises(StackError, match=f"no Kafka broker answers at {bootstrap} within 0.5 s"):
            ensure_topics(bootstrap, timeout=0.5)
