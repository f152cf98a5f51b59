"""Who foretells labels better: losses and rankings on labels that nobody has learnt from yet.

Prequential: first foretell, then learn (Dawid, Statistical Theory: The Prequential Approach, 1984).
"""

import math
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

HELD: Final = 1e-3
"""Probabilities are held this far from 0 and 1 before their log loss is taken: one label says no more."""
TUNED: Final = 200.0
"""Labels at which the confidence sequence is tightest."""
ROUND_LABELS: Final = 2_000
ROUND_FRAUDS: Final = 200
FALSE_POSITIVES: Final = 0.01
REFERENCE: Final = 50
FRAUDS_KEPT: Final = 256
LEGITIMATE_KEPT: Final = 2_048


class Foretold(NamedTuple):
    """A label and what was foretold of it: the probability of fraud by the ensemble alone, by what is live,
    by what was live before, and by the challenger. weight: how much the label counts.
    """

    is_fraud: bool
    weight: float
    offline: float
    live: float
    former: float
    challenger: float


def loss(probability: float, is_fraud: bool) -> float:
    """The log loss of a probability."""
    held = min(max(probability, HELD), 1 - HELD)
    return -math.log(held if is_fraud else 1 - held)


class Comparison(msgspec.Struct):
    """How much less one foretells wrongly than another, from paired differences of their losses.

    labels, frauds: differences taken in; mean, spread: of these, and the sum of squared deviations.
    """

    labels: int = 0
    frauds: int = 0
    mean: float = 0.0
    spread: float = 0.0

    @property
    def legitimate(self) -> int:
        """Labels that said so."""
        return self.labels - self.frauds

    def learn(self, difference: float, is_fraud: bool) -> None:
        """Take in the difference of two losses on one label, weighted (Welford, 1962)."""
        self.labels += 1
        self.frauds += is_fraud
        distance = difference - self.mean
        self.mean += distance / self.labels
        self.spread += distance * (difference - self.mean)

    def at_least(self, error: float) -> float:
        """A lower bound of the mean difference that holds at all times together with probability 1 - error.

        So it may be looked at after each label. See `_reach`.
        """
        return self.mean - self._reach(error)

    def is_settled(self, error: float, long: int = ROUND_LABELS) -> bool:
        """Whether the difference is surely below 0, or so much was taken in that later labels shall tell."""
        is_long = self.labels >= long and self.frauds >= ROUND_FRAUDS
        return is_long or self.mean + self._reach(error) < 0

    def _reach(self, error: float) -> float:
        """How far the mean difference may be from the truth, at all times with probability 1 - error.

        Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, Time-uniform central limit theory and asymptotic
        confidence sequences, 2024, theorem 2.2, tightest at `TUNED` labels. Like every use of the central
        limit theorem it takes enough labels of both kinds.
        """
        n = self.labels
        if n < 2:
            return math.inf
        evidence = -2 * math.log(error)
        rho2 = (evidence + math.log(evidence) + 1) / TUNED
        reach = n * rho2 + 1
        margin = math.sqrt(2 * reach * math.log(math.sqrt(reach) / error) / (n * n * rho2))
        return margin * math.sqrt(self.spread / (n - 1))


class Window(msgspec.Struct):
    """The latest labels of each class with what was foretold; rows are weight, offline, live, challenger.

    frauds, legitimate: f8 [kept, 4]; seen: how many of each; weights: sum of the weights of each.
    """

    frauds: NDArray[np.float64] = msgspec.field(default_factory=lambda: np.zeros((FRAUDS_KEPT, 4)))
    legitimate: NDArray[np.float64] = msgspec.field(default_factory=lambda: np.zeros((LEGITIMATE_KEPT, 4)))
    seen: list[int] = msgspec.field(default_factory=lambda: [0, 0])
    weights: list[float] = msgspec.field(default_factory=lambda: [0.0, 0.0])

    def learn(self, of: Foretold) -> None:
        """Take in a label."""
        kept = self.frauds if of.is_fraud else self.legitimate
        kept[self.seen[of.is_fraud] % len(kept)] = of.weight, of.offline, of.live, of.challenger
        self.seen[of.is_fraud] += 1
        self.weights[of.is_fraud] += of.weight

    def alarms(self, of: Foretold) -> tuple[float, float, float] | None:
        """Log of the share of legitimate transactions that score as high as this one: by the ensemble, what
        is live and the challenger; None before there are `REFERENCE` of them.
        """
        if self.seen[False] < REFERENCE:
            return None
        rows = self.legitimate[: self.seen[False]]
        weight = rows[:, 0]
        whole = weight.sum()
        one = whole / len(rows)  # stands for the transaction itself, so that no share is 0
        offline, live, challenger = (
            math.log((weight @ (rows[:, column] >= score) + one) / (whole + one))
            for column, score in enumerate((of.offline, of.live, of.challenger), 1)
        )
        return offline, live, challenger

    def figures(self) -> dict[str, float]:
        """Average precision, recall at a share of false positives and log loss of each; empty without both
        classes. Weights of a class that is kept in part are scaled up to all of it.
        """
        frauds, legitimate = self._kept(self.frauds, True), self._kept(self.legitimate, False)
        if not len(frauds) or not len(legitimate):
            return {}
        rows = np.concatenate((frauds, legitimate))
        is_fraud = np.arange(len(rows)) < len(frauds)
        figures: dict[str, float] = {}
        for column, name in enumerate(("offline", "live", "challenger"), 1):
            precision, recall = ranking(rows[:, column], is_fraud, rows[:, 0])
            figures[f"average_precision_{name}"] = precision
            figures[f"recall_{name}"] = recall
            held = np.clip(rows[:, column], HELD, 1 - HELD)
            losses = -np.log(np.where(is_fraud, held, 1 - held))
            figures[f"log_loss_{name}"] = float(np.average(losses, weights=rows[:, 0]))
        return figures

    def _kept(self, rows: NDArray[np.float64], is_fraud: bool) -> NDArray[np.float64]:
        kept = rows[: self.seen[is_fraud]].copy()
        if len(kept):
            kept[:, 0] *= self.weights[is_fraud] / kept[:, 0].sum()
        return kept


def ranking(
    score: NDArray[np.float64], is_fraud: NDArray[np.bool_], weight: NDArray[np.float64]
) -> tuple[float, float]:
    """Average precision, and recall at `FALSE_POSITIVES`, of scores f8 [n] with weights f8 [n].

    Rows of one score are taken in together.
    """
    order = np.argsort(-score, kind="stable")
    last = np.flatnonzero(np.diff(score[order], append=-np.inf))
    true = np.cumsum((weight * is_fraud)[order])[last]
    false = np.cumsum((weight * ~is_fraud)[order])[last]
    precision = true / (true + false)
    average = float(np.diff(true, prepend=0) @ precision / true[-1])
    allowed = false <= FALSE_POSITIVES * false[-1]
    return average, float(true[allowed].max(initial=0.0) / true[-1])
