"""Small models to explain: trees over random features, alone or beside another part."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from events.control import Thresholds
from models.artefact import (
    FEATURES_SHA256,
    Calibration,
    Manifest,
    PartManifest,
    TrainingSummary,
    sha256,
    write_artefact,
)
from models.explanation import TREES, TREES_FILE
from models.onnx_export import to_onnx
from models.signing import Keyring
from state.contract import CONTRACT_VERSION, FEATURE_NAMES, N_FEATURES

VERSION = "small-1"
UNSIGNED = Keyring({}, allow_unsigned=True)
BENT = Calibration([0.0, 0.3, 1.0], [0.0, 0.6, 1.0])
STRAIGHT = Calibration([0.0, 1.0], [0.0, 1.0])


def random_features(rows: int, seed: int) -> NDArray[np.float32]:
    """Features f4 [rows, N_FEATURES] of which a tenth is missing."""
    rng = np.random.default_rng(seed)
    features = rng.lognormal(1, 2, (rows, N_FEATURES)).astype(np.float32)
    features[rng.random(features.shape) < 0.1] = np.nan
    return features


@cache
def trees() -> lgb.Booster:
    features = random_features(4000, 3)
    fraud = np.nansum(features[:, [0, 11, -1]], axis=1) > 40
    data = lgb.Dataset(features, fraud, feature_name=list(FEATURE_NAMES))
    parameters = {"objective": "binary", "num_leaves": 8, "num_threads": 1, "seed": 1, "verbosity": -1}
    return lgb.train(parameters, data, 30)


def write_small_artefact(
    folder: Path, weights: Mapping[str, float], text: bytes | None = None, version: str = VERSION
) -> Path:
    """An artefact whose parts all hold the same trees, those named gbt with a calibration that bends."""
    onnx = to_onnx(trees())
    files = {f"{name}.onnx": onnx for name in weights}
    files[TREES_FILE] = trees().model_to_string().encode() if text is None else text
    parts = {
        name: PartManifest(f"{name}.onnx", weight, BENT if name == TREES else STRAIGHT)
        for name, weight in weights.items()
    }
    manifest = Manifest(
        model_version=version,
        contract_version=CONTRACT_VERSION,
        features_sha256=FEATURES_SHA256,
        created_at="2026-11-21T00:00:00+00:00",
        files={name: sha256(data) for name, data in files.items()},
        training=TrainingSummary(
            "random", 4000, 500, ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"), 1, 7.0, "0" * 64
        ),
        metrics={},
        parts=parts,
        calibration=BENT,
        thresholds=Thresholds(0.4, 0.9),
    )
    write_artefact(folder, manifest, files)
    return folder
