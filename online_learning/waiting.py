"""Feedback that came before what it speaks of."""

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import NamedTuple, Protocol

import msgspec


class Received(NamedTuple):
    """A Kafka record as it came. position: what tells it from every other record the job reads."""

    position: int
    key: str | None
    payload: bytes | None


class Waiting(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """A record in the waiting room: what it waits for, and since when."""

    awaited: str
    since_ms: int
    position: int
    key: str | None
    payload: bytes

    @property
    def received(self) -> Received:
        """The record as it came."""
        return Received(self.position, self.key, self.payload)


class WaitingState(Protocol):
    """Keyed state that holds who waits; Flink's MapState[str, bytes] fits."""

    def get(self, key: str) -> bytes | None: ...

    def put(self, key: str, value: bytes) -> None: ...

    def remove(self, key: str) -> None: ...

    def items(self) -> Iterable[tuple[str, bytes]]: ...


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Waiting).decode


class WaitingRoom:
    """Records by what they wait for, each in the order of its arrival.

    The records lie in state, where they are safe over a restart; in memory is only who waits for what.
    """

    def __init__(self, state: WaitingState) -> None:
        """Those who waited already, before a restart, wait on."""
        self._state = state
        self._since: dict[int, tuple[int, str, bytes]] = {}  # position: since when, for what, digest
        self._awaited: dict[str, dict[bytes, int]] = {}  # for what: digest and position
        before = (_decode(value) for _, value in state.items())
        for waiting in sorted(before, key=lambda w: (w.since_ms, w.position)):
            self._sit(waiting)

    def __len__(self) -> int:
        """How many wait."""
        return len(self._since)

    @property
    def oldest_ms(self) -> int | None:
        """Since when the one that waits longest has waited."""
        return next((since_ms for since_ms, _, _ in self._since.values()), None)

    def add(self, awaited: str, received: Received, now_ms: int) -> bool:
        """Let a record wait; False where the same one waits for it already."""
        waiting = Waiting(awaited, now_ms, received.position, received.key, received.payload or b"")
        if not self._sit(waiting):
            return False
        self._state.put(str(received.position), _encode(waiting))
        return True

    def take(self, awaited: str) -> list[Received]:
        """Those that waited for this; they wait no longer."""
        positions = list(self._awaited.get(awaited, {}).values())
        return [self._leave(position).received for position in positions]

    def leave(self, since_ms: int | None = None, more_than: int | None = None) -> Iterator[Waiting]:
        """The ones that waited longest, who wait no longer: those there since `since_ms` or earlier, and as
        many as `more_than` would exceed."""
        while self._since:
            position, (since, _, _) = next(iter(self._since.items()))
            too_long = since_ms is not None and since <= since_ms
            if not too_long and (more_than is None or len(self) <= more_than):
                return
            yield self._leave(position)

    def _sit(self, waiting: Waiting) -> bool:
        digest = blake2b(waiting.payload, digest_size=16).digest()
        same = self._awaited.setdefault(waiting.awaited, {})
        if digest in same:
            return False
        same[digest] = waiting.position
        self._since[waiting.position] = waiting.since_ms, waiting.awaited, digest
        return True

    def _leave(self, position: int) -> Waiting:
        _, awaited, digest = self._since.pop(position)
        same = self._awaited[awaited]
        del same[digest]
        if not same:
            del self._awaited[awaited]
        name = str(position)
        waiting = _decode(self._state.get(name) or b"")
        self._state.remove(name)
        return waiting
