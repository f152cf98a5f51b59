"""`fraudstream keys`: what the gateway proves callers by, and hides people with."""

from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from cli.terminal import UserError, out
from models.signing import KeyFileError, Keyring, generate_keys
from serving.gateway.folders import KEYS, clients_folder, tokens_folder
from serving.security.clients import Limit, new_client, read_clients
from serving.security.permissions import Role
from serving.security.personal import PSEUDONYM_FILE, SEALING_FILES, new_secrets
from serving.security.sessions import new_session_secret

app = typer.Typer(no_args_is_help=True)

Folder = Annotated[
    Path, typer.Option("--keys", envvar="FRAUDSTREAM_GATEWAY_KEYS", help="Folder of the gateway's keys.")
]


@app.callback()
def keys() -> None:
    """Keys of the gateway: for tokens, for clients that sign, for personal data."""


@app.command()
def init(keys: Folder = KEYS) -> None:
    """Make all keys that a gateway needs, where there are none yet."""
    try:
        if not any(tokens_folder(keys).glob("*.pub")):
            _show_pair(generate_keys(tokens_folder(keys)))
        new_session_secret(keys)
        if not (keys / PSEUDONYM_FILE).exists() or not any(keys.glob(SEALING_FILES)):
            new_secrets(keys)
            out.print(f"secrets      {keys}", highlight=False, markup=False, soft_wrap=True)
    except OSError as error:
        raise UserError(f"--keys: {error}") from error


@app.command()
def rotate(keys: Folder = KEYS) -> None:
    """Make a new key for tokens, and one for sealed values; a running gateway takes tokens of both at once.

    Delete the old `.pub` once the last token signed with its key has expired, or at once to end them all. A
    gateway seals with the new key from its next start on, and opens what the old ones sealed.
    """
    if not any(tokens_folder(keys).glob("*.pub")):
        raise UserError(f"{keys}: there are no keys yet; `fraudstream keys init` makes them")
    try:
        _show_pair(generate_keys(tokens_folder(keys)))
        new_secrets(keys)
    except OSError as error:
        raise UserError(f"--keys: {error}") from error


@app.command()
def client(
    client_id: Annotated[str, typer.Argument(metavar="ID", help="Of the client.", show_default=False)],
    role: Annotated[Role, typer.Option(help="What it may do.")] = "producer",
    burst: Annotated[int, typer.Option(min=1, max=10_000_000, help="Requests at once.")] = Limit().burst,
    per_minute: Annotated[
        float, typer.Option(min=0.001, max=1e9, help="Requests in the long run.")
    ] = Limit().per_minute,
    keys: Folder = KEYS,
) -> None:
    """Make a client that signs its requests; a gateway knows it from its next start on.

    The limit holds as well for whoever comes with a token in the client's name.
    """
    try:
        path, _ = new_client(clients_folder(keys), client_id, role, Limit(burst, per_minute))
    except FileExistsError as error:
        raise UserError(f"there is a client {client_id} already: {error.filename}") from error
    except (OSError, ValueError) as error:
        raise UserError(str(error)) from error
    out.print(
        f"client {client_id}, {role}: its secret is in {path}", highlight=False, markup=False, soft_wrap=True
    )


@app.command("list")
def list_keys(keys: Folder = KEYS) -> None:
    """List keys and clients, without their secrets."""
    try:
        trusted = Keyring.read(tokens_folder(keys))
        clients = read_clients(clients_folder(keys))
    except KeyFileError as error:
        raise UserError(str(error)) from error
    for key_id in trusted.keys:
        out.print(f"token key  {key_id}", highlight=False)
    out.print(f"sealing    {len(list(keys.glob(SEALING_FILES)))} keys", highlight=False)
    table = Table(box=SIMPLE_HEAD)
    for heading in ("client", "role", "burst", "per minute"):
        table.add_column(heading, overflow="fold")
    for one in clients.values():
        limit = one.limit or Limit()
        table.add_row(one.client_id, one.role, f"{limit.burst:,}", f"{limit.per_minute:,g}")
    if clients:
        out.print(table)


def _show_pair(pair: tuple[Path, Path]) -> None:
    private, public = pair
    out.print(f"private key  {private}  (keep it to yourself)", highlight=False, markup=False, soft_wrap=True)
    out.print(f"public key   {public}", highlight=False, markup=False, soft_wrap=True)
