"""What leaves the system to wake a person."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from events.types import Amount, Currency, EventTime, Identifier, Label64, Prose


class Alert(msgspec.Struct, frozen=True, gc=False):
    """Anomalies of one user that someone should look at now. Topic `alerts`, key `user_id`."""

    alert_id: Identifier
    user_id: Identifier
    severity: Literal["medium", "high", "critical"]
    raised_at: EventTime
    anomaly_ids: Annotated[list[Identifier], Meta(min_length=1, max_length=1000)]
    summary: Prose
    case_id: Identifier | None = None
    kinds: Annotated[list[Label64], Meta(max_length=20)] = []
    """Names of the alert rules that found something."""
    amount: Amount | None = None
    """Of the transaction that raised it, in units of `currency`."""
    currency: Currency | None = None
    terminal_id: Identifier | None = None
