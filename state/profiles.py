"""Profiles at hand: an arena of packed rows in front of keyed state, written through after every batch."""

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from state.migration import Layout


class ProfileState(Protocol):
    """Keyed state as the engine sees it; Flink's MapState[str, bytes] fits."""

    def get(self, key: str) -> bytes | None: ...

    def put(self, key: str, value: bytes) -> None: ...


class Arena:
    """A fixed number of profiles in one array, so that a kernel works on them in place.

    Reads from state happen once per entity, writes after every batch: what a checkpoint holds is complete.
    The arena belongs to one operator instance and starts empty, so recovery always reads restored state.
    """

    def __init__(self, layout: Layout, state: ProfileState, capacity: int = 65_536) -> None:
        self.profiles: NDArray[np.void] = np.zeros(capacity, layout.dtype)
        self._layout = layout
        self._state = state
        self._bytes = self.profiles.view(np.uint8).data.cast("B")
        self._row: dict[str, int] = {}
        self._owner: list[str] = []
        self._hand = 0

    def rows(self, keys: Sequence[str]) -> NDArray[np.int64]:
        """The row of each key [n], read from state where it is not here yet.

        Raises ValueError where the batch names more entities than the arena holds.
        """
        batch = dict.fromkeys(keys)
        if len(batch) > len(self.profiles):
            raise ValueError(f"{len(batch)} entities in one batch, the arena holds {len(self.profiles)}")
        for key in batch:
            if key not in self._row:
                self._admit(key, batch)
        row = self._row
        return np.array([row[key] for key in keys], np.int64)

    def write(self, keys: Iterable[str]) -> None:
        """Write the profiles of these keys to state."""
        size = self._layout.dtype.itemsize
        for key in dict.fromkeys(keys):
            start = self._row[key] * size
            self._state.put(key, bytes(self._bytes[start : start + size]))

    def _admit(self, key: str, batch: dict[str, None]) -> None:
        size = self._layout.dtype.itemsize
        data = self._state.get(key)  # reading may raise: before any row changes hands
        profile = bytes(size) if data is None else self._layout.current(data)
        row = self._vacate(batch)
        self._owner[row] = key
        self._row[key] = row
        self._bytes[row * size : (row + 1) * size] = profile

    def _vacate(self, batch: dict[str, None]) -> int:
        """A free row, else the next one round the clock whose owner is not in this batch."""
        if len(self._owner) < len(self.profiles):
            self._owner.append("")
            return len(self._owner) - 1
        while self._owner[self._hand] in batch:
            self._hand = (self._hand + 1) % len(self._owner)
        row = self._hand
        del self._row[self._owner[row]]
        self._hand = (row + 1) % len(self._owner)
        return row
