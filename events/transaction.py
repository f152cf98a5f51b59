"""A card or account transaction, as payment systems send it."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from events.types import MAX_AMOUNT, Amount, Country, Currency, EventTime, Identifier, IpAddress, Label64

TransactionType = Literal["purchase", "payment", "transfer", "cash_out", "cash_in", "debit", "refund"]
Balance = Annotated[float, Meta(ge=-MAX_AMOUNT, le=MAX_AMOUNT, description="in units of the currency")]


class Transaction(msgspec.Struct, frozen=True, gc=False):
    """One transaction. Topic `transactions`, key `user_id`.

    The first four fields are required. An optional field that is absent or null is missing: every
    feature that needs it is NaN.
    """

    transaction_id: Identifier
    user_id: Identifier
    event_time: EventTime
    amount: Amount
    terminal_id: Identifier | None = None
    currency: Currency | None = None
    merchant_category: Label64 | None = None
    transaction_type: TransactionType | None = None
    channel: Label64 | None = None
    country: Country | None = None
    latitude: Annotated[float, Meta(ge=-90, le=90, description="degrees")] | None = None
    longitude: Annotated[float, Meta(ge=-180, le=180, description="degrees")] | None = None
    device_id: Identifier | None = None
    ip: IpAddress | None = None
    card_present: bool | None = None
    receiver_id: Identifier | None = None
    balance_before: Balance | None = None
    balance_after: Balance | None = None
    correlation_id: Identifier | None = None
    """Of the request it came with; the decision carries it on. No feature reads it."""
