"""`fraudstream backup`: the database on files, and back."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from pymongo import MongoClient
from pymongo.errors import PyMongoError
from rich.box import SIMPLE_HEAD
from rich.table import Table

from cli.keys import Folder
from cli.terminal import UserError, out, printable
from serving.backup import database, manifest
from serving.backup.errors import BackupError
from serving.gateway.folders import KEYS
from serving.stores import connect_mongo

app = typer.Typer(no_args_is_help=True)

Backups = Annotated[
    Path, typer.Option("--to", envvar="FRAUDSTREAM_BACKUPS", help="Folder in which backups lie.")
]
BACKUPS = Path(".run/backups")
Backup = Annotated[Path, typer.Argument(help="Folder of one backup.", show_default=False)]
Url = Annotated[
    str, typer.Option(envvar="FRAUDSTREAM_MONGO_URL", help="MongoDB; passwords belong in the environment.")
]
LOCAL = "mongodb://127.0.0.1:27017"


@app.callback()
def backup() -> None:
    """Back up the database of decisions, cases and labels; verify and restore it."""


@app.command()
def run(  # noqa: PLR0913, PLR0917 - each is an option of the command
    to: Backups = BACKUPS,
    name: Annotated[
        str, typer.Option("--database", envvar="FRAUDSTREAM_MONGO_DATABASE", help="Of the server.")
    ] = "fraudstream",
    keep_days: Annotated[
        int | None,
        typer.Option(
            min=1, max=3660, help="Delete others than the last one of so many days.", show_default=False
        ),
    ] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Do not encrypt, although there is a key.")] = False,
    keys: Folder = KEYS,
    mongo_url: Url = LOCAL,
) -> None:
    """Write a backup, encrypted where the folder of keys has a key for it, and print where it is."""
    with _told(), _client(mongo_url) as client:
        found = manifest.read_keys(keys)
        path, written = database.back_up(client, name, to, None if plain or not found else found[-1])
        gone = [] if keep_days is None else manifest.thin(to, name, keep_days)
    _say(f"{path}: {_summary(written)}")
    for old in gone:
        _say(f"{old}: deleted")


@app.command()
def verify(backup: Backup, keys: Folder = KEYS) -> None:
    """See that a backup is whole and what it was."""
    with _told():
        found, _ = database.verify(backup, manifest.read_keys(keys))
    _say(f"{backup}: good: {_summary(found)}")


@app.command()
def restore(
    backup: Backup,
    into: Annotated[str, typer.Option(help="Database that holds nothing yet.", show_default=False)],
    keys: Folder = KEYS,
    mongo_url: Url = LOCAL,
) -> None:
    """Verify a backup, write it into an empty database, and compare the two."""
    with _told(), _client(mongo_url) as client:
        found = database.restore(client, into, backup, manifest.read_keys(keys))
    _say(f"{into}: restored and compared: {_summary(found)}")


@app.command("list")
def list_backups(to: Backups = BACKUPS) -> None:
    """List backups, the oldest first."""
    table = Table(box=SIMPLE_HEAD)
    for heading in ("backup", "database", "started (UTC)", "documents", "bytes", "encrypted"):
        table.add_column(heading, overflow="fold")
    for path, found in manifest.backups(to):
        if found is None:
            table.add_row(printable(path.name), "[red]its manifest cannot be read[/]")
            continue
        table.add_row(
            printable(path.name),
            printable(found.database),
            f"{found.started_at:%Y-%m-%d %H:%M:%S}",
            f"{sum(one.documents for one in found.collections):,}",
            f"{sum(one.file_bytes for one in found.collections):,}",
            "yes" if found.key_id else "no",
        )
    if not table.rows:
        raise UserError(f"{to}: there are no backups")
    out.print(table)


@app.command()
def key(keys: Folder = KEYS) -> None:
    """Make a key that backups are encrypted with from now on; without it nobody can restore them."""
    try:
        path = manifest.new_key(keys)
    except OSError as error:
        raise UserError(f"--keys: {error}") from error
    _say(f"{path}: keep a copy elsewhere, but not beside the backups")


@contextmanager
def _client(url: str) -> Iterator[MongoClient[Any]]:
    try:
        client = connect_mongo(url)
    except (PyMongoError, ValueError) as error:
        # Its text may quote the URL.
        raise UserError(f"--mongo-url: is no good: {type(error).__name__}") from error
    with client:
        yield client


@contextmanager
def _told() -> Iterator[None]:
    os.umask(0o077)
    try:
        yield
    except BackupError as error:
        raise UserError(printable(str(error))) from error
    except OSError as error:
        raise UserError(printable(f"{error.filename or ''}: {error.strerror or error}")) from error


def _summary(found: manifest.Manifest) -> str:
    documents = sum(one.documents for one in found.collections)
    size = sum(one.file_bytes for one in found.collections)
    sealed = f", sealed with {found.key_id}" if found.key_id else ""
    return f"{documents:,} documents of {len(found.collections)} collections, {size:,} bytes{sealed}"


def _say(line: str) -> None:
    out.print(printable(line), highlight=False, markup=False, soft_wrap=True)
