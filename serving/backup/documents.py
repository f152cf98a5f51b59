"""Documents in a file: BSON one after the other, compressed, sealed where there is a key."""

import gzip
import hashlib
import io
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument

from serving.backup.errors import BackupError
from serving.backup.sealed import OpeningReader, SealingWriter

MAX_DOCUMENT_BYTES: Final = (16 << 20) + (16 << 10)
_BLOCK: Final = 1 << 20


class Tally:
    """Counts documents. Their digest does not depend on the order in which they come.

    It is the sum of their SHA-256 modulo 2^256 (Bellare and Micciancio, 1997). It tells what was lost or
    altered by accident; against intent the seal of the file stands.
    """

    def __init__(self) -> None:
        self.documents = 0
        self.document_bytes = 0
        self._sum = 0

    def add(self, raw: bytes | memoryview) -> None:
        """Take in one document."""
        self.documents += 1
        self.document_bytes += len(raw)
        self._sum += int.from_bytes(hashlib.sha256(raw).digest(), "big")

    @property
    def digest(self) -> str:
        """In hexadecimal."""
        return f"{self._sum % (1 << 256):064x}"


class _Counted(io.RawIOBase):
    """Hashes and counts what goes through it into a file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.bytes = 0

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.sha256.update(data)
        self.bytes += len(data)
        return self._file.write(data)


def write_documents(
    path: Path, documents: Iterable[RawBSONDocument], secret: bytes | None
) -> tuple[Tally, str, int]:
    """Write documents as they come: their tally, SHA-256 and length of the file. It is on disk at the end."""
    tally = Tally()
    with path.open("xb") as file:
        counted = _Counted(file)
        with ExitStack() as streams:
            sink: io.RawIOBase = counted
            if secret is not None:
                sink = streams.enter_context(SealingWriter(counted, secret, path.name))  # type: ignore[arg-type]
            packed = streams.enter_context(gzip.GzipFile("", "wb", 6, sink, mtime=0))
            for document in documents:
                tally.add(document.raw)
                packed.write(document.raw)
        file.flush()
        os.fsync(file.fileno())
    return tally, counted.sha256.hexdigest(), counted.bytes


def read_documents(path: Path, secret: bytes | None) -> Iterator[RawBSONDocument]:
    """The documents in a file, one at a time. Raises BackupError where it is damaged or cut."""
    with _unpacked(path, secret) as stream:
        try:
            while head := stream.read(4):
                size = int.from_bytes(head, "little")
                if len(head) < 4 or not 5 <= size <= MAX_DOCUMENT_BYTES:
                    raise BackupError(f"{path.name}: holds something that is no document")
                yield RawBSONDocument(head + stream.read(size - 4))
        except (EOFError, zlib.error, gzip.BadGzipFile, BSONError) as error:
            raise BackupError(f"{path.name}: is damaged or cut: {error}") from error


def file_sha256(path: Path) -> str:
    """Raises BackupError where there is no such file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BackupError(f"{path.name}: {error.strerror}") from error


@contextmanager
def _unpacked(path: Path, secret: bytes | None) -> Iterator[BinaryIO]:
    with path.open("rb") as file:
        opened: BinaryIO = file
        if secret is not None:
            opened = io.BufferedReader(OpeningReader(file, secret, path.name), _BLOCK)
        with gzip.GzipFile("", "rb", fileobj=opened) as packed, io.BufferedReader(packed, _BLOCK) as stream:
            yield stream
