"""The two learners by themselves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from online_learning.balance import LARGEST_SHARE, LEAST_SHARE, Balance
from online_learning.dynamic import PERSISTENCE, PRIOR, Dynamic
from online_learning.inputs import BIAS, OFFLINE, WIDTH, ensemble_alone
from online_learning.logistic import Logistic

LEARNERS = (Logistic, Dynamic)


def inputs(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    drawn = rng.normal(0, 1, (n, WIDTH)).clip(-3, 3)
    drawn[:, OFFLINE] = rng.normal(-4, 1, n)
    drawn[:, BIAS] = 1
    return drawn


@pytest.mark.parametrize("learner", LEARNERS)
def test_begins_as_the_ensemble_alone(learner: type[Logistic | Dynamic]) -> None:
    drawn = inputs(np.random.default_rng(1), 100)

    assert (drawn @ learner().weight).tolist() == drawn[:, OFFLINE].tolist()


@pytest.mark.parametrize("learner", LEARNERS)
@given(
    st.lists(st.tuples(st.booleans(), st.floats(0, 1e4), st.floats(0, 5)), max_size=60), st.integers(0, 2**32)
)
def test_stays_finite(
    learner: type[Logistic | Dynamic], labels: list[tuple[bool, float, float]], seed: int
) -> None:
    of = learner()
    drawn = inputs(np.random.default_rng(seed), len(labels))
    drawn[:, OFFLINE] *= 5
    for row, (is_fraud, weight, offset) in zip(drawn, labels, strict=True):
        of.learn(row, is_fraud, weight, offset)

    assert np.isfinite(of.weight).all()
    assert np.abs(of.weight).max() < 100


@pytest.mark.parametrize("learner", LEARNERS)
def test_learns_what_the_ensemble_misses(learner: type[Logistic | Dynamic]) -> None:
    rng = np.random.default_rng(3)
    of, drawn = learner(), inputs(rng, 4_000)
    truth = ensemble_alone()
    truth[:2] = 2.0, -1.5
    is_fraud = rng.random(4_000) < 1 / (1 + np.exp(-drawn @ truth))
    for row, label in zip(drawn, is_fraud.tolist(), strict=True):
        of.learn(row, label, 1.0, 0.0)

    test = inputs(rng, 4_000)
    missed = np.corrcoef(test @ of.weight, test @ truth)[0, 1]
    assert missed > np.corrcoef(test[:, OFFLINE], test @ truth)[0, 1] + 0.2


@pytest.mark.parametrize("learner", LEARNERS)
def test_learns_faster_after_a_drift(learner: type[Logistic | Dynamic]) -> None:
    rng = np.random.default_rng(4)
    calm = learner()
    for row, label in zip(inputs(rng, 3_000), rng.random(3_000) < 0.5, strict=True):
        calm.learn(row, bool(label), weight=1.0, offset=4.0)
    hasty = learner()
    hasty.weight = calm.weight.copy()
    if isinstance(calm, Dynamic) and isinstance(hasty, Dynamic):
        hasty.covariance = calm.covariance.copy()
    hasty.hasten()
    before, (row,) = calm.weight.copy(), inputs(rng, 1)
    calm.learn(row, is_fraud=True, weight=1.0, offset=0.0)
    hasty.learn(row, is_fraud=True, weight=1.0, offset=0.0)

    assert abs(row @ (hasty.weight - before)) > 1.5 * abs(row @ (calm.weight - before))


@pytest.mark.parametrize("is_fraud", [False, True])
@pytest.mark.parametrize("weight", [0.5, 10.0])
def test_the_filter_goes_to_the_posterior_mode(is_fraud: bool, weight: float) -> None:
    (row,) = inputs(np.random.default_rng(5), 1)
    of = Dynamic()
    of.learn(row, is_fraud, weight, offset=0.7)

    # Along the direction in which the prior lets one label move the weights, by brute force.
    towards = PRIOR * row

    def loss(step: float) -> float:
        log_odds = row @ (ensemble_alone() + step * towards) + 0.7
        wrong = weight * np.logaddexp(0, -log_odds if is_fraud else log_odds)
        return float(wrong + 0.5 * step**2 * row @ towards)

    found = minimize_scalar(loss, bracket=(-1, 1), tol=1e-12).x
    np.testing.assert_allclose(of.weight, ensemble_alone() + found * towards, atol=1e-6)
    q = 1 / (1 + np.exp(-(row @ of.weight + 0.7)))
    precision = np.diag(1 / PRIOR) + weight * q * (1 - q) * np.outer(row, row)
    np.testing.assert_allclose(of.covariance, np.linalg.inv(precision), atol=1e-9)


def test_what_is_no_longer_confirmed_fades() -> None:
    of = Dynamic()
    of.weight[0] = 5.0
    of.covariance[0, 0] = 1e-4
    silence = np.zeros(WIDTH)
    labels = 20_000
    for _ in range(labels):
        of.learn(silence, is_fraud=False, weight=1.0, offset=0.0)

    assert of.weight[0] == pytest.approx(5.0 * PERSISTENCE ** (labels / 2))
    assert 0.8 * PRIOR[0] < of.covariance[0, 0] < PRIOR[0]


@given(st.floats(1e-5, 0.999), st.integers(1, 3_000), st.integers(0, 2**32))
def test_weights_are_balanced(share: float, n: int, seed: int) -> None:
    balance = Balance()
    labels = np.random.default_rng(seed).random(n) < share
    for label in labels.tolist():
        weight, offset = balance.weigh(label, 2.0)
        assert 0 < weight <= 20
        assert 0 <= offset <= np.log(10) + 1e-9
        assert label or weight == 2.0


@pytest.mark.parametrize(("share", "times"), [(0.5, 0.43), (0.1, 1.0), (0.01, 2.02), (0.0003, 10.0)])
def test_rare_frauds_weigh_more_and_the_many_less(share: float, times: float) -> None:
    balance = Balance(fraud=1e6 * share, legitimate=1e6 * (1 - share))
    weight, offset = balance.weigh(is_fraud=True, weight=1.0)

    assert weight == pytest.approx(times, abs=0.01)
    assert offset == pytest.approx(max(0.0, np.log(times)), abs=0.01)
    assert LEAST_SHARE < LARGEST_SHARE


def test_frauds_alone_teach_less_and_less() -> None:
    balance = Balance()
    learnt = [balance.weigh(is_fraud=True, weight=1.0)[0] for _ in range(10_000)]

    assert learnt == sorted(learnt, reverse=True)
    assert sum(learnt) < 120
