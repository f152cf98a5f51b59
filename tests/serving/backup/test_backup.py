"""Backups of a real MongoDB-protocol server: what is restored is what was there, and bad ones are refused."""

import gzip
import itertools
import json
import shutil
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bson
import msgspec
import pytest
from bson import Binary, Int64, ObjectId, Regex, Timestamp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo import MongoClient
from typer.testing import CliRunner

from cli.main import app
from serving.backup.database import back_up, restore, verify
from serving.backup.errors import BackupError
from serving.backup.manifest import MANIFEST, Key, Manifest, new_key, read_keys, sealed, thin
from serving.documents import INDEXES
from serving.stores import connect_mongo
from tests.serving.servers import Server

names = (f"db{n}" for n in itertools.count())
Client = MongoClient[Any]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    server = Server(tmp_path_factory.mktemp("mongo"), "mongo")
    server.start()
    with connect_mongo(server.url) as client:
        yield client
    server.kill()


@pytest.fixture
def key(tmp_path: Path) -> Key:
    new_key(tmp_path / "keys")
    (key,) = read_keys(tmp_path / "keys")
    return key


def documents(count: int) -> list[dict[str, Any]]:
    return [
        {"_id": f"d-{n}", "user_id": f"user~{n % 7}", "score": n / 3, "event_time": Int64(10**12 + n),
         "features": Binary(bytes([n % 256]) * 500), "findings": [{"kind": "score", "text": "ü"}], "x": None}
        for n in range(count)
    ]  # fmt: skip


@pytest.fixture
def filled(client: Client) -> str:
    """A database with two collections and their indexes, and an empty one."""
    name = next(names)
    database = client[name]
    database["decisions"].insert_many(documents(1500))
    database["cases.old/%"].insert_many([{"_id": n, "status": "open"} for n in range(3)])
    database.create_collection("empty")
    for index, keys in INDEXES["decisions"].items():
        database["decisions"].create_index(list(keys), name=index)
    database["cases.old/%"].create_index("status", unique=False, name="by_status")
    return name


def content(client: Client, name: str, collection: str) -> dict[Any, bytes]:
    return {one["_id"]: bson.encode(one) for one in client[name][collection].find()}


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_restored_database_is_the_one_that_was_backed_up(
    client: Client, filled: str, tmp_path: Path, key: Key, encrypted: bool
) -> None:
    path, manifest = back_up(client, filled, tmp_path / "backups", key if encrypted else None)
    target = next(names)
    assert restore(client, target, path, [key]) == verify(path, [key])[0]

    assert {one.name: one.documents for one in manifest.collections} == {
        "cases.old/%": 3,
        "decisions": 1500,
        "empty": 0,
    }
    assert sorted(client[target].list_collection_names()) == ["cases.old/%", "decisions", "empty"]
    for collection in ("cases.old/%", "decisions"):
        assert content(client, target, collection) == content(client, filled, collection)
        assert (
            client[target][collection].index_information() == client[filled][collection].index_information()
        )
    raw = b"".join(file.read_bytes() for file in path.iterdir())
    unpacked = b"".join(gzip.decompress(file.read_bytes()) for file in path.glob("*.gz"))
    assert (b"user~3" in unpacked) is not encrypted
    assert b"user~3" not in raw
    assert not list((tmp_path / "backups").glob("*.unfinished"))
    assert path.stat().st_mode & 0o077 == 0


