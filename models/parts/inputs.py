"""From features to the inputs of a network: squashed, standardised, bounded, nothing missing."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.model import INPUT
from models.parts.onnx_nodes import Nodes
from state.contract import FEATURE_NAMES

SCALE_QUANTILE = 0.5
"""Below this quantile of its absolute values a feature is squashed but little."""
LEAST_SCALE = 1e-6
BLOCK = 1 << 16
"""Rows normalised at a time, so that what lies between needs little memory."""
LEAST_DEVIATION = 1e-2
"""Smaller differences would magnify the rounding of the logarithm."""


class Inputs(NamedTuple):
    """A normalisation of some features, learnt from training rows.

    columns: i8 [c], the features taken; scale: f4 [c], in the unit of the feature; centre, low, high, gain:
    f4 [c], mean, bounds and 1 / deviation of what is squashed; lacking: i8 [m], the features that some
    training rows have and others lack.
    """

    columns: NDArray[np.int64]
    scale: NDArray[np.float32]
    centre: NDArray[np.float32]
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    gain: NDArray[np.float32]
    lacking: NDArray[np.int64]

    @property
    def width(self) -> int:
        """How many inputs there are: c + m."""
        return len(self.columns) + len(self.lacking)


def fit_inputs(
    features: NDArray[np.float32], names: Sequence[str], limit: float, *, tell_missing: bool
) -> Inputs:
    """The normalisation of the features named, by rows f4 [n, N_FEATURES], 1 or more.

    Inputs will lie within `limit` deviations of the mean. A feature that never varies in these rows gives 0,
    whatever it is later. tell_missing: to have inputs that say what is missing.
    """
    columns = np.array([FEATURE_NAMES.index(name) for name in names], np.int64)
    fitted = [_column(features[:, column]) for column in columns]
    scale, centre, deviation = (np.array(values, np.float32) for values in zip(*fitted, strict=True))
    gain = np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > 0)
    present = np.array([np.isfinite(features[:, column]).mean() for column in columns])
    lacking = columns[(present > 0) & (present < 1) & tell_missing]
    bound = np.float32(limit) * deviation
    return Inputs(columns, scale, centre, centre - bound, centre + bound, gain, lacking)


def normalise(inputs: Inputs, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Inputs f4 [n, width] of features f4 [n, N_FEATURES], a missing one 0.

    Behind the features taken stand 0/1 for those of `lacking`, 1 where they are missing.
    """
    result = np.empty((len(features), inputs.width), np.float32)
    for start in range(0, len(features), BLOCK):
        rows = features[start : start + BLOCK]
        x = _squash(rows[:, inputs.columns], inputs.scale)
        x = np.where(np.isnan(x), inputs.centre, x)
        x = (np.clip(x, inputs.low, inputs.high) - inputs.centre) * inputs.gain
        result[start : start + BLOCK] = np.concatenate((x, np.isnan(rows[:, inputs.lacking])), axis=1)
    return result


def add_inputs(nodes: Nodes, inputs: Inputs) -> str:
    """The same in ONNX: the value f4 [n, width]."""
    x = nodes.add("Gather", INPUT, inputs.columns, axis=1)
    size = nodes.add("Mul", nodes.add("Abs", x), 1 / inputs.scale)
    logarithm = nodes.add("Log", nodes.add("Add", size, np.ones(1, np.float32)))
    squashed = nodes.add("Mul", nodes.add("Sign", x), logarithm)
    known = nodes.add("Where", nodes.add("IsNaN", squashed), inputs.centre, squashed)
    bounded = nodes.add("Min", nodes.add("Max", known, inputs.low), inputs.high)
    standard = nodes.add("Mul", nodes.add("Sub", bounded, inputs.centre), inputs.gain)
    if not len(inputs.lacking):
        return standard
    missing = nodes.add("IsNaN", nodes.add("Gather", INPUT, inputs.lacking, axis=1))
    return nodes.add("Concat", standard, nodes.add("Cast", missing, to=1), axis=1)


def _column(x: NDArray[np.float32]) -> tuple[float, float, float]:
    """Scale, mean and deviation of one feature f4 [n]; deviation 0 where it does not vary."""
    x = x[~np.isnan(x)]
    size = np.abs(x[x != 0])
    scale = np.float32(max(np.quantile(size, SCALE_QUANTILE), LEAST_SCALE) if len(size) else 1)
    if not len(x) or x.min() == x.max():
        return float(scale), 0.0, 0.0
    squashed = _squash(x, scale).astype(np.float64)
    return float(scale), float(squashed.mean()), max(float(squashed.std()), LEAST_DEVIATION)


def _squash(x: NDArray[np.float32], scale: NDArray[np.float32] | np.float32) -> NDArray[np.float32]:
    """The symmetric logarithm sign(x) ln(1 + |x| / scale), f4 as x.

    Webber, A bi-symmetric log transformation for wide-range data, 2013. Not by log1p, which ONNX lacks.
    """
    with np.errstate(over="ignore"):
        size = np.abs(x) * (1 / scale)
    squashed: NDArray[np.float32] = np.sign(x) * np.log(size + np.float32(1))
    return squashed
