"""The engine over real servers."""

import random
import re
from collections import Counter
from typing import Any

import bson
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from events.decision import Decision
from events.topics import TOPICS
from events.types import IDENTIFIER_PATTERN
from serving.documents import INDEXES
from serving.engine import DECISION, LABEL, STEP, Engine, Received, Served, Stores
from serving.security.personal import USER, Persons
from serving.stores import MongoStore, connect_mongo, connect_redis, redis_circuit
from serving.views import Views, minute_key
from state.contract import DAY_MS, FEATURE_NAMES
from tests.serving.samples import MINUTE, PERSONS, SEALS, START_MS, VIEWS, decided, label
from tests.serving.servers import Server
from tests.serving.test_views import contents

pytestmark = pytest.mark.stack

COUNT_5M = FEATURE_NAMES.index("user_count_5m")
SEALED = re.compile(rb"sealed\.[0-9a-f]{8}\.[\w-]+")
AUDITED = next(topic.example for topic in TOPICS if topic.name == "audit")


class Users(dict[str, bytes]):
    """Keyed state in a dict."""

    put = dict.__setitem__


class World:
    """Two servers, emptied; engines over them."""

    def __init__(self, mongo: Server, redis: Server) -> None:
        self._mongo = connect_mongo(mongo.settings.mongo_url)
        self.redis: Any = connect_redis(redis.settings.redis_url)

    def empty(self) -> None:
        for name in INDEXES:
            self._mongo["world"][name].drop()
        self.redis.flushall()

    def engine(self, users: Users, shard: str = "0", persons: Persons = PERSONS) -> Engine:
        stores = Stores(
            MongoStore(self._mongo, "world"), Views(self.redis, VIEWS, "log"), redis_circuit(self.redis)
        )
        return Engine(shard, users, stores, persons, {})

    def stored(self, collection: str) -> list[dict[str, Any]]:
        return sorted(self._mongo["world"][collection].find(), key=lambda document: str(document["_id"]))

    def all(self) -> dict[Any, Any]:
        """Whatever is stored, with seals opened: no two seals are alike."""
        everything = contents(self.redis) | {name.encode(): self.stored(name) for name in INDEXES}
        return {name: opened(value) for name, value in everything.items()}


