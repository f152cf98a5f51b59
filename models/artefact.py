"""Artefacts: the folders in which models travel, and the checks that one must pass to be loaded.

A folder holds `manifest.json`, its signature `manifest.sig` and an ONNX file for each part of the ensemble.
The manifest names every file with its SHA-256, so the signature covers all. Nothing in the folder is code
and nothing is unpickled. A file is read once: the bytes that were checked are the bytes that are used.
"""

import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import onnx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import Meta
from numpy.typing import NDArray

from events.control import Thresholds
from events.types import Probability
from models.baseline import Baseline
from models.model import INPUT, OUTPUT, Model, Part
from models.signing import Keyring, SignatureError, sign
from state.contract import CONTRACT_VERSION, FEATURE_NAMES, N_FEATURES

MANIFEST_FILE = "manifest.json"
SIGNATURE_FILE = "manifest.sig"
MAX_MANIFEST_BYTES = 1 << 20
MAX_SIGNATURE_BYTES = 1 << 10
MAX_FILE_BYTES = 64 << 20
MAX_FILES = 16
MAX_PARTS = 8
RESERVED = {"offline", "online"}
"""Names in the parts of a decision that say what the online part made of the score; see `models.online`."""
PROBE_MISSING = 0.3

FEATURES_SHA256 = hashlib.sha256("\n".join(FEATURE_NAMES).encode()).hexdigest()
"""Identifies names and order of the features of the contract."""

FileName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*\Z", max_length=128)]
"""Of a file beside the manifest; it leads nowhere else."""
PartName = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]*\Z", max_length=32)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]


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
    data_sha256: Sha256
    """Over the transactions as the kernels read them, their users, terminals and labels, in order."""


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Knots of the monotone piecewise-linear map from raw score (x) to probability of fraud (y)."""

    x: Annotated[list[Probability], Meta(min_length=2, max_length=1000)]
    y: Annotated[list[Probability], Meta(min_length=2, max_length=1000)]

    def __post_init__(self) -> None:
        """Raises ValueError where the knots make no monotone map."""
        if len(self.x) != len(self.y):
            raise ValueError("x and y differ in length")
        # Said this way round NaN fails too.
        if not all(a < b for a, b in pairwise(self.x)):
            raise ValueError("x does not ascend")
        if not all(a <= b for a, b in pairwise(self.y)):
            raise ValueError("y descends")


class PartManifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One part of the ensemble: its file, its share in the score and its calibration."""

    file: FileName
    weight: Annotated[float, Meta(ge=0, le=1)]
    calibration: Calibration


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an artefact says of itself.

    A manifest of another format, or with a field that this version does not know, is refused rather than
    half understood. `files` names each file beside the manifest with its SHA-256.
    """

    format: Literal[2] = 2
    model_version: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\Z", max_length=128)]
    contract_version: int
    features_sha256: Sha256
    created_at: str
    files: Annotated[dict[FileName, Sha256], Meta(max_length=MAX_FILES)]
    training: TrainingSummary
    metrics: dict[str, dict[str, float]]
    """Figures by the block they were measured on."""
    parts: Annotated[dict[PartName, PartManifest], Meta(min_length=1, max_length=MAX_PARTS)]
    calibration: Calibration
    """Of the pooled score."""
    thresholds: Thresholds
    baseline: Baseline | None = None
    """How features and score were distributed on a block that the model has not seen."""

    def __post_init__(self) -> None:
        """Raises ValueError unless each part has a file of its own among `files`, and no reserved name."""
        named = [part.file for part in self.parts.values()]
        missing = [name for name in named if name not in self.files]
        if missing:
            raise ValueError(f"files lacks {missing[0]}")
        if len(set(named)) < len(named):
            raise ValueError("two parts name the same file")
        reserved = RESERVED & self.parts.keys()
        if reserved:
            raise ValueError(f"no part may be called {min(reserved)}")


def load_model(folder: Path, keyring: Keyring) -> Model:
    """The model in an artefact's folder.

    Raises ModelRefusedError where nobody in the keyring signed it, it is not whole, or not for us. Nothing in
    it is believed before the signature is known to hold.
    """
    return _model(folder, trusted_manifest(folder, keyring))


def trusted_manifest(folder: Path, keyring: Keyring) -> Manifest:
    """The manifest of an artefact that the keyring takes. Raises ModelRefusedError for any other."""
    raw = manifest_bytes(folder)
    signer(folder, raw, keyring)
    return decode_manifest(raw)


def sign_artefact(folder: Path, key: Ed25519PrivateKey) -> Manifest:
    """Sign an artefact that is good in every other way; a signature that it had is replaced.

    Raises ModelRefusedError for one that is not, and OSError where the signature cannot be written.
    """
    raw = manifest_bytes(folder)
    manifest = decode_manifest(raw)
    _model(folder, manifest)
    draft = folder / f".{SIGNATURE_FILE}"
    draft.write_bytes(sign(raw, key))
    draft.replace(folder / SIGNATURE_FILE)
    return manifest


def signer(folder: Path, manifest: bytes, keyring: Keyring) -> str | None:
    """Name of the key that signed an artefact with this manifest; None where it is not, and need not be.

    Raises ModelRefusedError for any other.
    """
    path = folder / SIGNATURE_FILE
    signature = _read(path, MAX_SIGNATURE_BYTES) if path.exists() else None
    try:
        return keyring.signer(manifest, signature)
    except SignatureError as error:
        raise ModelRefusedError(f"{SIGNATURE_FILE}: {error}") from error


def manifest_bytes(folder: Path) -> bytes:
    """The manifest as it stands. Raises ModelRefusedError where it is missing or too large."""
    return _read(folder / MANIFEST_FILE, MAX_MANIFEST_BYTES)


def decode_manifest(raw: bytes) -> Manifest:
    """The manifest in these bytes, whoever wrote them. Raises ModelRefusedError where it is malformed."""
    try:
        return msgspec.json.decode(raw, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelRefusedError(f"{MANIFEST_FILE} is malformed: {_first_line(error)}") from error


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an artefact, to look at: its signature is not checked.

    Raises ModelRefusedError where it is missing or malformed.
    """
    return decode_manifest(manifest_bytes(folder))


