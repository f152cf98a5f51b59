"""What is stored, over HTTP: real FerretDB and Redis, filled by the serving engine."""

import asyncio
import contextlib
import copy
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import uvicorn
from fastapi import FastAPI

from events.topics import TOPICS
from serving.control import now_ms
from serving.engine import DECISION, LABEL, STEP
from serving.gateway import openapi, reading
from serving.gateway.app import create_app
from serving.gateway.live_feed import STREAMS_EACH, LiveFeed
from serving.queries import Queries
from serving.security.permissions import Role
from serving.security.personal import USER, Persons, read_secrets
from serving.stored import CaseDetail, LiveDecision, Page, RankedUser, Stats, StoredCase, StoredDecision
from serving.views import FEED
from stack.cluster import Cluster
from stack.ports import free_ports
from tests.serving.gateway.running import NOBODY, Gateway, assert_problem
from tests.serving.samples import MINUTE, decided, label
from tests.serving.servers import Server
from tests.serving.test_engine import Users, World, received

pytestmark = pytest.mark.stack

READERS: tuple[Role, ...] = ("analyst", "data_scientist", "admin")
MARKUP = '<img src=x onerror="alert(1)">'
AUDITED: Any = next(topic.example for topic in TOPICS if topic.name == "audit")


class Filled:
    """A running gateway before stores that hold decisions of three users, a label and a step."""

    url: str

    def __init__(self, folder: Path, mongo: Server, redis: Server) -> None:
        self.gateway = Gateway(
            folder, redis=redis.url, mongo_url=mongo.url, mongo_database="world", gateway_query_s=10.0,
            gateway_ping_s=0.2,
        )  # fmt: skip
        self.persons = Persons(*read_secrets(folder / "keys"))
        self.world = World(mongo, redis)
        self.world.empty()
        self.start = now_ms() // MINUTE * MINUTE - 10 * MINUTE
        self.decisions = [
            decided(
                number,
                f"user-{number % 3}",
                event_time=self.start + number * 1000,
                score=0.95 if number % 4 else 0.1,
                decision="block" if number % 4 else "approve",
                rules=[MARKUP],
                terminal_id="t1",
                correlation_id=f"request-{number}",
            )
            for number in range(24)
        ]
        log = [received(DECISION, number, d) for number, d in enumerate(self.decisions)]
        log.append(received(LABEL, 0, label(1, "user-1", event_time=self.start + 1000), partition=1))
        step = msgspec.structs.replace(AUDITED, detail=MARKUP)
        log.append(received(STEP, 0, step, "step", partition=2))
        self.engine = self.world.engine(Users(), persons=self.persons)
        assert not self.engine.take(log).refused

    def get(self, path: str, role: Role = "analyst", **how: Any) -> httpx.Response:
        return self.ask("GET", path, headers=self.gateway.keys.token(role) | how.pop("headers", {}), **how)

    def ask(self, method: str, path: str, **how: Any) -> httpx.Response:
        return httpx.request(method, self.url + path, timeout=60, **how)

    def pseudonym(self, user: str) -> str:
        return self.persons.of(user).pseudonym


@pytest.fixture(scope="module")
def filled(
    tmp_path_factory: pytest.TempPathFactory, restartable_mongo: Server, restartable_redis: Server
) -> Iterator[Filled]:
    filled = Filled(tmp_path_factory.mktemp("filled"), restartable_mongo, restartable_redis)
    app = create_app(filled.gateway.settings)
    (port,) = free_ports(1)
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    Cluster.until(lambda: server.started, 60, "the gateway listens")
    filled.url = f"http://127.0.0.1:{port}"
    yield filled
    server.should_exit = server.force_exit = True
    thread.join()


@pytest.fixture
def apart(filled: Filled, tmp_path: Path) -> Gateway:
    """Another gateway before the same stores."""
    return with_settings(filled.gateway, gateway_audit=tmp_path / "audit.jsonl")


def with_settings(gateway: Gateway, **changes: Any) -> Gateway:
    """The same gateway but for some settings, not started."""
    other = copy.copy(gateway)
    other.settings = gateway.settings.model_copy(update=changes)
    return other


def walk(value: Any) -> Iterator[Any]:
    yield value
    for member in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from walk(member)


