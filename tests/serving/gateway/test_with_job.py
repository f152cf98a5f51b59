"""The gateway before the running scoring job."""

import asyncio
import secrets
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from models.scorer import SAFE_VERSION
from stack.cluster import isolated_stack
from tests.serving.gateway.running import Gateway
from tests.serving.servers import Server

pytestmark = pytest.mark.stack

WITHIN_S = 120


def transaction(**changes: Any) -> dict[str, Any]:
    name, now = secrets.token_hex(8), round(time.time() * 1000)
    return {"transaction_id": name, "user_id": "u-1", "event_time": now, "amount": 5.0} | changes


def test_scores_are_the_jobs_and_a_rule_put_here_decides_there(tmp_path: Path, redis_server: Server) -> None:
    with isolated_stack(taskmanagers=3) as cluster:
        cluster.topics("")
        cluster.submit("", "--start", "earliest")
        gateway = Gateway(tmp_path, cluster.bootstrap, redis_server.url, gateway_score_ms=5_000)
        keys = gateway.keys

        async def use(client: httpx.AsyncClient, _app: FastAPI) -> None:
            headers = keys.token("producer") | {"X-Correlation-Id": "from-the-shop"}

            async def score(**changes: Any) -> dict[str, Any]:
                answer = await client.post("/predictions/score", headers=headers, json=transaction(**changes))
                assert answer.status_code == 200, answer.text
                told: dict[str, Any] = answer.json()
                return told

            ends = time.monotonic() + WITHIN_S
            while (await score())["provisional"]:
                assert time.monotonic() < ends
            told = await asyncio.gather(*(score() for _ in range(50)))
            assert not any(one["provisional"] or one["degraded"] for one in told)
            assert {one["model_version"] for one in told} != {"heuristic-1"}

            rule = {"all": [{"feature": "amount", "operator": ">=", "value": 7777.0}], "verdict": "block"}
            put = await client.put("/rules/large", headers=keys.token("admin"), json=rule)
            assert put.status_code == 200, put.text
            while (last := await score(amount=8000.0))["rules"] != ["large"]:
                assert time.monotonic() < ends, last
            assert last["decision"] == "block"
            again = await client.get(f"/predictions/{last['prediction_id']}", headers=keys.token("producer"))
            assert again.json() == last
            assert last["correlation_id"] == "from-the-shop"

            reason = {"reason": "a test"}
            put = await client.put("/admin/safe-mode", headers=keys.token("admin"), json=reason)
            assert put.status_code == 200, put.text
            while (safe := await score(amount=8000.0))["model_version"] != SAFE_VERSION:
                assert time.monotonic() < ends, safe
            assert (safe["decision"], safe["rules"], safe["provisional"]) == ("block", ["large"], False)
            await client.delete("/admin/safe-mode", headers=keys.token("admin"))
            while (await score())["model_version"] == SAFE_VERSION:
                assert time.monotonic() < ends

        gateway.run(use)
