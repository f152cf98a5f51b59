import lightgbm as lgb
import numpy as np
import pytest
from numpy.typing import NDArray

from models.artefact import probe_batch
from models.model import Part
from models.onnx_export import to_onnx
from state.contract import N_FEATURES


def raw(onnx: bytes, features: NDArray[np.float32]) -> NDArray[np.float32]:
    return Part(onnx, ([0, 1], [0, 1]), 1.0).raw(features)[:, 0]


def thresholds(booster: lgb.Booster) -> list[tuple[int, float]]:
    """(column, threshold) of every split."""
    splits = booster.trees_to_dataframe().dropna(subset="threshold")
    columns = [int(name) for name in splits["split_feature"].map(booster.feature_name().index)]
    return list(zip(columns, splits["threshold"], strict=True))


def test_onnx_equals_lightgbm(booster: lgb.Booster, onnx: bytes) -> None:
    features = np.random.default_rng(1).normal(0, 150, (20_000, N_FEATURES)).astype(np.float32)
    assert np.abs(raw(onnx, features) - booster.predict(features)).max() < 1e-6


def test_missing_values_take_the_same_branch(booster: lgb.Booster, onnx: bytes) -> None:
    rng = np.random.default_rng(2)
    features = rng.normal(0, 150, (5000, N_FEATURES)).astype(np.float32)
    features[rng.random(features.shape) < 0.5] = np.nan  # also in columns that were never missing in training
    assert np.abs(raw(onnx, features) - booster.predict(features)).max() < 1e-6
    assert np.abs(raw(onnx, probe_batch()) - booster.predict(probe_batch())).max() < 1e-6


def test_zero_is_a_number_like_any_other(booster: lgb.Booster, onnx: bytes) -> None:
    features = np.zeros((3, N_FEATURES), np.float32)
    features[1] = -0.0
    features[2] = 1e-36
    assert np.abs(raw(onnx, features) - booster.predict(features)).max() < 1e-6


def test_features_at_a_threshold_take_the_same_branch(booster: lgb.Booster, onnx: bytes) -> None:
    """The float32 next to a float64 threshold on either side; rounding to the nearest would swap some."""
    rows = []
    for column, threshold in thresholds(booster):
        near = np.float32(threshold)
        for value in (np.nextafter(near, np.float32(-np.inf)), near, np.nextafter(near, np.float32(np.inf))):
            row = np.full(N_FEATURES, np.nan, np.float32)
            row[column] = value
            rows.append(row)
    features = np.array(rows)
    assert any(float(np.float32(t)) > t for _, t in thresholds(booster))
    assert np.abs(raw(onnx, features) - booster.predict(features)).max() < 1e-6


def test_other_objectives_are_refused() -> None:
    rng = np.random.default_rng(1)
    data = lgb.Dataset(rng.random((200, N_FEATURES)), rng.random(200))
    with pytest.raises(ValueError, match="not binary"):
        to_onnx(lgb.train({"objective": "regression", "verbosity": -1}, data, 2))
