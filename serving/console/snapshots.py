"""What pages show, read once for all of them: a hundred open consoles cost the stores what one costs.

Pages ask several times a minute for what they show. Whoever asks first has it read; whoever asks while that
is under way, or soon after, is given the same. What nobody asks for is read no more and is forgotten.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Final, NamedTuple, TypeVar, cast

MOST: Final = 256
"""So many different views are remembered, those asked for last."""

T = TypeVar("T")


class _Held(NamedTuple):
    good_until: float
    reading: "asyncio.Task[Any]"


class Snapshots:
    """Remembers what was read, or why it could not be, for a short time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, most: int = MOST) -> None:
        """clock: seconds, from any point on."""
        self._clock, self._most = clock, most
        self._held: OrderedDict[Hashable, _Held] = OrderedDict()

    async def get(self, key: Hashable, read: Callable[[], Awaitable[T]], for_s: float) -> T:
        """What `read` gives, or raises, at most so many seconds ago."""
        held = self._held.get(key)
        if held is None or (held.reading.done() and self._clock() >= held.good_until):
            held = _Held(self._clock() + for_s, asyncio.create_task(_awaited(read)))
            held.reading.add_done_callback(_seen)
            self._held[key] = held
        self._held.move_to_end(key)
        while len(self._held) > self._most:
            self._held.popitem(last=False)
        # One page that goes away must not take the reading from the others.
        return cast(T, await asyncio.shield(held.reading))

    def forget(self) -> None:
        """Have all read anew: somebody changed something."""
        self._held.clear()

    def __len__(self) -> int:
        return len(self._held)


async def _awaited(read: Callable[[], Awaitable[T]]) -> T:
    return await read()


def _seen(reading: "asyncio.Task[Any]") -> None:
    """Where all who asked have gone, nobody else takes note of an error."""
    if not reading.cancelled():
        reading.exception()