NAMES = st.from_regex("[a-z]{1,8}", fullmatch=True)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | FINITE
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
    | st.binary(max_size=50)
    | st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1)).map(
        lambda t: t.replace(microsecond=t.microsecond // 1000 * 1000)
    )
    | st.binary(min_size=12, max_size=12).map(ObjectId)
    | st.builds(Timestamp, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
    | st.just(Regex("^a.*b$", "i")),
    # FerretDB takes no array in an array.
    lambda inner: st.lists(inner.filter(lambda value: not isinstance(value, list)), max_size=4)
    | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=10,
)  # fmt: skip


@given(
    st.lists(
        st.dictionaries(st.from_regex("[a-z]{1,8}", fullmatch=True), VALUES, max_size=5),
        min_size=1,
        max_size=6,
    )
)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_the_values_they_are_restored_as_the_server_had_them(
    client: Client, tmp_path_factory: pytest.TempPathFactory, bodies: list[dict[str, Any]]
) -> None:
    source, target = next(names), next(names)
    client[source]["c"].insert_many([{"_id": n, **body} for n, body in enumerate(bodies)])
    path, _ = back_up(client, source, tmp_path_factory.mktemp("backups"), None)
    restore(client, target, path, [])

    assert content(client, target, "c") == content(client, source, "c")
    client.drop_database(source)
    client.drop_database(target)


def spoil(how: str, path: Path) -> None:
    """Do to a backup what disks and people do."""
    file = next(path.glob("decisions*"))
    data = bytearray(file.read_bytes())
    if how == "flip":
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    elif how == "cut":
        file.write_bytes(data[:-100])
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "missing":
        file.unlink()
    elif how == "foreign":
        (path / "notes.txt").write_text("mine")
    elif how == "swapped":
        other = next(path.glob("cases*"))
        other_data = other.read_bytes()
        other.write_bytes(data)
        file.write_bytes(other_data)
    elif how == "no manifest":
        (path / MANIFEST).unlink()
    elif how == "half a manifest":
        (path / MANIFEST).write_bytes((path / MANIFEST).read_bytes()[:-50])


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize(
    "how", ["flip", "cut", "empty", "missing", "foreign", "swapped", "no manifest", "half a manifest"]
)
def test_a_backup_that_was_spoilt_is_refused_before_anything_is_written(  # noqa: PLR0913, PLR0917
    client: Client, filled: str, tmp_path: Path, key: Key, how: str, encrypted: bool
) -> None:
    path, _ = back_up(client, filled, tmp_path, key if encrypted else None)
    spoil(how, path)
    target = next(names)

    with pytest.raises(BackupError, match=r"decisions|manifest|notes|cases"):
        restore(client, target, path, [key])
    assert client[target].list_collection_names() == []


def changed(path: Path, **fields: Any) -> None:
    """A manifest whose hashes are right, for files that are not."""
    found = json.loads((path / MANIFEST).read_bytes())
    for one in found["collections"]:
        if one["name"] == "decisions":
            one.update(fields)
    (path / MANIFEST).write_bytes(json.dumps(found).encode())


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"documents": 1499}, "holds 1500 documents, and should 1499"),
        ({"digest": "0" * 64}, "are not those that were backed up"),
        ({"file": "../decisions.bson.gz"}, "matching regex"),
        ({"file": "empty.bson.gz"}, "names a file twice"),
        ({"sha256": "nothing"}, "matching regex"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(
    client: Client, filled: str, tmp_path: Path, fields: dict[str, Any], reason: str
) -> None:
    path, _ = back_up(client, filled, tmp_path, None)
    changed(path, **fields)
    with pytest.raises(BackupError, match=reason):
        verify(path, [])


def test_a_sealed_manifest_cannot_be_changed_nor_opened_without_its_key(
    client: Client, filled: str, tmp_path: Path, key: Key
) -> None:
    path, _ = back_up(client, filled, tmp_path, key)
    with pytest.raises(BackupError, match=f"key {key.key_id}, which is not here"):
        verify(path, [])
    changed(path, documents=7)
    with pytest.raises(BackupError, match="was changed"):
        verify(path, [key])


def test_an_older_key_still_opens_what_it_sealed(
    client: Client, filled: str, tmp_path: Path, key: Key
) -> None:
    path, _ = back_up(client, filled, tmp_path, key)
    new_key(tmp_path / "keys")
    keys = read_keys(tmp_path / "keys")

    assert len(keys) == 2
    assert verify(path, keys)[1] == key


def test_a_database_that_holds_something_is_not_written_to(
    client: Client, filled: str, tmp_path: Path
) -> None:
    path, _ = back_up(client, filled, tmp_path, None)
    before = content(client, filled, "decisions")
    with pytest.raises(BackupError, match=r"is not empty: it holds cases\.old/%, decisions"):
        restore(client, filled, path, [])
    assert content(client, filled, "decisions") == before


def test_a_database_that_is_empty_or_away_leaves_nothing_behind(client: Client, tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="holds nothing"):
        back_up(client, next(names), tmp_path, None)
    with (
        connect_mongo("mongodb://127.0.0.1:1") as nobody,
        pytest.raises(BackupError, match=r"cannot be read: .*127\.0\.0\.1:1"),
    ):
        back_up(nobody, "db", tmp_path, None)
    assert list(tmp_path.iterdir()) == []


def test_what_is_written_meanwhile_does_not_spoil_the_backup(
    client: Client, filled: str, tmp_path: Path
) -> None:
    stopped = threading.Event()
    collection = client[filled]["decisions"]

    def write() -> None:
        for n in itertools.count(10_000):
            if stopped.is_set():
                return
            collection.insert_one({"_id": f"d-{n}"})

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for n in range(3):
            path, _ = back_up(client, filled, tmp_path / str(n), None)
            target = next(names)
            restore(client, target, path, [])
            restored = content(client, target, "decisions")
            assert {f"d-{n}" for n in range(1500)} <= set(restored), "what was there before is there"
    finally:
        stopped.set()
        writer.join()


def test_memory_does_not_grow_with_the_collection(client: Client, tmp_path: Path, key: Key) -> None:
    name = next(names)
    body = "x" * 50_000
    for at in range(0, 1200, 100):
        client[name]["big"].insert_many([{"_id": n, "body": f"{n}{body}"} for n in range(at, at + 100)])
    tracemalloc.start()
    path, manifest = back_up(client, name, tmp_path, key)
    verify(path, [key])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert sum(one.document_bytes for one in manifest.collections) > 60_000_000
    assert peak < 45_000_000, "some answers of the server, of at most 16 MB each"


def test_the_last_of_each_day_is_kept(tmp_path: Path) -> None:
    now = datetime.now(UTC)

    def made(days: int, hour: int, database: str = "fs") -> Path:
        at = (now - timedelta(days=days)).replace(hour=hour, minute=0)
        path = tmp_path / f"{database}-{at:%Y%m%dT%H%M%SZ}"
        path.mkdir()
        manifest = Manifest("fraudstream-backup-1", database, at, at, "7", [])
        (path / MANIFEST).write_bytes(sealed(manifest, None))
        return path

    days = [[made(day, hour) for hour in (1, 13)] for day in range(5)]
    other, stranger, broken = made(9, 1, "other"), tmp_path / "notes", tmp_path / "fs-broken"
    stranger.mkdir()
    broken.mkdir()
    (broken / MANIFEST).write_text("{")

    gone = thin(tmp_path, "fs", 3)
    kept = {days[day][1] for day in range(3)}
    assert set(gone) == {path for pair in days for path in pair} - kept
    assert set(tmp_path.iterdir()) == kept | {other, stranger, broken}
    assert thin(tmp_path, "fs", 3) == []


@pytest.fixture
def command(client: Client, tmp_path: Path) -> Callable[..., str]:
    host, port = client.address or ("", 0)

    def run(*arguments: str, status: int = 0) -> str:
        environment = {
            "FRAUDSTREAM_MONGO_URL": f"mongodb://{host}:{port}",
            "FRAUDSTREAM_GATEWAY_KEYS": str(tmp_path / "keys"),
            "FRAUDSTREAM_BACKUPS": str(tmp_path / "backups"),
        }
        done = CliRunner().invoke(app, ["backup", *arguments], env=environment)
        assert done.exit_code == status, done.output
        return done.output

    return run


def test_the_commands(client: Client, filled: str, tmp_path: Path, command: Callable[..., str]) -> None:
    assert "there are no backups" in command("list", status=1)
    command("key")
    command("run", "--database", filled, "--keep-days", "7")
    (path,) = (tmp_path / "backups").iterdir()
    assert "1,503" in command("list")
    assert "good: 1,503 documents of 3 collections" in command("verify", str(path))
    target = next(names)
    assert "restored and compared" in command("restore", str(path), "--into", target)
    assert client[target]["decisions"].count_documents({}) == 1500
    assert "is not empty" in command("restore", str(path), "--into", target, status=1)
    shutil.rmtree(tmp_path / "keys")
    assert "which is not here" in command("verify", str(path), status=1)
    assert "is no backup" in command("verify", str(tmp_path), status=1)


def test_a_backup_of_a_later_format_is_refused(client: Client, filled: str, tmp_path: Path) -> None:
    path, manifest = back_up(client, filled, tmp_path, None)
    later = msgspec.json.encode(manifest).replace(b"fraudstream-backup-1", b"fraudstream-backup-2")
    (path / MANIFEST).write_bytes(later)
    with pytest.raises(BackupError, match="Invalid enum value 'fraudstream-backup-2'"):
        verify(path, [])
