"""Access tokens: JSON Web Tokens (RFC 7519) signed with Ed25519, read with the care of RFC 8725.

The key is chosen by `kid` among the `*.pub` files of one folder and by nothing else that a token says; the
algorithm is fixed. A new key is put beside the old one, which is deleted once its last token has expired.
"""

import re
import time
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import uuid4

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from events.codec import Decoder
from events.invalid import Invalid
from events.types import IDENTIFIER_PATTERN, Identifier
from models.signing import Keyring, key_id
from serving.security.permissions import Principal, Role

ALGORITHM: Final = "EdDSA"
TYPE: Final = "at+jwt"
"""Media type of an access token (RFC 9068): a token made for something else is none."""
ISSUER: Final = "fraudstream"
AUDIENCE: Final = "fraudstream-gateway"
LEEWAY_S: Final = 10
MAX_LIFETIME_S: Final = 24 * 3600
MAX_BYTES: Final = 4096
REVOKED_FILE: Final = "revoked"

_REQUIRED: Final = ["iss", "aud", "sub", "role", "iat", "nbf", "exp", "jti"]


class TokenError(Exception):
    """The token proves nothing. The message is for the log, not for who sent it."""


class Claims(msgspec.Struct, frozen=True):
    """What a token says, once its signature holds; times in seconds since the epoch."""

    sub: Identifier
    role: Role
    jti: Identifier
    iat: int
    nbf: int
    exp: int


_CLAIMS: Final = Decoder(Claims)


class _Folder(NamedTuple):
    stamp: tuple[int, int]
    keys: Keyring
    revoked: frozenset[str]


class TokenVerifier:
    """Verifies tokens against a folder of public keys and the list of revoked ones, `revoked`, within it.

    Both are read again when they change, so that a rotation or revocation needs no restart.
    """

    def __init__(self, folder: Path) -> None:
        """Raises KeyFileError where the folder holds no key."""
        self._path = folder
        self._folder = self._read()

    def verify(self, token: str) -> Principal:
        """Who holds the token.

        Raises TokenError for one that proves nothing, KeyFileError where the keys cannot be read any more.
        """
        if len(token) > MAX_BYTES:
            raise TokenError("the token is too long")
        folder = self._current()
        try:
            header = jwt.get_unverified_header(token)
            if header.get("typ") != TYPE or header.get("alg") != ALGORITHM or "crit" in header:
                raise TokenError("no access token signed with Ed25519")
            trusted = folder.keys.keys.get(str(header.get("kid")))
            if trusted is None:
                raise TokenError("signed with an unknown key")
            members = jwt.decode(
                token,
                Ed25519PublicKey.from_public_bytes(trusted.public),
                algorithms=[ALGORITHM],
                issuer=ISSUER,
                audience=AUDIENCE,
                leeway=LEEWAY_S,
                options={"require": _REQUIRED, "strict_aud": True},
            )
            claims = _claims(members)
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise TokenError(str(error)) from error
        if claims.exp - claims.iat > MAX_LIFETIME_S:
            raise TokenError("the token lives longer than any may")
        if claims.jti in folder.revoked:
            raise TokenError("the token is revoked")
        return Principal(claims.sub, claims.role, claims.jti)

    def _current(self) -> _Folder:
        if self._stamp() != self._folder.stamp:
            self._folder = self._read()
        return self._folder

    def _read(self) -> _Folder:
        # The stamp first: what changes while it is read is read again.
        stamp = self._stamp()
        return _Folder(stamp, Keyring.read(self._path), revoked(self._path))

    def _stamp(self) -> tuple[int, int]:
        """Changes with the names in the folder, and with the length of the list, which only grows."""
        try:
            size = (self._path / REVOKED_FILE).stat().st_size
        except FileNotFoundError:
            size = 0
        try:
            return self._path.stat().st_mtime_ns, size
        except FileNotFoundError:
            return 0, size


def revoked(folder: Path) -> frozenset[str]:
    """Ids of the revoked tokens, one a line of the list."""
    try:
        return frozenset((folder / REVOKED_FILE).read_text().split())
    except FileNotFoundError:
        return frozenset()


def revoke(folder: Path, token_id: str) -> None:
    """Put a token on the list, for good.

    Raises ValueError for what is no id of a token, OSError where the list cannot be written.
    """
    if not re.fullmatch(IDENTIFIER_PATTERN, token_id):
        raise ValueError(f"{token_id!r} is no id of a token")
    with (folder / REVOKED_FILE).open("a") as file:
        file.write(f"{token_id}\n")


def issue(key: Ed25519PrivateKey, subject: str, role: Role, lifetime_s: int = 3600) -> tuple[str, Claims]:
    """A new token and what it says. Raises ValueError for a subject or lifetime that no verifier takes."""
    if not 0 < lifetime_s <= MAX_LIFETIME_S:
        raise ValueError(f"a token lives 1 to {MAX_LIFETIME_S} seconds")
    now = int(time.time())
    claims = Claims(sub=subject, role=role, jti=uuid4().hex, iat=now, nbf=now, exp=now + lifetime_s)
    members: dict[str, Any] = msgspec.to_builtins(claims)
    _claims(members)
    return encode(key, members | {"iss": ISSUER, "aud": AUDIENCE}), claims


def _claims(members: dict[str, Any]) -> Claims:
    """Raises ValueError for what is no Claims; msgspec alone does not hold the pattern of an Identifier."""
    claims = _CLAIMS.decode_strictly(msgspec.json.encode(members))
    if isinstance(claims, Invalid):
        raise ValueError(f"{claims.field}: {claims.detail}")  # noqa: TRY004 - a value it is
    return claims


def encode(key: Ed25519PrivateKey, members: dict[str, Any]) -> str:
    """The signed token of these claims, whatever they are."""
    return jwt.encode(
        members, key, algorithm=ALGORITHM, headers={"typ": TYPE, "kid": key_id(key.public_key())}
    )
