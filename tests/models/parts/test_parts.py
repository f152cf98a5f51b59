"""What every part must hold to."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from models.artefact import probe_batch
from models.parts.fitted import FitOptions, Fitted
from state.contract import N_FEATURES
from tests.models.parts.conftest import OPTIONS, Rows, column, fit_of, random_rows, raw

LARGEST = np.finfo(np.float32).max


def test_onnx_equals_native(fitted: Fitted, unseen: Rows) -> None:
    native = fitted.native(unseen.features)
    assert native.shape == (len(unseen.features),)
    assert np.abs(raw(fitted, unseen.features) - native).max() < 1e-5


def test_frauds_are_found(fitted: Fitted, unseen: Rows) -> None:
    assert roc_auc_score(unseen.is_fraud, raw(fitted, unseen.features)) > 0.8


def test_missing_values(fitted: Fitted, unseen: Rows) -> None:
    features = unseen.features[:5000].copy()
    features[np.random.default_rng(4).random(features.shape) < 0.5] = np.nan
    features[0] = np.nan
    assert np.abs(raw(fitted, features) - fitted.native(features)).max() < 1e-5


def test_what_never_occurs_gets_a_score_too(fitted: Fitted) -> None:
    extremes = np.array([[LARGEST], [-LARGEST], [1e-45], [-0.0]], np.float32)
    features = np.concatenate((probe_batch(), np.broadcast_to(extremes, (4, N_FEATURES))))
    score = raw(fitted, features)
    assert np.isfinite(score).all()
    assert score.min() >= 0
    assert score.max() <= 1
    assert np.abs(score - fitted.native(features)).max() < 1e-5


@settings(max_examples=30)
@given(chosen=st.lists(st.integers(0, 999), min_size=1, max_size=130))
def test_a_score_does_not_depend_on_the_batch(fitted: Fitted, unseen: Rows, chosen: list[int]) -> None:
    whole = raw(fitted, unseen.features[:1000])
    assert np.abs(raw(fitted, unseen.features[chosen]) - whole[chosen]).max() < 1e-6


def test_no_rows_give_no_scores(fitted: Fitted) -> None:
    assert raw(fitted, np.empty((0, N_FEATURES), np.float32)).shape == (0,)


def test_the_same_input_gives_the_same_model(name: str, fitted: Fitted, train: Rows) -> None:
    assert fit_of(name)(*train, OPTIONS).onnx == fitted.onnx


def test_another_seed_gives_another_model(name: str, fitted: Fitted, train: Rows) -> None:
    assert fit_of(name)(*train, FitOptions(seed=6, threads=1)).onnx != fitted.onnx


@pytest.mark.parametrize("value", [np.nan, 0.0, 1e10])
def test_features_that_never_vary(name: str, value: float) -> None:
    features = np.full((300, N_FEATURES), value, np.float32)
    fitted = fit_of(name)(features, np.arange(300) % 10 == 0, OPTIONS)
    for batch in (features, probe_batch()):
        score = raw(fitted, batch)
        assert np.isfinite(score).all()
        assert np.abs(score - fitted.native(batch)).max() < 1e-5


def test_few_rows(name: str) -> None:
    features = random_rows(3, 1).features
    fitted = fit_of(name)(features, np.array([False, True, False]), OPTIONS)
    assert np.isfinite(raw(fitted, features)).all()


@pytest.mark.parametrize("fraud", [False, True])
def test_one_class_is_refused(name: str, train: Rows, fraud: bool) -> None:
    with pytest.raises(ValueError, match="one class only"):
        fit_of(name)(train.features, np.full(len(train.features), fraud), OPTIONS)


def test_no_rows_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no rows"):
        fit_of(name)(np.empty((0, N_FEATURES), np.float32), np.empty(0, np.bool_), OPTIONS)


def test_other_features_are_refused(name: str, train: Rows) -> None:
    with pytest.raises(ValueError, match=r"features: \(4000, 9\) is not"):
        fit_of(name)(train.features[:, :9], train.is_fraud, OPTIONS)


def test_infinite_values_are_refused(name: str, train: Rows) -> None:
    features = train.features.copy()
    features[7, column("amount")] = np.inf
    with pytest.raises(ValueError, match="amount: infinite"):
        fit_of(name)(features, train.is_fraud, OPTIONS)
