"""Why a record is refused."""

from typing import Literal

import msgspec

Reason = Literal[
    "empty",
    "invalid_utf8",
    "malformed_json",
    "malformed_csv",
    "too_deep",
    "duplicate_key",
    "not_finite",
    "missing_field",
    "unknown_field",
    "wrong_type",
    "out_of_range",
    "unknown_value",
    "bad_time",
    "bad_identifier",
    "bad_country",
    "bad_currency",
    "bad_ip",
    "bad_text",
    "inconsistent",
    "future_event",
    "unknown_schema",
    "bad_avro",
    "missing_key",
    "key_mismatch",
    "conflicting_repeat",
    "control_refused",
    "unknown_transaction",
    "ambiguous_transaction",
    "foreign_transaction",
    "too_many_changes",
    "store_refused",
]

MAX_DETAIL = 200
MAX_FIELD = 100


class Invalid(msgspec.Struct, frozen=True, gc=False):
    """A payload that is no record of the contract. `field` names the field at fault where one is."""

    reason: Reason
    detail: str
    field: str | None = None

    def __str__(self) -> str:
        field = f"{self.field}: " if self.field else ""
        return f"{field}{self.detail} ({self.reason})"


def refuse(reason: Reason, detail: str, field: str | None = None) -> Invalid:
    """An Invalid fit for a log line: its texts may quote the input, so both are cut and escaped."""
    return Invalid(
        reason, _printable(detail, MAX_DETAIL), None if field is None else _printable(field, MAX_FIELD)
    )


def _printable(text: str, limit: int) -> str:
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."
