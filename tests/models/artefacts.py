"""Artefacts for tests: small, good, and signed by whom the test likes."""

from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from onnx import TensorProto, helper

from events.control import Thresholds
from models.artefact import (
    FEATURES_SHA256,
    MANIFEST_FILE,
    SIGNATURE_FILE,
    Calibration,
    Manifest,
    PartManifest,
    TrainingSummary,
    sha256,
    write_artefact,
)
from models.model import INPUT, OUTPUT
from models.signing import Keyring, TrustedKey, key_id, sign
from state.contract import CONTRACT_VERSION, N_FEATURES

TREES = "trees.onnx"
IDENTITY = Calibration([0.0, 1.0], [0.0, 1.0])


def manifest_of(onnx: bytes, **changes: Any) -> Manifest:
    """Of an ensemble of one part."""
    fields: dict[str, Any] = {
        "model_version": "gbt-test",
        "contract_version": CONTRACT_VERSION,
        "features_sha256": FEATURES_SHA256,
        "created_at": "2026-11-21T00:00:00+00:00",
        "files": {TREES: sha256(onnx)},
        "training": TrainingSummary(
            source="random",
            rows=4000,
            frauds=500,
            window=("2026-01-01T00:00:00+00:00", "2026-02-01T00:00:00+00:00"),
            seed=1,
            label_delay_days=7.0,
            data_sha256=sha256(b"data"),
        ),
        "metrics": {"test": {"auc_roc": 0.9}},
        "parts": {"trees": PartManifest(TREES, 1.0, IDENTITY)},
        "calibration": Calibration([0.0, 0.2, 1.0], [0.0, 0.5, 1.0]),
        "thresholds": Thresholds(0.4, 0.9),
    }
    return Manifest(**fields | changes)


def write_small(folder: Path, key: Ed25519PrivateKey | None, **changes: Any) -> Path:
    """An artefact that answers the same for every transaction."""
    onnx = constant_model(0.1)
    write_artefact(folder, manifest_of(onnx, **changes), {TREES: onnx}, key)
    return folder


def trusting(**keys: Ed25519PrivateKey) -> Keyring:
    """Keyring of these keys, by name."""
    public = {name: key.public_key() for name, key in keys.items()}
    return Keyring({key_id(k): TrustedKey(name, k.public_bytes_raw()) for name, k in public.items()})


def signed(folder: Path, manifest: bytes, key: Ed25519PrivateKey) -> Path:
    (folder / MANIFEST_FILE).write_bytes(manifest)
    (folder / SIGNATURE_FILE).write_bytes(sign(manifest, key))
    return folder


def constant_model(
    value: float,
    *,
    columns: int = 1,
    features: int = N_FEATURES,
    input_name: str = INPUT,
    output_name: str = OUTPUT,
) -> bytes:
    """ONNX that answers the same for every row: one column picked of the input, times 0, plus `value`."""
    nodes = [
        helper.make_node("IsNaN", [input_name], ["nan"]),
        helper.make_node("Cast", ["nan"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["number", "zeros"], ["nothing"]),
        helper.make_node("Add", ["nothing", "value"], [output_name]),
    ]
    tensors = [
        helper.make_tensor("zeros", TensorProto.FLOAT, [features, columns], [0.0] * features * columns),
        helper.make_tensor("value", TensorProto.FLOAT, [1], [value]),
    ]
    graph = helper.make_graph(
        nodes,
        "constant",
        [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, [None, features])],
        [helper.make_tensor_value_info(output_name, TensorProto.FLOAT, [None, columns])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    data: bytes = model.SerializeToString()
    return data
