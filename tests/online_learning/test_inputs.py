"""What the learners see of a decision."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.online import squash
from online_learning.inputs import (
    BIAS,
    COLUMNS,
    LEAST_DEVIATION,
    LIMIT,
    OFFLINE,
    SETTLED,
    WIDTH,
    Inputs,
    log_odds,
    probability,
)
from state.contract import N_FEATURES
from tests.online_learning.labelled import ordinary

floats = st.floats(width=32) | st.sampled_from([0.0, -0.0, 1e38, -1e38, np.nan, np.inf, -np.inf])


@given(st.lists(floats, min_size=1, max_size=40), st.floats(0, 1))
def test_inputs_are_bounded_whatever_comes(values: list[float], offline: float) -> None:
    inputs = Inputs()
    for value in values:
        row = np.full(N_FEATURES, value, np.float32)
        inputs.learn(row)
        vector = inputs.vector(row, offline)
        assert vector.shape == (WIDTH,)
        assert np.abs(vector[:OFFLINE]).max() <= LIMIT
        assert np.isfinite(vector[OFFLINE])
        assert vector[BIAS] == 1


def test_features_are_standardised_by_what_was_seen() -> None:
    traffic = ordinary(500, 1)
    inputs = Inputs()
    for row in traffic.features:
        inputs.learn(row)
    seen = squash(traffic.features[:, COLUMNS]).astype(np.float64)

    np.testing.assert_allclose(inputs.mean, np.nanmean(seen, axis=0))
    deviation = np.nanstd(seen, axis=0, ddof=1)
    np.testing.assert_allclose(inputs.scale, 1 / np.maximum(deviation, LEAST_DEVIATION))


def test_a_missing_feature_says_nothing_and_changes_nothing() -> None:
    inputs = Inputs()
    for row in ordinary(50, 2).features:
        inputs.learn(row)
    before, missing = inputs.mean.copy(), np.full(N_FEATURES, np.nan, np.float32)
    inputs.learn(missing)

    assert not inputs.vector(missing, 0.1)[:OFFLINE].any()
    assert inputs.mean.tolist() == before.tolist()


def test_the_scale_settles() -> None:
    inputs = Inputs()
    row = np.ones(N_FEATURES, np.float32)
    for _ in range(SETTLED):
        inputs.learn(row)
    settled = inputs.mean.copy()
    inputs.learn(1000 * row)

    assert inputs.mean.tolist() == settled.tolist()


@pytest.mark.parametrize("given_", [0.0, 1e-300, 1e-9, 0.3, 0.5, 1 - 1e-9, 1.0])
def test_log_odds_and_probability_are_inverse_within_what_is_kept(given_: float) -> None:
    assert probability(log_odds(given_)) == pytest.approx(min(max(given_, 1e-9), 1 - 1e-9))


@pytest.mark.parametrize("log_odds_", [-1e6, -800.0, 800.0, 1e6])
def test_far_log_odds_give_a_probability(log_odds_: float) -> None:
    assert probability(log_odds_) == (log_odds_ > 0)
