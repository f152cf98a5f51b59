"""Nonces and token buckets, with Redis and without."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from serving.security.clients import Limit
from serving.security.shared import MAX_LOCAL, LocalBuckets, SharedState, SharedStateAwayError
from tests.serving.servers import Server

T = TypeVar("T")
LIMIT = Limit(burst=5, per_minute=60.0)
NOBODY = "redis://127.0.0.1:1/0"


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def shared_state(url: str, clock: Clock | None = None) -> AsyncIterator[SharedState]:
    redis = Redis.from_url(url, socket_timeout=0.25, socket_connect_timeout=0.25)
    try:
        yield SharedState(redis, clock or Clock())
    finally:
        await redis.aclose()


def ask(url: str, what: Callable[[SharedState], Awaitable[T]]) -> T:
    async def run() -> T:
        async with shared_state(url) as shared:
            return await what(shared)

    return asyncio.run(run())


@given(st.lists(st.floats(0, 30), max_size=60), st.integers(1, 20), st.floats(1, 600))
def test_a_local_bucket_gives_its_burst_and_then_its_rate(
    gaps: list[float], burst: int, per_minute: float
) -> None:
    clock = Clock()
    buckets, limit, granted = LocalBuckets(clock), Limit(burst, per_minute), 0
    for gap in gaps:
        clock.now += gap
        grant = buckets.take("a", limit)
        granted += grant.wait_s == 0
        assert 0 <= grant.remaining <= burst
        assert granted <= burst + sum(gaps) * per_minute / 60 + 1e-6
        if grant.wait_s:
            clock.now += grant.wait_s * (1 + 1e-9)
            gaps = [*gaps, grant.wait_s * (1 + 1e-9)]
            assert buckets.take("a", limit).wait_s == 0
            granted += 1


def test_local_buckets_do_not_grow_without_end() -> None:
    buckets = LocalBuckets(Clock())
    for number in range(MAX_LOCAL + 10):
        buckets.take(str(number), LIMIT)
    assert len(buckets._held) == MAX_LOCAL


def test_without_redis_no_nonce_is_new_and_buckets_are_local() -> None:
    async def use(shared: SharedState) -> list[bool]:
        for attempt in range(2):  # the second one does not even ask
            with pytest.raises(SharedStateAwayError):
                await shared.admit("shop", f"nonce-{attempt}", LIMIT)
        assert not await shared.answers()
        return [(await shared.take("shop", LIMIT)).wait_s == 0 for _ in range(7)]

    assert ask(NOBODY, use) == [True] * 5 + [False] * 2


@pytest.mark.stack
def test_a_nonce_is_used_once_by_each_client(redis_server: Server) -> None:
    async def use(shared: SharedState) -> list[bool]:
        return [
            await shared.admit(client, nonce, LIMIT) is not None
            for client, nonce in (("a", "1"), ("a", "1"), ("b", "1"), ("a", "2"), ("a", "2"))
        ]

    assert ask(redis_server.url, use) == [True, False, True, True, False]


@pytest.mark.stack
def test_of_many_at_once_one_uses_the_nonce_and_no_token_is_taken_twice(redis_server: Server) -> None:
    async def use(shared: SharedState) -> tuple[int, int]:
        slow = Limit(burst=20, per_minute=0.001)
        uses = await asyncio.gather(*(shared.admit("a", "1", slow) for _ in range(250)))
        grants = await asyncio.gather(*(shared.take("a", slow) for _ in range(250)))
        return sum(use is not None for use in uses), sum(grant.wait_s == 0 for grant in grants)

    assert ask(redis_server.url, use) == (1, 19)


@pytest.mark.stack
def test_a_shared_bucket_fills_again(redis_server: Server) -> None:
    async def use(shared: SharedState) -> None:
        quick = Limit(burst=2, per_minute=600.0)
        assert [(await shared.take("a", quick)).wait_s == 0 for _ in range(2)] == [True, True]
        refused = await shared.take("a", quick)
        assert 0 < refused.wait_s <= 0.1
        await asyncio.sleep(refused.wait_s)
        assert (await shared.take("a", quick)).wait_s == 0
        assert (await shared.take("b", quick)).remaining == 1

    ask(redis_server.url, use)


@pytest.mark.stack
def test_redis_is_asked_again_after_a_pause(redis_server: Server) -> None:
    async def use() -> None:
        clock = Clock()
        async with shared_state(redis_server.url, clock) as shared:
            assert await shared.admit("a", "1", LIMIT)
            redis_server.freeze()
            try:
                with pytest.raises(SharedStateAwayError):
                    await shared.admit("a", "2", LIMIT)
                assert (await shared.take("a", LIMIT)).remaining == 4
            finally:
                redis_server.thaw()
            with pytest.raises(SharedStateAwayError, match="a moment ago"):
                await shared.admit("a", "3", LIMIT)
            clock.now += 2
            assert await shared.admit("a", "1", LIMIT) is None
            assert await shared.admit("a", "3", LIMIT)

    asyncio.run(use())
