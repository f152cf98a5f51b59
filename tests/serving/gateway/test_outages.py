"""Each store away for a while, under load through the gateway: honest answers, and afterwards all is there.

FRAUDSTREAM_OUTAGE_S sets how long each is away, 15 s where nothing is said.
"""

import asyncio
import itertools
import os
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import psutil
import pytest
from fastapi import FastAPI

from events.decision import Decision, decision_id
from serving.stores import connect_mongo, connect_redis
from stack.cluster import SERVING, Cluster, isolated_stack
from tests.serving.gateway.running import Gateway
from tests.serving.servers import Server

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.stack, pytest.mark.slow]

OUTAGE_S = float(os.environ.get("FRAUDSTREAM_OUTAGE_S", "15"))
PAUSE_S = 0.05
"""Between transactions: 20 a second."""
WITHIN_S = 300.0
INGEST = "/transactions/ingest"


class Load:
    """Transactions through a gateway, each sent until it is acknowledged, by token and signature in turn."""

    def __init__(self, gateway: Gateway, client: httpx.AsyncClient) -> None:
        self._keys, self._client = gateway.keys, client
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = asyncio.Event()
        self.phase = "calm"
        self.acknowledged: set[str] = set()
        self.answers: Counter[tuple[str, str, int]] = Counter()
        """By what was away, how it was proved who asks, and status."""

    async def run(self) -> None:
        for number in itertools.count():
            if self._stopped.is_set():
                break
            self._tasks.add(asyncio.create_task(self._send(number)))
            await asyncio.sleep(PAUSE_S)
        await asyncio.gather(*self._tasks)

    def stop(self) -> None:
        self._stopped.set()

    async def _send(self, number: int) -> None:
        user, name = f"u-{number % 11}", f"tx-{number}"
        now = round(time.time() * 1000)
        body = msgspec.json.encode(
            {"transaction_id": name, "user_id": user, "event_time": now, "amount": 5.0 + number % 7}
        )
        for way in itertools.cycle(("signed", "token") if number % 2 else ("token", "signed")):
            proof = (
                self._keys.token("producer")
                if way == "token"
                else self._keys.signed("producer", "POST", INGEST, body)
            )
            headers = proof | {"Content-Type": "application/json"}
            answer = await self._client.post(INGEST, headers=headers, content=body, timeout=60)
            self.answers[self.phase, way, answer.status_code] += 1
            if answer.status_code == 202:
                self.acknowledged.add(decision_id(user, name))
                return
            assert answer.status_code == 503, answer.text
            assert int(answer.headers["retry-after"]) > 0
            await asyncio.sleep(0.5)


def broker(cluster: Cluster) -> psutil.Process:
    """The process of the stack that listens on the port of Kafka."""
    (found,) = {
        process
        for process in psutil.process_iter(["cmdline"])
        if "kafka.Kafka" in (process.info["cmdline"] or [])
        and str(cluster.settings.home) in " ".join(process.info["cmdline"])
    }
    return found


def test_nothing_acknowledged_is_lost_or_counted_twice(tmp_path: Path) -> None:
    mongo = Server(tmp_path / "mongo", "mongo")
    mongo.start()  # takes its port before the next is looked for
    redis = Server(tmp_path / "redis", "redis")
    redis.start()
    try:
        with isolated_stack(taskmanagers=3) as cluster:
            cluster.topics("")
            gateway = Gateway(
                tmp_path / "gateway", cluster.bootstrap, redis.url, mongo_url=mongo.url, mongo_database="out",
                gateway_query_s=1.0,
            )  # fmt: skip
            cluster.submit("", "--start", "earliest")
            cluster.submit(
                "", "--start", "earliest", "--gateway-keys", str(gateway.settings.gateway_keys),
                "--mongo-url", mongo.url, "--mongo-database", "out", "--redis-url", redis.url, script=SERVING,
            )  # fmt: skip
            load = outages(gateway, cluster, mongo, redis)
            reconciled(load, cluster, mongo, redis)
    finally:
        mongo.kill()
        redis.kill()


def outages(gateway: Gateway, cluster: Cluster, mongo: Server, redis: Server) -> Load:
    """Load, while one after the other is away; what the gateway answers meanwhile."""
    kafka = broker(cluster)
    away: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "redis": (redis.kill, redis.start),
        "mongo": (mongo.kill, mongo.start),
        "kafka": (kafka.suspend, kafka.resume),
    }
    token = gateway.keys.token("analyst")

    async def use(client: httpx.AsyncClient, _app: FastAPI) -> Load:
        load = Load(gateway, client)
        running = asyncio.create_task(load.run())
        await asyncio.sleep(5)
        for name, (stop, start) in away.items():
            stop()
            load.phase = name
            try:
                await asyncio.sleep(OUTAGE_S / 2)
                asked = {
                    path: await client.get(path, headers=token, timeout=60)
                    for path in ("/stats", "/cases", "/ready")
                }
                told = {path: answer.status_code for path, answer in asked.items()}
                assert told == {
                    "/stats": 503 if name == "redis" else 200,
                    "/cases": 503 if name == "mongo" else 200,
                    "/ready": 503 if name == "kafka" else 200,
                }, (name, told)
                assert asked["/ready"].json()[name] is False
                await asyncio.sleep(OUTAGE_S / 2)
            finally:
                await asyncio.to_thread(start)
            load.phase = "calm"
            await asyncio.sleep(5)
        load.stop()
        await asyncio.wait_for(running, WITHIN_S)
        return load

    return gateway.run(use)


def reconciled(load: Load, cluster: Cluster, mongo: Server, redis: Server) -> None:
    """Acknowledged, decided, stored and counted are the same."""
    said = load.answers
    assert said["redis", "token", 202]
    assert said["redis", "signed", 503]
    assert said["mongo", "signed", 202]
    assert said["mongo", "token", 202]
    assert not said["mongo", "token", 503]
    assert said["kafka", "token", 503]

    views: Any = connect_redis(redis.settings.redis_url)
    with connect_mongo(mongo.settings.mongo_url) as client:

        def stored() -> set[str]:
            return {document["_id"] for document in client["out"]["decisions"].find({}, {"_id": 1})}

        def counted() -> int:
            return sum(
                int(views.hget(key, "decisions") or 0) for key in views.scan_iter("fraudstream:minute:*")
            )

        Cluster.until(lambda: len(stored()) >= len(load.acknowledged), WITHIN_S, "all are stored")
        Cluster.until(lambda: counted() >= len(load.acknowledged), WITHIN_S, "all are counted")
        decided = {d.decision_id for d in cluster.read("decisions", Decision, len(load.acknowledged))}
        assert decided == stored() == load.acknowledged
        assert counted() == len(load.acknowledged)
