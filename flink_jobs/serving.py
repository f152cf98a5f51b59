"""The serving job: decisions, labels and the learner's audit in; MongoDB, Redis and alerts out.

    flink run -d -py flink_jobs/serving.py [--mongo-url URL] [--redis-url URL] ...

    decisions, labels, audit -> shard of users -> micro-batch -> serving stage -> alerts, dead letters
                                                                   |      |
                                                               MongoDB  Redis

It shares nothing with the scoring job but the topics: a store that is away delays people, never a decision.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # `flink run -py` puts the script's own folder on the path
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pydantic import ValidationError
from pydantic_settings import CliApp
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.table import StreamTableEnvironment

from flink_jobs import kafka
from flink_jobs.settings import ServingSettings
from flink_jobs.shards import shard_keys
from flink_jobs.streams import configuration, micro_batches, side_output
from models.explanation import ExplanationError, load_explainer
from models.signing import KeyFileError, Keyring
from operators.records import DEAD_LETTERS, RECORD
from operators.serving_stage import ServingStage, ServingStageSettings
from serving.security.personal import read_secrets
from serving.views import ViewSettings

READ = ("decisions", "labels", "audit")
TOPICS = (*READ, "alerts", "dead-letter")


def build(settings: ServingSettings, keyring: Keyring) -> StreamExecutionEnvironment:
    """Wire everything; the returned environment is ready to execute."""
    letter_bytes = kafka.check(settings, TOPICS)
    config = configuration(settings)
    # While a store is away the stage holds up every checkpoint: that is no failure of the job.
    config.set_string("execution.checkpointing.timeout", "1 d")
    config.set_string("execution.checkpointing.tolerable-failed-checkpoints", str(2**31 - 1))
    env = StreamExecutionEnvironment.get_execution_environment(config)
    tables = StreamTableEnvironment.create(env)

    kafka.records_table(settings, tables, "records", READ, settings.group)
    records = "SELECT k AS entity, k, v, source_position, batch_time FROM records"
    batches = micro_batches(tables, "by_user", records, shard_keys(settings.shards), settings.batch_ms)
    stage = ServingStage(
        ServingStageSettings(
            mongo_url=settings.mongo_url.get_secret_value(),
            mongo_database=settings.mongo_database,
            redis_url=settings.redis_url.get_secret_value(),
            views=ViewSettings(
                recent_s=settings.recent_s,
                user_days=settings.user_days,
                minutes=settings.count_minutes,
                feed=settings.feed_length,
                ranked=settings.ranked_users,
            ),
            source=":".join([str(settings.shards), *kafka.topic_ids(settings, READ)]),
            models=tuple(str(folder.resolve()) for folder in settings.models),
            keyring=keyring,
            secrets=str(settings.gateway_keys.resolve()),
            state_ttl_days=settings.state_ttl_days,
            topics=tuple(map(settings.topic, READ)),
            max_dead_letter_bytes=letter_bytes,
        )
    )
    served = batches.process(stage, RECORD).name("serving stage").uid("serving-stage")

    tables.create_temporary_view("alerted", served)
    tables.create_temporary_view("dead", side_output(served, DEAD_LETTERS))
    inserts = tables.create_statement_set()
    for sink, query in (
        ("alerts", "SELECT k, v FROM alerted"),
        ("dead_letter", "SELECT CAST(NULL AS BYTES), v FROM dead AS T(v)"),
    ):
        inserts.add_insert_sql(kafka.insert(settings, tables, sink, query))
    inserts.attach_as_datastream()
    return env


def main() -> None:
    """Submit the job."""
    try:
        settings = CliApp.run(ServingSettings)
        read_secrets(settings.gateway_keys)
        keyring = Keyring.read(settings.trusted_keys, settings.allow_unsigned)
        for folder in settings.models:
            load_explainer(folder, keyring)
        env = build(settings, keyring)
    except (ValidationError, KeyFileError, ExplanationError, kafka.TopicsError) as error:
        sys.exit(f"serving: {error}")
    env.execute(settings.job_name)


if __name__ == "__main__":
    main()
