"""Logistic regression by stochastic gradient descent, with River's loss and optimiser."""

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from river import optim

from online_learning.inputs import OFFLINE, WIDTH, ensemble_alone

RATE: Final = 0.003
HASTE: Final = 5.0
"""By how much the rate is higher after a drift."""
HASTY: Final = 200
"""Labels until it is back."""
SCALE: Final = np.ones(WIDTH)
SCALE[OFFLINE] = 0.1
"""Of each step; what the ensemble says is corrected rather than doubted."""
STEEPEST: Final = 0.25
"""Second derivative of the log loss, at most."""


class Logistic(msgspec.Struct):
    """The plain learner: it forgets nothing, and each label moves it as far as the next.

    hasty: labels that are still learnt at the higher rate.
    """

    weight: NDArray[np.float64] = msgspec.field(default_factory=ensemble_alone)
    hasty: int = 0

    def learn(self, inputs: NDArray[np.float64], is_fraud: bool, weight: float, offset: float) -> None:
        """One step on inputs f8 [WIDTH]; `offset` is added to the log-odds."""
        log_odds = float(inputs @ self.weight) + offset
        gradient = _LOSS.gradient(float(is_fraud), log_odds)  # type: ignore[no-untyped-call]
        rate = RATE * HASTE if self.hasty else RATE
        # A longer step would overshoot, however heavy the label.
        step = min(rate * weight, 1 / (STEEPEST * float(inputs @ inputs)))
        optim.SGD(step).step(self.weight, gradient * inputs * SCALE)
        self.hasty = max(self.hasty - 1, 0)

    def hasten(self) -> None:
        """Learn faster for a while."""
        self.hasty = HASTY


_LOSS: Final = optim.losses.Log()  # type: ignore[no-untyped-call]
