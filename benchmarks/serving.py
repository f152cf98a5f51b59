"""The serving job: what a decision costs it, part by part on one core, and what the whole of it takes in."""

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from benchmarks.engine import ARTEFACT, Memory
from benchmarks.join import decisions
from events.decision import Decision, decision_id
from models.explanation import load_explainer
from models.signing import TRUSTED_KEYS, Keyring
from serving.documents import INDEXES
from serving.engine import DECISION, Engine, Received, Stores
from serving.security.personal import Persons, new_secrets, read_secrets
from serving.stores import MongoStore, connect_mongo, connect_redis, redis_circuit
from serving.views import Views, ViewSettings
from stack.cluster import Cluster
from stack.ports import owner

BATCHES: Final = (100, 500)
ALONE: Final = 5_000
"""Decisions of a measurement on one core."""
REPLACED: Final = 50
START_MS: Final = 1_764_028_800_000
"""Midnight in UTC."""
VIEWS: Final = ViewSettings(recent_s=300, user_days=30, minutes=1_500, feed=10_000, ranked=10_000)


class Spent(NamedTuple):
    """Microseconds per decision: of wall time in all, in the writes to each store, and of own CPU time."""

    batch: int
    all: float
    mongo: float
    redis: float
    cpu: float


def records(count: int) -> Iterator[Decision]:
    """Decisions of the first model on simulated transactions, under new transaction ids, within one day."""
    for n, d in enumerate(itertools.islice(itertools.cycle(list(decisions())), count)):
        name = f"tx-{n:012d}"
        identity, at = decision_id(d.user_id, name), START_MS + n // 5
        yield msgspec.structs.replace(
            d, transaction_id=name, decision_id=identity, event_time=at, decided_at=at
        )


@contextmanager
def secrets() -> Iterator[Path]:
    """A folder of secrets as `fraudstream keys init` makes them, gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        new_secrets(Path(folder))
        yield Path(folder)


class Timed:
    """Sums up the time that calls take."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            start = time.perf_counter()
            try:
                return call(*arguments)
            finally:
                self.seconds += time.perf_counter() - start

        return timed


def alone(cluster: Cluster, batch: int, made: Sequence[Decision]) -> Spent:
    """The engine of one shard without Flink, over empty stores, in batches of one size."""
    mongo, redis = connect_mongo(cluster.settings.mongo_url), connect_redis(cluster.settings.redis_url)
    database = f"alone{batch}"
    redis.flushall()
    keyring = Keyring.read(TRUSTED_KEYS)
    explainer = load_explainer(ARTEFACT, keyring)
    stores = Stores(MongoStore(mongo, database), Views(redis, VIEWS, database), redis_circuit(redis))
    in_mongo, in_redis = Timed(), Timed()
    stores.mongo.write = in_mongo.around(stores.mongo.write)  # type: ignore[method-assign]
    stores.views.write = in_redis.around(stores.views.write)  # type: ignore[method-assign]
    with secrets() as folder:
        engine = Engine("0", Memory(), stores, Persons(*read_secrets(folder)), {explainer.version: explainer})
    log = [Received(DECISION, 0, n, d.user_id, msgspec.json.encode(d)) for n, d in enumerate(made)]
    engine.take(log[:batch])  # makes the indexes, and loads what is loaded once
    in_mongo.seconds = in_redis.seconds = 0.0
    start, spent = time.perf_counter(), time.process_time()
    for first in range(batch, len(log), batch):
        engine.take(log[first : first + batch])
    per = 1e6 / (len(log) - batch)
    return Spent(
        batch,
        (time.perf_counter() - start) * per,
        in_mongo.seconds * per,
        in_redis.seconds * per,
        (time.process_time() - spent) * per,
    )


def inserted(cluster: Cluster, made: Sequence[Decision], indexed: bool, batch: int) -> float:
    """Documents a second that one client inserts, unordered, with the indexes of decisions or none."""
    collection = connect_mongo(cluster.settings.mongo_url)[f"inserted{batch}{indexed}"]["decisions"]
    for keys in INDEXES["decisions"].values() if indexed else ():
        collection.create_index(list(keys))
    documents = [{"_id": d.decision_id, **msgspec.to_builtins(d, builtin_types=(bytes,))} for d in made]
    start = time.perf_counter()
    for first in range(0, len(documents), batch):
        collection.insert_many(documents[first : first + batch], ordered=False)
    return len(documents) / (time.perf_counter() - start)


def replaced(cluster: Cluster, stored: int) -> float:
    """Documents a second that one client replaces by id, one a command, in a collection of so many."""
    collection = connect_mongo(cluster.settings.mongo_url)[f"replaced{stored}"]["cases"]
    collection.insert_many([{"_id": f"case-{n}", "revision": 1} for n in range(stored)])
    start = time.perf_counter()
    for n in range(0, stored, stored // REPLACED):
        collection.replace_one({"_id": f"case-{n}"}, {"revision": 2})
    return REPLACED / (time.perf_counter() - start)


def empty(cluster: Cluster) -> None:
    """Take all out of Redis; in MongoDB every run has a database of its own."""
    connect_redis(cluster.settings.redis_url).flushall()


def store_cpu_s(cluster: Cluster) -> dict[str, float]:
    """CPU time that each store has used."""
    ports = {"Redis": cluster.settings.redis_port, "MongoDB": cluster.settings.mongo_port}
    found = {name: owner(port) for name, port in ports.items()}
    return {name: sum(store.cpu_times()[:2]) for name, store in found.items() if store is not None}
