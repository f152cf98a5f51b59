import json
import os
from collections.abc import Callable
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx as onnx_format
import onnxruntime as ort
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from models.artefact import (
    MANIFEST_FILE,
    MAX_FILE_BYTES,
    MAX_MANIFEST_BYTES,
    SIGNATURE_FILE,
    Calibration,
    Manifest,
    ModelRefusedError,
    PartManifest,
    load_model,
    probe_batch,
    read_manifest,
    sign_artefact,
    write_artefact,
)
from models.model import INPUT, OUTPUT
from models.signing import TRUSTED_KEYS, Keyring, sign
from state.contract import CONTRACT_VERSION, N_FEATURES
from tests.models.artefacts import IDENTITY, TREES, constant_model, signed

UNSIGNED = Keyring({}, allow_unsigned=True)


@pytest.fixture
def edited(artefact: Path, key: Ed25519PrivateKey) -> Callable[..., Path]:
    """Changes fields of the manifest without a care for whether it stays valid, and signs it."""

    def edit(**changes: Any) -> Path:
        content = {**json.loads((artefact / MANIFEST_FILE).read_bytes()), **changes}
        return signed(artefact, json.dumps(content).encode(), key)

    return edit


def model_with_a_tensor_in(location: str, *, in_constant: bool = False) -> bytes:
    """ONNX that takes the mean of the features with weights from another file, N_FEATURES float32."""
    weights = TensorProto(
        name="weights",
        data_type=TensorProto.FLOAT,
        dims=[N_FEATURES, 1],
        data_location=TensorProto.EXTERNAL,
        external_data=[{"key": "location", "value": location}],
    )
    nodes = [
        helper.make_node("MatMul", [INPUT, "weights"], ["sum"]),
        helper.make_node("Sigmoid", ["sum"], [OUTPUT]),
    ]
    if in_constant:
        nodes.insert(0, helper.make_node("Constant", [], ["weights"], value=weights))
    graph = helper.make_graph(
        nodes,
        "elsewhere",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [None, N_FEATURES])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [None, 1])],
        [] if in_constant else [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    data: bytes = model.SerializeToString()
    return data


def test_good_artefact_loads(artefact: Path, manifest: Manifest, keyring: Keyring) -> None:
    model = load_model(artefact, keyring)
    assert model.version == "gbt-test"
    assert model.thresholds == manifest.thresholds
    score = model.score(probe_batch()).score
    assert score.shape == (64,)
    assert score.dtype == np.float64
    assert ((score >= 0) & (score <= 1)).all()
    assert read_manifest(artefact) == manifest


def test_calibration_is_applied(written: Callable[..., Path], keyring: Keyring) -> None:
    model = load_model(written(constant_model(0.1)), keyring)
    assert model.score(probe_batch()).score == pytest.approx(0.25)  # knots (0, 0), (.2, .5)


def test_unsigned_artefact(artefact: Path, keyring: Keyring) -> None:
    (artefact / SIGNATURE_FILE).unlink()
    with pytest.raises(ModelRefusedError, match=r"manifest\.sig: there is no signature"):
        load_model(artefact, keyring)
    assert load_model(artefact, UNSIGNED).version == "gbt-test"


def test_artefact_of_a_stranger(artefact: Path, keyring: Keyring) -> None:
    (artefact / SIGNATURE_FILE).write_bytes(
        sign((artefact / MANIFEST_FILE).read_bytes(), Ed25519PrivateKey.generate())
    )
    for ring in (keyring, UNSIGNED):
        with pytest.raises(ModelRefusedError, match="not among the trusted keys"):
            load_model(artefact, ring)


def test_the_signature_comes_before_anything_the_manifest_says(artefact: Path, keyring: Keyring) -> None:
    (artefact / MANIFEST_FILE).write_bytes(b"[" * 10_0000)
    with pytest.raises(ModelRefusedError, match="this is not what tester signed"):
        load_model(artefact, keyring)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_byte_can_change(artefact: Path, keyring: Keyring, data: st.DataObject) -> None:
    path = artefact / data.draw(st.sampled_from([MANIFEST_FILE, SIGNATURE_FILE, TREES]), "file")
    good = path.read_bytes()
    at = data.draw(st.integers(0, len(good) - 1), "at")
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != good[at]), "byte")
    path.write_bytes(good[:at] + bytes([byte]) + good[at + 1 :])
    try:
        with pytest.raises(ModelRefusedError):
            load_model(artefact, keyring)
    finally:
        path.write_bytes(good)


