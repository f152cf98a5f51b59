"""Keeps learners at the level of the ensemble: what they add to some scores they take from others."""

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

KEPT: Final = 512
"""Legitimate transactions that the level is measured on, the latest."""
EVERY: Final = 64
"""Legitimate labels between two measurements."""
LOWEST: Final = -10.0
STEPS: Final = 20


class Level(msgspec.Struct):
    """What is taken from the log-odds of each model.

    Frauds become known that are missed, transactions without fraud hardly ever; who learns from such labels
    scores everything higher. So the mean score of those known as legitimate may not be above that by the
    ensemble, and what is above is taken from the log-odds.

    offline, weight: f8 [KEPT]; log_odds: f8 [KEPT, models]; seen: legitimate labels; shift: f8 [models], 0
    or less, what is added.
    """

    offline: NDArray[np.float64]
    weight: NDArray[np.float64]
    log_odds: NDArray[np.float64]
    shift: NDArray[np.float64]
    seen: int = 0

    @classmethod
    def of(cls, models: int) -> "Level":
        """No shift yet."""
        return cls(np.zeros(KEPT), np.zeros(KEPT), np.zeros((KEPT, models)), np.zeros(models))

    def learn(self, offline: float, log_odds: NDArray[np.float64], weight: float) -> None:
        """Take in a transaction known as legitimate: probability by the ensemble, log-odds f8 [models]."""
        at = self.seen % KEPT
        self.offline[at], self.log_odds[at], self.weight[at] = offline, log_odds, weight
        self.seen += 1
        if self.seen % EVERY == 0:
            self._measure()

    def _measure(self) -> None:
        """The shift at which the mean scores agree, by bisection; 0 where that would be more."""
        allowed = self.weight @ self.offline
        low, high = np.full_like(self.shift, LOWEST), np.zeros_like(self.shift)
        for _ in range(STEPS):
            middle = (low + high) / 2
            above = self.weight @ (1 / (1 + np.exp(-(self.log_odds + middle)))) > allowed
            high = np.where(above, middle, high)
            low = np.where(above, low, middle)
        self.shift = high
