from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.calibration import MAX_KNOTS, calibrate


def drawn(seed: int, n: int, distort: Callable[[Any], Any]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Raw scores f4 [n] whose true probability is `distort` of them, and outcomes drawn from it."""
    rng = np.random.default_rng(seed)
    raw = rng.beta(1, 2, n).astype(np.float32)
    return raw, rng.random(n) < distort(raw)


def test_distorted_scores_become_probabilities() -> None:
    raw, fraud = drawn(1, 100_000, lambda x: x**2)
    fresh, outcome = drawn(2, 100_000, lambda x: x**2)
    knots = calibrate(raw, fraud)
    score = np.interp(fresh, knots.x, knots.y)
    for low in np.arange(0.1, 0.7, 0.1):
        band = (score >= low) & (score < low + 0.1)
        assert abs(score[band].mean() / outcome[band].mean() - 1) < 0.1


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.integers(2, 3000))
def test_map_is_monotone_and_small(seed: int, n: int) -> None:
    raw, fraud = drawn(seed, n, lambda x: x)
    assume(fraud.any() and not fraud.all())
    knots = calibrate(raw, fraud)
    assert 2 <= len(knots.x) <= MAX_KNOTS
    assert (np.diff(knots.x) > 0).all()
    assert (np.diff(knots.y) > 0).all()
    assert (knots.x[0], knots.y[0], knots.x[-1], knots.y[-1]) == (0, 0, 1, 1)


def test_order_of_scores_is_kept() -> None:
    raw, fraud = drawn(3, 20_000, lambda x: x)
    knots = calibrate(raw, fraud)
    ordered = np.unique(raw).astype(np.float64)
    assert (np.diff(np.interp(ordered, knots.x, knots.y)) > 0).all()
