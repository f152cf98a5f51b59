"""Replays history through the streaming kernels: the features for training and backtests."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from state.contract import DEFAULT_RISK_DELAY_MS, N_FEATURES, N_USER, U
from state.layout import TERMINAL_PROFILE, USER_PROFILE
from state.terminal_kernel import label_terminal, terminal_kernel
from state.user_kernel import label_user, user_kernel


class Replay(NamedTuple):
    """Features f4 [n, N_FEATURES] and a `Status` u1 [n] of each transaction, in the order given."""

    features: NDArray[np.float32]
    status: NDArray[np.uint8]


class KnownLabels(NamedTuple):
    """Labels in the order in which they become known.

    labels: LABEL [m]; user, terminal: i8 [m], positions as in the replay (terminal -1 for none); before:
    i8 [m], ascending, each label is folded before the transaction of that position is read.
    """

    labels: NDArray[np.void]
    user: NDArray[np.int64]
    terminal: NDArray[np.int64]
    before: NDArray[np.int64]


class Replayer:
    """The engine over numbered users and terminals, a block of history after the other."""

    def __init__(self, users: int, terminals: int, risk_delay_ms: int = DEFAULT_RISK_DELAY_MS) -> None:
        """users, terminals: how many there are at most."""
        self._users = np.zeros(users, USER_PROFILE)
        self._terminals = np.zeros(terminals, TERMINAL_PROFILE)
        self._risk_delay_ms = risk_delay_ms

    def features(
        self,
        transactions: NDArray[np.void],
        user: NDArray[np.int64],
        terminal: NDArray[np.int64],
        known: KnownLabels | None = None,
    ) -> Replay:
        """Features of the next transactions, TRANSACTION [n], by numbers of users and terminals i8 [n].

        A terminal of -1 is none. known: what becomes known on the way. As in the job, a repeated transaction
        does not reach its terminal.
        """
        n = len(transactions)
        features = np.full((n, N_FEATURES), np.nan, np.float32)
        status = np.empty(n, np.uint8)

        def run(start: int, end: int) -> None:
            part = slice(start, end)
            user_kernel(self._users, user[part], transactions[part], features[part], status[part])
            scored = np.flatnonzero(status[part] <= 1) + start
            block = np.empty((len(scored), N_FEATURES - N_USER), np.float32)
            frauds = features[scored, U.USER_FRAUDS]
            terminal_kernel(
                self._terminals, terminal[scored], transactions[scored], frauds, self._risk_delay_ms, block
            )
            features[scored, N_USER:] = block

        done = 0
        for cut, labels, users, terminals in _cuts(known):
            run(done, cut)
            done = cut
            self._label(labels, users, terminals)
        run(done, n)
        return Replay(features, status)

    def _label(self, labels: NDArray[np.void], user: NDArray[np.int64], terminal: NDArray[np.int64]) -> None:
        label_user(self._users, user, labels)
        placed = np.flatnonzero(terminal >= 0)
        label_terminal(self._terminals, terminal[placed], labels[placed])


def replay(
    transactions: NDArray[np.void],
    user: NDArray[np.int64],
    terminal: NDArray[np.int64],
    known: KnownLabels | None = None,
    risk_delay_ms: int = DEFAULT_RISK_DELAY_MS,
) -> Replay:
    """Features of a whole history, with exactly the code of the running job; see `Replayer.features`."""
    replayer = Replayer(int(user.max(initial=-1)) + 1, int(terminal.max(initial=-1)) + 1, risk_delay_ms)
    return replayer.features(transactions, user, terminal, known)


def _cuts(
    known: KnownLabels | None,
) -> Iterator[tuple[int, NDArray[np.void], NDArray[np.int64], NDArray[np.int64]]]:
    """Positions before which labels become known, and these with their users and terminals."""
    if known is None:
        return
    cuts, firsts, counts = np.unique(known.before, return_index=True, return_counts=True)
    for cut, first, count in zip(cuts.tolist(), firsts.tolist(), counts.tolist(), strict=True):
        block = slice(first, first + count)
        yield cut, known.labels[block], known.user[block], known.terminal[block]
