"""Artefacts: the folders in which models travel, and the checks that one must pass to be loaded.

A folder holds `model.onnx` and `manifest.json`. Nothing in it is code and nothing is unpickled. A file is
read once: the bytes that were checked are the bytes that are used.
"""

import hashlib
import os
import shutil
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from events.control import Thresholds
from events.types import Probability
from models.model import INPUT, OUTPUT, Model
from state.contract import CONTRACT_VERSION, FEATURE_NAMES, N_FEATURES

MODEL_FILE = "model.onnx"
MANIFEST_FILE = "manifest.json"
MAX_MANIFEST_BYTES = 1 << 20
MAX_MODEL_BYTES = 256 << 20
PROBE_MISSING = 0.3

FEATURES_SHA256 = hashlib.sha256("\n".join(FEATURE_NAMES).encode()).hexdigest()
"""Identifies names and order of the features of the contract."""

Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class ModelRefusedError(Exception):
    """The artefact or update was not taken; the message says why."""


class TrainingSummary(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a model was trained on. Times are RFC 3339, rows and frauds those of the training block."""

    source: str
    rows: int
    frauds: int
    window: tuple[str, str]
    seed: int
    label_delay_days: float


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Knots of the monotone piecewise-linear map from raw score (x) to probability of fraud (y)."""

    x: Annotated[list[Probability], Meta(min_length=2, max_length=1000)]
    y: Annotated[list[Probability], Meta(min_length=2, max_length=1000)]

    def __post_init__(self) -> None:
        """Raises ValueError where the knots make no monotone map."""
        if len(self.x) != len(self.y):
            raise ValueError("x and y differ in length")
        if any(a >= b for a, b in pairwise(self.x)):
            raise ValueError("x does not ascend")
        if any(a > b for a, b in pairwise(self.y)):
            raise ValueError("y descends")


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an artefact says of itself.

    A manifest of another format, or with a field that this version does not know, is refused rather than
    half understood. `files` names each file beside the manifest with its SHA-256.
    """

    format: Literal[1] = 1
    model_version: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=128)]
    contract_version: int
    features_sha256: Sha256
    created_at: str
    files: dict[str, Sha256]
    training: TrainingSummary
    metrics: dict[str, dict[str, float]]
    """Figures by the block they were measured on."""
    calibration: Calibration
    thresholds: Thresholds


def load_model(folder: Path) -> Model:
    """The model in an artefact's folder. Raises ModelRefusedError where it is not whole, or not for us."""
    manifest = read_manifest(folder)
    if manifest.contract_version != CONTRACT_VERSION:
        raise ModelRefusedError(
            f"feature contract {manifest.contract_version}, this engine computes {CONTRACT_VERSION}"
        )
    if manifest.features_sha256 != FEATURES_SHA256:
        raise ModelRefusedError("the feature list differs from that of this engine")
    if MODEL_FILE not in manifest.files:
        raise ModelRefusedError(f"{MANIFEST_FILE}: files lacks {MODEL_FILE}")
    files = {name: _checked(folder, name, sha256) for name, sha256 in manifest.files.items()}
    knots = (manifest.calibration.x, manifest.calibration.y)
    try:
        model = Model(manifest.model_version, files[MODEL_FILE], knots, manifest.thresholds)
    except Exception as error:  # onnxruntime raises a class of its own for each of its status codes
        raise ModelRefusedError(f"{MODEL_FILE} does not load: {_first_line(error)}") from error
    _probe(model)
    return model


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an artefact. Raises ModelRefusedError where it is missing or malformed."""
    raw = _read(folder / MANIFEST_FILE, MAX_MANIFEST_BYTES)
    try:
        return msgspec.json.decode(raw, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelRefusedError(f"{MANIFEST_FILE} is malformed: {_first_line(error)}") from error


def sha256(data: bytes) -> str:
    """SHA-256 in hexadecimal, as manifests hold it."""
    return hashlib.sha256(data).hexdigest()


def write_artefact(folder: Path, manifest: Manifest, files: dict[str, bytes]) -> None:
    """Write an artefact; it appears whole under its name or not at all.

    `manifest.files` must list exactly `files`. An artefact never changes: raises FileExistsError where
    `folder` exists, and ValueError where the manifest does not describe the files.
    """
    if manifest.files != {name: sha256(data) for name, data in files.items()}:
        raise ValueError("manifest.files does not describe the files")
    if folder.exists():
        raise FileExistsError(f"{folder} exists; an artefact is never overwritten")
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        readable = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
        for name, data in {**files, MANIFEST_FILE: readable + b"\n"}.items():
            with (draft / name).open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        draft.chmod(0o755)
        draft.rename(folder)
    except BaseException:
        shutil.rmtree(draft)
        raise


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError as error:
        raise ModelRefusedError(f"{path.name} is missing in {path.parent}") from error
    except (OSError, ValueError) as error:
        raise ModelRefusedError(f"{path.name} cannot be read: {_first_line(error)}") from error
    if len(data) > limit:
        raise ModelRefusedError(f"{path.name} is larger than {limit} bytes")
    return data


def _checked(folder: Path, name: str, expected: str) -> bytes:
    if Path(name).name != name:
        raise ModelRefusedError(f"{MANIFEST_FILE}: {name!r} is not the name of a file beside it")
    data = _read(folder / name, MAX_MODEL_BYTES)
    found = sha256(data)
    if found != expected:
        raise ModelRefusedError(f"{name}: SHA-256 is {found}, the manifest says {expected}")
    return data


def probe_batch() -> NDArray[np.float32]:
    """Features f4 [64, N_FEATURES] from nothing known to far beyond what occurs, the same every time."""
    rng = np.random.default_rng(20)
    values = rng.lognormal(0, 4, (64, N_FEATURES)) * rng.choice([-1, 1], (64, N_FEATURES))
    rows: NDArray[np.float32] = values.astype(np.float32)
    rows[rng.random(rows.shape) < PROBE_MISSING] = np.nan
    rows[:4] = np.array([[np.nan], [0], [1e10], [-1e10]], np.float32)
    return rows


def _probe(model: Model) -> None:
    """Raises ModelRefusedError unless the model takes the features and answers probabilities."""
    inputs = [(i.name, i.type, i.shape) for i in model.session.get_inputs()]
    if [i[:2] for i in inputs] != [(INPUT, "tensor(float)")]:
        raise ModelRefusedError(f"{MODEL_FILE}: inputs are {inputs}, not {INPUT} of float")
    if [o.name for o in model.session.get_outputs()] != [OUTPUT]:
        raise ModelRefusedError(f"{MODEL_FILE}: its output is not {OUTPUT}")
    features = probe_batch()
    for n in (1, len(features)):
        try:
            raw = model.raw(features[:n])
        except Exception as error:
            raise ModelRefusedError(
                f"{MODEL_FILE} does not take {n} rows of {N_FEATURES} features: {_first_line(error)}"
            ) from error
        if not isinstance(raw, np.ndarray) or raw.shape != (n, 1) or raw.dtype != np.float32:
            raise ModelRefusedError(f"{MODEL_FILE}: for {n} rows the output is not float32 [{n}, 1]")
        if not np.isfinite(raw).all():
            raise ModelRefusedError(f"{MODEL_FILE}: a score of the probe is not finite")
        if raw.min() < 0 or raw.max() > 1:
            raise ModelRefusedError(f"{MODEL_FILE}: a score of the probe is not in [0, 1]")


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:300]
