"""The serving job on a real Flink, Kafka, MongoDB server and Redis."""

import os
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from events.alert import Alert
from events.decision import Decision
from serving.security.personal import USER, new_secrets, read_secrets
from serving.stores import connect_mongo, connect_redis
from stack.cluster import SERVING, Cluster, isolated_stack
from tests.serving.samples import START_MS, decided, label
from tests.serving.servers import Server

pytestmark = pytest.mark.stack

USERS = 40


class Stores:
    """The two servers, and what is in them."""

    def __init__(self, home: Path) -> None:
        self.mongo = Server(home / "mongo", "mongo")
        self.mongo.start()  # takes its port before the next is looked for
        self.redis = Server(home / "redis", "redis")
        self.redis.start()
        self.keys = home / "keys"
        new_secrets(self.keys)
        self.pseudonyms, self.seals = read_secrets(self.keys)

    def end(self) -> None:
        self.mongo.kill()
        self.redis.kill()

    def options(self, database: str) -> tuple[str, ...]:
        urls = self.mongo.settings.mongo_url, self.redis.settings.redis_url
        return (
            *("--mongo-url", urls[0], "--redis-url", urls[1], "--mongo-database", database),
            *("--gateway-keys", str(self.keys)),
        )

    def documents(self, database: str, collection: str) -> list[dict[str, Any]]:
        with connect_mongo(self.mongo.settings.mongo_url) as client:
            return list(client[database][collection].find())

    def empty_views(self) -> None:
        connect_redis(self.redis.settings.redis_url).flushall()

    def counted(self, field: str) -> int:
        redis: Any = connect_redis(self.redis.settings.redis_url)
        return sum(int(redis.hget(key, field) or 0) for key in redis.scan_iter("fraudstream:minute:*"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A TaskManager for the job, and a spare."""
    with isolated_stack(taskmanagers=2) as running:
        yield running


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    stores = Stores(tmp_path_factory.mktemp("stores"))
    yield stores
    stores.end()


def decide(cluster: Cluster, prefix: str, decisions: Iterable[Decision]) -> None:
    cluster.produce(f"{prefix}decisions", ((d.user_id.encode(), msgspec.json.encode(d)) for d in decisions))


def some(start: int, end: int) -> list[Decision]:
    """Decisions of which one in ten is flagged."""
    flagged: dict[bool, dict[str, Any]] = {True: {"score": 0.95, "decision": "block"}, False: {}}
    return [
        decided(n, f"u{n % USERS}", event_time=START_MS + 60_000 * (n // 500), **flagged[n % 10 == 0])
        for n in range(start, end)
    ]


@pytest.mark.parametrize("execution", ["thread", pytest.param("process", marks=pytest.mark.slow)])
def test_decisions_and_labels_reach_the_stores_and_alerts_their_topic(
    cluster: Cluster, prefix: str, stores: Stores, execution: str
) -> None:
    stores.empty_views()
    job = cluster.submit(prefix, *stores.options(execution), "--execution", execution, script=SERVING)
    decide(cluster, prefix, [*some(0, 100), *some(0, 50)])
    cluster.produce(f"{prefix}decisions", [(b"u1", b"{"), (b"u2", msgspec.json.encode(some(1, 2)[0]))])
    Cluster.until(lambda: stores.counted("decisions") == 100, 90, "decisions are counted")
    cluster.produce(f"{prefix}labels", [(b"u0", msgspec.json.encode(label(0, "u0")))])
    Cluster.until(lambda: stores.counted("labelled:fraud") == 1, 60, "the label is counted")

    alerts = cluster.read(f"{prefix}alerts", Alert, 4)
    letters = cluster.dead_letters(prefix, 2)
    cluster.cancel(job)
    cases = {case["user_id"]: case["status"] for case in stores.documents(execution, "cases")}
    sealed = [
        stores.seals.open(USER, case["sealed_user_id"]) for case in stores.documents(execution, "cases")
    ]
    assert len(stores.documents(execution, "decisions")) == 100
    assert stores.counted("block") == 10
    assert {alert.user_id for alert in alerts} == {"u0", "u10", "u20", "u30"} == set(sealed)
    assert cases.keys() == {stores.pseudonyms.of(USER, user) for user in sealed}
    assert cases[stores.pseudonyms.of(USER, "u0")] == "fraud"
    assert {letter.reason for letter in letters} == {"malformed_json", "key_mismatch"}


def test_outages_and_a_killed_task_lose_and_repeat_nothing(
    cluster: Cluster, prefix: str, stores: Stores
) -> None:
    stores.empty_views()
    job = cluster.submit(prefix, *stores.options("outages"), "--checkpoint-s", "1", script=SERVING)
    decide(cluster, prefix, some(0, 1000))
    Cluster.until(lambda: stores.counted("decisions") > 0, 90, "decisions are counted")
    stores.mongo.kill()
    decide(cluster, prefix, some(1000, 2000))
    stores.redis.kill()
    stores.mongo.start()
    decide(cluster, prefix, some(1500, 3000))
    for process in cluster.taskmanagers_of(job):
        os.kill(process, signal.SIGKILL)
    stores.redis.start()
    decide(cluster, prefix, some(3000, 4000))
    Cluster.until(lambda: stores.counted("decisions") >= 4000, 180, "all decisions are counted")

    cases = stores.documents("outages", "cases")
    alerts = cluster.read(f"{prefix}alerts", Alert, 1)
    cluster.cancel(job)
    assert stores.counted("decisions") == len(stores.documents("outages", "decisions")) == 4000
    assert stores.counted("block") == sum(case["alerts"] for case in cases) == 400
    assert len({case["user_id"] for case in cases}) == len(cases) == 4
    assert {alert.alert_id for alert in alerts} >= {case["_id"].replace("case", "alert") for case in cases}
