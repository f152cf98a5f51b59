"""Calibration: from raw score to probability of fraud, as few knots of a piecewise-linear map."""

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from models.artefact import Calibration

MAX_KNOTS = 50


def calibrate(
    raw: NDArray[np.float32], is_fraud: NDArray[np.bool_], max_knots: int = MAX_KNOTS
) -> Calibration:
    """The calibration of raw scores f4 [n] in [0, 1], of both classes, against what they turned out to be.

    Centred isotonic regression: each level of the isotonic fit stands at the mean of the raw scores it
    holds, and the map is linear between, so that scores on one level keep their order (Oron and Flournoy,
    Centered Isotonic Regression, 2017). Each level counts one more observation, at the overall rate, so
    that no level is quite 0 or 1. Levels are merged until at most `max_knots` - 2 are left. The map ends in
    the corners (0, 0) and (1, 1).
    """
    x = raw.astype(np.float64)
    rate = is_fraud.mean()
    fit = IsotonicRegression().fit_transform(x, is_fraud)
    level, inverse = np.unique(fit, return_inverse=True)
    weight = np.bincount(inverse).astype(np.float64)
    centre = np.bincount(inverse, x) / weight
    while len(level) > max_knots - 2:
        # The neighbours whose merging moves the map least.
        cost = weight[:-1] * weight[1:] / (weight[:-1] + weight[1:]) * np.diff(level) ** 2
        k = int(cost.argmin())
        for values in (centre, level):
            values[k] = np.average(values[k : k + 2], weights=weight[k : k + 2])
        weight[k] += weight[k + 1]
        centre, level, weight = (np.delete(values, k + 1) for values in (centre, level, weight))
    level, first = np.unique(np.maximum.accumulate((level * weight + rate) / (weight + 1)), return_index=True)
    centre = centre[first]
    inner = (centre > 0) & (centre < 1)
    return Calibration([0.0, *centre[inner].tolist(), 1.0], [0.0, *level[inner].tolist(), 1.0])
