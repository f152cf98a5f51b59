"""The registry: a folder of artefacts, and what running jobs are told to load from it."""

from pathlib import Path
from typing import NamedTuple

from events.control import MAX_PREVIOUS, ModelUpdate
from models.artefact import (
    MANIFEST_FILE,
    SIGNATURE_FILE,
    Manifest,
    ModelRefusedError,
    check_contract,
    decode_manifest,
    load_model,
    manifest_bytes,
    signer,
)
from models.signing import Keyring

ARTEFACTS = Path(__file__).resolve().parent / "artefacts"
"""The registry where nothing else is said."""


class RegistryError(Exception):
    """The registry does not have what was asked for; the message says what."""


class Entry(NamedTuple):
    """An artefact as it is found.

    manifest: None where it cannot be read; signed_by: name of the trusted key; problem: why it is refused, as
    far as its manifest and signature tell.
    """

    folder: Path
    manifest: Manifest | None
    signed_by: str | None
    problem: str | None


def entry(folder: Path, keyring: Keyring) -> Entry:
    """What manifest and signature of an artefact say; its other files are not opened."""
    manifest = signed_by = problem = None
    try:
        raw = manifest_bytes(folder)
        manifest = decode_manifest(raw)
        signed_by = signer(folder, raw, keyring)
        check_contract(manifest)
    except ModelRefusedError as error:
        problem = str(error)
    return Entry(folder, manifest, signed_by, problem)


def entries(registry: Path, keyring: Keyring) -> list[Entry]:
    """Every artefact of a registry, the newest first. Raises RegistryError where there is no such folder."""
    try:
        folders = sorted(f for f in registry.iterdir() if f.is_dir() and not f.name.startswith("."))
    except OSError as error:
        raise RegistryError(f"{registry}: {error.strerror}") from error
    found = [entry(folder, keyring) for folder in folders]
    return sorted(found, key=lambda e: e.manifest.created_at if e.manifest else "", reverse=True)


def find(registry: Path, name: str, keyring: Keyring) -> Path:
    """Folder of an artefact, given that folder or the version of a model in the registry.

    Raises RegistryError where there is none, or more than one with this version.
    """
    return Path(name) if Path(name).is_dir() else find_version(registry, name, keyring)


def find_version(registry: Path, version: str, keyring: Keyring) -> Path:
    """Folder of the artefact with a version of a model; nothing outside the registry is looked at.

    Raises RegistryError where there is none, or more than one.
    """
    named = [e for e in entries(registry, keyring) if e.manifest and e.manifest.model_version == version]
    # An artefact that nobody signed takes no version away from one that somebody did.
    named = [e for e in named if e.problem is None] or named
    if not named:
        raise RegistryError(f"{version}: no such folder, and no such version in {registry}")
    if len(named) > 1:
        folders = ", ".join(e.folder.name for e in named)
        raise RegistryError(f"{version}: several artefacts have this version: {folders}")
    return named[0].folder


def verify(folder: Path, keyring: Keyring) -> tuple[Manifest, str | None]:
    """Manifest and signer of an artefact that loads, in a folder that holds nothing else.

    A job never looks at other files, but whoever finds them there would take them for part of what was
    signed. Raises ModelRefusedError for any other artefact.
    """
    load_model(folder, keyring)
    raw = manifest_bytes(folder)
    manifest = decode_manifest(raw)
    found = {path.name for path in folder.iterdir()}
    extra = sorted(found - {MANIFEST_FILE, SIGNATURE_FILE, *manifest.files})
    if extra:
        raise ModelRefusedError(f"{MANIFEST_FILE} does not name {extra[0]!r}")
    return manifest, signer(folder, raw, keyring)


def promotion(folder: Path, current: ModelUpdate | None, issued_at: int, issued_by: str) -> ModelUpdate:
    """The update that puts an artefact in the place of the current one, which it remembers.

    issued_at: milliseconds since the epoch. What is promoted again keeps the past that it had.
    """
    artefact = str(folder.resolve())
    previous = [] if current is None else current.previous
    if current is not None and current.artefact is not None and current.artefact != artefact:
        previous = [current.artefact, *previous][:MAX_PREVIOUS]
    return ModelUpdate(
        slot="model", artefact=artefact, issued_at=issued_at, issued_by=issued_by, previous=previous
    )


def rollback(current: ModelUpdate | None, issued_at: int, issued_by: str) -> ModelUpdate:
    """The update that puts back what was promoted before the current artefact.

    It has the past that this one had, so a second roll-back goes a step further and not back again. Raises
    RegistryError where nothing was promoted before.
    """
    if current is None or not current.previous:
        raise RegistryError("no artefact was promoted before; promote the one that shall decide")
    artefact, *previous = current.previous
    return ModelUpdate(
        slot="model", artefact=artefact, issued_at=issued_at, issued_by=issued_by, previous=previous
    )
