"""Control records, broadcast to the running scorer: model updates and rules."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from events.types import PATH_PATTERN, Deadline, EventTime, Finite, Identifier, Path, Probability, Verdict

MAX_PREVIOUS = 16


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


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """An analysts' rule over one feature of the contract. Topic `rules` (compacted), key `rule_id`."""

    rule_id: Identifier
    version: Annotated[int, Meta(ge=1)]
    owner: Identifier
    feature: Identifier
    operator: Literal["<", "<=", ">", ">=", "=="]
    value: Finite
    verdict: Verdict
    enabled: bool = True
    shadow: bool = False
    expires_at: Deadline | None = None
