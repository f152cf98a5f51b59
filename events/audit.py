"""What the online learner and its gate did, for the record."""

from typing import Literal

import msgspec

from events.types import EpochMs, Finite, Identifier, Prose

Step = Literal[
    "evaluated",
    "promoted",
    "rolled_back",
    "frozen",
    "unfrozen",
    "drift",
    "source_distrusted",
    "source_trusted",
    "source_silenced",
    "refused",
]


class AuditEvent(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One step of the learner or its gate. Topic `audit`, key `event_id`; at least once.

    The same step has the same `event_id` when it is told again after a restart.
    """

    event_id: Identifier
    at: EpochMs
    step: Step
    actor: Identifier
    """`gate` or `learner`, or who gave the command."""
    detail: Prose
    version: Identifier | None = None
    """Of the online part that is live after this step; None where the ensemble stands alone."""
    figures: dict[str, Finite] = {}
