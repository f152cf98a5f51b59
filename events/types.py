"""Field types shared by all records of the wire contract."""

import re
import sys
from datetime import UTC, datetime, timedelta
from socket import AF_INET, AF_INET6, inet_pton
from typing import Annotated, Literal

from msgspec import Meta

# Letters, digits and a few separators: an identifier is safe to print in a log line, a shell or a query.
IDENTIFIER_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:@/+=-]*$"
LABEL_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9 ._:@/+=&,()-]*$"
# No control character but tab and line feed, and none that reorders the text around it on a screen.
PROSE_PATTERN = r"^[^\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]*$"
# A path or URL without quotes, blanks or a step upwards.
PATH_PATTERN = r"^(?!.*\.\.)[A-Za-z0-9/._][A-Za-z0-9._:@/+=-]*$"

EARLIEST_MS = 946_684_800_000  # 2000-01-01T00:00:00Z
LATEST_MS = 4_102_444_800_000  # 2100-01-01T00:00:00Z
MAX_AMOUNT = 1e10

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)


def epoch_ms(time: int | datetime) -> int:
    """Milliseconds since the epoch, rounded down, of an event time in either of its two wire forms."""
    return time if type(time) is int else (time - EPOCH) // MILLISECOND  # type: ignore[operator]


def is_ip_address(text: str) -> bool:
    """Whether `text` is an IPv4 address in dotted decimals or an IPv6 address without a zone."""
    try:
        inet_pton(AF_INET6 if ":" in text else AF_INET, text)
    except (OSError, ValueError):
        return False
    return True


def text(
    pattern: str,
    max_length: int,
    min_length: int = 1,
    reason: str = "bad_identifier",
    description: str | None = None,
) -> Meta:
    """Constraint of a text field: its length, and a pattern of which `events.codec` sees to that it holds.

    The pattern is not msgspec's own because that costs a regular expression per field and record; the
    decoder proves most of them at once. A record made in Python is not checked.
    """
    return Meta(
        min_length=min_length,
        max_length=max_length,
        description=description,
        extra_json_schema={"pattern": pattern},
        extra={"pattern": pattern, "holds": re.compile(pattern).fullmatch, "reason": reason},
    )


Identifier = Annotated[str, text(IDENTIFIER_PATTERN, max_length=128)]
"""An opaque id, matching IDENTIFIER_PATTERN."""

Label64 = Annotated[str, text(LABEL_PATTERN, max_length=64)]
"""A short human-readable category, matching LABEL_PATTERN."""

Prose = Annotated[str, text(PROSE_PATTERN, max_length=4000, min_length=0, reason="bad_text")]
"""What a person wrote: any text that cannot disturb a terminal."""

Path = Annotated[str, text(PATH_PATTERN, max_length=1000)]

Country = Annotated[
    str,
    text("^[A-Z]{2}$", max_length=2, min_length=2, reason="bad_country", description="ISO 3166-1 alpha-2"),
]
Currency = Annotated[
    str, text("^[A-Z]{3}$", max_length=3, min_length=3, reason="bad_currency", description="ISO 4217")
]
IpAddress = Annotated[
    str,
    Meta(
        min_length=2,
        max_length=45,
        description="IPv4 or IPv6 address",
        extra_json_schema={"anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]},
        extra={"holds": is_ip_address, "reason": "bad_ip"},
    ),
]

EpochMs = Annotated[
    int,
    Meta(
        ge=EARLIEST_MS,
        le=LATEST_MS,
        description="milliseconds since 1970-01-01 UTC",
        extra={"logical_type": "timestamp-millis"},
    ),
]
Rfc3339 = Annotated[datetime, Meta(tz=True, description="RFC 3339 date-time with offset")]
EventTime = Annotated[EpochMs | Rfc3339, Meta(extra={"happened": True})]
"""A time at which something happened; `events.codec` can refuse one that lies ahead."""
Deadline = Annotated[EpochMs | Rfc3339, Meta(extra={"happened": False})]
"""A time that may lie ahead."""

Amount = Annotated[float, Meta(ge=0, le=MAX_AMOUNT, description="in units of the currency")]
Probability = Annotated[float, Meta(ge=0, le=1)]
Finite = Annotated[float, Meta(ge=-sys.float_info.max, le=sys.float_info.max)]

Verdict = Literal["approve", "review", "block"]
