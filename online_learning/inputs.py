"""From features to what the learners see: squashed, standardised, bounded, nothing missing."""

import math
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.model import LEAST
from models.online import squash
from state.contract import FEATURE_NAMES

CALENDAR: Final = ("hour", "weekday", "night", "weekend")
NAMES: Final = tuple(
    name for name in FEATURE_NAMES if not name.startswith("previous_") and name.split("_")[0] not in CALENDAR
)
"""The features learnt from.

Not the sequence of transactions, which says nothing to a linear model. Nor the calendar: chargebacks come
days later and in lumps, so that the weekday tells a fraud from what is labelled at the same time, and nothing
else.
"""
COLUMNS: Final = np.array([FEATURE_NAMES.index(name) for name in NAMES])
WIDTH: Final = len(NAMES) + 2
OFFLINE: Final = len(NAMES)
BIAS: Final = len(NAMES) + 1
"""Behind the features stand the log-odds of the ensemble and a constant 1."""
LIMIT: Final = 3.0
LEAST_DEVIATION: Final = 0.1
"""Of a squashed feature: a flag hardly ever set would else weigh without bound the first time it is."""
SETTLED: Final = 2_000
"""Examples after which mean and deviation stay, so that a weight keeps its meaning."""


class Inputs(msgspec.Struct):
    """Standardises by the mean and deviation of the first `SETTLED` examples (Welford, 1962).

    seen: examples; known, mean, spread: f8 [features], how often each was not missing, its mean and its sum
    of squared deviations; scale: 1 / deviation.
    """

    seen: int = 0
    known: NDArray[np.float64] = msgspec.field(default_factory=lambda: np.zeros(len(NAMES)))
    mean: NDArray[np.float64] = msgspec.field(default_factory=lambda: np.zeros(len(NAMES)))
    spread: NDArray[np.float64] = msgspec.field(default_factory=lambda: np.zeros(len(NAMES)))
    scale: NDArray[np.float64] = msgspec.field(
        default_factory=lambda: np.full(len(NAMES), 1 / LEAST_DEVIATION)
    )

    def learn(self, features: NDArray[np.float32]) -> None:
        """Take in features f4 [N_FEATURES] of one example."""
        if self.seen == SETTLED:
            return
        x = _known(features)
        self.seen += 1
        known = ~np.isnan(x)
        self.known += known
        distance = np.where(known, x - self.mean, 0.0)
        self.mean += distance / np.maximum(self.known, 1)
        self.spread += np.where(known, distance * (x - self.mean), 0.0)
        deviation = np.sqrt(self.spread / np.maximum(self.known - 1, 1))
        self.scale = 1 / np.maximum(deviation, LEAST_DEVIATION)

    def vector(self, features: NDArray[np.float32], offline: float) -> NDArray[np.float64]:
        """Inputs f8 [WIDTH] of features f4 [N_FEATURES] and the probability by the ensemble.

        A missing feature gives 0, and so does an infinite one.
        """
        inputs = np.empty(WIDTH)
        z = np.clip((_known(features) - self.mean) * self.scale, -LIMIT, LIMIT)
        inputs[:OFFLINE] = np.where(np.isnan(z), 0.0, z)
        inputs[OFFLINE] = log_odds(offline)
        inputs[BIAS] = 1.0
        return inputs


def _known(features: NDArray[np.float32]) -> NDArray[np.float64]:
    """The features that are learnt from, squashed; NaN where missing or infinite."""
    x = squash(features[COLUMNS]).astype(np.float64)
    x[~np.isfinite(x)] = np.nan
    return x


def log_odds(probability: float) -> float:
    """The log-odds of a probability, as the scorer takes them."""
    held = min(max(probability, LEAST), 1 - LEAST)
    return math.log(held / (1 - held))


def probability(log_odds: float) -> float:
    """The probability of log-odds, exact also where they are far from 0."""
    if log_odds >= 0:
        return 1 / (1 + math.exp(-log_odds))
    odds = math.exp(log_odds)
    return odds / (1 + odds)


def ensemble_alone() -> NDArray[np.float64]:
    """The weights f8 [WIDTH] with which every learner starts: those that repeat the ensemble."""
    weight = np.zeros(WIDTH)
    weight[OFFLINE] = 1.0
    return weight
