"""What the online learner learns from: a label beside the features that its decision was made with."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from events.decision import FeatureVector
from events.types import EpochMs, Identifier, Probability

Teacher = Literal["analyst", "chargeback", "customer", "presumed"]
"""Who labelled, or nobody: `presumed` is a transaction that was approved, taken for legitimate."""


class Example(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One accepted label with the decision it is about. Topic `examples`, key `user_id`; at least once.

    Their order in the log is the order they are learnt in, and `example_id` tells a repeat. A label of a
    better source is an example of its own also where it confirms the earlier one. Of approved transactions a
    share is presumed legitimate when it is decided: who learns must see ordinary traffic too.
    """

    example_id: Identifier
    transaction_id: Identifier
    user_id: Identifier
    event_time: EpochMs
    labelled_at: EpochMs
    is_fraud: bool
    source: Teacher
    analyst_id: Identifier | None = None
    contract_version: int
    features: FeatureVector
    score: Annotated[float, Meta(ge=0, le=1, description="the final score of the decision")]
    parts: dict[str, Probability] = {}
    """Score of each part; `offline` is that of the ensemble, where an online part stood beside it."""
    model_version: str
    corrects: bool = False
    """The label takes the place of an earlier, other one of the same transaction."""
    sampled: Annotated[
        float,
        Meta(gt=0, le=1, description="probability with which a decision with this score was taken"),
    ] = 1.0
