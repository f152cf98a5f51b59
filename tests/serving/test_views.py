"""The views in a real Redis."""

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from events.decision import Decision
from serving.stores import connect_redis
from serving.users import User
from serving.views import (
    FEED,
    TOP_RISK,
    Change,
    Views,
    decision_key,
    minute_key,
    risk_rank,
    transaction_key,
    user_key,
)
from tests.serving.samples import START_MS, VIEWS, decided, known, label
from tests.serving.servers import Server

pytestmark = pytest.mark.stack

U1 = known().pseudonym


@pytest.fixture(scope="module")
def redis(restartable_redis: Server) -> Any:
    return connect_redis(restartable_redis.settings.redis_url)


def contents(redis: Any) -> dict[bytes, Any]:
    """All that Redis holds but times to live and the ids of stream entries."""
    readers: dict[bytes, Any] = {
        b"string": redis.get,
        b"hash": redis.hgetall,
        b"zset": lambda key: redis.zrange(key, 0, -1, withscores=True),
        b"stream": lambda key: [fields for _, fields in redis.xrange(key)],
    }
    return {key: readers[redis.type(key)](key) for key in redis.scan_iter()}


class Log:
    """Records of one shard in the order of their log, folded from wherever reading starts again."""

    def __init__(self, numbers: list[tuple[int, int, bool]]) -> None:
        """numbers: user, partition, and whether the record is a label, by position."""
        self.entries = [
            (
                partition,
                position,
                label(position, f"u{user}") if is_label else decided(position, f"u{user}", score=score),
            )
            for position, (user, partition, is_label) in enumerate(numbers)
            for score in [(position * 37 % 100) / 100]
        ]

    def write(self, views: Views, users: dict[str, User], start: int, end: int) -> dict[str, User]:
        """Write one batch; the users after it."""
        users = {name: User.unpack(user.pack()) for name, user in users.items()}
        changes = []
        for partition, position, record in self.entries[start:end]:
            person = known(record.user_id)
            user = users.setdefault(person.pseudonym, User())
            judged = user.decide(record) if isinstance(record, Decision) else user.label(record)
            if judged is not None:
                changes.append(Change(partition, position, record, judged, person))
        views.write("0", changes, users)
        return users


logs = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.booleans()), min_size=1, max_size=40).map(
    Log
)


@given(logs, st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_restarts_and_other_batches_change_nothing(redis: Any, log: Log, data: st.DataObject) -> None:
    redis.flushall()
    views = Views(redis, VIEWS, "log")
    log.write(views, {}, 0, len(log.entries))
    expected = contents(redis)

    redis.flushall()
    views = Views(redis, VIEWS, "log")
    saved: dict[str, User] = {}
    done, checkpoint, users, restarts = 0, 0, saved, 3
    while done < len(log.entries):
        end = data.draw(st.integers(done + 1, len(log.entries)))
        users = log.write(views, users, done, end)
        done = end
        if data.draw(st.booleans()):
            checkpoint, saved = done, users
        elif restarts and data.draw(st.booleans()):
            restarts -= 1
            done, users = checkpoint, saved

    assert contents(redis) == expected


def test_views_hold_the_decision_the_user_the_counts_and_the_feed(redis: Any) -> None:
    redis.flushall()
    user = User()
    decisions = [decided(1), decided(2, score=0.95, decision="block"), decided(3, country=None, channel=None)]
    changes = []
    for position, decision in enumerate(decisions):
        judged = user.decide(decision)
        assert judged is not None
        changes.append(Change(0, position, decision, judged, known()))
    Views(redis, VIEWS, "log").write("0", changes, {U1: user})

    block = decisions[1]
    assert redis.get(transaction_key("tx-2")) == block.decision_id.encode()
    assert b'"decision":"block"' in redis.get(decision_key(block.decision_id))
    assert 0 < redis.ttl(decision_key(block.decision_id)) <= VIEWS.recent_s
    profile: Any = redis.hgetall(user_key(U1))
    assert profile[b"latest"] == decisions[2].decision_id.encode()
    assert (profile[b"case_status"], profile[b"severity"], profile[b"flagged"]) == (
        b"open",
        b"critical",
        b"1",
    )
    assert redis.zscore(TOP_RISK, U1) == pytest.approx(risk_rank(user.risk, user.at_ms))
    assert redis.xlen(FEED) == 3
    assert redis.hgetall(minute_key(START_MS // 60_000 + 2)) == {
        b"decisions": b"1",
        b"block": b"1",
        b"country:FR": b"1",
        b"country:FR:flagged": b"1",
        b"channel:online": b"1",
        b"channel:online:flagged": b"1",
    }


def test_a_user_without_risk_leaves_the_ranking(redis: Any) -> None:
    redis.flushall()
    views, user = Views(redis, VIEWS, "log"), User()
    decision = decided(1, score=0.95)
    first = user.decide(decision)
    assert first is not None
    views.write("0", [Change(0, 0, decision, first, known())], {U1: user})
    ranked = redis.zcard(TOP_RISK)
    cleared = label(1, is_fraud=False)
    second = user.label(cleared)
    assert second is not None
    views.write("0", [Change(1, 0, cleared, second, known())], {U1: user})

    assert (ranked, redis.zcard(TOP_RISK)) == (1, 0)


def test_the_feed_and_the_ranking_are_bounded(redis: Any) -> None:
    redis.flushall()
    views = Views(redis, msgspec.structs.replace(VIEWS, feed=100, ranked=10), "log")
    users: dict[str, User] = {}
    changes = []
    for number in range(1_000):
        decision = decided(number, f"u{number}", score=0.5 + number / 2_000)
        person = known(decision.user_id)
        judged = users.setdefault(person.pseudonym, User()).decide(decision)
        assert judged is not None
        changes.append(Change(0, number, decision, judged, person))
    views.write("0", changes, users)

    assert redis.xlen(FEED) <= 300
    assert redis.zcard(TOP_RISK) == 10
    assert redis.zscore(TOP_RISK, known("u999").pseudonym) is not None


def test_another_writer_in_between_does_not_count_twice(redis: Any) -> None:
    """A task that Flink has given up may still be writing when the next one starts."""
    redis.flushall()
    views, user, decision = Views(redis, VIEWS, "log"), User(), decided(1)
    judged = user.decide(decision)
    assert judged is not None
    change = Change(0, 0, decision, judged, known())
    interrupted = Views(Interrupting(redis, lambda: views.write("0", [change], {U1: user})), VIEWS, "log")

    assert interrupted.write("0", [change], {U1: user}) == 0
    assert redis.hget(minute_key(decision.event_time // 60_000), "decisions") == b"1"


class Interrupting(Redis):
    """A Redis through which another writer comes once, between reading the marks and the transaction."""

    def __init__(self, redis: Any, other: Any) -> None:
        super().__init__(connection_pool=redis.connection_pool)
        self._other = other

    def pipeline(self, transaction: Any = True, shard_hint: Any = None) -> Any:
        pipe: Any = super().pipeline(transaction, shard_hint)
        multi = pipe.multi

        def once() -> None:
            other, self._other = self._other, lambda: None
            other()
            multi()

        pipe.multi = once
        return pipe