@pytest.mark.parametrize(
    ("file", "spoil"),
    list(
        product(
            [MANIFEST_FILE, SIGNATURE_FILE, TREES],
            [
                lambda b: b[:0],
                lambda b: b[:-1],
                lambda b: b[: len(b) // 2],
                lambda b: b + b"\n",
                lambda b: b + b,
            ],
        )
    ),
)
def test_no_file_can_shrink_or_grow(
    artefact: Path, keyring: Keyring, file: str, spoil: Callable[[bytes], bytes]
) -> None:
    path = artefact / file
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ModelRefusedError):
        load_model(artefact, keyring)


@pytest.mark.parametrize("file", [MANIFEST_FILE, TREES])
def test_missing_file(artefact: Path, keyring: Keyring, file: str) -> None:
    (artefact / file).unlink()
    with pytest.raises(ModelRefusedError, match=f"{file} is missing"):
        load_model(artefact, keyring)


def test_folder_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelRefusedError, match=r"manifest\.json is missing in .*nowhere"):
        load_model(tmp_path / "nowhere", UNSIGNED)


def test_file_in_place_of_the_folder(artefact: Path, keyring: Keyring) -> None:
    with pytest.raises(ModelRefusedError, match="cannot be read"):
        load_model(artefact / TREES, keyring)


@pytest.mark.parametrize("file", [MANIFEST_FILE, SIGNATURE_FILE, TREES])
def test_links_are_not_followed(artefact: Path, keyring: Keyring, tmp_path: Path, file: str) -> None:
    (artefact / file).rename(tmp_path / file)
    (artefact / file).symlink_to(tmp_path / file)
    with pytest.raises(ModelRefusedError, match=f"{file} is a symbolic link"):
        load_model(artefact, keyring)


@pytest.mark.parametrize("file", [MANIFEST_FILE, SIGNATURE_FILE, TREES])
def test_pipes_and_folders_are_not_waited_for(artefact: Path, keyring: Keyring, file: str) -> None:
    (artefact / file).unlink()
    os.mkfifo(artefact / file)
    with pytest.raises(ModelRefusedError, match=f"{file} is not a regular file"):
        load_model(artefact, keyring)
    (artefact / file).unlink()
    (artefact / file).mkdir()
    with pytest.raises(ModelRefusedError, match=f"{file} cannot be read"):
        load_model(artefact, keyring)


def test_oversized_file(artefact: Path, keyring: Keyring) -> None:
    with (artefact / TREES).open("r+b") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(ModelRefusedError, match=f"{TREES} is larger than"):
        load_model(artefact, keyring)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "malformed"),
        (b"{", "malformed"),
        (b"[]", "malformed: Expected `object`"),
        (b"\xff\xfe", "malformed"),
        (b"[" * 10_0000, "malformed"),
        (b'{"metrics": ' + b'{"a":' * 10_0000, "malformed"),
        (b" " * (MAX_MANIFEST_BYTES + 1), "larger than"),
    ],
    ids=["empty", "truncated", "array", "utf-8", "nested", "nested-in-a-field", "huge"],
)
def test_signed_manifest_that_is_none(
    artefact: Path, keyring: Keyring, key: Ed25519PrivateKey, content: bytes, reason: str
) -> None:
    with pytest.raises(ModelRefusedError, match=reason):
        load_model(signed(artefact, content, key), keyring)


