"""Comparisons and rankings on labels that nobody has learnt from."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_curve

from online_learning.prequential import (
    FALSE_POSITIVES,
    FRAUDS_KEPT,
    Comparison,
    Foretold,
    Window,
    loss,
    ranking,
)


@given(st.lists(st.tuples(st.floats(-50, 50), st.booleans()), min_size=2, max_size=200))
def test_moments_of_the_differences(given_: list[tuple[float, bool]]) -> None:
    comparison = Comparison()
    for difference, is_fraud in given_:
        comparison.learn(difference, is_fraud)
    differences = [d for d, _ in given_]

    assert comparison.labels == len(given_)
    assert comparison.frauds == sum(f for _, f in given_)
    assert comparison.mean == pytest.approx(np.mean(differences), abs=1e-9)
    assert comparison.spread == pytest.approx(np.var(differences) * len(given_), abs=1e-6)
    assert comparison.at_least(0.01) <= comparison.mean


def test_nothing_follows_from_a_single_label() -> None:
    comparison = Comparison()
    comparison.learn(5.0, is_fraud=True)

    assert comparison.at_least(0.01) == -math.inf


def found_better(differences: NDArray[np.float64], frauds: NDArray[np.bool_], error: float) -> bool:
    """Whether the bound is ever above 0, looked at after each label from 20 frauds and 50 others on."""
    comparison = Comparison()
    for difference, is_fraud in zip(differences.tolist(), frauds.tolist(), strict=True):
        comparison.learn(difference, is_fraud)
        enough = comparison.frauds >= 20 and comparison.legitimate >= 50
        if enough and comparison.at_least(error) > 0:
            return True
    return False


@pytest.mark.parametrize("rate", [0.5, 0.05, 0.01])
def test_the_bound_holds_at_all_times_together(rate: float) -> None:
    error, runs, n = 0.05, 200, 2_500
    rng = np.random.default_rng(int(rate * 1000))
    wrong = 0
    for _ in range(runs):
        frauds = rng.random(n) < rate
        # Rare large gains against frequent small losses, no better on average.
        differences = np.where(frauds, rng.exponential(2.0, n), -2.0 * rate / (1 - rate))
        wrong += found_better(differences, frauds, error)

    # Of 200 fair runs 10 are allowed; 18 would be less likely than 1 in 100.
    assert wrong < 18


def test_what_is_better_is_found_to_be() -> None:
    rng = np.random.default_rng(2)
    frauds = np.arange(400) % 4 == 0
    differences = np.where(frauds, rng.normal(2.0, 1.0, 400), rng.normal(-0.05, 0.1, 400))

    assert found_better(differences[:120], frauds[:120], 0.01)


@given(
    st.lists(st.tuples(st.integers(0, 8), st.booleans(), st.sampled_from([0.5, 1.0, 7.0])), max_size=60),
    st.tuples(st.integers(0, 8), st.integers(0, 8)),
)
def test_ranking_as_scikit_learn_has_it(rows: list[tuple[int, bool, float]], both: tuple[int, int]) -> None:
    rows = [*rows, (both[0], True, 1.0), (both[1], False, 1.0)]
    score, is_fraud, weight = (np.array(column) for column in zip(*rows, strict=True))
    precision, recall = ranking(score.astype(float), is_fraud, weight)

    assert precision == pytest.approx(average_precision_score(is_fraud, score, sample_weight=weight))
    false, true, _ = roc_curve(is_fraud, score, sample_weight=weight, drop_intermediate=False)
    assert recall == pytest.approx(true[false <= FALSE_POSITIVES].max())


@pytest.mark.parametrize("probability", [0.0, 1e-12, 1.0])
@pytest.mark.parametrize("is_fraud", [False, True])
def test_one_label_costs_no_more_than_so_much(probability: float, is_fraud: bool) -> None:
    assert 0 < loss(probability, is_fraud) < 7


def test_a_window_keeps_the_latest_of_each_class_at_their_full_weight() -> None:
    window = Window()
    for _ in range(FRAUDS_KEPT):
        window.learn(Foretold(True, 1.0, 0.1, 0.1, 0.1, 0.1))
    assert window.figures() == {}
    for _ in range(FRAUDS_KEPT):
        window.learn(Foretold(True, 1.0, 0.4, 0.6, 0.6, 0.9))
    window.learn(Foretold(False, 10.0, 0.5, 0.5, 0.5, 0.5))
    figures = window.figures()

    assert figures["recall_offline"] == 0
    assert figures["recall_live"] == figures["recall_challenger"] == 1
    share = 2 * FRAUDS_KEPT / (2 * FRAUDS_KEPT + 10)
    assert figures["average_precision_offline"] == pytest.approx(share)
    expected = share * -math.log(0.9) + (1 - share) * -math.log(0.5)
    assert figures["log_loss_challenger"] == pytest.approx(expected)
