"""What fitting a part yields, and what every fitting is told."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from state.contract import FEATURE_NAMES, N_FEATURES

Native = Callable[[NDArray[np.float32]], NDArray[np.float64]]
"""Uncalibrated scores f8 [n] of features f4 [n, N_FEATURES], by the library that fitted the part."""


class Fitted(NamedTuple):
    """A fitted part.

    onnx: input `features` f4 [n, N_FEATURES] with NaN for what is missing, output `raw_score` f4 [n, 1] in
    [0, 1]; native: the same scores from the library that fitted it, to compare; extra: further files that
    belong into the artefact, by their names.
    """

    onnx: bytes
    native: Native
    extra: Mapping[str, bytes] = MappingProxyType({})


class FitOptions(NamedTuple):
    """seed: of every random choice; threads: how many the fitting may use."""

    seed: int = 1
    threads: int = 2


def require_both_classes(features: NDArray[np.float32], is_fraud: NDArray[np.bool_]) -> None:
    """Raises ValueError, with the reason, for training rows that no part can be fitted on."""
    if features.shape != (len(is_fraud), N_FEATURES):
        raise ValueError(f"features: {features.shape} is not ({len(is_fraud)}, {N_FEATURES})")
    if not len(is_fraud):
        raise ValueError("there are no rows to fit on")
    frauds = int(is_fraud.sum())
    if frauds in {0, len(is_fraud)}:
        raise ValueError(f"is_fraud: one class only, {frauds} frauds in {len(is_fraud)} rows")
    infinite = np.flatnonzero([np.isinf(column).any() for column in features.T])
    if len(infinite):
        raise ValueError(f"{FEATURE_NAMES[infinite[0]]}: infinite values")
