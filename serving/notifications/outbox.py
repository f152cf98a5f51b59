"""What is still to be sent, on disk: a transactional outbox in SQLite.

Kafka's offsets are committed after the alerts are in here, so nothing is lost whenever the process ends. It
holds what a message shows and no more; whom an alert is about stands in it as the route shows it.
"""

import hashlib
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from serving.notifications.messages import Message, Notice

_SCHEMA = """
CREATE TABLE IF NOT EXISTS seen (alert_id TEXT PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS quiet (name BLOB PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS suppressed (route TEXT PRIMARY KEY, count INTEGER NOT NULL, since REAL NOT NULL)
  WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS gathered (id INTEGER PRIMARY KEY, route TEXT NOT NULL, at REAL NOT NULL,
  notice BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS gathered_by_route ON gathered (route, id);
CREATE TABLE IF NOT EXISTS queued (id INTEGER PRIMARY KEY AUTOINCREMENT, target TEXT NOT NULL,
  route TEXT NOT NULL, at REAL NOT NULL, title TEXT NOT NULL, body TEXT NOT NULL, level TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS queued_by_target ON queued (target, id);
"""


class OutboxError(Exception):
    """The outbox cannot be used; the message says why."""


class Queued(NamedTuple):
    """A message for one target. at: when it was queued, in seconds since the epoch."""

    number: int
    target: str
    route: str
    at: float
    message: Message


class Gathered(NamedTuple):
    """What waits for the digest of a route. since: the oldest of it, in seconds; None where nothing waits."""

    alerts: int
    suppressed: int
    since: float | None


class Outbox:
    """The file. Safe for use by several threads; a second process is refused.

    Raises OutboxError where the file cannot be opened or belongs to another process.
    """

    def __init__(self, file: Path) -> None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            file.touch(mode=0o600)
            self._sql = sqlite3.connect(file, timeout=0.5, isolation_level=None, check_same_thread=False)
            # Held until the process ends. Two that send the same would send all of it twice.
            self._sql.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._sql.execute("PRAGMA synchronous = FULL")
            self._sql.executescript(f"BEGIN EXCLUSIVE; {_SCHEMA} COMMIT;")
        except (OSError, sqlite3.Error) as error:
            busy = "locked" in str(error)
            reason = "another process uses it" if busy else error
            raise OutboxError(f"{file}: {reason}") from error
        self._lock = threading.RLock()

    def close(self) -> None:
        with self._lock:
            self._sql.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of what happens within is on disk at its end, or none of it."""
        with self._lock:
            self._sql.execute("BEGIN")
            try:
                yield
            except BaseException:
                self._sql.execute("ROLLBACK")
                raise
            self._sql.execute("COMMIT")

    def is_new(self, alert_id: str, now: float, window_s: float) -> bool:
        """Whether the alert was not taken in within the window; it is remembered from now on."""
        with self._lock:
            self._sql.execute("DELETE FROM seen WHERE alert_id = ? AND until <= ?", (alert_id, now))
            done = self._sql.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (alert_id, now + window_s))
            return done.rowcount == 1

    def is_quiet(self, name: str, now: float, window_s: float) -> bool:
        """Whether something of this name was told within the window; else the window begins now."""
        digest = hashlib.sha256(name.encode(errors="surrogatepass")).digest()
        with self._lock:
            found = self._sql.execute("SELECT until FROM quiet WHERE name = ?", (digest,)).fetchone()
            if found is not None and found[0] > now:
                return True
            self._sql.execute("INSERT OR REPLACE INTO quiet VALUES (?, ?)", (digest, now + window_s))
            return False

    def suppress(self, route: str, now: float) -> None:
        """One more alert of the route is not sent."""
        with self._lock:
            self._sql.execute(
                "INSERT INTO suppressed VALUES (?, 1, ?) ON CONFLICT (route) DO UPDATE SET count = count + 1",
                (route, now),
            )

    def take_suppressed(self, route: str) -> int:
        """How many were not sent; from now on they count as told."""
        with self._lock:
            found = self._sql.execute("SELECT count FROM suppressed WHERE route = ?", (route,)).fetchone()
            self._sql.execute("DELETE FROM suppressed WHERE route = ?", (route,))
            return 0 if found is None else int(found[0])

    def gather(self, route: str, shown: Notice, now: float) -> None:
        with self._lock:
            self._sql.execute(
                "INSERT INTO gathered (route, at, notice) VALUES (?, ?, ?)",
                (route, now, msgspec.json.encode(shown)),
            )

    def gathered(self, route: str) -> Gathered:
        with self._lock:
            count, oldest = self._sql.execute(
                "SELECT count(*), min(at) FROM gathered WHERE route = ?", (route,)
            ).fetchone()
            found = self._sql.execute(
                "SELECT count, since FROM suppressed WHERE route = ?", (route,)
            ).fetchone()
        suppressed, since = found or (0, None)
        known = [at for at in (oldest, since) if at is not None]
        return Gathered(count, suppressed, min(known) if known else None)

    def take_gathered(self, route: str) -> list[Notice]:
        """What was gathered, the oldest first; it is forgotten."""
        with self._lock:
            rows = self._sql.execute(
                "SELECT notice FROM gathered WHERE route = ? ORDER BY id", (route,)
            ).fetchall()
            self._sql.execute("DELETE FROM gathered WHERE route = ?", (route,))
        return [msgspec.json.decode(row[0], type=Notice) for row in rows]

    def queue(self, target: str, route: str, message: Message, now: float) -> None:
        with self._lock:
            self._sql.execute(
                "INSERT INTO queued (target, route, at, title, body, level) VALUES (?, ?, ?, ?, ?, ?)",
                (target, route, now, *message),
            )

    def next(self, target: str) -> Queued | None:
        """The oldest message for a target; it stays until `done`."""
        with self._lock:
            row = self._sql.execute(
                "SELECT id, target, route, at, title, body, level FROM queued WHERE target = ? "
                "ORDER BY id LIMIT 1",
                (target,),
            ).fetchone()
        if row is None:
            return None
        number, name, route, at, *message = row
        return Queued(number, name, route, at, Message(*message))

    def done(self, number: int) -> None:
        """The message was delivered, or given up."""
        with self._lock:
            self._sql.execute("DELETE FROM queued WHERE id = ?", (number,))

    def pending(self, target: str) -> int:
        with self._lock:
            (count,) = self._sql.execute("SELECT count(*) FROM queued WHERE target = ?", (target,)).fetchone()
        return int(count)

    def forget(self, now: float) -> None:
        """Delete what no longer tells anything."""
        with self._lock:
            self._sql.execute("DELETE FROM seen WHERE until <= ?", (now,))
            self._sql.execute("DELETE FROM quiet WHERE until <= ?", (now,))
