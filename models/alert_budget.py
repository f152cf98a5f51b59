"""A review threshold that holds a budget of alerts per day.

The threshold is where, at the daily number of transactions, the scores of late leave as many transactions
above it as the budget allows. Both are counted whatever the threshold is: it does not feed back on what it is
made from, so it cannot oscillate.

The number of transactions is that of the last 24 hours, so that day and night make no difference. The scores
are forgotten by halves, in hours where the budget is large, and more slowly where it takes longer to see
LEAST_ALERTS. Time is event time, the latest seen so far.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from events.control import Thresholds
from models.model import LEAST
from state.contract import DAY_MS, HOUR_MS, MINUTE_MS

BINS: Final = 1024
RANGE: Final = 12.0
WIDTH: Final = 2 * RANGE / BINS
"""Scores are counted by log-odds, in bins of equal width from -RANGE to RANGE."""
EDGES: Final = 1 / (1 + np.exp(-np.linspace(WIDTH - RANGE, RANGE - WIDTH, BINS - 1)))
"""Scores between the bins; those beyond RANGE are in the outer ones."""
SLICE_MS: Final = 5 * MINUTE_MS
SLICES: Final = DAY_MS // SLICE_MS
WARM_UP_MS: Final = 6 * HOUR_MS
"""Over which the threshold goes from where it started to where the scores say."""
PAUSE_MS: Final = 6 * HOUR_MS
"""After so long without transactions the daily number is counted anew: the last day would say too few."""
SHORTEST_MS: Final = 2 * HOUR_MS
LONGEST_MS: Final = 7 * DAY_MS
LEAST_ALERTS: Final = 20
"""Alerts that the scores which count shall stand for."""
FLOOR: Final = 0.1
"""Nothing below this share of the threshold at the start is reviewed, however large the budget."""


class AlertBudget:
    """The review threshold of one model in one task.

    review: the threshold in force; scores from there on are alerts, those that are blocked among them.
    """

    def __init__(self, per_day: float, start: Thresholds) -> None:
        """per_day: alerts per day of event time, more than 0; start: the thresholds of the model."""
        self.review = self._origin = start.review
        self._start = start
        self._per_day = per_day
        # Scores that are forgotten by halves stand for a time of half-life / ln 2.
        enough_ms = LEAST_ALERTS / per_day * DAY_MS * np.log(2)
        self._half_life_ms = float(np.clip(enough_ms, SHORTEST_MS, LONGEST_MS))
        self._scores = np.zeros(BINS)
        self._slice = np.zeros(BINS)
        self._daily = np.zeros(SLICES)
        self._first = self._latest = -1

    def observe(self, score: NDArray[np.float64], time_ms: int) -> None:
        """Count scores f8 [n] at a time in milliseconds since the epoch; may move `review`."""
        number = time_ms // SLICE_MS
        if number > self._latest:
            self._move_to(number)
        np.add.at(self._slice, np.searchsorted(EDGES, score, side="right"), 1.0)

    def _move_to(self, number: int) -> None:
        """Go on to the slice of this number, which lies ahead, and set the threshold by those that ended."""
        passed = number - self._latest
        self._daily[self._latest % SLICES] = self._slice.sum()
        self._scores += self._slice
        self._slice[:] = 0
        if passed * SLICE_MS > PAUSE_MS:
            self._first, self._origin = number, self.review
            self._daily[:] = 0
        else:
            self._daily[np.arange(self._latest + 1, number + 1) % SLICES] = 0
            self.review = self._threshold((number - self._first) * SLICE_MS)
        self._scores *= 0.5 ** (passed * SLICE_MS / self._half_life_ms)
        self._latest = number

    def _threshold(self, seen_ms: int) -> float:
        """The threshold by what was counted in so much time."""
        a_day = self._daily.sum() * max(1.0, DAY_MS / seen_ms)
        if a_day == 0:
            return self.review
        allowed = self._per_day / a_day * self._scores.sum()
        review = _from(allowed, self._scores)
        warm = min(1.0, seen_ms / WARM_UP_MS)
        held = min(max(self._origin, LEAST), 1 - LEAST)
        start = np.log(held / (1 - held))
        review = 1 / (1 + np.exp(-((1 - warm) * start + warm * review)))
        return float(min(max(review, FLOOR * self._start.review), self._start.block))


def _from(allowed: float, counted: NDArray[np.float64]) -> float:
    """The log-odds from which on as many scores as allowed were counted; even within a bin."""
    above = np.append(np.cumsum(counted[::-1])[::-1], 0.0)
    more = int((above > allowed).sum())
    if more == 0:
        return -RANGE
    share = (above[more - 1] - allowed) / (above[more - 1] - above[more])
    return float(WIDTH * (more - 1 + share) - RANGE)
