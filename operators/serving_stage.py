"""The serving stage in Flink: decisions, labels and steps of the learner into the stores, alerts out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from pyflink.common import Row
from pyflink.datastream import KeyedProcessFunction, RuntimeContext

from models.explanation import load_explainer
from models.signing import Keyring
from operators.records import DEAD_LETTERS, PARTITION_UNIT, Source, dead_letter, kind_of
from operators.state import profile_state
from operators.watch import Level
from serving.engine import DECISION, LABEL, STEP, Engine, Received, Served, Stores
from serving.security.personal import Persons, read_secrets
from serving.stores import MongoStore, connect_mongo, connect_redis, redis_circuit
from serving.views import Views, ViewSettings

encode = msgspec.json.Encoder().encode


class ServingStageSettings(msgspec.Struct, frozen=True):
    """What the stage needs to know of the job."""

    mongo_url: str
    mongo_database: str
    redis_url: str
    views: ViewSettings
    source: str
    """Names the log that is read, see `serving.views.Views`."""
    models: tuple[str, ...]
    """Folders of the artefacts whose decisions are explained."""
    keyring: Keyring
    secrets: str
    """Folder of the secrets for personal data: of the file system, never of the job's graph."""
    state_ttl_days: int
    topics: tuple[str, ...]
    """Names for dead letters, by kind of record."""
    max_dead_letter_bytes: int


class ServingStage(KeyedProcessFunction):
    """Writes the records of one shard of users to MongoDB and Redis, with pseudonyms in place of user ids.

    It waits while one of them is away, and reads no further: Kafka keeps what comes meanwhile.

    Input: Row(payloads bytes[], keys str[], positions int[]). Output: Row(user id, alert). Side output: dead
    letters.
    """

    def __init__(self, settings: ServingStageSettings) -> None:
        self._settings = settings

    def open(self, runtime_context: RuntimeContext) -> None:
        settings = self._settings
        self._persons = Persons(*read_secrets(Path(settings.secrets)))
        self._users = profile_state(runtime_context, "users", settings.state_ttl_days)
        self._mongo, self._redis = connect_mongo(settings.mongo_url), connect_redis(settings.redis_url)
        self._stores = Stores(
            MongoStore(self._mongo, settings.mongo_database),
            Views(self._redis, settings.views, settings.source),
            redis_circuit(self._redis),
        )
        explainers = [load_explainer(Path(folder), settings.keyring) for folder in settings.models]
        self._explainers = {explainer.version: explainer for explainer in explainers}
        self._engines: dict[int, Engine] = {}
        metrics = runtime_context.get_metrics_group()
        kinds = {DECISION: "decisions", LABEL: "labels", STEP: "steps"}
        self._records_in = {kind: metrics.counter(f"serving_{name}_in_total") for kind, name in kinds.items()}
        self._alerts = metrics.counter("serving_alerts_total")
        self._repeats = metrics.counter("serving_repeats_total")
        self._explained = metrics.counter("serving_explained_total")
        self._refused = metrics.counter("serving_refused_total")
        self._retries = {
            "mongo": Level(metrics.counter("serving_mongo_retries_total")),
            "redis": Level(metrics.counter("serving_redis_retries_total")),
        }

    def close(self) -> None:
        self._mongo.close()
        self._redis.close()

    def process_element(self, value: Row, ctx: KeyedProcessFunction.Context) -> Iterator[Any]:
        received = [
            Received(kind_of(position), position // PARTITION_UNIT, position, key, payload)
            for payload, key, position in zip(*value, strict=True)
        ]
        for one in received:
            self._records_in[one.kind].inc()
        served = self._engine(ctx.get_current_key()).take(received)
        self._count(served)
        for invalid, origin in served.refused:
            topic = self._settings.topics[origin.kind]
            source = Source.at(origin.position, topic, origin.key, origin.payload)
            yield DEAD_LETTERS, dead_letter(invalid, source, self._settings.max_dead_letter_bytes)
        for alert in served.alerts:
            yield Row(alert.user_id.encode(), encode(alert))

    def _engine(self, shard: int) -> Engine:
        """The engine of the current shard. The state is that of the current key whatever the shard."""
        if shard not in self._engines:
            self._engines[shard] = Engine(
                str(shard), self._users, self._stores, self._persons, self._explainers
            )
        return self._engines[shard]

    def _count(self, served: Served) -> None:
        self._alerts.inc(len(served.alerts))
        self._repeats.inc(served.repeats)
        self._explained.inc(served.explained)
        self._refused.inc(len(served.refused))
        self._retries["mongo"].set(self._stores.mongo.circuit.retries)
        self._retries["redis"].set(self._stores.circuit.retries)
