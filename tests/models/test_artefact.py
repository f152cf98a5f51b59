import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx as onnx_format
import pytest
from onnx import TensorProto, helper

from models.artefact import (
    MANIFEST_FILE,
    MAX_MANIFEST_BYTES,
    MODEL_FILE,
    Calibration,
    Manifest,
    ModelRefusedError,
    load_model,
    probe_batch,
    read_manifest,
    write_artefact,
)
from models.model import INPUT, OUTPUT
from state.contract import N_FEATURES


def edited(folder: Path, **changes: Any) -> None:
    """Change fields of a manifest without a care for whether it stays valid."""
    path = folder / MANIFEST_FILE
    content = {**json.loads(path.read_bytes()), **changes}
    path.write_text(json.dumps(content))


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


def test_good_artefact_loads(artefact: Path, manifest: Manifest) -> None:
    model = load_model(artefact)
    assert model.version == "gbt-test"
    assert model.thresholds == manifest.thresholds
    score = model.score(probe_batch()).score
    assert score.shape == (64,)
    assert score.dtype == np.float64
    assert ((score >= 0) & (score <= 1)).all()
    assert read_manifest(artefact) == manifest


def test_calibration_is_applied(written: Callable[..., Path]) -> None:
    model = load_model(written(constant_model(0.1)))
    assert model.score(probe_batch()).score == pytest.approx(0.25)  # knots (0, 0), (.2, .5)


def test_manifest_missing(artefact: Path) -> None:
    (artefact / MANIFEST_FILE).unlink()
    with pytest.raises(ModelRefusedError, match=r"manifest\.json is missing"):
        load_model(artefact)


def test_folder_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelRefusedError, match=r"manifest\.json is missing in .*nowhere"):
        load_model(tmp_path / "nowhere")


def test_file_in_place_of_the_folder(artefact: Path) -> None:
    with pytest.raises(ModelRefusedError, match="cannot be read"):
        load_model(artefact / MODEL_FILE)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "malformed"),
        (b"{", "malformed"),
        (b"[]", "malformed: Expected `object`"),
        (b"\xff\xfe", "malformed"),
        (b"[" * 100_000, "malformed"),
        (b" " * (MAX_MANIFEST_BYTES + 1), "larger than"),
    ],
    ids=["empty", "truncated", "array", "utf-8", "nested", "huge"],
)
def test_manifest_that_is_none(artefact: Path, content: bytes, reason: str) -> None:
    (artefact / MANIFEST_FILE).write_bytes(content)
    with pytest.raises(ModelRefusedError, match=reason):
        load_model(artefact)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format": 2}, r"\$\.format"),
        ({"signature": "x"}, "unknown field `signature`"),
        ({"model_version": "../x"}, r"\$\.model_version"),
        ({"contract_version": 99}, "feature contract 99, this engine computes 1"),
        ({"features_sha256": "0" * 64}, "feature list differs"),
        ({"files": {}}, "lacks model.onnx"),
        ({"files": {MODEL_FILE: "0" * 64}}, "model.onnx: SHA-256 is .* the manifest says 000"),
        ({"files": {MODEL_FILE: "abc"}}, r"malformed.*\$\.files"),
        ({"thresholds": {"review": 0.9, "block": 0.1}}, "review must not exceed block"),
        ({"calibration": {"x": [0, 1], "y": [0]}}, r"\$\.calibration"),
        ({"calibration": {"x": [0, 0.5, 1], "y": [0, 1]}}, "differ in length"),
        ({"calibration": {"x": [0, 0.5, 0.5], "y": [0, 0.1, 1]}}, "x does not ascend"),
        ({"calibration": {"x": [0, 0.5, 1], "y": [0, 0.6, 0.5]}}, "y descends"),
        ({"calibration": {"x": [0, 2], "y": [0, 1]}}, r"\$\.calibration\.x"),
    ],
)
def test_manifest_that_does_not_fit(artefact: Path, changes: dict[str, Any], reason: str) -> None:
    edited(artefact, **changes)
    with pytest.raises(ModelRefusedError, match=reason):
        load_model(artefact)


