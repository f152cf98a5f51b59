"""Pooling of parts, their weights, and what is left when one fails."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from events.control import Thresholds
from models.ensemble import Ensemble, fit_ensemble, learn_weights
from models.model import Model, Part, ScoringError, pool
from models.parts.fitted import FitOptions, Fitted
from state.contract import N_FEATURES
from tests.models.artefacts import constant_model

IDENTITY = ([0.0, 1.0], [0.0, 1.0])
PROBABILITIES = st.lists(st.floats(0, 1), min_size=1, max_size=5)


def part(answer: float, weight: float) -> Part:
    return Part(constant_model(answer), IDENTITY, weight)


@given(PROBABILITIES, st.integers(0, 10**6))
def test_the_pool_lies_between_its_parts(answers: list[float], seed: int) -> None:
    weights = np.random.default_rng(seed).random(len(answers))
    parts = {f"p{k}": np.array([answer]) for k, answer in enumerate(answers)}
    (pooled,) = pool(parts, {f"p{k}": float(w) for k, w in enumerate(weights)})
    assert min(answers) - 1e-8 <= pooled <= max(answers) + 1e-8


@given(PROBABILITIES)
def test_weights_count_in_proportion(answers: list[float]) -> None:
    parts = {f"p{k}": np.array([answer]) for k, answer in enumerate(answers)}
    weights = {f"p{k}": k + 1.0 for k in range(len(answers))}
    doubled = {name: 2 * weight for name, weight in weights.items()}
    np.testing.assert_allclose(pool(parts, weights), pool(parts, doubled), rtol=1e-12)


def test_a_part_that_fails_is_left_out_and_counted() -> None:
    good, other = part(0.2, 0.5), part(0.6, 0.5)
    model = Model("m", {"good": good, "bad": other}, IDENTITY, Thresholds(0.4, 0.9))
    features = np.zeros((3, N_FEATURES), np.float32)
    both = model.score(features)
    assert set(both.parts) == {"good", "bad"}
    other.session = None
    alone = model.score(features)
    np.testing.assert_allclose(alone.score, 0.2, rtol=1e-6)
    assert (set(alone.parts), model.failures) == ({"good"}, {"good": 0, "bad": 1})
    good.session = None
    with pytest.raises(ScoringError):
        model.score(features)


def truth(seed: int, n: int = 4000) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    odds = rng.normal(-2, 2, n)
    return odds, rng.random(n) < 1 / (1 + np.exp(-odds))


def test_a_part_that_knows_nothing_is_switched_off() -> None:
    odds, fraud = truth(1)
    noise = np.random.default_rng(2).random(len(odds))
    weights = learn_weights({"good": 1 / (1 + np.exp(-odds)), "noise": noise}, fraud)
    assert weights["noise"] == 0
    assert weights["good"] == 1


def test_two_views_of_the_truth_share_the_weight() -> None:
    odds, fraud = truth(3)
    rng = np.random.default_rng(4)
    views = {f"v{k}": 1 / (1 + np.exp(-(odds + rng.normal(0, 1, len(odds))))) for k in range(2)}
    weights = learn_weights(views, fraud)
    assert sum(weights.values()) == pytest.approx(1, abs=1e-3)
    assert all(0.3 < weight < 0.7 for weight in weights.values())


def test_an_ensemble_of_parts_that_contradict_the_truth_still_scores() -> None:
    odds, fraud = truth(5)
    weights = learn_weights({"wrong": 1 / (1 + np.exp(odds))}, fraud)
    assert weights == {"wrong": 1.0}


def fitting(answer: float) -> Callable[..., Fitted]:
    def fit(*_: object) -> Fitted:
        return Fitted(constant_model(answer), lambda rows: np.full(len(rows), answer))

    return fit


def test_parts_are_fitted_in_order_and_told() -> None:
    rng = np.random.default_rng(6)
    block = rng.normal(0, 1, (200, N_FEATURES)).astype(np.float32), rng.random(200) < 0.2
    told: list[str] = []
    ensemble: Ensemble = fit_ensemble(
        {"a": fitting(0.1), "b": fitting(0.7)}, block, block, FitOptions(), told.append
    )
    assert told == ["a", "b"]
    scores = ensemble.model("m", Thresholds(0.4, 0.9)).score(block[0])
    np.testing.assert_allclose(scores.score, block[1].mean(), atol=0.02)
