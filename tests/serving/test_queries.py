"""Reads of what the engine itself has written to real servers."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar, get_args

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from events.decision import Decision, decision_id
from events.feedback import Label
from serving.alerts import Kind
from serving.documents import INDEXES
from serving.engine import DECISION, LABEL, STEP, Engine
from serving.errors import QueryError, StoreAway
from serving.queries import MAX_PAGE, Queries, open_mongo, open_redis
from serving.security.personal import USER
from serving.stored import (
    CaseFilter,
    DecisionFilter,
    KindName,
    LabelFilter,
    Page,
    StepFilter,
)
from serving.views import FEED, user_key
from stack.ports import free_ports
from state.contract import DAY_MS, FEATURE_NAMES
from tests.serving.samples import MINUTE, PERSONS, SEALS, START_MS, decided, label
from tests.serving.servers import Server
from tests.serving.test_engine import AUDITED, Users, World, received

pytestmark = pytest.mark.stack

COUNT_5M = FEATURE_NAMES.index("user_count_5m")
T = TypeVar("T")
Ask = Callable[[Callable[[Queries], Awaitable[Any]]], Any]


def known(user: str) -> str:
    """What the stores know a user by."""
    return PERSONS.of(user).pseudonym


class Written(NamedTuple):
    """What the engine was given."""

    decisions: list[Decision]
    labels: list[Label]
    steps: int


def asking(mongo_url: str, redis_url: str, within_s: float = 20.0) -> Ask:
    """Runs one coroutine over `Queries` with clients of its own."""

    def ask(what: Callable[[Queries], Awaitable[T]]) -> T:
        async def run() -> T:
            mongo, redis = open_mongo(mongo_url, within_s), open_redis(redis_url, within_s)
            try:
                return await what(Queries(mongo, "world", redis, within_s))
            finally:
                await mongo.close()
                await redis.aclose()

        return asyncio.run(run())

    return ask


@pytest.fixture(scope="module")
def world(restartable_mongo: Server, restartable_redis: Server) -> World:
    world = World(restartable_mongo, restartable_redis)
    world.empty()
    return world


@pytest.fixture(scope="module")
def ask(restartable_mongo: Server, restartable_redis: Server) -> Ask:
    return asking(restartable_mongo.settings.mongo_url, restartable_redis.settings.redis_url)


@pytest.fixture(scope="module")
def written(world: World) -> Written:
    """160 decisions of five users, many at the same time; labels and steps."""
    draw = random.Random(5)
    decisions = [
        decided(
            number,
            f"u{draw.randrange(5)}",
            {COUNT_5M: draw.choice([1.0, 1.0, 9.0])},
            event_time=START_MS + draw.randrange(40) * MINUTE,
            score=draw.choice([0.01, 0.2, 0.85, 0.95]),
            decision=draw.choice(["approve", "approve", "review", "block"]),
            country=draw.choice(["FR", "DE", None]),
            channel=draw.choice(["online", "pos"]),
            terminal_id=draw.choice(["t1", "t2", "t3", None]),
            amount=float(draw.randrange(1, 500)),
            rules=draw.choice([[], ["<script>"]]),
        )
        for number in range(160)
    ]
    labels = [
        label(int(d.transaction_id[3:]), d.user_id, draw.random() < 0.5, event_time=d.event_time,
              source=draw.choice(["analyst", "chargeback"]))
        for d in draw.sample(decisions, 50)
    ]  # fmt: skip
    steps = [msgspec.structs.replace(AUDITED, event_id=f"step-{n}", at=START_MS + n // 3) for n in range(20)]
    log = [received(DECISION, n, d) for n, d in enumerate(decisions)]
    log += [received(LABEL, n, one, partition=1) for n, one in enumerate(labels)]
    log += [received(STEP, n, step, "step", partition=2) for n, step in enumerate(steps)]
    engine: Engine = world.engine(Users())
    for start in range(0, len(log), 60):
        engine.take(log[start : start + 60])
    return Written(decisions, labels, len(steps))


def walked(ask: Ask, page: Callable[[Queries, str | None], Awaitable[Page[Any]]]) -> list[Any]:
    """All of a list, page by page."""

    async def walk(queries: Queries) -> list[Any]:
        found, after = [], None
        while True:
            one = await page(queries, after)
            found += one.items
            if one.next is None:
                return found
            assert one.items
            after = one.next

    items: list[Any] = ask(walk)
    return items


filters = st.builds(
    lambda since, minutes, **fields: DecisionFilter(
        since=START_MS + since * MINUTE, until=START_MS + (since + minutes) * MINUTE, **fields
    ),
    since=st.integers(-1, 41),
    minutes=st.integers(1, 42),
    user_id=st.sampled_from([None, *map(known, ("u1", "u2", "nobody"))]),
    verdict=st.sampled_from([None, "approve", "block"]),
    country=st.sampled_from([None, "FR"]),
    alerting=st.booleans(),
)


@given(st.integers(1, MAX_PAGE), filters)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_pages_hold_every_decision_once_and_in_order(
    ask: Ask, written: Written, limit: int, wanted: DecisionFilter
) -> None:
    found = walked(ask, lambda queries, after: queries.decisions(wanted, limit=limit, after=after))
    expected = [
        d
        for d in written.decisions
        if wanted.user_id in (None, known(d.user_id))
        and wanted.verdict in (None, d.decision)
        and wanted.country in (None, d.country)
        and (wanted.since or 0) <= d.event_time < (wanted.until or 0)
        and (not wanted.alerting or d.decision != "approve" or d.score > 0.8 or over_velocity(d))
    ]
    expected.sort(key=lambda d: (d.event_time, d.decision_id), reverse=True)
    assert [d.decision_id for d in found] == [d.decision_id for d in expected]


def over_velocity(decision: Decision) -> bool:
    features: Any = memoryview(decision.features).cast("f")
    return bool(features[COUNT_5M] > 5)


@given(limit=st.integers(1, MAX_PAGE))
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@pytest.mark.usefixtures("written")
def test_every_list_is_whole_in_pages_of_any_size(ask: Ask, world: World, limit: int) -> None:
    lists: dict[str, Callable[[Queries, str | None], Awaitable[Page[Any]]]] = {
        "cases": lambda q, after: q.cases(CaseFilter(), limit=limit, after=after),
        "labels": lambda q, after: q.labels(LabelFilter(), limit=limit, after=after),
        "audit": lambda q, after: q.steps(StepFilter(), limit=limit, after=after),
    }
    names = {"cases": "case_id", "labels": "decision_id", "audit": "event_id"}
    for collection, page in lists.items():
        found = [getattr(one, names[collection]) for one in walked(ask, page)]
        assert sorted(found) == [document["_id"] for document in world.stored(collection)]
    days = walked(ask, lambda q, after: q.profiles(known("u1"), limit=limit, after=after))
    assert {(one.user_id, one.day) for one in days} == {(known("u1"), START_MS // DAY_MS)}


@pytest.mark.usefixtures("written")
def test_changes_between_pages_move_nothing(ask: Ask, world: World) -> None:
    """Cases change and are opened while somebody walks; those that were there come once each."""
    before = [document["_id"] for document in world.stored("cases")]
    engine, number = world.engine(Users(), "9"), 10_000

    async def walk(queries: Queries) -> list[str]:
        nonlocal number
        found, after = [], None
        while True:
            page = await queries.cases(CaseFilter(), limit=2, after=after)
            found += [case.case_id for case in page.items]
            if page.next is None:
                return found
            after, number = page.next, number + 1
            later = decided(number, f"new-{number}", score=0.95, event_time=START_MS + DAY_MS + number)
            engine.take([received(DECISION, number, later, partition=9)])

    found = ask(walk)
    assert len(found) == len(set(found))
    assert set(before) <= set(found)


@pytest.mark.usefixtures("written")
def test_one_case_comes_with_its_decisions_and_one_decision_with_its_explanation(ask: Ask) -> None:
    async def look(queries: Queries) -> None:
        page = await queries.cases(CaseFilter(severity="critical"), limit=1)
        detail = await queries.case(page.items[0].case_id, limit=MAX_PAGE)
        assert detail is not None
        assert detail.case == page.items[0]
        assert len(detail.decisions.items) == detail.case.alerts
        assert {d.case_id for d in detail.decisions.items} == {detail.case.case_id}
        for found in detail.decisions.items:
            assert found == await queries.decision(found.decision_id)
            assert found.explanation is not None
            assert found.explanation.sentence
            assert found.findings
            assert set(found.rules) <= {"<script>"}
        assert await queries.case("case-of-nobody") is None
        assert await queries.decision("of-nobody") is None

    ask(look)


@pytest.mark.usefixtures("written")
def test_filters_of_cases(ask: Ask, world: World) -> None:
    stored = world.stored("cases")
    for wanted, holds in (
        (CaseFilter(status="open"), lambda c: c["status"] == "open"),
        (CaseFilter(severity="high"), lambda c: c["severity"] == "high"),
        (CaseFilter(kind="velocity"), lambda c: "velocity" in c["kinds"]),
        (
            CaseFilter(user_id=known("u3"), status="fraud"),
            lambda c: (c["user_id"], c["status"]) == (known("u3"), "fraud"),
        ),
        (CaseFilter(since=START_MS + 5 * MINUTE), lambda c: c["opened_at"] >= START_MS + 5 * MINUTE),
    ):
        page = ask(lambda q, w=wanted: q.cases(w, limit=MAX_PAGE))  # type: ignore[misc]
        assert {case.case_id for case in page.items} == {c["_id"] for c in stored if holds(c)}


def test_findings_can_be_looked_for(ask: Ask, written: Written) -> None:
    page = ask(lambda q: q.decisions(DecisionFilter(kind="velocity", severity="high"), limit=MAX_PAGE))
    assert {d.decision_id for d in page.items} == {
        d.decision_id for d in written.decisions if over_velocity(d)
    }


def test_labels_are_found_by_user_decision_and_source(ask: Ask, written: Written) -> None:
    latest = {decision_id(one.user_id, one.transaction_id): one for one in written.labels}

    async def look(queries: Queries) -> None:
        of_user = await queries.labels(LabelFilter(user_id=known("u2"), source="analyst"), limit=MAX_PAGE)
        assert {one.decision_id for one in of_user.items} == {
            name for name, one in latest.items() if (one.user_id, one.source) == ("u2", "analyst")
        }
        name = of_user.items[0].decision_id
        assert (await queries.labels(LabelFilter(decision_id=name))).items == of_user.items[:1]
        assert await queries.label(name) == of_user.items[0]
        assert await queries.label("of-nobody") is None
        precision = await queries.precision(START_MS, START_MS + DAY_MS)
        counts = Counter((one.source, one.is_fraud) for one in latest.values())
        assert {(p.source, p.fraud, p.legitimate) for p in precision.sources} == {
            (source, counts[source, True], counts[source, False]) for source in ("analyst", "chargeback")
        }
        assert (precision.counted, precision.truncated) == (len(latest), False)

    ask(look)


def test_counts_are_those_of_what_was_decided(ask: Ask, written: Written) -> None:
    async def look(queries: Queries) -> None:
        minutes = await queries.stats(START_MS - 5 * MINUTE + 1, START_MS + 60 * MINUTE)
        hours = await queries.stats(START_MS - 5 * MINUTE, START_MS + 60 * MINUTE, step="hour")
        assert minutes.since == START_MS - 5 * MINUTE
        assert len(minutes.series) == 65
        assert minutes.total == hours.total
        assert minutes.total.decisions == len(written.decisions)
        assert sum(one.decisions for one in hours.series) == len(written.decisions)
        by_minute = Counter(d.event_time for d in written.decisions)
        assert {one.at: one.decisions for one in minutes.series if one.decisions} == dict(by_minute)
        countries = Counter(d.country for d in written.decisions if d.country)
        assert {share.name: share.decisions for share in minutes.countries} == dict(countries)
        flagged = Counter(d.channel for d in written.decisions if d.decision != "approve")
        assert {share.name: share.flagged for share in minutes.channels} == dict(flagged)
        assert minutes.total.labelled_fraud == sum(one.is_fraud for one in written.labels)
        assert minutes.total.fraud_rate == pytest.approx(minutes.total.labelled_fraud / len(written.labels))

    ask(look)


def test_risk_is_that_of_redis_and_else_that_of_the_last_profile(
    ask: Ask, written: Written, world: World
) -> None:
    async def look(queries: Queries) -> None:
        ranked = await queries.top_risk(limit=MAX_PAGE)
        assert [one.risk for one in ranked] == sorted((one.risk for one in ranked), reverse=True)
        for one in ranked[:3]:
            risk = await queries.user_risk(one.user_id)
            assert risk is not None
            assert risk.risk == pytest.approx(one.risk, rel=1e-3)
            assert risk.source == "redis"
            assert one.sealed_user_id is not None
            assert known(SEALS.open(USER, one.sealed_user_id)) == one.user_id
        assert await queries.user_risk("nobody") is None

    ask(look)
    held = world.redis.hgetall(user_key(known("u1")))
    world.redis.delete(user_key(known("u1")))
    try:
        risk = ask(lambda q: q.user_risk(known("u1")))
    finally:
        world.redis.hset(user_key(known("u1")), mapping=held)
    assert risk.source == "mongo"
    assert risk.case_id.startswith("case-")
    assert (
        risk.latest
        == max(
            (d for d in written.decisions if d.user_id == "u1"), key=lambda d: (d.event_time, d.decision_id)
        ).decision_id
    )


def test_the_feed_goes_on_where_somebody_left_it(ask: Ask, written: Written, world: World) -> None:
    async def look(queries: Queries) -> None:
        newest = await queries.feed(limit=10)
        assert [one.feed_id for one in newest] == sorted(
            (one.feed_id for one in newest), key=lambda name: tuple(map(int, name.split("-")))
        )
        whole, after = [], "0-0"
        while part := await queries.feed(after, limit=37):
            whole += part
            after = part[-1].feed_id
        assert whole[-10:] == newest
        assert {d.decision_id for d in written.decisions} <= {one.decision_id for one in whole}
        assert await queries.feed(after, wait_ms=1) == []

        async def add() -> None:
            await asyncio.sleep(0.05)
            entry = world.redis.xrevrange(FEED, count=1)[0][1]
            world.redis.xadd(FEED, entry)

        heard, _ = await asyncio.gather(queries.feed(after, wait_ms=10_000), add())
        assert [one.decision_id for one in heard] == [whole[-1].decision_id]

    ask(look)


@pytest.mark.usefixtures("written")
def test_similar_cases_share_most_with_the_one(ask: Ask) -> None:
    async def look(queries: Queries) -> None:
        (case,) = (await queries.cases(CaseFilter(), limit=1)).items
        similar = await queries.similar_cases(case.case_id, limit=5)
        assert similar is not None
        assert 0 < len(similar) <= 5
        assert case.case_id not in {one.case.case_id for one in similar}
        assert [one.likeness for one in similar] == sorted((one.likeness for one in similar), reverse=True)
        for one in similar:
            assert set(one.shared_kinds) == case.kinds.keys() & one.case.kinds.keys()
        assert await queries.similar_cases("of-nobody") is None

    ask(look)


hostile: Any = st.sampled_from(
    [{"$gt": ""}, {"$ne": None}, ["u1"], 1, b"u1", "", "x" * 1_000, {"$where": "sleep(1000)"}, True, 0.5]
)


@given(hostile)
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@pytest.mark.usefixtures("written")
def test_what_is_no_text_is_refused_and_never_an_operator(ask: Ask, value: Any) -> None:
    asked: list[Callable[[Queries], Awaitable[Any]]] = [
        lambda q: q.cases(CaseFilter(user_id=value)),
        lambda q: q.cases(CaseFilter(status=value)),
        lambda q: q.cases(CaseFilter(kind=value)),
        lambda q: q.decisions(DecisionFilter(user_id=value)),
        lambda q: q.decisions(DecisionFilter(country=value)),
        lambda q: q.decisions(DecisionFilter(verdict=value)),
        lambda q: q.labels(LabelFilter(decision_id=value)),
        lambda q: q.steps(StepFilter(step=value)),
        lambda q: q.case(value),
        lambda q: q.decision(value),
        lambda q: q.label(value),
        lambda q: q.user_risk(value),
        lambda q: q.profiles(value),
        lambda q: q.similar_cases(value),
        lambda q: q.decisions(DecisionFilter(), after=value),
        lambda q: q.feed(value),
    ]

    async def all_refused(queries: Queries) -> None:
        for what in asked:
            with pytest.raises(QueryError):
                await what(queries)

    ask(all_refused)


@pytest.mark.parametrize("text", ["$gt", "{'$gt': ''}", "u1'||'1'=='1", "u\x00", "u1\r\n", "*", FEED])
@pytest.mark.usefixtures("written")
def test_a_text_that_looks_like_an_operator_finds_nothing(ask: Ask, text: str) -> None:
    async def look(queries: Queries) -> None:
        assert (await queries.decisions(DecisionFilter(user_id=text))).items == []
        assert (await queries.cases(CaseFilter(user_id=text))).items == []
        assert await queries.decision(text) is None
        assert await queries.user_risk(text) is None

    ask(look)


@pytest.mark.parametrize("limit", [0, -1, MAX_PAGE + 1, True, "5", None, 1.0])
def test_limits_are_bounded(ask: Ask, limit: Any) -> None:
    async def refused(queries: Queries) -> None:
        for what in (
            lambda: queries.cases(CaseFilter(), limit=limit),
            lambda: queries.top_risk(limit=limit),
            lambda: queries.feed(limit=limit),
            lambda: queries.similar_cases("c", limit=limit),
        ):
            with pytest.raises(QueryError, match="limit"):
                await what()

    ask(refused)


@given(st.one_of(st.text(max_size=60), st.binary(max_size=60).map(lambda b: b.hex())))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_made_up_cursor_is_refused(ask: Ask, cursor: str) -> None:
    async def refused(queries: Queries) -> None:
        with pytest.raises(QueryError, match="after"):
            await queries.decisions(DecisionFilter(), after=cursor)

    ask(refused)


@pytest.mark.usefixtures("written")
def test_a_cursor_is_of_one_list(ask: Ask) -> None:
    async def refused(queries: Queries) -> None:
        page = await queries.decisions(DecisionFilter(), limit=1)
        with pytest.raises(QueryError, match="another list"):
            await queries.labels(LabelFilter(), after=page.next)

    ask(refused)


def test_windows_of_counts_are_bounded(ask: Ask) -> None:
    async def refused(queries: Queries) -> None:
        for since, until in ((5, 5), (6, 5), (-1, 5), (0, 1_501 * MINUTE), (0, 2**60), (0.5, 7)):
            with pytest.raises(QueryError, match="until"):
                await queries.stats(since, until)  # type: ignore[arg-type]

    ask(refused)


def test_names_of_kinds_are_those_of_the_rules() -> None:
    assert set(get_args(KindName)) == {kind.name.lower() for kind in Kind}


@pytest.fixture
def nobody() -> Ask:
    mongo, redis = free_ports(2)
    return asking(f"mongodb://127.0.0.1:{mongo}/", f"redis://127.0.0.1:{redis}/0", 0.3)


def test_stores_that_are_away_are_named(nobody: Ask) -> None:
    async def look(queries: Queries) -> None:
        for what, store in (
            (queries.cases(CaseFilter()), "MongoDB"),
            (queries.decision("d"), "MongoDB"),
            (queries.user_risk("u"), "MongoDB"),
            (queries.top_risk(), "Redis"),
            (queries.stats(0, MINUTE), "Redis"),
            (queries.feed(), "Redis"),
        ):
            with pytest.raises(StoreAway, match=store):
                await what
        assert await queries.answers() == {"mongo": False, "redis": False}

    nobody(look)


@pytest.mark.usefixtures("written")
def test_a_store_that_hangs_is_waited_for_no_longer_than_allowed(
    restartable_mongo: Server, restartable_redis: Server
) -> None:
    ask = asking(restartable_mongo.settings.mongo_url, restartable_redis.settings.redis_url, 0.5)

    async def look(queries: Queries) -> None:
        assert (await queries.answers())["redis"]
        for server, what in (
            (restartable_mongo, lambda: queries.decisions(DecisionFilter())),
            (restartable_redis, queries.top_risk),
        ):
            server.freeze()
            try:
                with pytest.raises(StoreAway):
                    await asyncio.wait_for(what(), 30)
            finally:
                server.thaw()

    ask(look)


def test_indexes_end_with_the_order_of_the_lists() -> None:
    """What is equal in a query comes first, then time and id: so a page is read off the index."""
    listed = {
        "decisions": "event_time",
        "cases": "opened_at",
        "labels": "event_time",
        "profiles": "day",
        "audit": "at",
    }
    for collection, at in listed.items():
        assert any(keys[-2:] == ((at, -1), ("_id", -1)) for keys in INDEXES[collection].values())
