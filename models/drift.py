"""Drift of features and score: the population stability index over a sliding window of event time.

PSI = sum over the bins of (observed - expected) * ln(observed / expected), of shares; the symmetric
Kullback-Leibler divergence of Jeffreys (An Invariant Form for the Prior Probability, 1946), as credit
scoring uses it (Siddiqi, Credit Risk Scorecards, 2006): below 0.1 nothing has changed, above 0.2 to 0.25 the
population is another. Each bin counts half a row more on both sides, so that an empty one gives a number.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.baseline import BINS, Baseline, Bins, count, edge_table
from state.contract import FEATURE_NAMES, HOUR_MS

UNCHANGED: Final = 0.1
CHANGED: Final = 0.2
"""Limits of PSI; between them something is on the way."""
SLICES: Final = 24
"""Slices of a window; the window moves on by one."""
STEP: Final = 8
"""Every so many-th row is counted."""
LEAST_ROWS: Final = 500
"""Rows that must have been counted: with as few, PSI without drift is about 10 / 500."""
HALF: Final = 0.5
"""What each bin counts more."""

PERIOD_H: Final = {
    **dict.fromkeys(("hour", "hour_sin", "hour_cos", "night"), 24),
    **dict.fromkeys(("weekday", "weekday_sin", "weekday_cos", "weekend"), 7 * 24),
}
"""Features that follow the clock, and how much of it a window must hold before it can tell drift."""


class Drifted(NamedTuple):
    """PSI of the score and of each feature that could be judged, over so many counted rows."""

    rows: int
    score: float
    features: dict[str, float]


class Drift:
    """Counts what a model is given and answers, and holds it against the model's baseline.

    The window is of event time, so that a backlog is judged by its own days; time is the latest seen so far.
    """

    def __init__(self, baseline: Baseline, hours: float = 24) -> None:
        """hours: length of the window. Features that the baseline does not know are not judged."""
        known = [baseline.features.get(name) for name in FEATURE_NAMES]
        self._judged = [(k, name) for k, name in enumerate(FEATURE_NAMES) if known[k] is not None]
        self._edges = edge_table(
            [np.array(b.edges if b else (), np.float32) for b in (*known, baseline.score)]
        )
        self._expected = np.stack([_counts(b, baseline.rows) for b in (*known, baseline.score)])
        self._observed = np.zeros((SLICES, *self._expected.shape), np.int64)
        self._slice_ms = round(hours * HOUR_MS / SLICES)
        self._first = self._latest = -1
        self._start = 0

    def observe(
        self, features: NDArray[np.float32], score: NDArray[np.float64], time_ms: int
    ) -> Drifted | None:
        """Count features f4 [n, N_FEATURES] and scores f8 [n] at a time in milliseconds since the epoch.

        What the window held, where a slice has ended.
        """
        drifted = self._move_to(time_ms // self._slice_ms)
        some = slice(self._start, None, STEP)
        if self._start < len(score):
            count(features[some], score[some], self._edges, self._observed[self._latest % SLICES])
        self._start = (self._start - len(score)) % STEP
        return drifted

    def _move_to(self, number: int) -> Drifted | None:
        """Go on to the slice of this number where it lies ahead."""
        if number <= self._latest:
            return None
        drifted = self._drifted()
        for passed in range(max(self._latest + 1, number - SLICES + 1), number + 1):
            self._observed[passed % SLICES] = 0
        if self._first < 0:
            self._first = number
        self._latest = number
        return drifted

    def _drifted(self) -> Drifted | None:
        observed = self._observed.sum(axis=0)
        rows = int(observed[-1].sum())
        if rows < LEAST_ROWS:
            return None
        held_h = min(self._latest - self._first + 1, SLICES) * self._slice_ms / HOUR_MS
        values = psi(self._expected, observed).tolist()
        judged = {name: values[k] for k, name in self._judged if PERIOD_H.get(name, 0) <= held_h}
        return Drifted(rows, values[-1], judged)


def psi(expected: NDArray[np.float64], observed: NDArray[np.int64]) -> NDArray[np.float64]:
    """PSI f8 [values] of rows expected and observed by bin, both [values, bins].

    Bins without a row on either side do not count.
    """
    used = (expected > 0) | (observed > 0)
    wanted, found = (_shares(rows, used) for rows in (expected, observed))
    ratio = np.divide(found, wanted, where=used, out=np.ones(used.shape))
    total: NDArray[np.float64] = ((found - wanted) * np.log(ratio)).sum(axis=-1)
    return total


def _shares(rows: NDArray[np.float64] | NDArray[np.int64], used: NDArray[np.bool_]) -> NDArray[np.float64]:
    held = np.where(used, rows + HALF, 0.0)
    shares: NDArray[np.float64] = held / np.maximum(held.sum(axis=-1, keepdims=True), HALF)
    return shares


def _counts(bins: Bins | None, rows: int) -> NDArray[np.float64]:
    """Rows in each bin, f8 [BINS + 1], as `count` places them."""
    held = np.zeros(BINS + 1)
    if bins is not None:
        held[: len(bins.edges) + 1] = bins.shares[:-1]
        held[BINS] = bins.shares[-1]
    return held * rows