def test_who_may_read_identities_sees_them_and_nobody_else(filled: Filled) -> None:
    user, decision = "user-1", filled.decisions[1].decision_id
    pseudonym = filled.pseudonym(user)
    paths = ["/cases", "/alerts", "/users/top-risk", f"/users/{pseudonym}/risk-profile",
             f"/predictions/{decision}", f"/cases?user_id={pseudonym}", f"/alerts?user_id={pseudonym}",
             f"/cases/case-{decision}", f"/explain/{decision}", "/stats"]  # fmt: skip
    for role in READERS:
        for path in paths:
            answer = filled.get(path, role)
            assert answer.status_code == 200, (path, answer.text)
            texts = {value for value in walk(answer.json()) if isinstance(value, str)}
            named = {text for text in texts if text.startswith("user-")}
            sealed = {text for text in texts if text.startswith("sealed.")}
            if path.startswith(("/explain", "/stats")):
                assert not named | sealed, path
            elif role == "analyst":
                assert named, path
                assert not sealed, path
            else:
                assert not named, path
                assert opened(filled, sealed) <= {d.user_id for d in filled.decisions}, path


def opened(filled: Filled, sealed: set[str]) -> set[str]:
    """What an analyst is told by opening one of some."""
    headers = filled.gateway.keys.token("analyst")
    answers = [
        filled.ask("POST", "/identities/open", headers=headers, json={"sealed": one}) for one in sealed
    ]
    return {answer.json()["user_id"] for answer in answers[:1]}


def test_only_who_may_read_identities_asks_by_them(filled: Filled) -> None:
    for path in ("/users/user-1/risk-profile", "/cases?user_id=user-1", "/alerts?user_id=user-1"):
        assert filled.get(path).status_code == 200
        problem = assert_problem(filled.get(path, "admin"), 422, "invalid")
        assert problem["errors"][0]["field"] == "user_id"


def test_lists_come_in_pages(filled: Filled) -> None:
    found, after = [], None
    while True:
        page = filled.get("/alerts", params={"limit": 5} | ({"after": after} if after else {})).json()
        found += [one["decision_id"] for one in page["items"]]
        after = page["next"]
        if after is None:
            break
    expected = [d for d in filled.decisions if d.decision == "block"]
    assert found == [d.decision_id for d in sorted(expected, key=lambda d: -d.event_time)]
    (case,) = filled.get("/cases", params={"user_id": "user-2"}).json()["items"]
    detail = filled.get(f"/cases/{case['case_id']}", params={"limit": 2}).json()
    assert detail["case"] == case
    rest = filled.get(f"/cases/{case['case_id']}", params={"after": detail["decisions"]["next"]}).json()
    both = detail["decisions"]["items"] + rest["decisions"]["items"]
    assert len(both) == case["alerts"]
    assert {one["user_id"] for one in both} == {"user-2"}


def test_filters_narrow_what_is_found(filled: Filled) -> None:
    start = filled.decisions[0].event_time
    asked = {
        "status=fraud": {"user-1"},
        "status=open": {"user-0", "user-2"},
        "severity=critical&kind=score": {"user-0", "user-1", "user-2"},
        "kind=travel": set(),
        f"until={start + 1}": set(),
        f"since={start + 2000}": {"user-2"} | {"user-0"},
    }
    for query, users in asked.items():
        items = filled.get(f"/cases?{query}").json()["items"]
        assert {case["user_id"] for case in items} == users, query


def test_a_decision_that_is_not_remembered_is_found_in_mongodb(filled: Filled) -> None:
    asked = filled.decisions[5]
    told = filled.get(f"/predictions/{asked.decision_id}").json()
    assert (told["user_id"], told["score"], told["provisional"]) == ("user-2", asked.score, False)
    assert told["correlation_id"] == "request-5"
    explained = filled.get(f"/explain/{asked.decision_id}").json()
    assert "score" in explained["explanation"]["sentence"]
    assert [found["kind"] for found in explained["findings"]] == ["score"]
    assert_problem(filled.get("/explain/of-nobody"), 404, "not-found")
    assert_problem(filled.get("/predictions/of-nobody"), 404, "not-found")
    assert_problem(filled.get("/cases/of-nobody"), 404, "not-found")
    assert_problem(filled.get("/users/of-nobody/risk-profile"), 404, "not-found")


