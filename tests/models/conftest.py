from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm as lgb
import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from models.artefact import Manifest, sha256, write_artefact
from models.onnx_export import to_onnx
from models.registry import ARTEFACTS
from models.signing import Keyring
from state.contract import FEATURE_NAMES, N_FEATURES
from tests.models.artefacts import TREES, manifest_of, trusting

SHIPPED = ARTEFACTS / "first"


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


@pytest.fixture(scope="session")
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


@pytest.fixture(scope="session")
def keyring(key: Ed25519PrivateKey) -> Keyring:
    """Trusts `key` alone."""
    return trusting(tester=key)


@pytest.fixture
def manifest(onnx: bytes) -> Manifest:
    return manifest_of(onnx)


@pytest.fixture
def artefact(tmp_path: Path, manifest: Manifest, onnx: bytes, key: Ed25519PrivateKey) -> Path:
    """Folder of a good artefact, free to be spoilt."""
    folder = tmp_path / "artefact"
    write_artefact(folder, manifest, {TREES: onnx}, key)
    return folder


@pytest.fixture
def written(tmp_path: Path, manifest: Manifest, key: Ed25519PrivateKey) -> Callable[..., Path]:
    """Writes a signed artefact around any bytes that shall pass for a model, with changes to its manifest."""

    def write(model: bytes, **changes: Any) -> Path:
        folder = tmp_path / "written"
        changed = msgspec.structs.replace(manifest, files={TREES: sha256(model)}, **changes)
        write_artefact(folder, changed, {TREES: model}, key)
        return folder

    return write