def check_contract(manifest: Manifest) -> None:
    """Raises ModelRefusedError unless the model takes the features that this engine computes."""
    if manifest.contract_version != CONTRACT_VERSION:
        raise ModelRefusedError(
            f"feature contract {manifest.contract_version}, this engine computes {CONTRACT_VERSION}"
        )
    if manifest.features_sha256 != FEATURES_SHA256:
        raise ModelRefusedError("the feature list differs from that of this engine")


def _model(folder: Path, manifest: Manifest) -> Model:
    check_contract(manifest)
    files = {name: _checked(folder, name, digest) for name, digest in manifest.files.items()}
    parts = {name: _part(part, files[part.file]) for name, part in manifest.parts.items()}
    knots = (manifest.calibration.x, manifest.calibration.y)
    return Model(manifest.model_version, parts, knots, manifest.thresholds, manifest.baseline)


def _part(manifest: PartManifest, data: bytes) -> Part:
    _check_self_contained(data, manifest.file)
    knots = (manifest.calibration.x, manifest.calibration.y)
    try:
        part = Part(data, knots, manifest.weight)
    except Exception as error:  # onnxruntime raises a class of its own for each of its status codes
        raise ModelRefusedError(f"{manifest.file} does not load: {_first_line(error)}") from error
    _probe(part, manifest.file)
    return part


def _check_self_contained(data: bytes, file: str) -> None:
    """Raises ModelRefusedError where a tensor lies in another file: onnxruntime would look for it."""
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:
        raise ModelRefusedError(f"{file} does not load: {_first_line(error)}") from error
    if any(map(_is_external, _messages(model))):
        raise ModelRefusedError(f"{file} keeps data in another file")


def _messages(message: Any) -> Iterator[Any]:
    """A protobuf message and all those within it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in (value,) if hasattr(value, "ListFields") else value:
                yield from _messages(inner)


def _is_external(message: Any) -> bool:
    return isinstance(message, onnx.TensorProto) and (
        message.data_location == onnx.TensorProto.EXTERNAL or len(message.external_data) > 0
    )


def sha256(data: bytes) -> str:
    """SHA-256 in hexadecimal, as manifests hold it."""
    return hashlib.sha256(data).hexdigest()


def write_artefact(
    folder: Path, manifest: Manifest, files: dict[str, bytes], key: Ed25519PrivateKey | None = None
) -> None:
    """Write an artefact, signed where there is a key; it appears whole under its name or not at all.

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
        raw = msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"
        signature = {SIGNATURE_FILE: sign(raw, key)} if key is not None else {}
        for name, data in {**files, MANIFEST_FILE: raw, **signature}.items():
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
        with open(path, "rb", opener=_without_detour) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ModelRefusedError(f"{path.name} is not a regular file")
            data = file.read(limit + 1)
    except FileNotFoundError as error:
        raise ModelRefusedError(f"{path.name} is missing in {path.parent}") from error
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.ELOOP:
            raise ModelRefusedError(f"{path.name} is a symbolic link") from error
        raise ModelRefusedError(f"{path.name} cannot be read: {_first_line(error)}") from error
    if len(data) > limit:
        raise ModelRefusedError(f"{path.name} is larger than {limit} bytes")
    return data


def _without_detour(path: str, flags: int) -> int:
    """Opens no link, and waits for nobody to write to a pipe."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def read_checked(folder: Path, name: str, files: dict[str, str]) -> bytes:
    """A file of an artefact, by the SHA-256 that `files` of its manifest gives.

    Raises ModelRefusedError where the manifest does not list it, or it is missing or altered.
    """
    if name not in files:
        raise ModelRefusedError(f"{MANIFEST_FILE}: files lacks {name}")
    return _checked(folder, name, files[name])


def _checked(folder: Path, name: str, expected: str) -> bytes:
    data = _read(folder / name, MAX_FILE_BYTES)
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


def _probe(part: Part, file: str) -> None:
    """Raises ModelRefusedError unless the part takes the features and answers probabilities."""
    inputs = [(i.name, i.type, i.shape) for i in part.session.get_inputs()]
    if [i[:2] for i in inputs] != [(INPUT, "tensor(float)")]:
        raise ModelRefusedError(f"{file}: inputs are {inputs}, not {INPUT} of float")
    if [o.name for o in part.session.get_outputs()] != [OUTPUT]:
        raise ModelRefusedError(f"{file}: its output is not {OUTPUT}")
    features = probe_batch()
    for n in (1, len(features)):
        try:
            raw = part.raw(features[:n])
        except Exception as error:
            raise ModelRefusedError(
                f"{file} does not take {n} rows of {N_FEATURES} features: {_first_line(error)}"
            ) from error
        if not isinstance(raw, np.ndarray) or raw.shape != (n, 1) or raw.dtype != np.float32:
            raise ModelRefusedError(f"{file}: for {n} rows the output is not float32 [{n}, 1]")
        if not np.isfinite(raw).all():
            raise ModelRefusedError(f"{file}: a score of the probe is not finite")
        if raw.min() < 0 or raw.max() > 1:
            raise ModelRefusedError(f"{file}: a score of the probe is not in [0, 1]")


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:300]