def test_counts_are_those_of_the_last_hour(filled: Filled) -> None:
    stats = filled.get("/stats").json()
    assert stats["total"]["decisions"] == len(filled.decisions)
    assert stats["total"]["block"] == sum(d.decision == "block" for d in filled.decisions)
    assert stats["total"]["labelled_fraud"] == 1
    hours = filled.get("/stats", params={"step": "hour", "since": filled.start}).json()
    assert sum(one["decisions"] for one in hours["series"]) == len(filled.decisions)


def test_a_user_comes_with_risk_and_history(filled: Filled) -> None:
    profile = filled.get("/users/user-1/risk-profile").json()
    assert profile["risk"]["user_id"] == "user-1"
    assert profile["risk"]["case_status"] == "fraud"
    assert 0.9 < profile["risk"]["risk"] <= 1
    assert {day["user_id"] for day in profile["history"]} == {"user-1"}
    ranked = filled.get("/users/top-risk", params={"limit": 2}).json()
    assert len(ranked) == 2
    assert ranked[0]["risk"] >= ranked[1]["risk"]


@pytest.mark.parametrize(
    "path",
    ["/cases?status[$ne]=open", "/cases?status[$gt]=", "/cases?user_id[$regex]=.*", "/alerts?$where=1",
     "/alerts?verdict=%7B%22%24ne%22%3Anull%7D", "/cases?kind=kinds.score", "/cases?kind=$where",
     "/cases?limit=0", "/cases?limit=201", "/cases?limit=1e3", "/cases?limit=%7B%7D", "/cases?since=1",
     "/cases?since=99999999999999999999", "/cases?after=%00", "/cases?after=AAAA",
     "/alerts?after=" + "A" * 1001,
     "/alerts?user_id=%7B%22%24gt%22%3A%22%22%7D", "/alerts?user_id=", "/alerts?user_id=u%00",
     "/cases?sealed_user_id=x", "/cases?revision=1",
     "/stats?step=second", "/stats?since=1764000000000&until=1764000000000",
     "/users/%7B%22$gt%22:%22%22%7D/risk-profile", "/users/u%0d%0aX:1/risk-profile", "/explain/$where",
     "/predictions/%7B%7D", "/cases/%7B%22$ne%22:null%7D", "/cases/..%5c..%5cetc", "/users/top-risk?limit=-1",
     "/live?alerting=perhaps", "/live?since=1"],
)  # fmt: skip
def test_what_looks_like_an_operator_or_is_no_parameter_is_refused(filled: Filled, path: str) -> None:
    problem = assert_problem(filled.get(path), 422, "invalid")
    assert problem["errors"]


@pytest.mark.parametrize(
    "path", ["/cases/../audit", "/cases/%2e%2e/audit", "/cases/..%2faudit", "/users//risk-profile"]
)
def test_paths_lead_nowhere_else(filled: Filled, path: str) -> None:
    assert filled.get(path, "analyst").status_code in (403, 404, 422)


@pytest.mark.parametrize("last", ["$", "0", "x-y", "9" * 20 + "-0", "0-0, 1-1", "-"])
def test_a_place_in_the_feed_is_nothing_else(filled: Filled, last: str) -> None:
    assert_problem(filled.get("/live", headers={"Last-Event-ID": last}), 422, "invalid")


def test_a_body_sets_nothing(filled: Filled) -> None:
    """Routes that read take no body: what one holds changes nothing."""
    before = filled.world.stored("cases")
    token = filled.gateway.keys.token("analyst")
    body = {"status": "fraud", "$set": {"status": "fraud"}, "user_id": {"$gt": ""}}
    read = filled.ask("GET", "/cases", headers=token, json=body)
    path = f"/cases/{before[0]['_id']}"
    changed = [
        filled.ask(method, path, headers=token, json=body) for method in ("POST", "PUT", "PATCH", "DELETE")
    ]
    assert {case["case_id"] for case in read.json()["items"]} == {case["_id"] for case in before}
    assert [answer.status_code for answer in changed] == [405] * 4
    assert filled.world.stored("cases") == before


def test_markup_comes_back_as_data(filled: Filled) -> None:
    for path in (
        "/alerts",
        f"/explain/{filled.decisions[1].decision_id}",
        "/cases/case-" + filled.decisions[1].decision_id,
    ):
        answer = filled.get(path)
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert MARKUP in list(walk(answer.json()))


