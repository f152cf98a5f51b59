"""Kafka as seen by the jobs: client properties, topics and the SQL tables over them."""

from collections.abc import Iterable, Mapping, Sequence

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, ConfigResource
from pyflink.table import StreamTableEnvironment

from flink_jobs.settings import JobSettings, Start
from operators.records import KINDS, PARTITION_UNIT

# Names that the Java and the librdkafka clients share; stores and JAAS entries are for Java alone.
JAVA_ONLY = ("ssl.truststore.", "ssl.keystore.", "sasl.jaas.")
BROKER_TIMEOUT_S = 15.0
DEFAULT_MESSAGE_BYTES = 1_048_576

METADATA = (
    "k STRING, `topic` STRING METADATA VIRTUAL, `partition` INT METADATA VIRTUAL, "
    "`offset` BIGINT METADATA VIRTUAL"
)
# A bounded input must not lose its tail: windows over processing time do at the end of the input, windows
# over event time do not. So here the time of reading is the event time, and nothing is ever this late.
BOUNDED_TIME = (
    "batch_time AS CURRENT_ROW_TIMESTAMP(), WATERMARK FOR batch_time AS batch_time - INTERVAL '2' SECOND"
)


def client_config(settings: JobSettings) -> dict[str, str]:
    """Configuration of the Python client, used for the topics and the decision log."""
    shared = {k: v for k, v in settings.kafka_properties.items() if not k.startswith(JAVA_ONLY)}
    return {"bootstrap.servers": settings.bootstrap, **shared}


def quoted(value: str) -> str:
    """A string literal of SQL."""
    return "'" + value.replace("'", "''") + "'"


def options(values: Mapping[str, str]) -> str:
    """The WITH clause of a table."""
    return "WITH (" + ", ".join(f"{quoted(k)}={quoted(v)}" for k, v in values.items()) + ")"


def source_name(settings: JobSettings) -> str:
    """What dead letters call the source of transactions."""
    return settings.topic("transactions")


def source(settings: JobSettings, tables: StreamTableEnvironment) -> None:
    """Tables `records`, transactions and labels in one source, and `control`, model updates and rules."""
    records_table(settings, tables, "records", ("transactions", "labels"), settings.group)
    # Both control topics are compacted, and read whole at every fresh start.
    values = _reading(settings, ("model-updates", "rules"), f"{settings.group}-control") | {
        "properties.fetch.max.wait.ms": "100",
        "scan.startup.mode": "earliest-offset",
    }
    tables.execute_sql(f"CREATE TABLE control ({METADATA}, v BYTES) {options(values)}")


def records_table(  # noqa: PLR0913, PLR0917 - each says where to read what
    settings: JobSettings,
    tables: StreamTableEnvironment,
    name: str,
    topics: Sequence[str],
    group: str,
    start: Start | None = None,
) -> None:
    """A table of at most KINDS topics: k, v, source_position (see `operators.records`), batch_time.

    The kind of a record is the place of its topic in `topics`. start: where to begin without a savepoint, by
    default as the settings say.
    """
    modes = {"earliest": "earliest-offset", "latest": "latest-offset", "group": "group-offsets"}
    values = _reading(settings, topics, group) | {
        "properties.auto.offset.reset": "earliest",
        # Little is gained by asking more than once for a micro-batch.
        "properties.fetch.max.wait.ms": str(max(1, settings.batch_ms - 1)),
        "properties.fetch.min.bytes": "65536",
        "properties.max.poll.records": "2000",
        "scan.startup.mode": modes[start or settings.start],
    }
    whens = (f"WHEN {quoted(settings.topic(topic))} THEN {kind}" for kind, topic in enumerate(topics))
    kind = f"CASE `topic` {' '.join(whens)} END"
    tables.execute_sql(
        f"CREATE TABLE {name} ({METADATA}, v BYTES, "
        f"source_position AS ({KINDS} * CAST(`partition` AS BIGINT) + {kind}) * {PARTITION_UNIT} + `offset`, "
        f"{BOUNDED_TIME if settings.bounded else 'batch_time AS PROCTIME()'}) {options(values)}"
    )


def insert(settings: JobSettings, tables: StreamTableEnvironment, sink: str, query: str) -> str:
    """Creates the sink and returns the INSERT that fills it with the keys and values of the query."""
    values = _connector(settings, settings.topic(sink.replace("_", "-"))) | {
        "sink.delivery-guarantee": "at-least-once",
        "properties.linger.ms": "1",  # decisions come in batches already
        "properties.max.request.size": str(16 << 20),
        "key.format": "raw",
        "key.fields": "k",
        "value.format": "raw",
        "value.fields-include": "EXCEPT_KEY",
    }
    tables.execute_sql(f"CREATE TABLE {sink} (k BYTES, v BYTES) {options(values)}")
    return f"INSERT INTO {sink} {query}"


def _connector(settings: JobSettings, topics: str) -> dict[str, str]:
    properties = {f"properties.{k}": v for k, v in settings.kafka_properties.items()}
    return {
        "connector": "kafka",
        "topic": topics,
        "properties.bootstrap.servers": settings.bootstrap,
        **properties,
    }


def _reading(settings: JobSettings, topics: Iterable[str], group: str) -> dict[str, str]:
    values = _connector(settings, ";".join(settings.topic(name) for name in topics)) | {
        "properties.group.id": group,
        "key.format": "raw",
        "key.fields": "k",
        "value.format": "raw",
        "value.fields-include": "EXCEPT_KEY",
    }
    return values | ({"scan.bounded.mode": "latest-offset"} if settings.bounded else {})


class TopicsError(RuntimeError):
    """Kafka is not as the job needs it."""


def check(settings: JobSettings, topics: Iterable[str]) -> int:
    """Largest record, in bytes, that the dead-letter topic takes.

    Raises TopicsError where no broker answers or a topic is missing, before anything is submitted.
    """
    admin = AdminClient({**client_config(settings), "log_level": "0"})
    try:
        existing = admin.list_topics(timeout=BROKER_TIMEOUT_S).topics
    except KafkaException as error:
        raise TopicsError(f"no Kafka broker answers at {settings.bootstrap}: {error}") from error
    missing = [settings.topic(name) for name in topics if settings.topic(name) not in existing]
    if missing:
        raise TopicsError(
            f"no such topic at {settings.bootstrap}: {', '.join(missing)}; `fraudstream topics` creates them"
        )
    resource = ConfigResource(ConfigResource.Type.TOPIC, settings.topic("dead-letter"))
    (future,) = admin.describe_configs([resource]).values()
    try:
        return int(future.result(BROKER_TIMEOUT_S)["max.message.bytes"].value)
    except KafkaException:
        return DEFAULT_MESSAGE_BYTES  # without the right to read configurations, Kafka's own default


def topic_ids(settings: JobSettings, topics: Iterable[str]) -> list[str]:
    """What Kafka calls the topics: one that was deleted and made again has another id.

    Raises TopicsError where the broker does not tell.
    """
    admin = AdminClient({**client_config(settings), "log_level": "0"})
    names = [settings.topic(name) for name in topics]
    try:
        described = admin.describe_topics(TopicCollection(names), request_timeout=BROKER_TIMEOUT_S)
        return [str(described[name].result(BROKER_TIMEOUT_S).topic_id) for name in names]
    except KafkaException as error:
        raise TopicsError(f"topics are not described at {settings.bootstrap}: {error}") from error
