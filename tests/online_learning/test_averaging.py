"""What the learners say together, at the level of the ensemble."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from online_learning.averaging import FLOOR, Averaging
from online_learning.level import EVERY, KEPT, Level

losses = st.lists(st.lists(st.floats(0, 7), min_size=3, max_size=3), max_size=200)


@given(losses, st.floats(0, 1e6))
def test_weights_are_shares_and_none_is_lost(given_: list[list[float]], weight: float) -> None:
    averaging = Averaging(np.zeros(3))
    for row in given_:
        averaging.learn(np.array(row), weight)
    shares = averaging.weights()

    assert shares.sum() == pytest.approx(1)
    assert (shares >= FLOOR / 3 - 1e-12).all()
    assert shares[np.argmin(averaging.loss)] == shares.max()


def test_who_foretells_better_weighs_more_until_that_is_long_ago() -> None:
    averaging = Averaging(np.zeros(2))
    for _ in range(300):
        averaging.learn(np.array([0.1, 0.6]), 1.0)
    assert averaging.weights()[0] > 0.85
    for _ in range(600):
        averaging.learn(np.array([0.6, 0.1]), 1.0)
    assert averaging.weights()[1] > 0.85


@given(st.lists(st.floats(-15, 15), min_size=3, max_size=3), st.booleans())
def test_together_they_lose_no_more_than_on_average(log_odds: list[float], is_fraud: bool) -> None:
    averaging = Averaging(np.array([3.0, 1.0, 2.0]))
    shares, sign = averaging.weights(), -1 if is_fraud else 1

    def loss(x: NDArray[np.float64]) -> NDArray[np.float64]:
        of: NDArray[np.float64] = np.logaddexp(0, sign * x)
        return of

    together = float(loss(np.array([shares @ log_odds]))[0])
    assert together <= float(shares @ loss(np.array(log_odds))) + 1e-9


def test_who_scores_legitimate_transactions_higher_is_taken_back() -> None:
    rng = np.random.default_rng(1)
    level = Level.of(3)
    for _ in range(2 * KEPT):
        log_odds = rng.normal(-4, 1)
        offline = float(1 / (1 + np.exp(-log_odds)))
        level.learn(offline, np.array([log_odds, log_odds + 1.5, log_odds - 1.5]), 1.0)

    assert level.shift.tolist() == pytest.approx([0.0, -1.5, 0.0], abs=1e-3)


def test_the_level_follows_the_latest_labels() -> None:
    level = Level.of(1)
    for _ in range(KEPT):
        level.learn(0.1, np.array([2.0]), 1.0)
    assert level.shift[0] < -3
    for _ in range(KEPT + EVERY):
        level.learn(0.1, np.array([-3.0]), 1.0)
    assert level.shift[0] == 0
