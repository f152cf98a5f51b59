"""People who sign in to the console: one file for each, with role and a hash of the password.

Passwords are hashed by scrypt (RFC 7914) with parameters of the OWASP Password Storage Cheat Sheet, which
stand in the file: accounts made before a change of them go on.
"""

import base64
import hashlib
import hmac
import os
import secrets
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from msgspec import Meta

from events.codec import Decoder
from events.invalid import Invalid
from events.types import Identifier
from models.signing import KeyFileError

PersonRole = Literal["analyst", "data_scientist", "admin"]
"""Roles of people; a producer is a machine."""

LEAST_CHARACTERS: Final = 12
MOST_BYTES: Final = 1024
SALT_BYTES: Final = 16


class PasswordError(Exception):
    """The password is too short or too long to be set."""


class Account(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One person. salt, hash: of scrypt with n, r and p; base64 in the file."""

    subject: Identifier
    role: PersonRole
    salt: Annotated[bytes, Meta(min_length=SALT_BYTES)]
    hash: Annotated[bytes, Meta(min_length=32, max_length=32)]
    n: Annotated[int, Meta(ge=2, le=1 << 20)] = 1 << 15
    r: Annotated[int, Meta(ge=1, le=32)] = 8
    p: Annotated[int, Meta(ge=1, le=16)] = 3

    def __repr__(self) -> str:
        """Without the hash, which otherwise stood in every traceback."""
        return f"Account({self.subject!r}, {self.role!r})"

    @property
    def stamp(self) -> str:
        """Changes with the password and the role, so that sessions end with either."""
        return hashlib.sha256(self.hash + self.role.encode()).hexdigest()[:16]

    def proved_by(self, password: str) -> bool:
        """Whether this is the password. Takes some 0.1 s and 32 MiB."""
        given = password.encode(errors="surrogatepass")
        if len(given) > MOST_BYTES:
            return False
        return hmac.compare_digest(_hash(given, self.salt, self.n, self.r, self.p), self.hash)


NOBODY: Final = Account(subject="nobody", role="analyst", salt=bytes(SALT_BYTES), hash=bytes(32))
"""Takes as long to refuse a password as anybody else: who exists must not show by the time."""

_ACCOUNT = Decoder(Account)


class Accounts:
    """The accounts in a folder, read when they are asked for: a change needs no restart."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, subject: str) -> Account | None:
        """Raises KeyFileError for a file that is no account of this person."""
        path = self._path(subject)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:  # also a name that no file can have
            if len(path.name) > 255:
                return None
            raise KeyFileError(f"{path}: {error.strerror}") from error
        account = _ACCOUNT.decode_strictly(content)
        if isinstance(account, Invalid):
            raise KeyFileError(f"{path}: {account.field or 'the file'}: {account.detail}")
        if account.subject != subject:
            raise KeyFileError(f"{path}: holds the account of {account.subject}")
        return account

    def all(self) -> list[Account]:
        """By name. Raises KeyFileError."""
        found = [self.get(_subject(path)) for path in self.folder.glob("*.json")]
        return sorted((account for account in found if account is not None), key=lambda a: a.subject)

    def add(self, subject: str, role: PersonRole, password: str) -> Path:
        """Write a new account.

        Raises FileExistsError where there is one, PasswordError, ValueError for a name that is no Identifier.
        """
        content = _content(subject, role, password)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self._path(subject)
        path.touch(mode=0o600, exist_ok=False)
        path.write_bytes(content)
        return path

    def change(self, account: Account, password: str) -> None:
        """Give an account another password, which ends its sessions. Raises PasswordError."""
        path = self._path(account.subject)
        other = path.with_suffix(".new")
        other.touch(mode=0o600)
        other.write_bytes(_content(account.subject, account.role, password))
        other.replace(path)

    def remove(self, subject: str) -> None:
        """Delete an account, which ends its sessions. Raises FileNotFoundError where there is none."""
        self._path(subject).unlink()

    def _path(self, subject: str) -> Path:
        # Names may hold a slash; what stands in a file name is safe whatever the name.
        return self.folder / f"{base64.urlsafe_b64encode(subject.encode()).decode().rstrip('=')}.json"


def new_password() -> str:
    """A random one of 120 bits."""
    return secrets.token_urlsafe(15)


def _subject(path: Path) -> str:
    return base64.urlsafe_b64decode(path.stem + "=" * (-len(path.stem) % 4)).decode(errors="replace")


def _content(subject: str, role: PersonRole, password: str) -> bytes:
    given = password.encode(errors="surrogatepass")
    if len(password) < LEAST_CHARACTERS or len(given) > MOST_BYTES:
        raise PasswordError(f"a password has {LEAST_CHARACTERS} characters to {MOST_BYTES} bytes")
    salt = os.urandom(SALT_BYTES)
    account = Account(subject=subject, role=role, salt=salt, hash=b"\0" * 32)
    account = msgspec.structs.replace(account, hash=_hash(given, salt, account.n, account.r, account.p))
    content = msgspec.json.format(msgspec.json.encode(account)) + b"\n"
    checked = _ACCOUNT.decode_strictly(content)
    if isinstance(checked, Invalid):
        raise ValueError(f"{checked.field}: {checked.detail}")  # noqa: TRY004 - a value it is
    return content


def _hash(password: bytes, salt: bytes, n: int, r: int, p: int) -> bytes:
    return Scrypt(salt=salt, length=32, n=n, r=r, p=p).derive(password)
