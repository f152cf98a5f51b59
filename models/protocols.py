"""Which transactions an evaluation trains on and which it tests on, by protocol.

A block is an array of rows of a History, i8, in the order of time. All days are UTC.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.history import History
from state.contract import DAY_MS

FOLD_DAYS = 7
"""Length of the training, the delay and the test block of a fold."""

Rows = NDArray[np.int64]


class ProtocolError(ValueError):
    """The history does not do for the protocol; the message says why."""


class Fold(NamedTuple):
    """One training and the test that follows it.

    name: what tells it from the others; train, test: rows.
    """

    name: str
    train: Rows
    test: Rows


def folds(history: History, starts_ms: Sequence[int], mode: Literal["strict", "open"]) -> Iterator[Fold]:
    """Training on a week (strict) or on all days up to its end (open), test on the week after next.

    Users known to be compromised leave the test: those with a fraud in the training rows and, before test
    day d, those with a fraud on the d-th day after the end of the training, counted from the day before it
    (Le Borgne et al., Reproducible Machine Learning for Credit Card Fraud Detection, section 5.2). Labels of
    the training rows are at least a week old when the test begins. Raises ProtocolError where a block lacks
    one of the classes.
    """
    day = history.time // DAY_MS
    for start_ms in starts_ms:
        start = start_ms // DAY_MS
        name = str(np.datetime64(start, "D"))
        end = start + FOLD_DAYS
        train = np.flatnonzero((day < end) & ((day >= start) | (mode == "open")))
        own = train[day[train] >= start]
        known = set(history.user[own[history.is_fraud[own]]].tolist())
        test = []
        for d in range(FOLD_DAYS):
            late = (day == end + d - 1) & history.is_fraud
            known.update(history.user[late].tolist())
            rows = np.flatnonzero(day == end + FOLD_DAYS + d)
            test.append(rows[~np.isin(history.user[rows], list(known))])
        fold = Fold(name, train, np.concatenate(test))
        _both_classes(history, fold)
        yield fold


def stream(history: History, fit_end_ms: int, score_start_ms: int) -> Fold:
    """Training on everything before `fit_end_ms`, test on everything from `score_start_ms` on.

    Raises ProtocolError where a block lacks one of the classes.
    """
    time = history.time
    fold = Fold("stream", np.flatnonzero(time < fit_end_ms), np.flatnonzero(time >= score_start_ms))
    _both_classes(history, fold)
    return fold


def temporal(history: History, train_share: float, test_share: float, delay_ms: int) -> Fold:
    """The first share of the time trained on, the last share tested on, at least a label delay between them.

    Raises ProtocolError where a block lacks one of the classes.
    """
    time = history.time
    span = time[-1] - time[0] + 1
    test_start = time[-1] + 1 - round(span * test_share)
    train_end = min(time[0] + round(span * train_share), test_start - delay_ms)
    fold = Fold("temporal", np.flatnonzero(time < train_end), np.flatnonzero(time >= test_start))
    _both_classes(history, fold)
    return fold


def _both_classes(history: History, fold: Fold) -> None:
    for block, rows in (("training", fold.train), ("test", fold.test)):
        if not len(rows):
            raise ProtocolError(f"{fold.name}: there are no transactions in the {block} block")
        frauds = int(history.is_fraud[rows].sum())
        if frauds in {0, len(rows)}:
            raise ProtocolError(
                f"{fold.name}: the {block} block has one class only, "
                f"{frauds} frauds in {len(rows)} transactions"
            )
