"""Turns profiles written under an older layout into the present one.

A change of layout adds one function here, from the version before to the new one; a row passes through as
many as it needs when it is first read after the upgrade.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from state.contract import HISTORY, RECENT
from state.layout import TERMINAL_LAYOUT, TERMINAL_PROFILE, USER_LAYOUT, USER_PROFILE

Migration = Callable[[bytes], bytes]


class UnknownLayoutError(ValueError):
    """A stored profile has a layout that this version cannot read."""


class Layout:
    """A profile type, its present version and the migrations that lead to it (by version they start from)."""

    def __init__(
        self, name: str, dtype: np.dtype[np.void], version: int, migrations: Mapping[int, Migration]
    ) -> None:
        self.name = name
        self.dtype = dtype
        self.version = version
        self._migrations = migrations

    def current(self, data: bytes) -> bytes:
        """The profile in the present layout.

        Raises UnknownLayoutError for a version without a migration or a row of the wrong size.
        """
        version = int.from_bytes(data[:2], "little")
        while version != self.version:
            if version not in self._migrations:
                raise UnknownLayoutError(f"{self.name} profile has layout {version}, known: {self.version}")
            data = self._migrations[version](data)
            version = int.from_bytes(data[:2], "little")
        if len(data) != self.dtype.itemsize:
            raise UnknownLayoutError(
                f"{self.name} profile has {len(data)} bytes, layout {version} has {self.dtype.itemsize}"
            )
        return data


def _without(dtype: np.dtype[np.void], *fields: str, **replaced: Any) -> np.dtype[np.void]:
    """An older layout: the present one without some fields, or with other types for some."""
    names = [name for name in dtype.names or () if name not in fields]
    return np.dtype([(name, replaced.get(name, dtype[name])) for name in names], align=True)


USER_1 = _without(USER_PROFILE, recent_amount=("f4", (RECENT,)))
TERMINAL_1 = _without(TERMINAL_PROFILE, "fraud_amount", "fraud_ratio", "defrauded_count")


def _user_from_1(data: bytes) -> bytes:
    """Layout 1 kept as many amounts as the statistics of the recent ones need."""
    old, new = np.frombuffer(data, USER_1), np.zeros(1, USER_PROFILE)
    _copy(old, new, "recent_amount")
    count = int(old["count"][0])
    new["recent_amount"] = np.nan
    for place in range(max(count - RECENT, 0), count):
        new["recent_amount"][0, place % HISTORY] = old["recent_amount"][0, place % RECENT]
    return _versioned(new, 2)


def _terminal_from_1(data: bytes) -> bytes:
    """Layout 1 did not keep what the known frauds amounted to."""
    old, new = np.frombuffer(data, TERMINAL_1), np.zeros(1, TERMINAL_PROFILE)
    _copy(old, new)
    known = old["fraud_id"] != 0
    for field in ("fraud_amount", "fraud_ratio"):
        new[field][known] = np.nan
    return _versioned(new, 2)


def _copy(old: NDArray[np.void], new: NDArray[np.void], *but: str) -> None:
    for field in old.dtype.names or ():
        if field not in but:
            new[field] = old[field]


def _versioned(profile: NDArray[np.void], version: int) -> bytes:
    profile["version"] = version
    return profile.tobytes()


USER = Layout("user", USER_PROFILE, USER_LAYOUT, {1: _user_from_1})
TERMINAL = Layout("terminal", TERMINAL_PROFILE, TERMINAL_LAYOUT, {1: _terminal_from_1})