def test_files_outside_the_folder_are_not_read(artefact: Path, manifest: Manifest) -> None:
    edited(artefact, files={**manifest.files, "../secret": "0" * 64})
    with pytest.raises(ModelRefusedError, match="not the name of a file beside it"):
        load_model(artefact)


def test_listed_file_missing(artefact: Path) -> None:
    (artefact / MODEL_FILE).unlink()
    with pytest.raises(ModelRefusedError, match=r"model\.onnx is missing"):
        load_model(artefact)


@pytest.mark.parametrize(
    "spoil", [lambda b: b[:-1], lambda b: b[:500], lambda b: b"X" + b[1:], lambda b: b + b"\0"]
)
def test_altered_model(artefact: Path, spoil: Callable[[bytes], bytes]) -> None:
    path = artefact / MODEL_FILE
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ModelRefusedError, match=r"model\.onnx: SHA-256 is"):
        load_model(artefact)


@pytest.mark.parametrize("garbage", [b"", b"garbage", b"\x80\x04K\x01."], ids=["empty", "text", "pickle"])
def test_model_that_is_no_onnx(written: Callable[..., Path], garbage: bytes) -> None:
    with pytest.raises(ModelRefusedError, match=r"model\.onnx does not load|output is not"):
        load_model(written(garbage))


def test_truncated_model_under_a_manifest_that_agrees(written: Callable[..., Path], onnx: bytes) -> None:
    with pytest.raises(ModelRefusedError, match="does not load"):
        load_model(written(onnx[: len(onnx) // 2]))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (constant_model(0.5, features=N_FEATURES - 1), "does not take 1 rows of 77 features"),
        (constant_model(0.5, columns=2), r"output is not float32 \[1, 1\]"),
        (constant_model(0.5, input_name="input"), "not features of float"),
        (constant_model(0.5, output_name="label"), "output is not raw_score"),
        (constant_model(float("nan")), "not finite"),
        (constant_model(float("inf")), "not finite"),
        (constant_model(1.01), r"not in \[0, 1\]"),
        (constant_model(-0.01), r"not in \[0, 1\]"),
    ],
    ids=["features", "columns", "input", "output", "nan", "inf", "above", "below"],
)
def test_model_that_does_not_answer_probabilities(
    written: Callable[..., Path], model: bytes, reason: str
) -> None:
    onnx_format.checker.check_model(model)
    with pytest.raises(ModelRefusedError, match=reason):
        load_model(written(model))


def test_artefact_is_never_overwritten(artefact: Path, manifest: Manifest, onnx: bytes) -> None:
    with pytest.raises(FileExistsError, match="never overwritten"):
        write_artefact(artefact, manifest, {MODEL_FILE: onnx})
    assert load_model(artefact).version == "gbt-test"


def test_nothing_is_left_of_an_artefact_that_was_not_written(
    tmp_path: Path, manifest: Manifest, onnx: bytes
) -> None:
    folder = tmp_path / "new"
    with pytest.raises(ValueError, match="does not describe"):
        write_artefact(folder, manifest, {MODEL_FILE: onnx + b" "})
    unwritable = msgspec.structs.replace(manifest, metrics={"test": {"roc_auc": date(2026, 1, 1).ctime}})
    with pytest.raises(TypeError):
        write_artefact(folder, unwritable, {MODEL_FILE: onnx})
    assert list(tmp_path.iterdir()) == []


def test_shipped_artefact_loads(shipped: Path) -> None:
    assert load_model(shipped).version == read_manifest(shipped).model_version


def test_calibration_checks_itself() -> None:
    with pytest.raises(ValueError, match="ascend"):
        Calibration([0.0, 0.0], [0.0, 1.0])
