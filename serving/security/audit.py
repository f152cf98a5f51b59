"""The audit trail: a file of JSON lines to which is only added, each line bound to those before it.

The hash of an entry covers the hash of the one before (Haber and Stornetta, How to Time-Stamp a Digital
Document, 1991), so nothing can be changed, taken out or put in between without all that follows being
written anew. Cutting off the end shows only against a head that was noted elsewhere; see `verify`.
"""

import fcntl
import hashlib
import os
import threading
import time
from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec

Outcome = Literal["requested", "done", "refused", "failed"]
GENESIS: Final = "0" * 64


class AuditError(Exception):
    """The trail was changed, or cannot be written; the message says where or why."""


class Act(NamedTuple):
    """What somebody does, in the request with this correlation id."""

    actor: str
    role: str
    action: str
    target: str | None
    correlation_id: str


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that somebody did or tried; at: milliseconds since the epoch."""

    number: int
    at: int
    actor: str
    role: str
    action: str
    target: str | None
    outcome: Outcome
    correlation_id: str
    detail: str | None
    previous: str
    hash: str = ""


class Head(NamedTuple):
    """The last entry: how many there are, and its hash."""

    number: int
    hash: str


class AuditTrail:
    """The one writer of a trail; a second one is refused. Safe for use by several threads."""

    def __init__(self, path: Path) -> None:
        """Raises AuditError where the trail is written by another process, or was changed."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self._lock = threading.Lock()
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            torn = self._end_torn_line()
            self._head = verify(path)
        except OSError as error:
            os.close(self._file)
            raise AuditError(f"{path}: written by another process") from error
        except AuditError:
            os.close(self._file)
            raise
        if torn:
            act = Act("gateway", "gateway", "audit.torn", None, "start")
            self.append(act, "done", f"took away {len(torn)} bytes, SHA-256 {_sha256(torn)}")

    def append(self, act: Act, outcome: Outcome, detail: str | None = None) -> Entry:
        """Add an entry, which is on disk when this returns. Raises AuditError where it is not."""
        with self._lock:
            entry = Entry(
                **act._asdict(),
                number=self._head.number + 1,
                at=round(time.time() * 1000),
                outcome=outcome,
                detail=detail,
                previous=self._head.hash,
            )
            entry = msgspec.structs.replace(entry, hash=_hash(entry))
            line = msgspec.json.encode(entry) + b"\n"
            size = os.fstat(self._file).st_size
            try:
                if os.write(self._file, line) < len(line):
                    raise OSError("the disk is full")  # noqa: TRY301 - treated as any other failure to write
                os.fsync(self._file)
            except OSError as error:
                os.ftruncate(self._file, size)
                raise AuditError(f"{self.path}: {error}") from error
            self._head = Head(entry.number, entry.hash)
        return entry

    def close(self) -> None:
        os.close(self._file)

    def _end_torn_line(self) -> bytes:
        """Take away what a crash left of an entry, which was never acknowledged; the trail tells of it."""
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.ftruncate(self._file, whole)
        return content[whole:]


def verify(path: Path, expected: Head | None = None) -> Head:
    """The head of a trail that nobody changed.

    expected: a head noted before, which the trail must still contain. Raises AuditError naming the first line
    that does not follow from those before it.
    """
    head, seen = Head(0, GENESIS), expected is None or expected.number == 0
    try:
        with path.open("rb") as lines:
            for line in lines:
                head = _next(path, head, line)
                seen = seen or head == expected
    except OSError as error:
        raise AuditError(f"{path}: {error.strerror}") from error
    if not seen:
        raise AuditError(f"{path}: the entry noted before is gone")
    return head


def _next(path: Path, head: Head, line: bytes) -> Head:
    place = f"{path}:{head.number + 1}"
    try:
        entry = msgspec.json.decode(line, type=Entry)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise AuditError(f"{place}: no entry") from error
    # Compared as written: other bytes that mean the same are a change too.
    if msgspec.json.encode(entry) + b"\n" != line or entry.hash != _hash(entry):
        raise AuditError(f"{place}: the entry was changed")
    if entry.number != head.number + 1 or entry.previous != head.hash:
        raise AuditError(f"{place}: the entry does not follow the one before")
    return Head(entry.number, entry.hash)


def _hash(entry: Entry) -> str:
    return _sha256(msgspec.json.encode(msgspec.structs.replace(entry, hash="")))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
