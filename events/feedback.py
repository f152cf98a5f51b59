"""What comes back: verdicts of analysts, chargebacks, and the labels joined from them."""

from typing import Literal

import msgspec

from events.types import Amount, EventTime, Identifier, Prose

Source = Literal["analyst", "chargeback", "customer"]


class Feedback(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A verdict on one transaction or anomaly. Topic `feedback`, key the id it names.

    Raises ValueError if it names neither.
    """

    transaction_id: Identifier | None = None
    anomaly_id: Identifier | None = None
    label: Literal["fraud", "legitimate", "true_positive", "false_positive"]
    source: Source
    labelled_at: EventTime
    analyst_id: Identifier | None = None
    notes: Prose | None = None

    def __post_init__(self) -> None:
        if self.transaction_id is None and self.anomaly_id is None:
            raise ValueError("either transaction_id or anomaly_id is required")


class Label(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The known truth about one transaction. Topic `labels`, key `user_id`.

    The scoring job folds it into the profiles of the user and the terminal; a later label for the
    same transaction replaces the earlier one.
    """

    transaction_id: Identifier
    user_id: Identifier
    event_time: EventTime
    is_fraud: bool
    source: Source
    labelled_at: EventTime
    terminal_id: Identifier | None = None
    amount: Amount | None = None
