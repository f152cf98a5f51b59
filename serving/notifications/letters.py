"""What was given up, in a file of JSON lines: for a person to look at, and to send by hand."""

import os
import threading
from pathlib import Path

import msgspec

from serving.notifications.outbox import Queued

LONGEST_RECORD = 100_000


class Letter(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line. at: seconds since the epoch; a message has target, title and body, a record its bytes."""

    at: float
    reason: str
    target: str | None = None
    route: str | None = None
    queued_at: float | None = None
    title: str | None = None
    body: str | None = None
    record: bytes | None = None


class DeadLetters:
    """Appends lines; each is on disk before it counts as given up, and may be there twice after a crash."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.touch(mode=0o600)
        self.file = file
        self._lock = threading.Lock()

    def write_message(self, queued: Queued, reason: str, now: float) -> None:
        message = queued.message
        self._write(Letter(now, reason, queued.target, queued.route, queued.at, message.title, message.body))

    def write_record(self, value: bytes, reason: str, now: float) -> None:
        """A record that is no alert, cut where it is very long."""
        self._write(Letter(now, reason, record=value[:LONGEST_RECORD]))

    def _write(self, letter: Letter) -> None:
        with self._lock, self.file.open("ab") as file:
            file.write(msgspec.json.encode(letter) + b"\n")
            file.flush()
            os.fsync(file.fileno())
