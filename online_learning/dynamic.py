"""Dynamic logistic regression: weights that drift, tracked by a Kalman filter.

McCormick, Raftery, Madigan and Burd, Dynamic Logistic Regression and Dynamic Model Averaging for Binary
Classification, 2012. Here the weights revert to those they start with: an autoregression whose stationary
covariance is the prior, so that what labels no longer confirm fades away and nothing grows without bound.
"""

import math
from typing import Any, Final

import msgspec
import numba as nb
import numpy as np
from numpy.typing import NDArray

from online_learning.inputs import BIAS, OFFLINE, WIDTH, ensemble_alone

PERSISTENCE: Final = 0.9999
"""Share of the covariance that is left at the next label: half of it after about 7,000."""
PRIOR: Final = np.full(WIDTH, 0.05)
"""Variance of each weight that nothing is known of."""
PRIOR[BIAS] = 0.01
PRIOR[OFFLINE] = 0.001  # what the ensemble says is corrected rather than doubted
REOPENED: Final = 0.5
"""Share of the prior that is uncertain anew after a drift."""
STEPS: Final = 30


class Dynamic(msgspec.Struct):
    """The adaptive learner. weight: f8 [WIDTH], the mean; covariance: f8 [WIDTH, WIDTH]."""

    weight: NDArray[np.float64] = msgspec.field(default_factory=ensemble_alone)
    covariance: NDArray[np.float64] = msgspec.field(default_factory=lambda: np.diag(PRIOR))

    def learn(self, inputs: NDArray[np.float64], is_fraud: bool, weight: float, offset: float) -> None:
        """Filter by one label on inputs f8 [WIDTH]; `offset` is added to the log-odds."""
        _filter(self.weight, self.covariance, START, PRIOR, inputs, float(is_fraud), weight, offset)

    def hasten(self) -> None:
        """Be less sure of the weights, and so learn faster until they are certain again."""
        self.covariance *= 1 - REOPENED
        self.covariance[np.diag_indices(WIDTH)] += REOPENED * PRIOR


START: Final = ensemble_alone()


# The prior is an argument, for what a module holds is compiled in and stays cached when the inputs change.
@nb.njit(cache=True)
def _filter(  # noqa: PLR0913, PLR0917 - one step of the filter
    mean: Any, covariance: Any, start: Any, prior: Any, x: Any, y: float, weight: float, offset: float
) -> None:
    """Predict, then update by the posterior mode and its curvature (Laplace's approximation).

    Along the only direction in which a label moves the mean, the mode solves t = eta + s * w * (y - q(t))
    for the log-odds t, where eta are those predicted, s their variance, w the weight and q the logistic
    function. The right side falls with t, so that bisection finds it.
    """
    n = len(mean)
    root = math.sqrt(PERSISTENCE)
    for i in range(n):
        mean[i] = start[i] + root * (mean[i] - start[i])
        for j in range(n):
            covariance[i, j] *= PERSISTENCE
        covariance[i, i] += (1 - PERSISTENCE) * prior[i]

    towards = covariance @ x
    spread = x @ towards
    eta = mean @ x + offset
    low = eta - spread * weight
    high = eta + spread * weight
    for _ in range(STEPS):
        middle = 0.5 * (low + high)
        if eta + spread * weight * (y - 1 / (1 + math.exp(-middle))) > middle:
            low = middle
        else:
            high = middle
    q = 1 / (1 + math.exp(-0.5 * (low + high)))
    curvature = weight * q * (1 - q)
    for i in range(n):
        mean[i] += towards[i] * weight * (y - q)
    shrink = curvature / (1 + curvature * spread)
    for i in range(n):
        for j in range(n):
            covariance[i, j] -= shrink * towards[i] * towards[j]
