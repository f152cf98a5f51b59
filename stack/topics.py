"""How the topics of the wire contract are kept by the broker, and their creation."""

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_random_exponential

from events.topics import TOPICS, Topic
from stack.errors import StackError

# Latency is the difference of the broker's own times of a transaction and its decision; the event's
# time is in the payload.
_BROKER_TIME = {"message.timestamp.type": "LogAppendTime"}

ELECTION_S = 60.0
"""How long a broker may take until it leads what it has created: on a busy machine longer than to answer."""
_ANSWER_S = 5.0

_CONFIG = {
    "transactions": _BROKER_TIME,
    "decisions": _BROKER_TIME,
    # A trainer that starts anew learns from all that is there; decisions are known for as long.
    "examples": {"retention.ms": str(100 * 24 * 3_600_000)},
    # A dead letter carries the original bytes, encoded, beside the reason: larger than what came in.
    "dead-letter": {"max.message.bytes": str(8 * 1024 * 1024)},
}


def definition(topic: Topic, partitions: int, replication_factor: int, prefix: str = "") -> NewTopic:
    """A topic as the broker is asked for it, its name after `prefix`.

    A topic whose order matters over all its keys has one partition.
    """
    return NewTopic(
        prefix + topic.name,
        num_partitions=1 if topic.ordered else partitions,
        replication_factor=replication_factor,
        config=_CONFIG.get(topic.name, {}) | ({"cleanup.policy": "compact"} if topic.compacted else {}),
    )


def ensure_topics(
    bootstrap: str,
    *,
    partitions: int = 4,
    replication_factor: int = 1,
    prefix: str = "",
    timeout: float = 15.0,
) -> list[str]:
    """Create the topics that do not exist yet and return their names, once their partitions answer.

    Topics that exist keep their partitions and configuration, whatever the arguments. ``timeout``
    is in seconds. Raises StackError when no broker answers at ``bootstrap`` or it refuses a topic.
    """
    # librdkafka's own complaints about a refused connection would only repeat the StackError.
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    try:
        existing = admin.list_topics(timeout=timeout).topics
    except KafkaException as error:
        raise StackError(f"no Kafka broker answers at {bootstrap} within {timeout:g} s: {error}") from error

    missing = [
        definition(topic, partitions, replication_factor, prefix)
        for topic in TOPICS
        if prefix + topic.name not in existing
    ]
    if not missing:
        return []

    created = []
    for name, future in admin.create_topics(missing, operation_timeout=timeout).items():
        try:
            future.result(timeout)
        except KafkaException as error:
            # Somebody else may have created it since the listing.
            cause = error.args[0]
            if isinstance(cause, KafkaError) and cause.code() == KafkaError.TOPIC_ALREADY_EXISTS:
                continue
            raise StackError(f"topic {name} could not be created: {error}") from error
        created.append(name)
    try:
        _await_leaders(bootstrap, [topic for topic in missing if topic.topic in created])
    except KafkaException as error:
        raise StackError(f"new topics do not answer within {ELECTION_S:g} s: {error}") from error
    return created


def _await_leaders(bootstrap: str, topics: list[NewTopic]) -> None:
    """A broker names a topic as created before it leads its partitions, and refuses them until then."""
    places = [TopicPartition(topic.topic, p) for topic in topics for p in range(topic.num_partitions)]
    wanted: dict[TopicPartition, OffsetSpec] = {place: OffsetSpec.latest() for place in places}

    @retry(
        retry=retry_if_exception_type(KafkaException),
        stop=stop_after_delay(ELECTION_S),
        wait=wait_random_exponential(0.1, max=1.0),
        reraise=True,
    )
    def ask() -> None:
        # A client that was once told of a topic without leaders has been seen to go on reporting none.
        admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
        answers = admin.list_offsets(
            wanted, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=_ANSWER_S
        )
        for answer in answers.values():
            answer.result()

    if topics:
        ask()
