"""Personal data: pseudonyms that cannot be undone, sealed values that some may open, and logs without either.

A pseudonym is HMAC-SHA256 under a key: the same person has the same one everywhere, and without the key
nobody can try out all card numbers. A sealed value is AES-256-GCM (NIST SP 800-38D) with a random nonce.
"""

import base64
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from events.types import is_ip_address
from models.signing import KeyFileError

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
PSEUDONYM_FILE: Final = "pseudonym.secret"
SEALING_FILES: Final = "seal-*.secret"
MASK: Final = "[masked]"
USER: Final = "user_id"
"""The kind of pseudonyms and seals of users, in logs, answers and stores alike."""

PERSONAL: Final = frozenset({"user_id", "receiver_id", "device_id", "ip", "client_address"})
"""Names of values that a log shows by pseudonym, so that lines on one person still belong together."""
SECRET: Final = frozenset(
    {"authorization", "token", "secret", "password", "signature", "nonce", "notes", "latitude", "longitude",
     "amount", "balance_before", "balance_after", "payload", "body"}
)  # fmt: skip
"""Names of values that no log shows."""

_IN_TEXT: Final = re.compile(
    r"eyJ[\w-]+\.[\w-]+\.[\w-]*"  # a JSON Web Token
    r"|\b(?:\d{1,3}\.){3}\d{1,3}\b"
    r"|(?<![\w:])(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{0,4}(?![\w:])"
    r"|[\w.+-]+@[\w-]+(?:\.[\w-]+)+"
    r"|(?<![\w.])(?:\d[ -]?){12,18}\d(?![\w.])"
)
_SEALED: Final = re.compile(r"sealed\.(?P<key>[0-9a-f]{8})\.(?P<data>[A-Za-z0-9_-]{38,2000})")


class SealError(Exception):
    """The text is no sealed value of ours, or of another kind."""


class Pseudonyms:
    """Pseudonyms under one key of KEY_BYTES."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def of(self, kind: str, value: str) -> str:
        """128 bits in hexadecimal after the kind; equal values of different kinds have different ones."""
        digest = hmac.new(self._key, f"{kind}\x1f{value}".encode(), hashlib.sha256).hexdigest()
        return f"{kind}~{digest[:32]}"


class Seals:
    """Seals values with the newest of some keys and opens them with whichever it was."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """keys: of KEY_BYTES, by key id, the newest last; at least one."""
        self._keys = dict(keys)
        self._newest = list(self._keys)[-1]

    def seal(self, kind: str, value: str) -> str:
        """A text that tells nothing but its length; another one every time."""
        nonce = os.urandom(NONCE_BYTES)
        sealed = AESGCM(self._keys[self._newest]).encrypt(nonce, value.encode(), kind.encode())
        return f"sealed.{self._newest}.{base64.urlsafe_b64encode(nonce + sealed).decode().rstrip('=')}"

    def open(self, kind: str, text: str) -> str:
        """The value. Raises SealError where it was not sealed here as this kind."""
        found = _SEALED.fullmatch(text)
        key = self._keys.get(found["key"]) if found else None
        if found is None or key is None:
            raise SealError("no sealed value, or one under a key that is gone")
        try:
            data = base64.b64decode(found["data"] + "=" * (-len(found["data"]) % 4), b"-_", validate=True)
            opened = AESGCM(key).decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], kind.encode())
        except (InvalidTag, ValueError) as error:
            raise SealError("not what was sealed here as this kind") from error
        return opened.decode()


class Person(NamedTuple):
    """A user as stores know one. No pseudonym is an identifier of the wire contract."""

    pseudonym: str
    sealed: str
    """The user id, for those who may open it."""


class Persons:
    """Users turned into what may be stored of them."""

    def __init__(self, pseudonyms: Pseudonyms, seals: Seals) -> None:
        self._pseudonyms, self._seals = pseudonyms, seals

    def of(self, user_id: str) -> Person:
        """The same pseudonym for a user every time, sealed anew each time."""
        return Person(self._pseudonyms.of(USER, user_id), self._seals.seal(USER, user_id))


def new_secrets(folder: Path) -> None:
    """Write a pseudonym key, where there is none, and a new sealing key, which is the newest from then on."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / PSEUDONYM_FILE).exists():
        write_secret(folder / PSEUDONYM_FILE)
    number = len(list(folder.glob(SEALING_FILES)))
    write_secret(folder / f"seal-{number:04d}.secret")


def read_secrets(folder: Path) -> tuple[Pseudonyms, Seals]:
    """What `new_secrets` wrote. Raises KeyFileError where something is missing."""
    sealing = [read_secret(path) for path in sorted(folder.glob(SEALING_FILES))]
    if not sealing:
        raise KeyFileError(
            f"{folder}: there is no {SEALING_FILES}; `fraudstream keys init` makes what is needed"
        )
    by_id = {hashlib.sha256(key).hexdigest()[:8]: key for key in sealing}
    return Pseudonyms(read_secret(folder / PSEUDONYM_FILE)), Seals(by_id)


def write_secret(path: Path) -> None:
    """Write a new random key in hexadecimal, readable by its owner alone. Raises FileExistsError."""
    path.touch(mode=0o600, exist_ok=False)
    path.write_text(secrets.token_hex(KEY_BYTES) + "\n")


def read_secret(path: Path) -> bytes:
    """What `write_secret` wrote. Raises KeyFileError for anything else."""
    try:
        key = bytes.fromhex(path.read_text().strip())
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise KeyFileError(f"{path}: no hexadecimal") from error
    if len(key) != KEY_BYTES:
        raise KeyFileError(f"{path}: {len(key)} bytes instead of {KEY_BYTES}")
    return key


class Masking:
    """A structlog processor: no personal data and no secret passes, by its name or by its look."""

    def __init__(self, pseudonyms: Pseudonyms) -> None:
        self._pseudonyms = pseudonyms

    def __call__(
        self, _logger: object, _method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        """The event, masked at every depth."""
        return {name: self._masked(name, value) for name, value in event.items()}

    def _masked(self, name: str, value: Any) -> Any:
        lowered = name.lower()
        if value is None or isinstance(value, bool):
            return value
        if lowered in SECRET:
            return MASK
        if lowered in PERSONAL:
            return self._pseudonyms.of(lowered, str(value))
        if isinstance(value, Mapping):
            return {str(key): self._masked(str(key), member) for key, member in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._masked(name, member) for member in value]
        if isinstance(value, int | float):
            return value
        return _IN_TEXT.sub(_masked_text, value if isinstance(value, str) else str(value))


def _masked_text(found: re.Match[str]) -> str:
    text = found[0]
    if re.fullmatch(r"[\d -]+", text) and not _is_card_number(re.sub(r"\D", "", text)):
        return text
    if re.fullmatch(r"[0-9a-fA-F]*:[0-9a-fA-F:]*", text) and not is_ip_address(text):
        return text  # a time of day
    return MASK


def _is_card_number(digits: str) -> bool:
    """The check digit holds (ISO/IEC 7812-1, annex B)."""
    doubled = [sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2]]
    return (sum(doubled) + sum(map(int, digits[-1::-2]))) % 10 == 0
