"""Control records: model updates and rules for the running scorer, commands for the online learner."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from events.types import (
    IDENTIFIER_PATTERN,
    PATH_PATTERN,
    PROSE_PATTERN,
    Deadline,
    EventTime,
    Finite,
    Identifier,
    Path,
    Probability,
    Prose,
    Verdict,
    text,
)

MAX_PREVIOUS = 16
MAX_FEATURES = 1024
MAX_CONDITIONS = 8
MAX_VALUES = 10_000

_CARRIED = {
    "model": "an artefact",
    "thresholds": "thresholds",
    "online": "online weights",
    "safe_mode": "a reason",
}


Reason = Annotated[
    str, text(PROSE_PATTERN, max_length=1000, reason="bad_text", description="why models shall not decide")
]


class Thresholds(msgspec.Struct, frozen=True):
    """Scores from `review` on are reviewed, from `block` on blocked."""

    review: Probability
    block: Probability

    def __post_init__(self) -> None:
        if self.review > self.block:
            raise ValueError("review must not exceed block")


class OnlineWeights(msgspec.Struct, frozen=True, kw_only=True):
    """The online part of the score: a logistic model beside the ensemble, learnt from labels as they come.

    For features x of the contract and p, the probability by the ensemble, with f(x) = sign(x) ln(1 + |x|):

        log-odds = clip((f(x) - centre) * scale, -limit, limit) @ weight + offline * logit(p) + bias

    A missing feature adds nothing. `share` is the weight of these log-odds against those of the ensemble.
    """

    version: Identifier
    features_sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    """Over the names of the features of the contract, one a line, in order."""
    features: Annotated[
        # msgspec checks this pattern itself: `events.codec` does not look into lists.
        list[Annotated[str, Meta(pattern=IDENTIFIER_PATTERN, min_length=1, max_length=128)]],
        Meta(max_length=MAX_FEATURES),
    ]
    centre: Annotated[list[Finite], Meta(max_length=MAX_FEATURES)]
    scale: Annotated[list[Finite], Meta(max_length=MAX_FEATURES)]
    limit: Annotated[float, Meta(gt=0, le=1e6)]
    weight: Annotated[list[Finite], Meta(max_length=MAX_FEATURES)]
    offline: Finite
    bias: Finite
    share: Probability

    def __post_init__(self) -> None:
        if not len(self.features) == len(self.centre) == len(self.scale) == len(self.weight):
            raise ValueError("features, centre, scale and weight differ in length")
        if len(set(self.features)) < len(self.features):
            raise ValueError("features names one twice")


class ModelUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """A change of what scores. Topic `model-updates` (compacted), key `slot`.

    Slot `model` names an artefact to load; slot `thresholds` sets limits that hold, over those of any
    model's own manifest, until the slot is emptied by a tombstone; slot `online` sets the part of the score
    that was learnt online, until a tombstone leaves the ensemble alone; slot `safe_mode` says why no model
    shall decide, until a tombstone ends it. Compaction leaves the last record of a slot alone, so that one
    says itself what it took the place of.
    """

    slot: Literal["model", "thresholds", "online", "safe_mode"]
    artefact: (
        Annotated[Path, Meta(description="folder of the artefact, readable by every TaskManager")] | None
    ) = None
    thresholds: Thresholds | None = None
    online: OnlineWeights | None = None
    reason: Reason | None = None
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
        carried = {
            "model": self.artefact,
            "thresholds": self.thresholds,
            "online": self.online,
            "safe_mode": self.reason,
        }
        if [slot for slot, what in carried.items() if what is not None] != [self.slot]:
            raise ValueError(f"slot {self.slot} takes {_CARRIED[self.slot]} and nothing else")
        if self.slot != "model" and self.previous:
            raise ValueError(f"slot {self.slot} takes no previous artefacts")


class OnlineCommand(msgspec.Struct, frozen=True, kw_only=True):
    """What a person tells the online learner. Topic `online-commands`, no key; at least once.

    `promote` publishes what has been learnt, whatever the gate says of it; `rollback` goes back to what was
    live before, in the end to the ensemble alone; `freeze` ends promotions by the gate until `unfreeze`. A
    repeat is told by `command_id` and does nothing.
    """

    command_id: Identifier
    command: Literal["promote", "rollback", "freeze", "unfreeze"]
    issued_at: EventTime
    issued_by: Identifier
    reason: Prose | None = None


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
