"""Every query of `serving.queries` over a million stored decisions, in whatever server speaks MongoDB here.

FRAUDSTREAM_AT_REST sets another number of decisions.
"""

import asyncio
import os
import random
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from pymongo import MongoClient

from events.decision import Decision, decision_id
from events.feedback import Label
from serving.documents import CASES, DECISIONS, LABELS, PROFILES, of_case, of_decision, of_label, of_user
from serving.errors import StoreAway
from serving.queries import Queries, open_mongo, open_redis
from serving.security.personal import Person
from serving.stored import CaseFilter, DecisionFilter, LabelFilter, StepFilter
from serving.stores import MongoStore, connect_mongo, connect_redis
from serving.users import Judged, User
from serving.views import Change, Views, ViewSettings
from stack.cluster import isolated_stack
from state.contract import CONTRACT_VERSION, DAY_MS, MINUTE_MS, N_FEATURES

DECIDED = int(os.environ.get("FRAUDSTREAM_AT_REST", "1000000"))
USERS = 20_000
FLAGGED = 0.02
LABELLED = 0.01
BATCH = 5_000
REPEATS = 10
PATIENCE_S = 10.0
BAR_MS = 200
DATABASE = "fraudstream"
FEATURES = np.zeros(N_FEATURES, "<f4").tobytes()


def decisions(count: int) -> Iterator[tuple[Decision, Person]]:
    """A day of decisions, in order of time, of users and terminals drawn at random."""
    draw = random.Random(3)  # noqa: S311 - the same every time
    start = time.time_ns() // 1_000_000 - DAY_MS
    for number in range(count):
        user, name = f"user-{draw.randrange(USERS):07d}", f"tx-{number:09d}"
        flagged = draw.random() < FLAGGED
        at = start + number * DAY_MS // count
        yield (
            Decision(
                user_id=user, transaction_id=name, decision_id=decision_id(user, name), event_time=at,
                amount=draw.uniform(1, 500), decision="review" if flagged else "approve",
                score=draw.uniform(0.5, 1) if flagged else draw.uniform(0, 0.3), model_version="gbt-1",
                contract_version=CONTRACT_VERSION, features=FEATURES, decided_at=at + 20,
                terminal_id=f"terminal-{draw.randrange(5_000):05d}", currency="EUR",
                country=draw.choice(("FR", "DE", "IT", "ES")), channel=draw.choice(("online", "pos", "atm")),
                parts={"gbt": 0.5},
            ),
            Person(f"user_id~{user}", f"sealed.{user}"),
        )  # fmt: skip