def test_a_store_that_is_away_is_told_of(filled: Filled, apart: Gateway) -> None:
    no_mongo = with_settings(apart, mongo_url=f"mongodb://{NOBODY}", gateway_query_s=0.3)
    no_redis = with_settings(apart, redis_url=f"redis://{NOBODY}/0")
    token = {"headers": apart.keys.token("analyst")}

    def asked(gateway: Gateway, *paths: str) -> list[httpx.Response]:
        return gateway.ask(*(("GET", path, token) for path in paths))

    name = filled.decisions[1].decision_id
    *away, profile, stats = asked(
        no_mongo, "/cases", f"/cases/case-{name}", "/alerts", f"/explain/{name}", f"/predictions/{name}",
        "/users/user-1/risk-profile", "/stats",
    )  # fmt: skip
    for answer in away:
        problem = assert_problem(answer, 503, "store-away")
        assert "MongoDB" in problem["detail"]
        assert int(answer.headers["retry-after"]) > 0
    assert profile.json()["history"] is None
    assert stats.status_code == 200

    *away, profile, cases = asked(
        no_redis, "/stats", "/users/top-risk", "/live", "/users/user-1/risk-profile", "/cases"
    )
    for answer in away:
        assert "Redis" in assert_problem(answer, 503, "store-away")["detail"]
        assert int(answer.headers["retry-after"]) > 0
    assert profile.json()["risk"]["source"] == "mongo"
    assert profile.json()["risk"]["user_id"] == "user-1"
    assert cases.status_code == 200


def test_the_examples_of_the_description_are_answers() -> None:
    """Each example reads as the type that the route answers with."""
    for made, kind in (
        (openapi.CASES, Page[StoredCase]), (openapi.CASE, CaseDetail), (openapi.ALERTS, Page[StoredDecision]),
        (openapi.TOP_RISK, list[RankedUser]), (openapi.STATS, Stats), (openapi.EXPLAIN, reading.Explained),
        (openapi.RISK_PROFILE, reading.RiskProfile),
    ):  # fmt: skip
        example = made["responses"][200]["content"]["application/json"]["example"]
        assert msgspec.to_builtins(msgspec.convert(example, kind)) == example


# The live stream, before a server that does stream.


@pytest.fixture
def served(filled: Filled) -> str:
    return filled.url


@contextlib.asynccontextmanager
async def listening(
    url: str, headers: dict[str, str], query: str = ""
) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """The events of a stream."""

    async def events(lines: AsyncIterator[str]) -> AsyncIterator[dict[str, Any]]:
        event: dict[str, Any] = {}
        async for line in lines:
            if line.startswith(":"):
                yield {"comment": line}
            elif line:
                name, _, value = line.partition(": ")
                event[name] = value
            elif event:
                yield event
                event = {}

    async with (
        httpx.AsyncClient(base_url=url, timeout=30) as client,
        client.stream("GET", f"/live{query}", headers=headers) as answer,
    ):
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield events(answer.aiter_lines())


