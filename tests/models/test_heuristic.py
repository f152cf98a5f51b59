import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from models.heuristic import BASE_POINTS, SIGNS, THRESHOLDS, Sign, heuristic
from state.contract import FEATURE_NAMES, N_FEATURES

NOTHING_KNOWN = np.full((1, N_FEATURES), np.nan, np.float32)


def transaction(**features: float) -> NDArray[np.float32]:
    row = NOTHING_KNOWN.copy()
    for name, value in features.items():
        row[0, FEATURE_NAMES.index(name)] = value
    return row


def points(row: NDArray[np.float32]) -> float:
    score = heuristic(row)[0]
    return float(np.log(score / (1 - score)))


def test_nan_counts_as_nothing() -> None:
    assert points(NOTHING_KNOWN) == pytest.approx(BASE_POINTS)
    assert points(transaction(transfer=1.0)) == pytest.approx(BASE_POINTS)


@pytest.mark.parametrize("sign", SIGNS, ids=lambda sign: sign.why)
def test_each_sign_adds_at_least_its_points(sign: Sign) -> None:
    shown = {name: limit + 0.01 for name, limit in sign.features}
    assert points(transaction(**shown)) >= BASE_POINTS + sign.points - 1e-9
    last, limit = sign.features[-1]
    assert points(transaction(**{**shown, last: limit})) <= points(transaction(**shown)) - sign.points + 1e-9


def test_one_sign_alone_never_blocks() -> None:
    for sign in SIGNS:
        assert 1 / (1 + np.exp(-BASE_POINTS - sign.points)) < THRESHOLDS.block


def test_takeover_is_reviewed_and_worse_is_blocked() -> None:
    takeover = {"new_device": 1, "card_not_present": 1, "user_amount_ratio": 4}
    assert THRESHOLDS.review <= heuristic(transaction(**takeover))[0] < THRESHOLDS.block
    assert heuristic(transaction(**takeover, impossible_travel=1, user_count_5m=5))[0] >= THRESHOLDS.block


@settings(max_examples=50)
@given(arrays(np.float32, (5, N_FEATURES), elements=st.floats(width=32)))
def test_any_features_give_a_probability(features: NDArray[np.float32]) -> None:
    score = heuristic(features)
    assert ((score >= 0) & (score <= 1)).all()
