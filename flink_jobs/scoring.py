"""The scoring job: transactions in, decisions out.

    flink run -d -py flink_jobs/scoring.py [--bootstrap HOST:PORT] [--start earliest] ...

    Kafka -> shard -> micro-batch -> user stage -> terminal stage -> Kafka
                                         |             |  ^ model updates, rules (broadcast)
                                    dead letters   anomalies

The JVM groups records into micro-batches before Python sees them, so the price of crossing into Python is
paid once per batch. `python flink_jobs/scoring.py --input FILE --output DIR` runs the same job on an
embedded Flink, from a file of JSON lines.
"""

import os
import sys
import time
from pathlib import Path

if __name__ == "__main__":  # `flink run -py` puts the script's own folder on the path
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pydantic import ValidationError
from pydantic_settings import CliApp
from pyflink.common import Configuration, Types
from pyflink.common.typeinfo import TypeInformation
from pyflink.datastream import DataStream, KeyedStream, OutputTag, StreamExecutionEnvironment
from pyflink.java_gateway import get_gateway
from pyflink.table import StreamTableEnvironment

from flink_jobs import files, kafka
from flink_jobs.settings import ScoringSettings
from flink_jobs.shards import shard_keys
from models.artefact import ModelRefusedError, load_model
from models.signing import KeyFileError, Keyring
from operators.terminal_stage import ANOMALIES, CONTROL, TerminalStage, TerminalStageSettings
from operators.user_stage import BYTES, DEAD_LETTERS, UserStage, UserStageSettings
from state.contract import DAY_MS

RAW_BATCH = Types.ROW(
    [Types.OBJECT_ARRAY(BYTES), Types.OBJECT_ARRAY(Types.STRING()), Types.OBJECT_ARRAY(Types.LONG())]
)
KEYED_BATCH = Types.ROW_NAMED(["shard", "batch"], [Types.INT(), RAW_BATCH])
SUB_BATCH = Types.ROW_NAMED(["shard", "batch"], [Types.INT(), BYTES])
DECISIONS = Types.ROW_NAMED(["ks", "vs"], [Types.OBJECT_ARRAY(BYTES), Types.OBJECT_ARRAY(BYTES)])
CONTROL_RECORD = Types.ROW_NAMED(
    ["topic", "key", "payload", "partition", "offset"],
    [Types.STRING(), Types.STRING(), BYTES, Types.INT(), Types.LONG()],
)


def configuration(settings: ScoringSettings) -> Configuration:
    """What the job needs of Flink wherever it runs; the rest is up to the cluster."""
    config = Configuration()
    config.set_string("pipeline.object-reuse", "true")
    config.set_string("pipeline.max-parallelism", str(settings.shards))
    config.set_string("parallelism.default", str(settings.width))
    config.set_string("execution.buffer-timeout.interval", "2 ms")
    config.set_string("python.execution-mode", settings.execution)
    config.set_string("table.exec.uid.generation", "ALWAYS")
    if settings.input is not None:
        config.set_string("python.executable", sys.executable)
        config.set_string("python.client.executable", sys.executable)
        config.set_string("restart-strategy.type", "none")  # a failure is shown, not retried
        config.set_string("taskmanager.numberOfTaskSlots", str(2 * settings.width))
    else:
        config.set_string("execution.checkpointing.interval", f"{int(settings.checkpoint_s * 1000)} ms")
    return config