async def take(events: AsyncIterator[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """So many events that are no comments."""
    found: list[dict[str, Any]] = []
    while len(found) < count:
        event = await asyncio.wait_for(anext(events), 30)
        if "data" in event:
            found.append(event)
    return found


def test_the_stream_goes_on_after_the_last_event_and_tells_what_is_new(filled: Filled, served: str) -> None:
    async def listen() -> None:
        token = filled.gateway.keys.token("admin")
        async with listening(served, token | {"Last-Event-ID": "0-0"}) as events:
            told = await take(events, len(filled.decisions))
        assert [json.loads(event["data"])["decision_id"] for event in told] == [
            d.decision_id for d in filled.decisions
        ]
        assert all(json.loads(event["data"])["user_id"].startswith(f"{USER}~") for event in told)
        async with listening(served, token | {"Last-Event-ID": told[9]["id"]}) as events:
            assert await take(events, len(told) - 10) == told[10:]
            entry = filled.world.redis.xrevrange(FEED, count=1)[0][1]
            filled.world.redis.xadd(FEED, entry)
            (new,) = await take(events, 1)
            filled.world.redis.xdel(FEED, new["id"])
        assert json.loads(new["data"])["decision_id"] == filled.decisions[-1].decision_id

    asyncio.run(listen())


def test_the_stream_shows_identities_to_who_may_read_them_and_alerts_where_wanted(
    filled: Filled, served: str
) -> None:
    async def listen() -> None:
        token = filled.gateway.keys.token("analyst") | {"Last-Event-ID": "0-0"}
        alerting = [d for d in filled.decisions if d.decision == "block"]
        async with listening(served, token, "?alerting=true") as events:
            told = [json.loads(event["data"]) for event in await take(events, len(alerting))]
        assert [one["decision_id"] for one in told] == [d.decision_id for d in alerting]
        assert [one["user_id"] for one in told] == [d.user_id for d in alerting]

    asyncio.run(listen())


def test_a_quiet_stream_says_that_it_is_there_and_streams_are_counted(filled: Filled, served: str) -> None:
    async def listen() -> None:
        token = filled.gateway.keys.token("admin")
        async with contextlib.AsyncExitStack() as stack:
            streams = [await stack.enter_async_context(listening(served, token)) for _ in range(STREAMS_EACH)]
            for events in streams:
                said = [await asyncio.wait_for(anext(events), 30) for _ in range(3)]
                assert [set(one) for one in said] == [{"comment"}] * 3
            async with httpx.AsyncClient(base_url=served) as client:
                refused = await client.get("/live", headers=token)
                assert_problem(refused, 429, "too-many-streams")
                other = filled.gateway.keys.token("analyst")
                async with listening(served, other) as events:
                    assert await anext(events)
        # Who has left is not counted any more.
        ends = time.monotonic() + 30
        while True:
            try:
                async with listening(served, token) as events:
                    assert await anext(events)
            except AssertionError:
                assert time.monotonic() < ends
                await asyncio.sleep(0.1)
            else:
                return

    asyncio.run(listen())


def test_a_stream_ends_so_that_who_listens_proves_again_who_it_is(apart: Gateway) -> None:
    short = with_settings(apart, gateway_live_s=0.5)
    (answer,) = short.ask(("GET", "/live", {"headers": short.keys.token("admin"), "timeout": 30}))
    assert answer.text.startswith(": welcome")


def test_who_falls_behind_is_left_behind(
    filled: Filled, apart: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is kept for a slow reader: what it has missed by too much, it asks for anew."""
    monkeypatch.setattr("serving.gateway.live_feed.REMEMBERED", 5)

    async def listen(queries: Queries) -> None:
        feed = LiveFeed(queries, 1.0, 0.2)
        entry = filled.world.redis.xrevrange(FEED, count=1)[0][1]
        added = []
        async with feed.listening("slow"):
            parts = feed.after(None)
            assert await anext(parts) == []
            for _ in range(40):
                added.append(filled.world.redis.xadd(FEED, entry))
                await asyncio.sleep(0.01)
            while len(feed._held) > 10 or not feed._held:
                await asyncio.sleep(0.01)
            told: list[LiveDecision] = [one async for part in parts for one in part]
            assert told == []
        for name in added:
            filled.world.redis.xdel(FEED, name)

    async def run(_client: httpx.AsyncClient, app: FastAPI) -> None:
        await listen(app.state.services.queries)

    apart.run(run)


def test_who_takes_nothing_is_dropped(apart: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.gateway.live.STALLED_S", 0.3)

    async def stall(_client: httpx.AsyncClient, app: FastAPI) -> None:
        sent = asyncio.Event()

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body" and b"data" in message["body"]:
                sent.set()
                await asyncio.sleep(3600)  # as a server does whose peer does not read

        async def receive() -> Any:
            await asyncio.sleep(3600)

        headers = apart.keys.token("admin") | {"last-event-id": "0-0"}
        scope = {
            "type": "http", "method": "GET", "path": "/live", "raw_path": b"/live", "query_string": b"",
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
            "http_version": "1.1", "scheme": "http", "client": ("127.0.0.1", 1), "server": ("g", 80),
        }  # fmt: skip
        await asyncio.wait_for(app(scope, receive, send), 30)
        assert sent.is_set()
        assert not app.state.services.live._listeners

    apart.run(stall)


def test_whose_connection_breaks_off_is_forgotten(filled: Filled, served: str) -> None:
    host, port = served.removeprefix("http://").split(":")
    token = filled.gateway.keys.token("data_scientist")["Authorization"]
    for _ in range(STREAMS_EACH + 3):
        ends = time.monotonic() + 30
        while True:
            with socket.create_connection((host, int(port)), timeout=30) as raw:
                raw.sendall(f"GET /live HTTP/1.1\r\nHost: a\r\nAuthorization: {token}\r\n\r\n".encode())
                status = raw.recv(4096).split(b"\r\n")[0]
            if b"200" in status:
                break
            assert time.monotonic() < ends
            time.sleep(0.05)
