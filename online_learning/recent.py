"""What was seen lately, by id, in bounded memory."""

import msgspec
import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest


class Recent:
    """The last `capacity` ids, each with a whole number; the oldest is forgotten first.

    Ids are kept as 64-bit hashes: among 200,000 of them a new one is taken for an old one with a
    probability of 1e-14.
    """

    def __init__(self, capacity: int) -> None:
        self._keys = np.zeros(capacity, np.uint64)
        self._values = np.zeros(capacity, np.int32)
        self._seen = 0
        self._position: dict[int, int] = {}

    def get(self, identity: str) -> int | None:
        """The number kept with an id; None where it is unknown."""
        at = self._position.get(xxh3_64_intdigest(identity.encode()))
        return None if at is None else int(self._values[at])

    def put(self, identity: str, value: int = 0) -> None:
        """Keep a number with an id. An id that is known keeps its age."""
        key = xxh3_64_intdigest(identity.encode())
        at = self._position.get(key)
        if at is None:
            at = self._seen % len(self._keys)
            if self._seen >= len(self._keys):
                del self._position[int(self._keys[at])]
            self._keys[at] = key
            self._position[key] = at
            self._seen += 1
        self._values[at] = value

    def kept(self) -> "Kept":
        """Everything, to be snapshot."""
        n = min(self._seen, len(self._keys))
        return Kept(len(self._keys), self._seen, self._keys[:n], self._values[:n])

    @classmethod
    def of(cls, kept: "Kept") -> "Recent":
        """What was snapshot. Raises ValueError where the arrays do not fit."""
        recent = cls(kept.capacity)
        n = min(kept.seen, kept.capacity)
        recent._keys[:n], recent._values[:n], recent._seen = kept.keys, kept.values, kept.seen
        recent._position = {key: at for at, key in enumerate(kept.keys.tolist())}
        return recent


class Kept(msgspec.Struct, frozen=True):
    """The contents of a `Recent`: keys u8 and values i4, in the order of their slots."""

    capacity: int
    seen: int
    keys: NDArray[np.uint64]
    values: NDArray[np.int32]