def opened(value: Any) -> Any:
    if isinstance(value, dict):
        return {opened(name): opened(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return list(map(opened, value))
    text = value.encode() if isinstance(value, str) else value
    return SEALED.sub(unsealed, text) if isinstance(text, bytes) else value


def unsealed(found: re.Match[bytes]) -> bytes:
    return SEALS.open(USER, found[0].decode()).encode()


@pytest.fixture
def world(restartable_mongo: Server, restartable_redis: Server) -> World:
    world = World(restartable_mongo, restartable_redis)
    world.empty()
    return world


def received(kind: int, position: int, record: Any, key: str | None = None, partition: int = 0) -> Received:
    return Received(kind, partition, position, key or record.user_id, msgspec.json.encode(record))


def history(seed: int, length: int = 120) -> list[Received]:
    """Decisions of four users, labels, steps of the learner and repeats, in two partitions for each kind."""
    draw = random.Random(seed)
    log: list[Received] = []
    for position in range(length):
        number, user = draw.randrange(60), f"u{draw.randrange(4)}"
        if draw.random() < 0.2:
            record = label(number, user, is_fraud=draw.random() < 0.5)
            log.append(received(LABEL, position, record, partition=2 + int(user[1]) % 2))
        elif draw.random() < 0.1:
            step = msgspec.structs.replace(AUDITED, event_id=f"step-{draw.randrange(5)}")
            log.append(received(STEP, position, step, "step", partition=4))
        else:
            decision = decided(
                number,
                user,
                {COUNT_5M: float(draw.choice([1, 1, 9]))},
                score=draw.choice([0.01, 0.2, 0.85, 0.95]),
                decision=draw.choice(["approve", "approve", "review"]),
                event_time=START_MS + number * 30 * MINUTE,
            )
            log.append(received(DECISION, position, decision, partition=int(user[1]) % 2))
    return log


@pytest.mark.parametrize("seed", range(4))
def test_restarts_and_other_batches_change_nothing(world: World, seed: int) -> None:
    log = history(seed)
    straight = world.engine(Users()).take(log)
    expected = world.all()

    world.empty()
    draw = random.Random(seed)
    alerts: dict[str, Any] = {}
    users, checkpoint = Users(), (0, Users())
    engine, done, restarts = world.engine(users), 0, 4
    while done < len(log):
        end = min(len(log), done + draw.randint(1, 40))
        alerts |= {alert.alert_id: alert for alert in engine.take(log[done:end]).alerts}
        done = end
        if restarts and draw.random() < 0.5:
            restarts -= 1
            done, users = checkpoint[0], Users(checkpoint[1])
            engine = world.engine(users)
        elif draw.random() < 0.5:
            checkpoint = done, Users(users)

    assert world.all() == expected
    assert list(alerts.values()) == straight.alerts
    decisions = {msgspec.json.decode(r.payload or b"")["decision_id"] for r in log if r.kind == DECISION}
    assert {document["_id"] for document in world.stored("decisions")} == decisions


def test_counts_reconcile_with_what_is_stored(world: World) -> None:
    world.engine(Users()).take(history(7, 300))

    counted = {
        key: sum(
            int(world.redis.hget(name, key) or 0) for name in world.redis.scan_iter("fraudstream:minute:*")
        )
        for key in ("decisions", "review")
    }
    stored = world.stored("decisions")
    assert counted == {
        "decisions": len(stored),
        "review": sum(document["decision"] == "review" for document in stored),
    }
    assert len(world.stored("cases")) == len({d["case_id"] for d in stored if d["case_id"] is not None})
    assert sum(case["alerts"] for case in world.stored("cases")) == sum(bool(d["findings"]) for d in stored)
    open_cases = Counter(case["user_id"] for case in world.stored("cases") if case["status"] == "open")
    assert set(open_cases.values()) <= {1}


def test_what_is_flagged_is_explained_and_what_is_not_says_why(world: World) -> None:
    by_heuristic = decided(1, score=0.95, decision="block")
    by_another = decided(2, score=0.95, decision="block", model_version="gone-7")
    served = world.engine(Users()).take(
        [received(DECISION, k, d) for k, d in enumerate((by_heuristic, by_another, decided(3)))]
    )

    first, second, third = (find(world, d) for d in (by_heuristic, by_another, decided(3)))
    assert "score" in first["explanation"]["sentence"]
    assert "gone-7, which is not at hand" in second["not_explained"]
    assert "explanation" not in third
    assert served.explained == 1


def find(world: World, decision: Decision) -> dict[str, Any]:
    (found,) = (d for d in world.stored("decisions") if d["_id"] == decision.decision_id)
    return found


def test_what_is_refused_comes_back_with_its_bytes_and_the_rest_is_stored(world: World) -> None:
    too_large = decided(2, rules=["r" * 1000] * 18_000, score=0.95)
    bad = [
        Received(DECISION, 0, 0, "u1", b"{"),
        Received(DECISION, 0, 1, "u1", None),
        received(DECISION, 2, decided(1), key="u2"),
        received(LABEL, 3, label(1), key="u2"),
        Received(LABEL, 0, 4, "u1", b'{"transaction_id":"tx-1"}'),
        Received(STEP, 0, 5, None, b"[]"),
        received(DECISION, 6, too_large),
    ]
    served = world.engine(Users()).take([*bad, received(DECISION, 7, decided(3))])

    assert Counter(invalid.reason for invalid, _ in served.refused) == {
        "malformed_json": 1,
        "empty": 1,
        "key_mismatch": 2,
        "missing_field": 1,
        "wrong_type": 1,
        "store_refused": 1,
    }
    assert {origin.payload for _, origin in served.refused} == {one.payload for one in bad}
    assert [d["transaction_id"] for d in world.stored("decisions")] == ["tx-3"]
    assert world.redis.hget(minute_key(decided(3).event_time // MINUTE), "decisions") == b"1"


@given(
    st.lists(
        st.tuples(
            st.from_regex(IDENTIFIER_PATTERN, fullmatch=True).map(
                lambda text: f"Somebody-{text[:80].strip()}"
            ),
            st.sampled_from([0.01, 0.2, 0.95]),
            st.booleans(),
        ),
        min_size=1,
        max_size=6,
    )
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_store_holds_a_user_id_but_sealed(world: World, drawn: list[tuple[str, float, bool]]) -> None:
    log = []
    for number, (user, score, is_label) in enumerate(drawn):
        verdict = "block" if score > 0.9 else "approve"
        log.append(received(DECISION, 2 * number, decided(number, user, score=score, decision=verdict)))
        if is_label:
            log.append(received(LABEL, 2 * number + 1, label(number, user), partition=1))
    world.redis.delete("fraudstream:marks:log:0")
    world.engine(Users()).take(log)

    stored = [bson.encode(document) for name in INDEXES for document in world.stored(name)]
    stored += map(flat, contents(world.redis).items())
    assert not any(b"Somebody" in text for text in stored)
    sealed = {user for text in stored for user in map(unsealed, SEALED.finditer(text))}
    assert sealed >= {user.encode() for user, _, _ in drawn}


def flat(value: Any) -> bytes:
    """All the texts in a value, one after the other."""
    if isinstance(value, dict):
        return flat([*value.items()])
    if isinstance(value, list | tuple):
        return b"\n".join(map(flat, value))
    return value if isinstance(value, bytes) else str(value).encode()


def test_an_empty_batch_writes_nothing(world: World) -> None:
    assert world.engine(Users()).take([]) == Served()
    assert contents(world.redis) == {}


def test_a_profile_is_written_once_a_day(world: World) -> None:
    log = [
        received(DECISION, k, decided(k, event_time=START_MS + day * DAY_MS + k))
        for k, day in enumerate([0, 0, 1, 1, 0, 2])
    ]
    world.engine(Users()).take(log)

    assert [(document["at"] - START_MS) % DAY_MS for document in world.stored("profiles")] == [0, 2, 5]
