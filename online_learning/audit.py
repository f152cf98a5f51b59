"""What the trainer tells the world: weights to publish, and a record of every step."""

from collections.abc import Mapping

import msgspec
from xxhash import xxh3_64_hexdigest

from events.audit import AuditEvent, Step
from events.control import ModelUpdate, OnlineWeights
from models.online import ONLINE


class Tombstone(msgspec.Struct, frozen=True):
    """The slot is to be emptied: a record without a value under this key on `model-updates`."""

    slot: str = ONLINE


Outcome = ModelUpdate | Tombstone | AuditEvent


class Audit:
    """Numbers and dates the steps.

    steps: how many there were; cause: id of the example or command that what follows is due to. A step has
    the same id whenever the same labels lead to it, and another one where others do.
    """

    def __init__(self, steps: int, now_ms: int) -> None:
        self.steps = steps
        self.cause = ""
        self._now_ms = now_ms

    def note(
        self,
        step: Step,
        actor: str,
        detail: str,
        version: str | None,
        figures: Mapping[str, float] | None = None,
    ) -> AuditEvent:
        """The record of one step; version: of the online part that is live after it."""
        self.steps += 1
        return AuditEvent(
            event_id=f"audit-{self.steps}-{xxh3_64_hexdigest(self.cause.encode())}",
            at=self._now_ms,
            step=step,
            actor=actor,
            detail=detail,
            version=version,
            figures=dict(figures or {}),
        )

    def published(self, weights: OnlineWeights, actor: str) -> ModelUpdate:
        """The update that makes weights live."""
        return ModelUpdate(slot="online", online=weights, issued_at=self._now_ms, issued_by=actor)
