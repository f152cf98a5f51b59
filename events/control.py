"""Control records, broadcast to the running scorer: model updates and rules."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from events.types import (
    IDENTIFIER_PATTERN,
    PATH_PATTERN,
    Deadline,
    EventTime,
    Finite,
    Identifier,
    Path,
    Probability,
    Prose,
    Verdict,
)

MAX_PREVIOUS = 16
MAX_CONDITIONS = 8
MAX_VALUES = 10_000


class Thresholds(msgspec.Struct, frozen=True):
    """Scores from `review` on are reviewed, from `block` on blocked."""

    review: Probability
    block: Probability

    def __post_init__(self) -> None:
        if self.review > self.block:
            raise ValueError("review must not exceed block")


class ModelUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """A change of what scores. Topic `model-updates` (compacted), key `slot`.

    Slot `model` names an artefact to load; slot `thresholds` sets limits that hold, over those of any
    model's own manifest, until the slot is emptied by a tombstone. Compaction leaves the last record of a
    slot alone, so that one says itself what it took the place of.
    """

    slot: Literal["model", "thresholds"]
    artefact: (
        Annotated[Path, Meta(description="folder of the artefact, readable by every TaskManager")] | None
    ) = None
    thresholds: Thresholds | None = None
    issued_at: EventTime
    issued_by: Identifier
    previous: Annotated[
        # msgspec checks this pattern itself: `events.codec` does not look into lists.
        list[Annotated[str, Meta(pattern=PATH_PATTERN, min_length=1, max_length=1000)]],
        Meta(
            max_length=MAX_PREVIOUS,
            extra_json_schema={"description": "artefacts promoted before, the latest first; to roll back to"},
        ),
    ] = []

    def __post_init__(self) -> None:
        if self.slot == "model" and (self.artefact is None or self.thresholds is not None):
            raise ValueError("slot model takes an artefact and no thresholds")
        if self.slot == "thresholds" and (self.thresholds is None or self.artefact is not None):
            raise ValueError("slot thresholds takes thresholds and no artefact")
        if self.slot == "thresholds" and self.previous:
            raise ValueError("slot thresholds takes no previous artefacts")


Comparison = Literal["<", "<=", ">", ">=", "=="]
ListField = Literal[
    "user_id", "terminal_id", "device_id", "receiver_id", "country", "currency", "merchant_category",
    "channel", "ip",
]  # fmt: skip
"""Fields of a transaction that a rule may hold against a list."""


# A misspelt member would change what a rule does, so unlike other records these know no unknown ones.
class Condition(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One condition of a rule: a feature against a value, or a field of the transaction against a list.

    What is missing meets no condition, `not_in` neither.
    """

    # msgspec checks this pattern itself: `events.codec` does not look into lists.
    feature: Annotated[str, Meta(pattern=IDENTIFIER_PATTERN, max_length=128)] | None = None
    field: ListField | None = None
    operator: Literal["<", "<=", ">", ">=", "==", "in", "not_in"]
    value: Finite | None = None
    values: Annotated[
        list[Annotated[str, Meta(min_length=1, max_length=128)]], Meta(max_length=MAX_VALUES)
    ] = []

    def __post_init__(self) -> None:
        if (self.feature is None) == (self.field is None):
            raise ValueError("a condition has either a feature or a field")
        is_list = self.operator in ("in", "not_in")
        if self.feature is not None and (is_list or self.value is None or self.values):
            raise ValueError("a feature is compared by <, <=, >, >= or == with one value")
        if self.field is not None and (not is_list or not self.values or self.value is not None):
            raise ValueError("a field is in or not_in values, at least one")


class Rule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """An analysts' rule: it hits where all its conditions are met. Topic `rules` (compacted), key `rule_id`.

    It raises decisions to its verdict; with `allow` it lowers them. The form with one condition, in
    `feature`, `operator` and `value` and without `all`, is that of the first rules and still read.
    """

    rule_id: Identifier
    version: Annotated[int, Meta(ge=1)]
    owner: Identifier
    description: Prose | None = None
    all: Annotated[list[Condition], Meta(max_length=MAX_CONDITIONS)] = []
    feature: Identifier | None = None
    operator: Comparison | None = None
    value: Finite | None = None
    verdict: Verdict
    allow: bool = False
    enabled: bool = True
    shadow: bool = False
    expires_at: Deadline | None = None

    def __post_init__(self) -> None:
        given = sum(part is not None for part in (self.feature, self.operator, self.value))
        if self.all and given:
            raise ValueError("all stands without feature, operator and value beside it")
        if not self.all and given < 3:
            raise ValueError("a rule needs at least one condition in all")
        if not self.allow:
            return
        if self.verdict != "approve" or self.expires_at is None:
            raise ValueError("a rule with allow needs the verdict approve and expires_at")
        if not self.names_some:
            raise ValueError("a rule with allow needs a condition that names whom, by in")

    @property
    def conditions(self) -> list[Condition]:
        """All conditions, in whichever form the rule came."""
        if self.all:
            return self.all
        return [Condition(feature=self.feature, operator=self.operator, value=self.value)]  # type: ignore[arg-type]

    @property
    def names_some(self) -> bool:
        """Whether it hits only what a list of it names."""
        return any(condition.operator == "in" for condition in self.all)
