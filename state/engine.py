"""The two feature engines: one batch of transactions in, its features out, the profiles updated."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from state.contract import DEFAULT_RISK_DELAY_MS, MAX_RISK_DELAY_MS, N_TERMINAL, N_USER
from state.migration import TERMINAL, USER
from state.profiles import Arena, ProfileState
from state.terminal_kernel import label_terminal, terminal_kernel
from state.user_kernel import label_user, user_kernel

CHUNK = 4096  # entities of one pass over the arena
CAPACITY = 65_536


class UserEngine:
    """Features of the user: behaviour, velocity, novelty, place, account."""

    def __init__(self, state: ProfileState, capacity: int = CAPACITY) -> None:
        self._arena = Arena(USER, state, capacity)

    def features(
        self, users: Sequence[str], transactions: NDArray[np.void]
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Features f4 [n, N_USER] and a `Status` u1 [n] of each transaction (TRANSACTION [n]), in order."""
        n = len(users)
        out = np.empty((n, N_USER), np.float32)
        status = np.empty(n, np.uint8)
        for start in range(0, n, CHUNK):
            part = slice(start, start + CHUNK)
            rows = self._arena.rows(users[part])
            user_kernel(self._arena.profiles, rows, transactions[part], out[part], status[part])
            self._arena.write(users[part])
        return out, status

    def label(self, users: Sequence[str], labels: NDArray[np.void]) -> None:
        """Fold labels (LABEL [n]) into the profiles of their users; sets the `ratio` of each label."""
        for start in range(0, len(users), CHUNK):
            part = slice(start, start + CHUNK)
            label_user(self._arena.profiles, self._arena.rows(users[part]), labels[part])
            self._arena.write(users[part])


class TerminalEngine:
    """Features of the terminal: velocity, amounts, distinct users, delayed fraud risk.

    risk_delay_ms: how long before a transaction its risk windows end, 0 to MAX_RISK_DELAY_MS.
    """

    def __init__(
        self,
        state: ProfileState,
        risk_delay_ms: int = DEFAULT_RISK_DELAY_MS,
        capacity: int = CAPACITY // 2,
    ) -> None:
        if not 0 <= risk_delay_ms <= MAX_RISK_DELAY_MS:
            raise ValueError(f"risk delay must be 0 to {MAX_RISK_DELAY_MS} ms, is {risk_delay_ms}")
        self._arena = Arena(TERMINAL, state, capacity)
        self._risk_delay_ms = risk_delay_ms

    def features(
        self,
        terminals: Sequence[str | None],
        transactions: NDArray[np.void],
        user_frauds: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Features f4 [n, N_TERMINAL] of each transaction (TRANSACTION [n]); NaN where it has no terminal.

        user_frauds: f4 [n], the feature of that name.
        """
        n = len(terminals)
        out = np.empty((n, N_TERMINAL), np.float32)
        for start in range(0, n, CHUNK):
            part = slice(start, start + CHUNK)
            named = [t for t in terminals[part] if t is not None]
            rows = np.full(len(terminals[part]), -1, np.int64)
            rows[[t is not None for t in terminals[part]]] = self._arena.rows(named)
            terminal_kernel(
                self._arena.profiles,
                rows,
                transactions[part],
                user_frauds[part],
                self._risk_delay_ms,
                out[part],
            )
            self._arena.write(named)
        return out

    def label(self, terminals: Sequence[str], labels: NDArray[np.void]) -> None:
        """Fold labels (LABEL [n]) into the profiles of their terminals."""
        for start in range(0, len(terminals), CHUNK):
            part = slice(start, start + CHUNK)
            label_terminal(self._arena.profiles, self._arena.rows(terminals[part]), labels[part])
            self._arena.write(terminals[part])
