"""Turns profiles written under an older layout into the present one.

A change of layout adds one function here, from the version before to the new one; a row passes through as
many as it needs when it is first read after the upgrade.
"""

from collections.abc import Callable, Mapping

import numpy as np

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


USER = Layout("user", USER_PROFILE, USER_LAYOUT, {})
TERMINAL = Layout("terminal", TERMINAL_PROFILE, TERMINAL_LAYOUT, {})
