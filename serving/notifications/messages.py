"""What is told of an alert. Plain text: apprise escapes it for the receiver.

All that comes from a record is foreign text. It is cut, its control characters go, and it can neither call
people nor be a link.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, Literal, NamedTuple

import msgspec

from events.alert import Alert
from events.types import epoch_ms
from serving.notifications.routes import rank
from serving.security.personal import USER, Pseudonyms

LONGEST: Final = 300
MOST_LINES: Final = 30
"""Alerts that a digest lists; of the others it tells how many there are."""

_KIND: Final = re.compile(r"[a-z_]{1,32}")


class Notice(msgspec.Struct, frozen=True):
    """What a route shows of an alert; foreign text is harmless by now. at_ms: since the epoch."""

    alert_id: str
    severity: str
    kinds: tuple[str, ...]
    summary: str
    user: str
    at_ms: int
    amount: str | None
    terminal: str | None
    case: str | None
    decision: str


class Message(NamedTuple):
    """Ready to be sent."""

    title: str
    body: str
    level: Literal["info", "warning", "failure"]


def notice(alert: Alert, pseudonyms: Pseudonyms | None) -> Notice:
    """pseudonyms: None shows the user id as it is."""
    user = alert.user_id if pseudonyms is None else pseudonyms.of(USER, alert.user_id)
    amount = None if alert.amount is None else f"{alert.amount:,.2f} {harmless(alert.currency or '')}".strip()
    return Notice(
        harmless(alert.alert_id),
        harmless(alert.severity),
        kinds_of(alert),
        harmless(alert.summary),
        harmless(user),
        epoch_ms(alert.raised_at),
        amount,
        None if alert.terminal_id is None else harmless(alert.terminal_id),
        None if alert.case_id is None else harmless(alert.case_id),
        harmless(alert.anomaly_ids[0]),
    )


def kinds_of(alert: Alert) -> tuple[str, ...]:
    """The names of the rules; none that looks otherwise."""
    return tuple(kind for kind in alert.kinds if _KIND.fullmatch(kind))


def of_one(shown: Notice, suppressed: int) -> Message:
    """suppressed: alerts of the route that were not sent since the last message."""
    lines = [
        shown.summary,
        f"User: {shown.user}",
        *([f"Amount: {shown.amount}"] if shown.amount else []),
        *([f"Terminal: {shown.terminal}"] if shown.terminal else []),
        *([f"Case: {shown.case}"] if shown.case else []),
        f"Decision: {shown.decision}",
        f"Raised: {_time(shown.at_ms):%Y-%m-%d %H:%M:%S} UTC",
        f"Alert: {shown.alert_id}",
        *([_suppressed(suppressed)] if suppressed else []),
    ]
    kinds = f": {', '.join(shown.kinds)}" if shown.kinds else ""
    return Message(f"[{shown.severity.upper()}] Fraud alert{kinds}", "\n".join(lines), _level(shown.severity))


def of_many(gathered: Sequence[Notice], suppressed: int) -> Message:
    """A digest, the latest alert last."""
    told = gathered[-MOST_LINES:]
    lines = [
        f"{_time(one.at_ms):%H:%M} {one.severity}: {one.summary}; {one.user}"
        + (f"; {one.amount}" if one.amount else "")
        + (f"; {one.case}" if one.case else "")
        for one in told
    ]
    if left := len(gathered) - len(told):
        lines.insert(0, f"{left} earlier alerts are not listed.")
    if suppressed:
        lines.append(_suppressed(suppressed))
    levels = [one.severity for one in gathered]
    return Message(
        f"Fraud alerts: {len(gathered)} gathered, {suppressed} suppressed",
        "\n".join(lines),
        _level(max(levels, key=rank)) if levels else "info",
    )


def harmless(text: str) -> str:
    """One line of foreign text, cut, with nothing that reorders, calls somebody or is a link."""
    line = "".join(c if c.isprintable() else " " for c in text[: LONGEST + 1])
    if len(line) > LONGEST:
        line = line[: LONGEST - 1] + "…"
    return line.replace("://", "[:]//").replace("@", "(at)")


def _suppressed(count: int) -> str:
    return f"{count} more were suppressed since the last message."


def _time(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)


def _level(severity: str) -> Literal["info", "warning", "failure"]:
    return ("info", "warning", "failure")[rank(severity)]
