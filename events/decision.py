"""What the scoring job answers: decisions, anomalies and dead letters.

`user_id` stands first in decisions and anomalies: the job's sinks take the record key from there.
"""

from typing import Annotated

import msgspec
from msgspec import Meta
from xxhash import xxh3_128_hexdigest

from events.transaction import Transaction
from events.types import Amount, EpochMs, Identifier, Probability, Verdict

FeatureVector = Annotated[
    bytes,
    Meta(description="little-endian float32, in the order of the feature contract; base64 in JSON"),
]


def decision_id(user_id: str, transaction_id: str) -> str:
    """The id of the decision on a transaction, and of the anomaly where it is one: always the same."""
    return xxh3_128_hexdigest(f"{user_id}\x1f{transaction_id}".encode())


class Decision(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The answer to one transaction. Topic `decisions`, key `user_id`; at least once.

    `decision_id` depends on the transaction alone, so a consumer drops repeats by it.
    """

    user_id: Identifier
    transaction_id: Identifier
    decision_id: Identifier
    event_time: EpochMs
    amount: Amount
    decision: Verdict
    score: Probability
    model_version: str
    contract_version: int
    features: FeatureVector
    decided_at: EpochMs
    terminal_id: Identifier | None = None
    currency: str | None = None
    country: str | None = None
    channel: str | None = None
    degraded: bool = False
    late: bool = False
    parts: dict[str, float] = {}
    rules: list[str] = []
    review_threshold: Probability | None = None
    """The score that was reviewed from, where a budget of alerts had moved it."""
    explored: bool = False
    """Reviewed by chance alone, so that analysts see something of what is approved."""
    correlation_id: Identifier | None = None
    """As the transaction brought it."""


class Anomaly(msgspec.Struct, frozen=True, gc=False):
    """A transaction that was not approved, whole, for analysts. Topic `anomalies`, key `user_id`."""

    user_id: Identifier
    anomaly_id: Identifier
    decision: Decision
    transaction: Transaction


class DeadLetter(msgspec.Struct, frozen=True, gc=False):
    """A record that could not be processed, with where it came from. Topic `dead-letter`.

    `payload` holds the original bytes (base64 in JSON); it is cut only where the dead-letter topic
    could not take it whole, and `truncated_from` then gives its full size in bytes.
    """

    reason: str
    detail: str
    topic: str
    partition: int
    offset: int
    payload: bytes
    field: str | None = None
    key: bytes | None = None
    truncated_from: int | None = None
