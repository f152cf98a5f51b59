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
from pyflink.datastream import DataStream, KeyedStream, StreamExecutionEnvironment
from pyflink.table import StreamTableEnvironment

from flink_jobs import files, kafka, streams
from flink_jobs.settings import ScoringSettings
from flink_jobs.shards import shard_keys
from flink_jobs.streams import at_once, keyed, micro_batches, side_output
from models.artefact import ModelRefusedError, load_model
from models.signing import KeyFileError, Keyring
from operators.records import BYTES, DEAD_LETTERS
from operators.terminal_stage import ANOMALIES, CONTROL, TerminalStage, TerminalStageSettings
from operators.user_stage import UserStage, UserStageSettings
from state.contract import DAY_MS

SUB_BATCH = Types.ROW_NAMED(["shard", "batch"], [Types.INT(), BYTES])
DECISIONS = Types.ROW_NAMED(["ks", "vs"], [Types.OBJECT_ARRAY(BYTES), Types.OBJECT_ARRAY(BYTES)])
CONTROL_RECORD = Types.ROW_NAMED(
    ["topic", "key", "payload", "partition", "offset"],
    [Types.STRING(), Types.STRING(), BYTES, Types.INT(), Types.LONG()],
)

TOPICS = ("transactions", "labels", "model-updates", "rules", "decisions", "anomalies", "dead-letter")


def configuration(settings: ScoringSettings) -> Configuration:
    """That of any job; on an embedded Flink, which a file is read with, there is no cluster to add to it."""
    config = streams.configuration(settings)
    if settings.input is not None:
        config.set_string("python.executable", sys.executable)
        config.set_string("python.client.executable", sys.executable)
        config.set_string("restart-strategy.type", "none")  # a failure is shown, not retried
        config.set_string("taskmanager.numberOfTaskSlots", str(2 * settings.width))
        config.remove_config("execution.checkpointing.interval")  # the embedded storage holds 5 MB
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
        letter_bytes = self._io.check(settings, TOPICS)
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
        """Raw records of one user shard each."""
        settings = self._settings
        self._io.source(settings, self._tables)
        user = "k" if settings.key_from == "key" else "JSON_VALUE(CAST(v AS STRING), '$.user_id')"
        records = f"SELECT {user} AS entity, k, v, source_position, batch_time FROM records"
        return micro_batches(self._tables, "by_user", records, self._keys, settings.batch_ms)

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
                explore_share=settings.explore_share,
                explore_seed=settings.explore_seed,
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
