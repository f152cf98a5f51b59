"""What a backup says of itself, and the folder in which backups lie."""

import hashlib
import hmac
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec
from msgspec import Meta

from models.signing import KeyFileError
from serving.backup.errors import BackupError
from serving.backup.sealed import derived
from serving.security.personal import read_secret, write_secret

MANIFEST: Final = "manifest.json"
UNFINISHED: Final = ".unfinished"
KEY_FILES: Final = "backup-*.secret"
Count = Annotated[int, Meta(ge=0)]
Hex = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
FileName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.~%-]+\.bson\.gz(\.sealed)?\Z")]


class Index(msgspec.Struct, frozen=True):
    """keys: fields with their order; options: further ones, as extended JSON."""

    name: str
    keys: list[tuple[str, Any]]
    options: dict[str, Any] = {}


class Collection(msgspec.Struct, frozen=True):
    """sha256: of the file; digest: of the documents in whatever order, see `documents.Tally`."""

    name: str
    file: FileName
    documents: Count
    document_bytes: Count
    file_bytes: Count
    sha256: Hex
    digest: Hex
    indexes: list[Index]


class Manifest(msgspec.Struct, frozen=True):
    """Written last: a folder without it is no backup. seal: of all the rest, where there is a key."""

    format: Literal["fraudstream-backup-1"]
    database: str
    started_at: datetime
    finished_at: datetime
    server: str
    collections: list[Collection]
    key_id: str | None = None
    seal: Hex | None = None


class Key(NamedTuple):
    """A key of 32 bytes. key_id: tells nothing of it."""

    key_id: str
    secret: bytes


def new_key(folder: Path) -> Path:
    """Write a key, which is the newest from then on; the others still open what they sealed."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"backup-{len(list(folder.glob(KEY_FILES))):04d}.secret"
    write_secret(path)
    return path


def read_keys(folder: Path) -> list[Key]:
    """The keys, the newest last; there may be none. Raises BackupError for a file that is no key."""
    try:
        secrets = [read_secret(path) for path in sorted(folder.glob(KEY_FILES))]
    except KeyFileError as error:
        raise BackupError(str(error)) from error
    return [Key(hashlib.sha256(secret).hexdigest()[:8], secret) for secret in secrets]


def sealed(manifest: Manifest, key: Key | None) -> bytes:
    """The file's content; without a key nothing tells that somebody has written it anew."""
    if key is not None:
        manifest = msgspec.structs.replace(manifest, key_id=key.key_id)
        manifest = msgspec.structs.replace(manifest, seal=_seal(manifest, key))
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"


def read_manifest(backup: Path, keys: list[Key]) -> tuple[Manifest, Key | None]:
    """The manifest of a backup, and the key it was sealed with.

    Raises BackupError where it is missing, of another format, changed, or sealed with a key that is not here.
    """
    try:
        manifest = msgspec.json.decode((backup / MANIFEST).read_bytes(), type=Manifest)
    except OSError as error:
        raise BackupError(f"{backup}: is no backup: {MANIFEST}: {error.strerror}") from error
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise BackupError(f"{backup}: {MANIFEST}: {error}") from error
    if manifest.key_id is None:
        return manifest, None
    key = next((key for key in keys if key.key_id == manifest.key_id), None)
    if key is None:
        raise BackupError(f"{backup}: was sealed with the key {manifest.key_id}, which is not here")
    if not hmac.compare_digest(_seal(manifest, key), manifest.seal or ""):
        raise BackupError(f"{backup}: {MANIFEST}: was changed")
    return manifest, key


def backups(folder: Path) -> Iterator[tuple[Path, Manifest | None]]:
    """The backups in a folder, the oldest first, by their names; None for one that cannot be read.

    Seals are not looked at. Folders without a manifest, and those unfinished, are left out.
    """
    found = folder.iterdir() if folder.is_dir() else ()
    for path in sorted(path for path in found if (path / MANIFEST).is_file()):
        if path.name.endswith(UNFINISHED):
            continue
        try:
            yield path, msgspec.json.decode((path / MANIFEST).read_bytes(), type=Manifest)
        except (OSError, msgspec.MsgspecError, UnicodeError, RecursionError):
            yield path, None


def thin(folder: Path, database: str, days: int) -> list[Path]:
    """Delete backups of a database but for the newest of each of the newest `days` days that have one (UTC).

    What was left unfinished a day ago goes too. Returns what was deleted; what cannot be read stays.
    """
    newest: dict[str, Path] = {}
    ours = [
        (path, found) for path, found in backups(folder) if found is not None and found.database == database
    ]
    for path, found in sorted(ours, key=lambda entry: entry[1].started_at):
        newest[f"{found.started_at:%Y-%m-%d}"] = path
    kept = {newest[day] for day in sorted(newest)[-days:]}
    yesterday = (datetime.now(UTC) - timedelta(days=1)).timestamp()
    left = [path for path in folder.glob(f"{database}-*{UNFINISHED}") if path.stat().st_mtime < yesterday]
    gone = [path for path, _ in ours if path not in kept] + left
    for path in gone:
        # Without its manifest it is no backup, should the rest fail.
        (path / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(path)
    return gone


def _seal(manifest: Manifest, key: Key) -> str:
    content = msgspec.json.encode(msgspec.structs.replace(manifest, seal=None))
    return hmac.new(derived(key.secret, b"", "manifest"), content, hashlib.sha256).hexdigest()
