"""A stream under AES-256-GCM, in chunks: neither changed, nor cut, nor put in another's place unnoticed.

The STREAM construction (Hoang, Reyhanitabar, Rogaway and Vizár, 2015): the nonce of each chunk is its number,
and tells whether it is the last. The key is of this one file, derived by HKDF from a random salt and the
file's name, so no nonce comes twice under it.
"""

import io
import os
from typing import TYPE_CHECKING, BinaryIO, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from serving.backup.errors import BackupError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

MAGIC: Final = b"fraudstream-sealed-1\n"
SALT_BYTES: Final = 32
CHUNK: Final = 1 << 16
TAG_BYTES: Final = 16


class SealingWriter(io.RawIOBase):
    """Writes what it is given to a file, sealed; `close` marks the end."""

    def __init__(self, file: BinaryIO, key: bytes, name: str) -> None:
        """key: 32 bytes; name: of the file."""
        self._file = file
        salt = os.urandom(SALT_BYTES)
        self._cipher = _cipher(key, salt, name)
        self._buffer = bytearray()
        self._number = 0
        file.write(MAGIC + salt)

    def writable(self) -> bool:
        return True

    def write(self, data: "ReadableBuffer") -> int:
        self._buffer += data
        # The last chunk is only known to be the last at the end, so one stays behind.
        while len(self._buffer) > CHUNK:
            self._seal(bytes(self._buffer[:CHUNK]), last=False)
            del self._buffer[:CHUNK]
        return memoryview(data).nbytes

    def close(self) -> None:
        if not self.closed:
            self._seal(bytes(self._buffer), last=True)
            super().close()

    def _seal(self, chunk: bytes, *, last: bool) -> None:
        self._file.write(self._cipher.encrypt(_nonce(self._number, last), chunk, None))
        self._number += 1


class OpeningReader(io.RawIOBase):
    """Reads what `SealingWriter` wrote. Raises BackupError for anything else, under another key or name."""

    def __init__(self, file: BinaryIO, key: bytes, name: str) -> None:
        self._file = file
        self._name = name
        head = file.read(len(MAGIC) + SALT_BYTES)
        if len(head) < len(MAGIC) + SALT_BYTES or not head.startswith(MAGIC):
            raise BackupError(f"{name}: is not sealed")
        self._cipher = _cipher(key, head[len(MAGIC) :], name)
        self._next: bytes | None = file.read(CHUNK + TAG_BYTES)
        self._opened = memoryview(b"")
        self._number = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        if not self._opened and self._next is not None:
            self._open()
        given = memoryview(buffer).cast("B")
        count = min(len(given), len(self._opened))
        given[:count] = self._opened[:count]
        self._opened = self._opened[count:]
        return count

    def _open(self) -> None:
        chunk, following = self._next, self._file.read(CHUNK + TAG_BYTES)
        try:
            opened = self._cipher.decrypt(_nonce(self._number, last=not following), chunk or b"", None)
        except InvalidTag as error:
            raise BackupError(f"{self._name}: was sealed with another key, changed or cut") from error
        self._opened = memoryview(opened)
        self._number += 1
        self._next = following or None


def derived(key: bytes, salt: bytes, purpose: str) -> bytes:
    """A key of 32 bytes for one purpose."""
    return HKDF(SHA256(), 32, salt, f"fraudstream backup {purpose}".encode()).derive(key)


def _cipher(key: bytes, salt: bytes, name: str) -> AESGCM:
    return AESGCM(derived(key, salt, f"file {name}"))


def _nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])
