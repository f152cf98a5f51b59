"""What serving keeps of each user: which records it has seen, a risk, and the case.

One packed struct per user in keyed state, with the version of its layout in front.
"""

import math
from typing import Final, NamedTuple

import msgspec
from xxhash import xxh3_64_digest

from events.alert import Alert
from events.decision import Decision
from events.feedback import Label
from events.types import epoch_ms
from serving.alerts import Finding, findings
from serving.cases import HASH_BYTES, Case, contains, open_case
from state.contract import DAY_MS

LAYOUT: Final = 1
REMEMBERED: Final = 64
"""Records of a user by which a repeat is recognised, the latest."""
RISK_HALF_LIFE_MS: Final = DAY_MS


class LayoutError(Exception):
    """State was written by another version of this program."""


class Judged(NamedTuple):
    """What a record led to. case: None where none changed; alert: None where there is no news."""

    found: list[Finding]
    case: Case | None
    alert: Alert | None


class User(msgspec.Struct, array_like=True, gc=False):
    """One user, as of the latest record.

    seen: hashes of the latest REMEMBERED records, 8 bytes each. risk: the highest score, each halved with
    every day of event time since; at_ms: the event time it is of. case: the open one, else the one closed
    last.
    """

    seen: bytes = b""
    risk: float = 0.0
    at_ms: int = 0
    decisions: int = 0
    flagged: int = 0
    """Decisions other than to approve."""
    case: Case | None = None
    profiled_day: int = 0
    """The latest day, since the epoch, that the profile was written down of."""

    def decide(self, decision: Decision) -> Judged | None:
        """Take in a decision; None for a repeat, which changes nothing."""
        member = _hash(decision.transaction_id)
        known = self.case is not None and self.case.holds(member)
        if known or self._repeats(f"decision {decision.decision_id}"):
            return None
        self.decisions += 1
        self.flagged += decision.decision != "approve"
        self._raise_risk(decision.score, decision.event_time)
        found = findings(decision)
        if not found:
            return Judged(found, None, None)
        if self.case is None or self.case.status != "open":
            self.case = open_case(decision)
        return Judged(found, self.case, self.case.merge(decision, found, member))

    def label(self, label: Label) -> Judged | None:
        """Take in a verdict; None for a repeat. It closes the case that its transaction is in."""
        said = f"{label.transaction_id} {label.source} {label.is_fraud} {epoch_ms(label.labelled_at)}"
        if self._repeats(f"label {said}"):
            return None
        if label.is_fraud:
            self._raise_risk(1.0, epoch_ms(label.event_time))
        member = _hash(label.transaction_id)
        if self.case is None or not self.case.holds(member) or not self.case.judge(label, member):
            return Judged([], None, None)
        if self.case.status == "legitimate":
            self.risk = 0.0
        return Judged([], self.case, None)

    def pack(self) -> bytes:
        """As `unpack` reads it."""
        return bytes([LAYOUT]) + _encode(self)

    @classmethod
    def unpack(cls, data: bytes | None) -> "User":
        """A user from keyed state, new for None. Raises LayoutError for another layout."""
        if data is None:
            return cls()
        if data[0] != LAYOUT:
            raise LayoutError(f"a user in layout {data[0]}; this program knows {LAYOUT}")
        return _decode(data[1:])

    def _raise_risk(self, score: float, time_ms: int) -> None:
        now_ms = max(self.at_ms, time_ms)
        self.risk = max(faded(self.risk, now_ms - self.at_ms), faded(score, now_ms - time_ms))
        self.at_ms = now_ms

    def _repeats(self, identity: str) -> bool:
        digest = _hash(identity)
        if contains(self.seen, digest):
            return True
        self.seen = (self.seen + digest)[-REMEMBERED * HASH_BYTES :]
        return False


def faded(risk: float, age_ms: int) -> float:
    """A risk after so much time."""
    return risk * math.exp2(-age_ms / RISK_HALF_LIFE_MS)


def _hash(identity: str) -> bytes:
    return xxh3_64_digest(identity.encode())


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(User).decode
