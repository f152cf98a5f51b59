"""Which of several verdicts on one transaction holds."""

from typing import NamedTuple

from events.feedback import Feedback, Source
from events.types import epoch_ms

SOURCES: tuple[Source, ...] = ("customer", "analyst", "chargeback")
"""From the weakest to the strongest."""
FRAUD = frozenset({"fraud", "true_positive"})


class Ruling(NamedTuple):
    """What one piece of feedback says. Of two, the greater one holds: its fields stand in their precedence.

    A stronger source comes before everything, then a later time. At the same time of the same source fraud
    holds over legitimate, and the analyst only makes the order total. So the greatest of a set of rulings is
    the same in whatever order they arrive.
    """

    rank: int
    labelled_at: int
    is_fraud: bool
    analyst_id: str

    @property
    def source(self) -> Source:
        """Who says so."""
        return SOURCES[self.rank]

    def says_as(self, other: "Ruling") -> bool:
        """Whether the other one says the same, from a source as strong."""
        return (self.is_fraud, self.rank) == (other.is_fraud, other.rank)


def ruling(feedback: Feedback) -> Ruling:
    """The ruling in a piece of feedback; true_positive means fraud, false_positive legitimate."""
    return Ruling(
        SOURCES.index(feedback.source),
        epoch_ms(feedback.labelled_at),
        feedback.label in FRAUD,
        feedback.analyst_id or "",
    )
