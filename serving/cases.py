"""One open case per user: alerts merged, severity the highest, announced once per kind and 5 minutes.

Pure: the case follows from the order of the user's records alone.
"""

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

import msgspec

from events.alert import Alert
from events.decision import Decision
from events.feedback import Label
from events.types import epoch_ms
from serving.alerts import SEVERITIES, Finding, Kind, Severity
from state.contract import MINUTE_MS

SUPPRESSION_MS: Final = 5 * MINUTE_MS
MAX_MEMBERS: Final = 1_000
"""So many transactions of a case are remembered for a verdict; the latest of them."""
HASH_BYTES: Final = 8

Status = Literal["open", "fraud", "legitimate"]


class Announced(NamedTuple):
    """When a kind of finding was last announced, in event time, and with which severity."""

    at_ms: int
    rank: int


class Case(msgspec.Struct, array_like=True, gc=False):
    """What is to be looked at about one user, open until a verdict on one of its transactions.

    revision: counts the changes, so that a store can tell an older state of it; alerts: decisions merged;
    sum: of their amounts; members: their transactions, 8 bytes each, the latest MAX_MEMBERS; frauds: those of
    them that a verdict called so.
    """

    case_id: str
    opened_ms: int
    updated_ms: int
    rank: int = 0
    status: Status = "open"
    revision: int = 0
    alerts: int = 0
    sum: float = 0.0
    highest_score: float = 0.0
    announced: dict[int, Announced] = {}
    kinds: dict[int, int] = {}
    """How many findings there were of each kind."""
    members: bytes = b""
    frauds: bytes = b""
    closed_ms: int | None = None
    latest: str = ""
    """What was found last."""

    @property
    def severity(self) -> Severity:
        return SEVERITIES[self.rank]

    def merge(self, decision: Decision, found: Sequence[Finding], member: bytes) -> Alert | None:
        """Take in a decision with findings; the alert to send, None where nothing of it is news.

        News is a kind that was not announced yet, or more than 5 minutes of event time away, or less severe.
        """
        self.revision += 1
        self.alerts += 1
        self.sum += decision.amount
        self.highest_score = max(self.highest_score, decision.score)
        self.updated_ms = max(self.updated_ms, decision.event_time)
        self.rank = max(self.rank, *(finding.rank for finding in found))
        self.members = (self.members + member)[-MAX_MEMBERS * HASH_BYTES :]
        self.latest = listed(found)
        for finding in found:
            self.kinds[finding.kind] = self.kinds.get(finding.kind, 0) + 1
        news = [finding for finding in found if self._is_news(finding, decision.event_time)]
        for finding in news:
            self.announced[finding.kind] = Announced(decision.event_time, finding.rank)
        return self._alert(decision, news) if news else None

    def judge(self, label: Label, member: bytes) -> bool:
        """Take in a verdict on a member; whether that closed the case or changed how it was closed.

        A case is fraud while one of its members is. Which of them were may be corrected; it stays closed.
        """
        if label.is_fraud != contains(self.frauds, member):
            self.frauds = self.frauds + member if label.is_fraud else without(self.frauds, member)
        status: Status = "fraud" if self.frauds else "legitimate"
        if self.status == status:
            return False
        self.revision += 1
        self.status = status
        self.closed_ms = epoch_ms(label.labelled_at)
        return True

    def holds(self, member: bytes) -> bool:
        """Whether a transaction is one of its members."""
        return contains(self.members, member)

    def _is_news(self, finding: Finding, time_ms: int) -> bool:
        last = self.announced.get(finding.kind)
        if last is None or finding.rank > last.rank:
            return True
        # Either way in time: one transaction dated ahead must not silence those that follow.
        return abs(time_ms - last.at_ms) >= SUPPRESSION_MS

    def _alert(self, decision: Decision, news: Sequence[Finding]) -> Alert:
        rank = max(finding.rank for finding in news)
        merged = f" ({self.alerts} alerts in the case)" if self.alerts > 1 else ""
        return Alert(
            alert_id=f"alert-{decision.decision_id}",
            user_id=decision.user_id,
            severity=SEVERITIES[rank],
            raised_at=decision.decided_at,
            anomaly_ids=[decision.decision_id],
            summary=listed(news) + merged,
            case_id=self.case_id,
            kinds=[finding.kind.name.lower() for finding in news],
            amount=decision.amount,
            currency=decision.currency,
            terminal_id=decision.terminal_id,
        )


def open_case(decision: Decision) -> Case:
    """A new case, without members yet, named by the decision that opens it."""
    time_ms = decision.event_time
    return Case(f"case-{decision.decision_id}", time_ms, time_ms)


def kind_counts(case: Case) -> dict[str, int]:
    """How many findings there were, by the name of their kind."""
    return {Kind(kind).name.lower(): count for kind, count in sorted(case.kinds.items())}


def contains(hashes: bytes, wanted: bytes) -> bool:
    """Whether one of the packed hashes of HASH_BYTES each is the wanted one."""
    return _place(hashes, wanted) >= 0


def without(hashes: bytes, unwanted: bytes) -> bytes:
    """The packed hashes but for one of them."""
    at = _place(hashes, unwanted)
    return hashes if at < 0 else hashes[:at] + hashes[at + HASH_BYTES :]


def _place(hashes: bytes, wanted: bytes) -> int:
    at = hashes.find(wanted)
    while at > 0 and at % HASH_BYTES:  # it straddles two others
        at = hashes.find(wanted, at + 1)
    return at


def listed(found: Sequence[Finding]) -> str:
    """What was found, in one line."""
    return "; ".join(finding.text for finding in found)
