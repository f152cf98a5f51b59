from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm as lgb
import msgspec
import numpy as np
import pytest

from events.control import Thresholds
from models.artefact import (
    FEATURES_SHA256,
    MODEL_FILE,
    Calibration,
    Manifest,
    TrainingSummary,
    sha256,
    write_artefact,
)
from models.onnx_export import to_onnx
from state.contract import CONTRACT_VERSION, FEATURE_NAMES, N_FEATURES

SHIPPED = Path(__file__).parents[2] / "models" / "artefacts" / "first"


@pytest.fixture(scope="session")
def shipped() -> Path:
    """Folder of the artefact that ships with the project."""
    return SHIPPED


@pytest.fixture(scope="session")
def booster() -> lgb.Booster:
    """Trees over random features; the even columns hold NaN, the odd ones never did."""
    rng = np.random.default_rng(3)
    features = rng.normal(0, 100, (4000, N_FEATURES)).astype(np.float32)
    fraud = features[:, 0] + features[:, 1] - features[:, 3] > 150
    hidden = np.asarray(rng.random(features.shape) < 0.2)
    hidden[:, 1::2] = False
    features[hidden] = np.nan
    data = lgb.Dataset(features, fraud, feature_name=list(FEATURE_NAMES))
    return lgb.train({"objective": "binary", "num_threads": 1, "seed": 1, "verbosity": -1}, data, 40)


@pytest.fixture(scope="session")
def onnx(booster: lgb.Booster) -> bytes:
    return to_onnx(booster)


@pytest.fixture
def manifest(onnx: bytes) -> Manifest:
    return Manifest(
        model_version="gbt-test",
        contract_version=CONTRACT_VERSION,
        features_sha256=FEATURES_SHA256,
        created_at="2026-11-21T00:00:00+00:00",
        files={MODEL_FILE: sha256(onnx)},
        training=TrainingSummary(
            "random", 4000, 500, ("2026-01-01T00:00:00+00:00", "2026-02-01T00:00:00+00:00"), 1, 7.0
        ),
        metrics={"test": {"roc_auc": 0.9}},
        calibration=Calibration([0.0, 0.2, 1.0], [0.0, 0.5, 1.0]),
        thresholds=Thresholds(0.4, 0.9),
    )


@pytest.fixture
def artefact(tmp_path: Path, manifest: Manifest, onnx: bytes) -> Path:
    """Folder of a good artefact, free to be spoilt."""
    folder = tmp_path / "artefact"
    write_artefact(folder, manifest, {MODEL_FILE: onnx})
    return folder


@pytest.fixture
def written(tmp_path: Path, manifest: Manifest) -> Callable[..., Path]:
    """Writes an artefact around any bytes that shall pass for a model, with any change to its manifest."""

    def write(model: bytes, **changes: Any) -> Path:
        folder = tmp_path / "written"
        changed = msgspec.structs.replace(manifest, files={MODEL_FILE: sha256(model)}, **changes)
        write_artefact(folder, changed, {MODEL_FILE: model})
        return folder

    return write
