"""What all gateways must agree on, kept in Redis: used nonces, and the token bucket of each client.

Without Redis nonces cannot be known, so signed requests are refused; buckets are then this process's own.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from serving.security.clients import Limit
from serving.security.signatures import SKEW_MS

PAUSE_S: Final = 1.0
"""How long Redis is left alone after it failed, so that not every request waits for it."""
MAX_LOCAL: Final = 10_000
MOST_TOGETHER: Final = 100
NONCE_LIFE_MS: Final = 2 * SKEW_MS + 60_000
"""Longer than a timestamp can be good for, by a minute for clocks that differ."""

# A token of the bucket KEYS[1], where the nonce KEYS[2] is new or there is none. Time is Redis's own: the
# clocks of several gateways differ.
_TAKE: Final = """
local burst, per_ms, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), 1
if KEYS[2] and not redis.call('SET', KEYS[2], '1', 'NX', 'PX', ARGV[3]) then return {-1, 0} end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local held = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens, at = tonumber(held[1]) or burst, tonumber(held[2]) or now
tokens = math.min(burst, tokens + math.max(0, now - at) * per_ms)
local wait = 0
if tokens >= cost then tokens = tokens - cost else wait = math.ceil((cost - tokens) / per_ms) end
redis.call('HSET', KEYS[1], 'tokens', string.format('%.17g', tokens), 'at', now)
redis.call('PEXPIRE', KEYS[1], math.ceil(burst / per_ms) + 1000)
return {wait, math.floor(tokens)}
"""

log = structlog.get_logger()


class Grant(NamedTuple):
    """wait_s: 0 where the request may go on; remaining: whole tokens left in the bucket."""

    wait_s: float
    remaining: int


class SharedStateAwayError(Exception):
    """Redis does not answer."""


class LocalBuckets:
    """Token buckets of this process, the least used forgotten first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """clock: seconds, from any point on."""
        self._clock = clock
        self._held: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str, limit: Limit) -> Grant:
        now, per_s = self._clock(), limit.per_minute / 60
        tokens, at = self._held.pop(name, (float(limit.burst), now))
        tokens = min(limit.burst, tokens + max(0.0, now - at) * per_s)
        wait = 0.0 if tokens >= 1 else (1 - tokens) / per_s
        tokens -= not wait
        self._held[name] = (tokens, now)
        if len(self._held) > MAX_LOCAL:
            self._held.popitem(last=False)
        return Grant(wait, int(tokens))


class _Together:
    """Runs a script in Redis; calls that come while one is on its way go out together in the next."""

    def __init__(self, redis: Redis, script: str) -> None:
        self._redis, self._script = redis, script
        self._waiting: list[tuple[list[str], list[Any], asyncio.Future[Any]]] = []
        self._sending: asyncio.Task[None] | None = None

    async def run(self, keys: list[str], arguments: list[Any]) -> Any:
        """What the script answers. Raises RedisError or OSError."""
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append((keys, arguments, answer))
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send())
        return await answer

    async def _send(self) -> None:
        while self._waiting:
            calls, self._waiting = self._waiting[:MOST_TOGETHER], self._waiting[MOST_TOGETHER:]
            answers: list[Any]
            try:
                async with self._redis.pipeline(transaction=False) as pipe:
                    for keys, arguments, _ in calls:
                        pipe.eval(self._script, len(keys), *keys, *arguments)
                    answers = await pipe.execute(raise_on_error=False)
            except (RedisError, OSError) as error:
                answers = [error] * len(calls)
            for (_, _, answer), given in zip(calls, answers, strict=True):
                if answer.done():
                    continue  # who asked has left
                if isinstance(given, Exception):
                    answer.set_exception(given)
                else:
                    answer.set_result(given)


class SharedState:
    """Nonces and buckets in one Redis. Keys begin with `fs:`."""

    def __init__(self, redis: Redis, clock: Callable[[], float] = time.monotonic) -> None:
        self._redis = redis
        self._together = _Together(redis, _TAKE)
        self._clock = clock
        self._local = LocalBuckets(clock)
        self._again_at = 0.0

    async def answers(self) -> bool:
        """Whether Redis is there; asks it."""
        try:
            await self._redis.ping()
        except (RedisError, OSError):
            return False
        return True

    async def admit(self, name: str, nonce: str, limit: Limit) -> Grant | None:
        """Use a nonce and take a token from the bucket of a client; None where the nonce was used before.

        Raises SharedStateAwayError.
        """
        self._check_pause()
        try:
            return await self._granted(name, limit, nonce)
        except (RedisError, OSError) as error:
            raise self._away(error) from error

    async def claim(self, key: str, value: bytes, life_ms: int) -> bool:
        """Set a key that is not there, for a time; False where it is. Raises SharedStateAwayError."""
        self._check_pause()
        try:
            return bool(await self._redis.set(key, value, nx=True, px=life_ms))
        except (RedisError, OSError) as error:
            raise self._away(error) from error

    async def get(self, key: str) -> bytes | None:
        """Raises SharedStateAwayError."""
        self._check_pause()
        try:
            found: bytes | None = await self._redis.get(key)
        except (RedisError, OSError) as error:
            raise self._away(error) from error
        return found

    async def put(self, key: str, value: bytes | None, life_ms: int) -> None:
        """Set a key for a time, or delete it for None. Raises SharedStateAwayError."""
        self._check_pause()
        try:
            await (self._redis.delete(key) if value is None else self._redis.set(key, value, px=life_ms))
        except (RedisError, OSError) as error:
            raise self._away(error) from error

    async def take(self, name: str, limit: Limit) -> Grant:
        """Take a token from the bucket of a client; from this process's own while Redis is away."""
        if self._clock() < self._again_at:
            return self._local.take(name, limit)
        try:
            grant = await self._granted(name, limit, None)
        except (RedisError, OSError) as error:
            self._away(error)
            grant = None
        return grant or self._local.take(name, limit)

    async def _granted(self, name: str, limit: Limit, nonce: str | None) -> Grant | None:
        keys = [f"fs:bucket:{name}"] + ([] if nonce is None else [f"fs:nonce:{name}:{nonce}"])
        arguments = [limit.burst, limit.per_minute / 60_000, NONCE_LIFE_MS]
        wait_ms, remaining = await self._together.run(keys, arguments)
        return None if wait_ms < 0 else Grant(wait_ms / 1000, remaining)

    def _check_pause(self) -> None:
        if self._clock() < self._again_at:
            raise SharedStateAwayError("Redis failed a moment ago")

    def _away(self, error: Exception) -> SharedStateAwayError:
        log.warning("redis.away", error=type(error).__name__)
        self._again_at = self._clock() + PAUSE_S
        return SharedStateAwayError(str(error))
