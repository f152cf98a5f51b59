"""A database into a backup, and a backup into a database."""

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from bson import json_util
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import IndexModel, MongoClient
from pymongo.database import Database
from pymongo.errors import PyMongoError

from serving.backup.documents import Tally, file_sha256, read_documents, write_documents
from serving.backup.errors import BackupError
from serving.backup.files import sync_folder
from serving.backup.manifest import (
    MANIFEST,
    UNFINISHED,
    Collection,
    Index,
    Key,
    Manifest,
    read_manifest,
    sealed,
)

READ_AT_ONCE: Final = 100
"""Documents in one answer of the server. FerretDB fails where they have more than 48 MB together."""
WRITE_DOCUMENTS: Final = 1_000
WRITE_BYTES: Final = 4 << 20
_RAW: Final = CodecOptions(document_class=RawBSONDocument)


def back_up(client: MongoClient[Any], name: str, folder: Path, key: Key | None) -> tuple[Path, Manifest]:
    """Write a backup of a database into a folder of its own, which appears whole.

    Each collection is read once, by one cursor: what changes meanwhile is in the backup in its old or its new
    state. Raises BackupError where the database is empty or away, or the disk does not take it.
    """
    started = datetime.now(UTC)
    target = folder / f"{quote(name, safe='')}-{started:%Y%m%dT%H%M%SZ}"
    unfinished = target.with_name(target.name + UNFINISHED)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if target.exists():
            raise BackupError(f"{target}: is there already")
        unfinished.mkdir(mode=0o700)
    except OSError as error:
        raise BackupError(f"{unfinished}: {error.strerror}") from error
    try:
        database = client[name]
        names = _collections(database)
        if not names:
            raise BackupError(f"the database {name} holds nothing")
        manifest = Manifest(
            format="fraudstream-backup-1",
            database=name,
            started_at=started,
            collections=[_write(database, one, unfinished, key) for one in names],
            finished_at=datetime.now(UTC),
            server=str(client.server_info()["version"]),
        )
        (unfinished / MANIFEST).write_bytes(sealed(manifest, key))
        sync_folder(unfinished)
        unfinished.rename(target)
        sync_folder(folder)
    except OSError as error:
        raise BackupError(f"{unfinished}: {error.strerror or error}") from error
    except PyMongoError as error:
        raise BackupError(f"the database cannot be read: {_told(error)}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return target, manifest


def verify(backup: Path, keys: list[Key]) -> tuple[Manifest, Key | None]:
    """See that every file is what it was, and holds what the manifest says.

    Raises BackupError, naming the file and what is wrong with it.
    """
    manifest, key = read_manifest(backup, keys)
    expected = {collection.file for collection in manifest.collections}
    if len(expected) < len(manifest.collections):
        raise BackupError(f"{backup}: {MANIFEST}: names a file twice")
    if foreign := sorted({path.name for path in backup.iterdir()} - expected - {MANIFEST}):
        raise BackupError(f"{backup}: {foreign[0]}: does not belong to the backup")
    for collection in manifest.collections:
        path = backup / collection.file
        if file_sha256(path) != collection.sha256:
            raise BackupError(f"{backup}: {collection.file}: is damaged: its SHA-256 is another")
        tally = Tally()
        for document in read_documents(path, None if key is None else key.secret):
            tally.add(document.raw)
        _compare(f"{backup}: {collection.file}", tally, collection)
    return manifest, key


def restore(client: MongoClient[Any], name: str, backup: Path, keys: list[Key]) -> Manifest:
    """Write a verified backup into a database that holds nothing, and see that it is all there.

    Raises BackupError before anything is written where the backup is no good or the database holds something;
    afterwards where the two differ.
    """
    manifest, key = verify(backup, keys)
    database = client[name]
    try:
        if full := [one for one in _collections(database) if database[one].find_one({}, {"_id": 1})]:
            raise BackupError(f"the database {name} is not empty: it holds {', '.join(full)}")
        for collection in manifest.collections:
            documents = read_documents(backup / collection.file, None if key is None else key.secret)
            for batch in _batches(documents):
                database[collection.name].insert_many(batch, ordered=False)
            _restore_indexes(database, collection)
        for collection in manifest.collections:
            tally = Tally()
            for document in _read(database, collection.name):
                tally.add(document.raw)
            _compare(f"{name}.{collection.name}", tally, collection)
            _compare_indexes(database, collection)
    except PyMongoError as error:
        raise BackupError(
            f"the database {name} does not take it; drop what is in it before another try: {_told(error)}"
        ) from error
    return manifest


def _collections(database: Database[Any]) -> list[str]:
    found = database.list_collections(filter={"type": "collection"})
    return sorted(one["name"] for one in found if not one["name"].startswith("system."))


def _write(database: Database[Any], name: str, folder: Path, key: Key | None) -> Collection:
    path = folder / f"{quote(name, safe='')}.bson.gz{'' if key is None else '.sealed'}"
    tally, sha256, size = write_documents(path, _read(database, name), None if key is None else key.secret)
    return Collection(
        name=name,
        file=path.name,
        documents=tally.documents,
        document_bytes=tally.document_bytes,
        file_bytes=size,
        sha256=sha256,
        digest=tally.digest,
        indexes=_indexes(database, name),
    )


def _read(database: Database[Any], name: str) -> Iterator[RawBSONDocument]:
    with database[name].with_options(_RAW).find(batch_size=READ_AT_ONCE) as cursor:
        yield from cursor


def _batches(documents: Iterator[RawBSONDocument]) -> Iterator[list[RawBSONDocument]]:
    batch: list[RawBSONDocument] = []
    size = 0
    for document in documents:
        if batch and (len(batch) == WRITE_DOCUMENTS or size + len(document.raw) > WRITE_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(document)
        size += len(document.raw)
    if batch:
        yield batch


def _indexes(database: Database[Any], name: str) -> list[Index]:
    found = []
    for index in database[name].list_indexes():
        options = {key: index[key] for key in index if key not in ("v", "ns", "key", "name")}
        if index["name"] != "_id_":
            keys = [(field, order) for field, order in _dumps(list(index["key"].items()))]
            found.append(Index(index["name"], keys, _dumps(options)))
    return sorted(found, key=lambda index: index.name)


def _restore_indexes(database: Database[Any], collection: Collection) -> None:
    if not collection.documents and collection.name not in database.list_collection_names():
        database.create_collection(collection.name)
    if collection.indexes:
        database[collection.name].create_indexes(
            [
                IndexModel(_loads(index.keys), name=index.name, **_loads(index.options))
                for index in collection.indexes
            ]
        )


def _dumps(value: Any) -> Any:
    return json.loads(json_util.dumps(value))


def _loads(extended: Any) -> Any:
    return json_util.loads(json.dumps(extended))


def _compare(place: str, tally: Tally, expected: Collection) -> None:
    if tally.documents != expected.documents:
        raise BackupError(f"{place}: holds {tally.documents} documents, and should {expected.documents}")
    if tally.digest != expected.digest:
        raise BackupError(f"{place}: its documents are not those that were backed up")


def _compare_indexes(database: Database[Any], expected: Collection) -> None:
    if _indexes(database, expected.name) != expected.indexes:
        raise BackupError(f"{expected.name}: its indexes are not those that were backed up")


def _told(error: PyMongoError) -> str:
    """The beginning: a topology description follows, and a failed write quotes documents."""
    details = getattr(error, "details", None) or {}
    if failures := details.get("writeErrors"):
        return f"code {failures[0].get('code')} for {len(failures)} documents"
    return str(error).split(" (configured")[0].split(", Timeout:")[0][:300]
