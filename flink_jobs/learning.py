"""The learning job: decisions and feedback in, labels, examples and online weights out.

    flink run -d -py flink_jobs/learning.py [--bootstrap HOST:PORT] ...

    decisions, feedback -> shard of transactions -> micro-batch -> feedback join -> labels, examples,
                                                                        |           feedback (sent again)
                                                                   dead letters
    examples, online-commands -> micro-batch -> trainer -> model updates, audit

The two halves meet in the topic `examples`, which has one partition: its order is the order that labels are
learnt in, however often the job starts again.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # `flink run -py` puts the script's own folder on the path
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pydantic import ValidationError
from pydantic_settings import CliApp
from pyflink.datastream import DataStream, StreamExecutionEnvironment
from pyflink.table import StreamTableEnvironment

from flink_jobs import kafka
from flink_jobs.settings import LearningSettings, Start
from flink_jobs.shards import shard_keys
from flink_jobs.streams import configuration, micro_batches, side_output
from operators.feedback_join import EXAMPLES, FORWARDED, FeedbackJoinSettings, FeedbackJoinStage
from operators.records import DEAD_LETTERS, PARTITION_UNIT, RECORD
from operators.trainer_stage import MODEL_UPDATES, TrainerStage, TrainerStageSettings

TOPICS = (
    "decisions",
    "feedback",
    "labels",
    "examples",
    "online-commands",
    "model-updates",
    "audit",
    "dead-letter",
)


class Learning:
    """The job's graph, from its settings."""

    def __init__(self, settings: LearningSettings) -> None:
        self._settings = settings
        self._env = StreamExecutionEnvironment.get_execution_environment(configuration(settings))
        self._tables = StreamTableEnvironment.create(self._env)
        self._keys = shard_keys(settings.shards)

    def build(self) -> StreamExecutionEnvironment:
        """Wire everything; the returned environment is ready to execute."""
        letter_bytes = kafka.check(self._settings, TOPICS)
        joined, trained = self._feedback_join(letter_bytes), self._trainer(letter_bytes)
        views = {
            "joined": joined,
            "learnable": side_output(joined, EXAMPLES),
            "sent_again": side_output(joined, FORWARDED),
            "audited": trained,
            "updated": side_output(trained, MODEL_UPDATES),
            "dead": side_output(joined, DEAD_LETTERS).union(side_output(trained, DEAD_LETTERS)),
        }
        for view, stream in views.items():
            self._tables.create_temporary_view(view, stream)
        inserts = self._tables.create_statement_set()
        for sink, query in (
            ("labels", "SELECT k, v FROM joined"),
            ("examples", "SELECT k, v FROM learnable"),
            ("feedback", "SELECT k, v FROM sent_again"),
            ("audit", "SELECT k, v FROM audited"),
            ("model_updates", "SELECT k, v FROM updated"),
            ("dead_letter", "SELECT CAST(NULL AS BYTES), v FROM dead AS T(v)"),
        ):
            inserts.add_insert_sql(kafka.insert(self._settings, self._tables, sink, query))
        inserts.attach_as_datastream()
        return self._env

    def _feedback_join(self, letter_bytes: int) -> DataStream:
        settings = self._settings
        feedback, decisions = settings.topic("feedback"), settings.topic("decisions")
        kafka.records_table(settings, self._tables, "records", ("feedback", "decisions"), settings.group)
        # A decision that was not approved goes to the shard of its own id too: feedback may name no other.
        records = f"""
            SELECT CASE `topic` WHEN {kafka.quoted(feedback)} THEN k ELSE {_text("transaction_id")} END
                AS entity, k, v, source_position, batch_time FROM records
            UNION ALL
            SELECT {_text("decision_id")}, k, v, source_position + {PARTITION_UNIT}, batch_time FROM records
            WHERE `topic` = {kafka.quoted(decisions)} AND {_text("decision")} <> 'approve'
        """
        batches = micro_batches(self._tables, "by_transaction", records, self._keys, settings.batch_ms)
        stage = FeedbackJoinStage(
            FeedbackJoinSettings(
                join=settings.join,
                decision_ttl_days=settings.decision_ttl_days,
                topics=(feedback, decisions, decisions),
                max_dead_letter_bytes=letter_bytes,
            )
        )
        return batches.process(stage, RECORD).name("feedback join").uid("feedback-join")

    def _trainer(self, letter_bytes: int) -> DataStream:
        """One trainer whatever the width: it learns in the order of the examples."""
        settings = self._settings
        group = f"{settings.group}-trainer"
        # A trainer without a savepoint learns all again. What it was told by people is over.
        start: Start = "latest" if settings.start == "latest" else "earliest"
        kafka.records_table(settings, self._tables, "lessons", ("examples",), group, start)
        kafka.records_table(settings, self._tables, "commands", ("online-commands",), group)
        records = f"""
            SELECT '' AS entity, k, v, source_position, batch_time FROM lessons
            UNION ALL
            SELECT '', k, v, source_position + {PARTITION_UNIT}, batch_time FROM commands
        """
        batches = micro_batches(self._tables, "for_the_trainer", records, self._keys[:1], settings.batch_ms)
        stage = TrainerStage(
            TrainerStageSettings(
                trainer=settings.trainer,
                topics=(settings.topic("examples"), settings.topic("online-commands")),
                snapshot_ms=int(settings.checkpoint_s * 1000),
                max_dead_letter_bytes=letter_bytes,
            )
        )
        return (
            batches.process(stage, RECORD)
            .name("trainer")
            .uid("trainer")
            .set_parallelism(1)
            # Two Python stages in one process would fight for the interpreter's lock.
            .slot_sharing_group("trainer")
        )


def _text(field: str) -> str:
    """SQL for a text field of the decision in `v`; JSON_VALUE would parse the whole of it."""
    return f"""REGEXP_EXTRACT(CAST(v AS STRING), '"{field}"\\s*:\\s*"([^"]*)"', 1)"""


def main() -> None:
    """Submit the job."""
    try:
        settings = CliApp.run(LearningSettings)
        env = Learning(settings).build()
    except (ValidationError, kafka.TopicsError) as error:
        sys.exit(f"learning: {error}")
    env.execute(settings.job_name)


if __name__ == "__main__":
    main()
