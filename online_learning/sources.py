"""Whose labels count: each source is held against better labels, and against what the scores make plain."""

import math
from typing import Final, NamedTuple

import msgspec

from events.example import Example
from state.contract import DAY_MS

CHARGEBACK: Final = "chargeback"
PRESUMED: Final = "presumed"
OTHERS: Final = "others"
MAX_SOURCES: Final = 4_096
"""Further ones are taken for one source together."""
MEMORY: Final = 500.0
"""Comparisons that count; older ones fade, so that a source can recover."""
PRIOR_WRONG, PRIOR_RIGHT = 1.0, 4.0
"""Comparisons that every source starts with in each class."""
MAX_ERROR: Final = 0.35
"""Of a source that counts, the mean of the two classes. Who labels by chance has 0.5, whatever the shares."""
CERTAIN: Final = 2.5
"""Standard deviations from there at which a source loses trust."""

RANK: Final = {PRESUMED: -1, "customer": 0, "analyst": 1, CHARGEBACK: 2}
UNLIMITED: Final = (RANK[PRESUMED], RANK[CHARGEBACK])
"""Neither limited nor judged: nothing is better than the one, and the other is nobody's word."""
BY_BETTER: Final = 1.0
BY_EQUAL: Final = 0.25
BY_SCORES: Final = 0.2
"""How much of a comparison each kind is."""
PLAIN_FRAUD: Final = 0.9
PLAIN_LEGITIMATE: Final = 0.01
"""Probabilities beyond which a transaction is plain, where ensemble and challenger agree."""


class Verdict(NamedTuple):
    """A label as it is remembered: number of its source, and what it said."""

    source: int
    is_fraud: bool

    def packed(self) -> int:
        """As one whole number."""
        return 2 * self.source + self.is_fraud

    @classmethod
    def of(cls, packed: int) -> "Verdict":
        """The verdict in a number."""
        return cls(packed // 2, bool(packed % 2))


class Source(msgspec.Struct):
    """One who labels.

    seen, wrong: comparisons with what was legitimate and with what was fraud, and how many of them went
    against it; left: labels that it may still give today, as of the time `at`.
    """

    name: str
    number: int
    rank: int
    left: float
    at: int
    seen: list[float] = msgspec.field(default_factory=lambda: [0.0, 0.0])
    wrong: list[float] = msgspec.field(default_factory=lambda: [0.0, 0.0])
    distrusted: bool = False
    silenced: bool = False

    def compare(self, label: bool, truth: bool, weight: float) -> None:
        """Take in a comparison of some weight up to 1."""
        for counts in (self.seen, self.wrong):
            for c in (0, 1):
                counts[c] *= 1 - weight / MEMORY
        self.seen[truth] += weight
        self.wrong[truth] += weight * (label != truth)

    def error(self) -> tuple[float, float]:
        """Mean and standard deviation of the share of wrong labels, the mean over the classes compared.

        By the posterior of a beta distribution in each class; as a mean over classes, 0.5 is chance whatever
        the shares of the classes are (Youden's index is 1 - 2 * error).
        """
        means, variances = [], []
        for seen, wrong in zip(self.seen, self.wrong, strict=True):
            if seen == 0:
                continue
            a, b = PRIOR_WRONG + wrong, PRIOR_RIGHT + seen - wrong
            means.append(a / (a + b))
            variances.append(a * b / ((a + b) ** 2 * (a + b + 1)))
        if not means:
            return PRIOR_WRONG / (PRIOR_WRONG + PRIOR_RIGHT), 0.0
        return sum(means) / len(means), math.sqrt(sum(variances)) / len(means)

    def reconsider(self) -> bool:
        """Whether trust was lost or won by the latest comparisons."""
        if self.rank in UNLIMITED:
            return False
        error, deviation = self.error()
        before = self.distrusted
        if error - CERTAIN * deviation > MAX_ERROR:
            self.distrusted = True
        elif error + deviation < MAX_ERROR:
            self.distrusted = False
        return self.distrusted != before


class Sources(msgspec.Struct):
    """All who have labelled. by_name: their numbers; clock: the latest time of a label."""

    known: list[Source] = []
    by_name: dict[str, int] = {}
    clock: int = 0

    def of(self, example: Example, per_day: float) -> Source:
        """The source of an example; a new one may give `per_day` labels at once."""
        self.clock = max(self.clock, example.labelled_at)
        name = name_of(example)
        if name not in self.by_name and len(self.known) >= MAX_SOURCES:
            name = OTHERS
        if name not in self.by_name:
            self.by_name[name] = len(self.known)
            self.known.append(Source(name, len(self.known), RANK[example.source], per_day, self.clock))
        return self.known[self.by_name[name]]

    def admit(self, source: Source, per_day: float) -> bool:
        """Whether one more label of the source counts, by the day of the labels' own clock.

        The clock is that of the latest label: labels of earlier times do not turn it, and later ones than the
        present do not get here. Chargebacks are not limited, nor is what is presumed.
        """
        source.left = min(per_day, source.left + per_day * (self.clock - source.at) / DAY_MS)
        source.at = self.clock
        if source.rank in UNLIMITED:
            return True
        if source.left < 1:
            return False
        source.left -= 1
        return True


def name_of(example: Example) -> str:
    """Analysts are sources of their own; customers are one, and chargebacks are."""
    if example.source == "analyst":
        return f"analyst:{example.analyst_id or ''}"
    return example.source


def weight_of_comparison(better: Source, other: Source) -> float:
    """How much a later label by one source says of an earlier one by another; 0 for nothing."""
    if better is other or better.distrusted or better.rank < other.rank:
        return 0.0
    return BY_BETTER if better.rank > other.rank else BY_EQUAL


def plain(offline: float, challenger: float) -> bool | None:
    """Whether the ensemble and the challenger find it plainly fraud, plainly not, or neither (None)."""
    if min(offline, challenger) >= PLAIN_FRAUD:
        return True
    if max(offline, challenger) <= PLAIN_LEGITIMATE:
        return False
    return None