class Scoring:
    """The job's graph, from its settings."""

    def __init__(self, settings: ScoringSettings, keyring: Keyring) -> None:
        self._settings = settings
        self._keyring = keyring
        self._env = StreamExecutionEnvironment.get_execution_environment(configuration(settings))
        self._tables = StreamTableEnvironment.create(self._env)
        self._keys = shard_keys(settings.shards)
        self._io = files if settings.input is not None else kafka

    def build(self) -> StreamExecutionEnvironment:
        """Wire everything; the returned environment is ready to execute."""
        settings = self._settings
        letter_bytes = self._io.check(settings)
        users = self._user_stage(self._micro_batches(), letter_bytes)
        terminals = self._terminal_stage(users, letter_bytes)
        self._tables.create_temporary_view("decided", terminals)
        self._tables.create_temporary_view("anomalous", side_output(terminals, ANOMALIES))
        self._tables.create_temporary_view(
            "dead", side_output(users, DEAD_LETTERS).union(side_output(terminals, DEAD_LETTERS))
        )
        inserts = self._tables.create_statement_set()
        for sink, query in (
            ("decisions", "SELECT ks[n], v FROM decided CROSS JOIN UNNEST(vs) WITH ORDINALITY AS T(v, n)"),
            ("anomalies", "SELECT k, v FROM anomalous"),
            ("dead_letter", "SELECT CAST(NULL AS BYTES), v FROM dead AS T(v)"),
        ):
            inserts.add_insert_sql(self._io.insert(settings, self._tables, sink, query))
        inserts.attach_as_datastream()
        return self._env

    def _micro_batches(self) -> KeyedStream:
        """Raw records grouped per user shard over a short window, as a stream keyed by shard."""
        settings = self._settings
        self._io.source(settings, self._tables)
        shards = settings.shards
        user = "k" if settings.key_from == "key" else "JSON_VALUE(CAST(v AS STRING), '$.user_id')"
        shard = f"MOD(MOD(HASH_CODE(COALESCE({user}, '')), {shards}) + {shards}, {shards}) + 1"
        keys = ", ".join(map(str, self._keys))
        self._tables.execute_sql(
            f"CREATE TEMPORARY VIEW by_user AS SELECT ARRAY[{keys}][{shard}] AS shard, "
            "k, v, source_position, batch_time FROM records"
        )
        length = f"INTERVAL '{settings.batch_ms / 1000}' SECOND"
        batches = self._tables.sql_query(
            "SELECT shard, ROW(ARRAY_AGG(v), ARRAY_AGG(k), ARRAY_AGG(source_position)) AS batch FROM "
            f"TABLE(TUMBLE(TABLE by_user, DESCRIPTOR(batch_time), {length})) "
            "GROUP BY shard, window_start, window_end"
        )
        return keyed(at_once(self._tables.to_append_stream(batches, KEYED_BATCH)), KEYED_BATCH)

    def _user_stage(self, batches: KeyedStream, letter_bytes: int) -> DataStream:
        settings = self._settings
        stage = UserStage(
            UserStageSettings(
                transactions_topic=self._io.source_name(settings),
                labels_topic=settings.topic("labels"),
                shard_keys=self._keys,
                max_future_ms=settings.max_future_s * 1000,
                max_dead_letter_bytes=letter_bytes,
                state_ttl_days=settings.state_ttl_days,
                checks_key=settings.key_from == "key",
            )
        )
        return at_once(batches.process(stage, SUB_BATCH).name("user stage").uid("user-stage"))

    def _terminal_stage(self, users: DataStream, letter_bytes: int) -> DataStream:
        settings = self._settings
        control = self._tables.to_append_stream(
            self._tables.sql_query("SELECT `topic`, k, v, `partition`, `offset` FROM control"), CONTROL_RECORD
        )
        keeps_decisions = settings.keep_decisions and self._io is kafka
        stage = TerminalStage(
            TerminalStageSettings(
                model=str(settings.model.resolve()) if settings.model is not None else None,
                keyring=self._keyring,
                shard_keys=self._keys,
                risk_delay_ms=int(settings.risk_delay_days * DAY_MS),
                state_ttl_days=settings.state_ttl_days,
                model_updates_topic=settings.topic("model-updates"),
                submitted_at_ms=int(time.time() * 1000),
                thread_mode=settings.execution == "thread",
                decisions_topic=settings.topic("decisions") if keeps_decisions else None,
                kafka_client=kafka.client_config(settings),
                drift_hours=settings.drift_hours,
                alerts_per_day=(settings.alerts_per_day or 0.0) / settings.width,
                max_dead_letter_bytes=letter_bytes,
            )
        )
        return (
            keyed(users, SUB_BATCH)
            .connect(control.broadcast(CONTROL))
            .process(stage, DECISIONS)
            .name("terminal stage")
            .uid("terminal-stage")
            # Two Python stages in one process would fight for the interpreter's lock.
            .slot_sharing_group("terminal")
        )


def keyed(stream: DataStream, row_type: TypeInformation) -> KeyedStream:
    """Key by the first field; the function receives the second. `key_by(lambda)` would add a Python hop."""
    selector = get_gateway().jvm.KeyByKeySelector()
    java = stream._j_data_stream.keyBy(selector, Types.ROW([Types.INT()]).get_java_type_info())
    return KeyedStream(java, row_type, stream)


def at_once(stream: DataStream) -> DataStream:
    """Send every element on as it comes: it is a batch already, and waiting for more would only delay it."""
    stream._j_data_stream.getTransformation().setBufferTimeout(0)
    return stream


def side_output(stream: DataStream, tag: OutputTag) -> DataStream:
    """A side output as it is; `get_side_output` would add a Python map."""
    return DataStream(stream._j_data_stream.getSideOutput(tag.get_java_output_tag()))


def main() -> None:
    """Submit the job; with `flink run` to the cluster, else to an embedded one."""
    # An embedded Flink takes the interpreter from the path, whatever python.executable says.
    os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    try:
        settings = CliApp.run(ScoringSettings)
        keyring = Keyring.read(settings.trusted_keys, settings.allow_unsigned)
        if settings.model is not None:
            load_model(settings.model, keyring)
        env = Scoring(settings, keyring).build()
    except (ValidationError, KeyFileError, ModelRefusedError, kafka.TopicsError) as error:
        sys.exit(f"scoring: {error}")
    env.execute(settings.job_name)


if __name__ == "__main__":
    main()
