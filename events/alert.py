"""What leaves the system to wake a person."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from events.types import EventTime, Identifier, Prose


class Alert(msgspec.Struct, frozen=True, gc=False):
    """Anomalies of one user that someone should look at now. Topic `alerts`, key `user_id`."""

    alert_id: Identifier
    user_id: Identifier
    severity: Literal["medium", "high", "critical"]
    raised_at: EventTime
    anomaly_ids: Annotated[list[Identifier], Meta(min_length=1, max_length=1000)]
    summary: Prose
