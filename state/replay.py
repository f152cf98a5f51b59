"""Replays history through the streaming kernels: the features for training and backtests."""

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


def replay(
    transactions: NDArray[np.void],
    user: NDArray[np.int64],
    terminal: NDArray[np.int64],
    known: KnownLabels | None = None,
    risk_delay_ms: int = DEFAULT_RISK_DELAY_MS,
) -> Replay:
    """Features of a history, with exactly the code of the running job.

    transactions: TRANSACTION [n]; user: i8 [n], number of the user; terminal: i8 [n], number of the
    terminal or -1. As in the job, a repeated transaction does not reach its terminal.
    """
    users = np.zeros(int(user.max(initial=-1)) + 1, USER_PROFILE)
    terminals = np.zeros(int(terminal.max(initial=-1)) + 1, TERMINAL_PROFILE)
    n = len(transactions)
    features = np.full((n, N_FEATURES), np.nan, np.float32)
    status = np.empty(n, np.uint8)

    def run(start: int, end: int) -> None:
        part = slice(start, end)
        user_kernel(users, user[part], transactions[part], features[part], status[part])
        scored = np.flatnonzero(status[part] <= 1) + start
        block = np.empty((len(scored), N_FEATURES - N_USER), np.float32)
        frauds = features[scored, U.USER_FRAUDS]
        terminal_kernel(terminals, terminal[scored], transactions[scored], frauds, risk_delay_ms, block)
        features[scored, N_USER:] = block

    done = 0
    if known is not None:
        cuts, firsts, counts = np.unique(known.before, return_index=True, return_counts=True)
        for cut, first, end in zip(cuts.tolist(), firsts.tolist(), (firsts + counts).tolist(), strict=True):
            run(done, cut)
            done = cut
            label_user(users, known.user[first:end], known.labels[first:end])
            placed = first + np.flatnonzero(known.terminal[first:end] >= 0)
            label_terminal(terminals, known.terminal[placed], known.labels[placed])
    run(done, n)
    return Replay(features, status)
