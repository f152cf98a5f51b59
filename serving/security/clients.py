"""Machines that sign their requests: one file for each, with its secret, role and limits."""

import base64
import secrets
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from events.codec import Decoder
from events.invalid import Invalid
from events.types import Identifier
from models.signing import KeyFileError
from serving.security.permissions import Role

SECRET_BYTES = 32


class Limit(msgspec.Struct, frozen=True):
    """Of a token bucket: `burst` requests at once, `per_minute` in the long run."""

    burst: Annotated[int, Meta(ge=1, le=10_000_000)] = 100
    per_minute: Annotated[float, Meta(gt=0, le=1e9)] = 50.0


class Client(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """secret: base64 in the file; None for one that has limits of its own but comes with a token."""

    client_id: Identifier
    role: Role
    secret: Annotated[bytes, Meta(min_length=SECRET_BYTES)] | None = None
    limit: Limit | None = None

    def __repr__(self) -> str:
        """Without the secret, which otherwise stood in every traceback."""
        return f"Client({self.client_id!r}, {self.role!r})"


_CLIENT = Decoder(Client)


def read_clients(folder: Path) -> dict[str, Client]:
    """The clients in the `*.json` files of a folder, by id; there may be none.

    Raises KeyFileError for a file that is no client, or not named by its id.
    """
    found = {}
    for path in sorted(folder.glob("*.json")):
        try:
            client = _decoded(path.read_bytes())
        except (OSError, ValueError) as error:
            raise KeyFileError(f"{path}: {error}") from error
        if path.stem != _file_stem(client.client_id):
            raise KeyFileError(f"{path}: holds the client {client.client_id}")
        found[client.client_id] = client
    return found


def new_client(folder: Path, client_id: str, role: Role, limit: Limit | None = None) -> tuple[Path, Client]:
    """Write a new client with a secret of its own; the file and what is in it.

    Raises FileExistsError where there is one, ValueError for an id that is no Identifier.
    """
    client = Client(client_id, role, secrets.token_bytes(SECRET_BYTES), limit)
    _decoded(msgspec.json.encode(client))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{_file_stem(client_id)}.json"
    path.touch(mode=0o600, exist_ok=False)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(client)) + b"\n")
    return path, client


def _decoded(content: bytes) -> Client:
    client = _CLIENT.decode_strictly(content)
    if isinstance(client, Invalid):
        raise ValueError(f"{client.field or 'the file'}: {client.detail}")  # noqa: TRY004 - a value it is
    return client


def _file_stem(client_id: str) -> str:
    # Ids may hold a slash; what stands in a file name is safe whatever the id.
    return base64.urlsafe_b64encode(client_id.encode()).decode().rstrip("=")