def part(**changes: Any) -> dict[str, Any]:
    return {"file": TREES, "weight": 1.0, "calibration": {"x": [0, 1], "y": [0, 1]}, **changes}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format": 1}, r"\$\.format"),
        ({"signature": "x"}, "unknown field `signature`"),
        ({"model_version": "../x"}, r"\$\.model_version"),
        ({"model_version": "x\n"}, r"\$\.model_version"),
        ({"contract_version": 99}, f"feature contract 99, this engine computes {CONTRACT_VERSION}"),
        ({"features_sha256": "0" * 64}, "feature list differs"),
        ({"files": {}}, "files lacks trees.onnx"),
        ({"files": {TREES: "0" * 64}}, "trees.onnx: SHA-256 is .* the manifest says 000"),
        ({"files": {TREES: "abc"}}, r"malformed.*\$\.files"),
        ({"files": {TREES: "0" * 64} | {f"f{n}": "0" * 64 for n in range(16)}}, r"length <= 16 .*\$\.files"),
        ({"parts": {}}, r"length >= 1 .*\$\.parts"),
        ({"parts": {f"p{n}": part(file=f"f{n}") for n in range(10_000)}}, r"length <= 8 .*\$\.parts"),
        ({"parts": {"one": part(), "other": part()}}, "two parts name the same file"),
        ({"parts": {"offline": part()}}, "no part may be called offline"),
        ({"parts": {"online": part()}}, "no part may be called online"),
        ({"parts": {"One": part()}}, r"key. in .\$\.parts"),
        ({"parts": {"one": part(weight=1.5)}}, r"weight"),
        ({"parts": {"one": part(weight=float("nan"))}}, "malformed"),
        ({"parts": {"one": part(file="other.onnx")}}, "files lacks other.onnx"),
        ({"thresholds": {"review": 0.9, "block": 0.1}}, "review must not exceed block"),
        ({"calibration": {"x": [0, 1], "y": [0]}}, r"\$\.calibration"),
        ({"calibration": {"x": [0, 0.5, 1], "y": [0, 1]}}, "differ in length"),
        ({"calibration": {"x": [0, 0.5, 0.5], "y": [0, 0.1, 1]}}, "x does not ascend"),
        ({"calibration": {"x": [0, 0.5, 1], "y": [0, 0.6, 0.5]}}, "y descends"),
        ({"calibration": {"x": [0, 2], "y": [0, 1]}}, r"\$\.calibration\.x"),
        ({"calibration": {"x": [0, float("nan"), 1], "y": [0, 0, 1]}}, "malformed"),
        ({"calibration": {"x": [0, None, 1], "y": [0, 0, 1]}}, r"\$\.calibration\.x"),
        ({"calibration": {"x": [n / 2000 for n in range(2000)], "y": [0] * 2000}}, "length <= 1000"),
        ({"parts": {"one": part(calibration={"x": [0, 0], "y": [0, 1]})}}, "x does not ascend"),
    ],
)
def test_signed_manifest_that_does_not_fit(
    edited: Callable[..., Path], keyring: Keyring, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ModelRefusedError, match=reason):
        load_model(edited(**changes), keyring)


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/hostname", "..", ".", "", ".hidden", "a/b", "a\\b", "a\0b", "a\n", "x" * 200]
)
def test_files_outside_the_folder_are_not_read(
    edited: Callable[..., Path], keyring: Keyring, manifest: Manifest, name: str
) -> None:
    with pytest.raises(ModelRefusedError, match=r"malformed: .* `key` in `\$\.files`"):
        load_model(edited(files={**manifest.files, name: "0" * 64}), keyring)
    with pytest.raises(ModelRefusedError, match=r"malformed: .*file"):
        load_model(edited(parts={"one": part(file=name)}), keyring)


@pytest.mark.parametrize("garbage", [b"", b"garbage", b"\x80\x04K\x01."], ids=["empty", "text", "pickle"])
def test_model_that_is_no_onnx(written: Callable[..., Path], keyring: Keyring, garbage: bytes) -> None:
    with pytest.raises(ModelRefusedError, match=r"trees\.onnx does not load|output is not"):
        load_model(written(garbage), keyring)


def test_other_formats_of_the_runtime_are_refused(
    written: Callable[..., Path], keyring: Keyring, tmp_path: Path
) -> None:
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "model.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    ort.InferenceSession(constant_model(0.5), options, providers=["CPUExecutionProvider"])
    with pytest.raises(ModelRefusedError, match="does not load"):
        load_model(written((tmp_path / "model.ort").read_bytes()), keyring)