def fill(mongo: MongoClient[Any], redis: Any, count: int) -> None:
    """Store what the serving job would, without its state in Flink; of cases and labels the last state."""
    MongoStore(mongo, DATABASE)._index()
    users: dict[str, User] = {}
    cases: dict[str, Any] = {}
    waiting: dict[str, list[Any]] = {DECISIONS: [], LABELS: [], PROFILES: []}
    views = Views(redis, ViewSettings(300, 30, 1_500, 10_000, 10_000), "at-rest")
    changes: list[Change] = []

    def flush() -> None:
        for collection, bodies in waiting.items():
            if bodies:
                mongo[DATABASE][collection].insert_many(bodies, ordered=False)
                bodies.clear()
        views.write("0", changes, {c.person.pseudonym: users[c.record.user_id] for c in changes})
        changes.clear()

    draw = random.Random(4)  # noqa: S311
    for number, (decision, person) in enumerate(decisions(count)):
        user = users.setdefault(decision.user_id, User())
        judged = user.decide(decision) or Judged([], None, None)
        waiting[DECISIONS].append(
            of_decision(decision, judged, "not at hand" if judged.found else None, person)
        )
        changes.append(Change(0, 2 * number, decision, judged, person))
        if user.profiled_day != (day := decision.event_time // DAY_MS):
            user.profiled_day = day
            waiting[PROFILES].append(of_user(decision, user, person))
        if judged.case is not None:
            cases[judged.case.case_id] = of_case(judged.case, person)
        if draw.random() < LABELLED:
            label = Label(
                transaction_id=decision.transaction_id, user_id=decision.user_id,
                event_time=decision.event_time, is_fraud=draw.random() < 0.3, source="analyst",
                labelled_at=decision.event_time + MINUTE_MS,
            )  # fmt: skip
            waiting[LABELS].append(of_label(label, None, person))
        if len(waiting[DECISIONS]) == BATCH:
            flush()
    waiting[CASES] = list(cases.values())
    flush()


class Timed(NamedTuple):
    """Milliseconds of each run; None where one was given up."""

    name: str
    ms: list[float] | None


Asked = Callable[[Queries], Awaitable[Any]]


async def timed(queries: Queries) -> list[Timed]:
    """Every query, one after the other."""
    newest = (await queries.feed(limit=1))[0]
    middle, ends = newest.event_time - DAY_MS // 2, newest.event_time + 1
    user, decision, found = newest.user_id, newest.decision_id, await queries.top_risk(limit=1)
    risk = await queries.user_risk(found[0].user_id)
    case = "none" if risk is None or risk.case_id is None else risk.case_id
    asked: dict[str, Asked] = {
        "decision by id": lambda q: q.decision(decision),
        "label by id": lambda q: q.label(decision),
        "user risk (Redis)": lambda q: q.user_risk(user),
        "top risk (Redis)": lambda q: q.top_risk(limit=200),
        "stats by minute, 24 h (Redis)": lambda q: q.stats(ends - DAY_MS, ends),
        "stats by hour, 24 h (Redis)": lambda q: q.stats(ends - DAY_MS, ends, step="hour"),
        "feed, newest 200 (Redis)": lambda q: q.feed(limit=200),
        "steps": lambda q: q.steps(StepFilter()),
        "cases": lambda q: q.cases(CaseFilter()),
        "cases by status": lambda q: q.cases(CaseFilter(status="open")),
        "cases by severity": lambda q: q.cases(CaseFilter(severity="critical")),
        "cases by user": lambda q: q.cases(CaseFilter(user_id=user)),
        "cases by kind": lambda q: q.cases(CaseFilter(kind="score")),
        "labels": lambda q: q.labels(LabelFilter()),
        "labels by user": lambda q: q.labels(LabelFilter(user_id=user)),
        "labels by source": lambda q: q.labels(LabelFilter(source="analyst")),
        "precision": lambda q: q.precision(ends - DAY_MS, ends + DAY_MS),
        "profiles of a user": lambda q: q.profiles(user),
        "decisions": lambda q: q.decisions(DecisionFilter()),
        "decisions before noon": lambda q: q.decisions(DecisionFilter(until=middle)),
        "decisions by user": lambda q: q.decisions(DecisionFilter(user_id=user)),
        "decisions by transaction": lambda q: q.decisions(DecisionFilter(transaction_id="tx-000000001")),
        "decisions by country": lambda q: q.decisions(DecisionFilter(country="FR")),
        "decisions by channel": lambda q: q.decisions(DecisionFilter(channel="atm")),
        "decisions by verdict": lambda q: q.decisions(DecisionFilter(verdict="review")),
        "alerts": lambda q: q.decisions(DecisionFilter(alerting=True)),
        "case with its decisions": lambda q: q.case(case),
        "similar cases": lambda q: q.similar_cases(case),
    }
    return [Timed(name, await _repeated(queries, ask)) for name, ask in asked.items()]


async def _repeated(queries: Queries, ask: Asked) -> list[float] | None:
    took: list[float] = []
    for _ in range(REPEATS):
        began = time.monotonic()
        try:
            await ask(queries)
        except StoreAway:
            return None
        took.append((time.monotonic() - began) * 1000)
        if sum(took) > 5_000:
            break
    return took


def lines() -> Iterator[str]:
    """Each query with its times; what the server says of indexes."""
    with isolated_stack(names=("mongo", "redis")) as cluster:
        settings = cluster.settings
        mongo, redis = connect_mongo(settings.mongo_url), connect_redis(settings.redis_url)
        began = time.monotonic()
        fill(mongo, redis, DECIDED)
        took = time.monotonic() - began
        server = "mongod" if shutil.which("mongod") else "FerretDB 1.24 on SQLite"
        counts = ", ".join(
            f"{mongo[DATABASE][name].estimated_document_count():,} {name}"
            for name in (DECISIONS, CASES, LABELS, PROFILES)
        )
        yield f"{server}: {counts}; stored in {took:.0f} s. Bar: {BAR_MS} ms."
        yield ""

        async def ask() -> list[Timed]:
            reader, views = open_mongo(settings.mongo_url, PATIENCE_S), open_redis(settings.redis_url)
            try:
                return await timed(Queries(reader, DATABASE, views, PATIENCE_S))
            finally:
                await reader.close()
                await views.aclose()

        yield "| query | p50 | p95 | within the bar |"
        yield "|---|---|---|---|"
        for name, ms in asyncio.run(ask()):
            if ms is None:
                yield f"| {name} | more than {PATIENCE_S:.0f} s | | no |"
                continue
            p50, p95 = np.percentile(ms, [50, 95])
            yield f"| {name} | {p50:,.1f} ms | {p95:,.1f} ms | {'yes' if p95 <= BAR_MS else 'no'} |"
        yield ""
        yield "What the server says of a query by id, by user and without a condition:"
        yield ""
        yield "```"
        for query in ({"_id": "a"}, {"user_id": {"$eq": "a"}}, {}):
            cursor = mongo[DATABASE][DECISIONS].find(query)
            plan = cursor.sort([("event_time", -1), ("_id", -1)]) if "_id" not in query else cursor
            yield _plan(plan.explain())
        yield "```"


def _plan(explained: dict[str, Any]) -> str:
    """mongod's winning plan, or how SQLite finds what FerretDB asks it for."""
    planner = explained["queryPlanner"]
    return str(planner.get("winningPlan", planner.get("Plan")))
