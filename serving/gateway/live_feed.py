"""The newest decisions, heard from Redis once for all who listen to this gateway."""

import asyncio
from bisect import bisect_right
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from serving.errors import StoreAway
from serving.gateway.problems import Problem, unavailable
from serving.queries import Queries
from serving.stored import LiveDecision

REMEMBERED: Final = 2_000
"""Decisions by which somebody may be behind before it counts as too slow."""
PART: Final = 100
STREAMS: Final = 200
STREAMS_EACH: Final = 4
RETRY_S: Final = 1.0

Place = tuple[int, int]


class LiveFeed:
    """The newest decisions, heard from Redis while somebody listens."""

    def __init__(self, queries: Queries, wait_s: float, ping_s: float) -> None:
        """wait_s: less than a query may take; ping_s: how long a listener waits for nothing."""
        self._queries, self._wait_ms, self._ping_s = queries, max(1, int(wait_s * 1000)), ping_s
        self._listeners: Counter[str] = Counter()
        self._places: list[Place] = []
        self._held: list[LiveDecision] = []
        self._since: Place = (0, 0)
        """What comes after this is held."""
        self._news = asyncio.Event()
        self._hearing: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()

    async def close(self) -> None:
        if self._hearing is not None:
            self._hearing.cancel()
            await asyncio.wait([self._hearing])
            self._hearing = None

    @asynccontextmanager
    async def listening(self, subject: str) -> AsyncIterator[None]:
        """Be heard for. Raises StoreAway where Redis is away, Problem where too many listen."""
        if self._listeners[subject] >= STREAMS_EACH:
            told = f"a client has at most {STREAMS_EACH} streams"
            raise Problem(429, "too-many-streams", told, {"Retry-After": "30"})
        if self._listeners.total() >= STREAMS:
            raise unavailable("too-many-streams", "too many listen to this gateway", 30)
        self._listeners[subject] += 1
        try:
            async with self._changing:
                if self._hearing is None or self._hearing.done():
                    await self._begin()
            yield
        finally:
            self._listeners[subject] -= 1
            self._listeners += Counter()  # forgets who has none
            async with self._changing:
                if not self._listeners:
                    await self.close()

    async def after(self, last: str | None) -> AsyncIterator[list[LiveDecision]]:
        """What comes after one of the feed, or from now on; an empty list when a while passes without.

        What is not held any more is read from Redis, but only once: who falls behind later is too slow, and
        this ends.
        """
        place = self._places[-1] if self._places else self._since
        if last is not None:
            place = min(place, _place(last))
        is_live = False
        while self._hearing is not None and not self._hearing.done():
            news = self._news
            if place < self._since:
                if is_live:
                    return
                part = await self._queries.feed(f"{place[0]}-{place[1]}", limit=PART)
                if not part:
                    place = self._since
                    continue
            else:
                is_live = True
                start = bisect_right(self._places, place)
                part = self._held[start : start + PART]
            if part:
                place = _place(part[-1].feed_id)
                yield part
                continue
            try:
                await asyncio.wait_for(news.wait(), self._ping_s)
            except TimeoutError:
                yield []

    async def _begin(self) -> None:
        newest = await self._queries.feed(limit=1)
        self._places, self._held = [], []
        self._since = _place(newest[0].feed_id) if newest else (0, 0)
        self._hearing = asyncio.create_task(self._hear())

    async def _hear(self) -> None:
        while True:
            last = self._places[-1] if self._places else self._since
            try:
                part = await self._queries.feed(f"{last[0]}-{last[1]}", limit=PART, wait_ms=self._wait_ms)
            except StoreAway:
                await asyncio.sleep(RETRY_S)
                continue
            if not part:
                continue
            self._held += part
            self._places += [_place(one.feed_id) for one in part]
            if len(self._held) > 2 * REMEMBERED:
                self._since = self._places[-REMEMBERED - 1]
                del self._places[:-REMEMBERED], self._held[:-REMEMBERED]
            self._news.set()
            self._news = asyncio.Event()


def _place(feed_id: str) -> Place:
    milliseconds, _, number = feed_id.partition("-")
    return int(milliseconds), int(number)
