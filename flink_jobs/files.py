"""JSON lines in, JSON lines out: the scoring job without Kafka, on a bounded input."""

from collections.abc import Iterable

from pyflink.table import StreamTableEnvironment

from flink_jobs.kafka import BOUNDED_TIME, options
from flink_jobs.settings import ScoringSettings

LETTER_BYTES = 64 << 20


def check(settings: ScoringSettings, _topics: Iterable[str]) -> int:
    """Largest dead letter in bytes."""
    assert settings.output is not None
    settings.output.mkdir(parents=True, exist_ok=True)
    return LETTER_BYTES


def source_name(settings: ScoringSettings) -> str:
    """What dead letters call the source of transactions."""
    assert settings.input is not None
    return settings.input.name


def source(settings: ScoringSettings, tables: StreamTableEnvironment) -> None:
    """Table `records`: the lines of the input; and table `control`, empty: there is no one to steer."""
    assert settings.input is not None
    values = {"connector": "filesystem", "path": settings.input.resolve().as_uri(), "format": "raw"}
    tables.execute_sql(
        "CREATE TABLE records (v BYTES, k AS CAST(NULL AS STRING), "
        f"source_position AS CAST(0 AS BIGINT), {BOUNDED_TIME}) "
        f"{options(values)}"
    )
    tables.execute_sql(
        "CREATE TEMPORARY VIEW control AS SELECT '' AS `topic`, '' AS k, CAST(NULL AS BYTES) AS v, "
        "0 AS `partition`, CAST(0 AS BIGINT) AS `offset` FROM (VALUES (1)) AS T(x) WHERE x = 0"
    )


def insert(settings: ScoringSettings, tables: StreamTableEnvironment, sink: str, query: str) -> str:
    """Creates the sink, a folder of JSON lines, and returns the INSERT of the values of the query."""
    assert settings.output is not None
    values = {"connector": "filesystem", "path": (settings.output.resolve() / sink).as_uri(), "format": "raw"}
    tables.execute_sql(f"CREATE TABLE {sink} (v BYTES) {options(values)}")
    return f"INSERT INTO {sink} SELECT v FROM ({query}) AS T(k, v)"