def test_truncated_model_under_a_manifest_that_agrees(
    written: Callable[..., Path], keyring: Keyring, onnx: bytes
) -> None:
    with pytest.raises(ModelRefusedError, match="does not load"):
        load_model(written(onnx[: len(onnx) // 2]), keyring)


@pytest.mark.parametrize("in_constant", [False, True])
@pytest.mark.parametrize("location", ["weights.bin", "folder/weights.bin", "../weights.bin", "/etc/hostname"])
def test_model_that_would_read_other_files(  # noqa: PLR0913, PLR0917 - fixtures
    written: Callable[..., Path],
    keyring: Keyring,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    location: str,
    in_constant: bool,
) -> None:
    model = model_with_a_tensor_in(location, in_constant=in_constant)
    (tmp_path / "weights.bin").write_bytes(b"\0" * 4 * N_FEATURES)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "weights.bin").write_bytes(b"\0" * 4 * N_FEATURES)
    folder = written(model)
    for cwd in (tmp_path, folder):
        monkeypatch.chdir(cwd)
        with pytest.raises(ModelRefusedError, match=r"trees\.onnx keeps data in another file"):
            load_model(folder, keyring)


def test_tensors_in_branches_are_looked_at_too(written: Callable[..., Path], keyring: Keyring) -> None:
    model = onnx_format.load_model_from_string(constant_model(0.5))
    inner = onnx_format.load_model_from_string(model_with_a_tensor_in("weights.bin")).graph
    model.graph.node.append(helper.make_node("If", ["c"], ["d"], then_branch=inner, else_branch=inner))
    with pytest.raises(ModelRefusedError, match="keeps data in another file"):
        load_model(written(model.SerializeToString()), keyring)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (constant_model(0.5, features=N_FEATURES - 1), f"does not take 1 rows of {N_FEATURES} features"),
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
    written: Callable[..., Path], keyring: Keyring, model: bytes, reason: str
) -> None:
    onnx_format.checker.check_model(model)
    with pytest.raises(ModelRefusedError, match=reason):
        load_model(written(model), keyring)


def test_artefact_is_never_overwritten(
    artefact: Path, manifest: Manifest, onnx: bytes, keyring: Keyring
) -> None:
    with pytest.raises(FileExistsError, match="never overwritten"):
        write_artefact(artefact, manifest, {TREES: onnx})
    assert load_model(artefact, keyring).version == "gbt-test"


def test_nothing_is_left_of_an_artefact_that_was_not_written(
    tmp_path: Path, manifest: Manifest, onnx: bytes
) -> None:
    folder = tmp_path / "new"
    with pytest.raises(ValueError, match="does not describe"):
        write_artefact(folder, manifest, {TREES: onnx + b" "})
    unwritable = msgspec.structs.replace(manifest, metrics={"test": {"auc_roc": date(2026, 1, 1).ctime}})
    with pytest.raises(TypeError):
        write_artefact(folder, unwritable, {TREES: onnx})
    assert list(tmp_path.iterdir()) == []


def test_unsigned_artefact_is_signed_later(
    tmp_path: Path, manifest: Manifest, onnx: bytes, key: Ed25519PrivateKey, keyring: Keyring
) -> None:
    folder = tmp_path / "unsigned"
    write_artefact(folder, manifest, {TREES: onnx})
    assert {path.name for path in folder.iterdir()} == {MANIFEST_FILE, TREES}
    assert sign_artefact(folder, key) == manifest
    assert load_model(folder, keyring).version == "gbt-test"
    assert {path.name for path in folder.iterdir()} == {MANIFEST_FILE, SIGNATURE_FILE, TREES}


def test_signature_is_replaced(artefact: Path, key: Ed25519PrivateKey, keyring: Keyring) -> None:
    sign_artefact(artefact, Ed25519PrivateKey.generate())
    with pytest.raises(ModelRefusedError, match="not among the trusted keys"):
        load_model(artefact, keyring)
    sign_artefact(artefact, key)
    assert load_model(artefact, keyring).version == "gbt-test"


def test_what_does_not_load_is_not_signed(artefact: Path, key: Ed25519PrivateKey) -> None:
    before = (artefact / SIGNATURE_FILE).read_bytes()
    (artefact / TREES).write_bytes(b"spoilt")
    with pytest.raises(ModelRefusedError, match="SHA-256"):
        sign_artefact(artefact, key)
    assert (artefact / SIGNATURE_FILE).read_bytes() == before


def test_shipped_artefact_loads(shipped: Path) -> None:
    assert load_model(shipped, Keyring.read(TRUSTED_KEYS)).version == read_manifest(shipped).model_version


@pytest.mark.parametrize("x", [[0.0, 0.0], [0.0, float("nan")]])
def test_calibration_checks_itself(x: list[float]) -> None:
    with pytest.raises(ValueError, match="x does not ascend"):
        Calibration(x, [0.0, 1.0])
    with pytest.raises(ValueError, match="y descends"):
        Calibration([0.0, 0.5, 1.0], [0.0, float("nan"), 1.0])


def test_manifest_checks_its_parts(manifest: Manifest) -> None:
    with pytest.raises(ValueError, match="files lacks other"):
        msgspec.structs.replace(manifest, parts={"one": PartManifest("other.onnx", 1.0, IDENTITY)})
