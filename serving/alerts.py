"""Alert rules of the field: what about one decision should make a person look at it.

Pure: a decision in, findings out. The rules stand beside the model, so they hold for what it approves too.
"""

from enum import IntEnum
from typing import Final, Literal, NamedTuple

import numpy as np

from events.decision import Decision
from state.contract import (
    CONTRACT_VERSION,
    HOUR_MS,
    MINUTE_MS,
    N_FEATURES,
    SECOND_MS,
    USER_WINDOWS,
    U,
)

Severity = Literal["medium", "high", "critical"]
SEVERITIES: Final[tuple[Severity, ...]] = ("medium", "high", "critical")
"""By rank, the lowest first."""

HIGH_SCORE, CRITICAL_SCORE = 0.8, 0.9
MOST_IN_5_MIN = 5
MOST_TIMES_MEAN = 5.0
COUNTRY_CHANGE_S = HOUR_MS / SECOND_MS

_COUNT_5M = U.COUNT + USER_WINDOWS.index(5 * MINUTE_MS)


class Kind(IntEnum):
    """The rule that found something. The numbers are in keyed state: none is given another meaning."""

    VERDICT = 0
    """Not approved, whatever the score."""
    SCORE = 1
    VELOCITY = 2
    AMOUNT = 3
    COUNTRY = 4
    TRAVEL = 5


class Finding(NamedTuple):
    """What one rule found. rank: place in SEVERITIES; text: a fact that names nobody and no place."""

    kind: Kind
    rank: int
    text: str


_MEDIUM, _HIGH, _CRITICAL = range(len(SEVERITIES))


def findings(decision: Decision) -> list[Finding]:
    """What the rules find in a decision, by kind; nothing for an ordinary one.

    A decision of another feature contract is judged by its score and verdict alone: its features would be
    read as others than they are. A comparison with a feature that is NaN finds nothing.
    """
    found = list(_of_verdict(decision))
    whole = len(decision.features) == 4 * N_FEATURES
    if decision.contract_version != CONTRACT_VERSION or not whole:
        return found
    features = np.frombuffer(decision.features, "<f4")
    count, ratio = float(features[_COUNT_5M]), float(features[U.AMOUNT_RATIO])
    if count > MOST_IN_5_MIN:
        found.append(Finding(Kind.VELOCITY, _HIGH, f"{count:.0f} transactions in 5 min"))
    if ratio > MOST_TIMES_MEAN:
        found.append(Finding(Kind.AMOUNT, _MEDIUM, f"{ratio:.1f} times the user's mean amount"))
    since_s = abs(float(features[U.SECONDS_SINCE_LAST]))
    if features[U.COUNTRY_CHANGE] == 1 and since_s <= COUNTRY_CHANGE_S:
        found.append(Finding(Kind.COUNTRY, _MEDIUM, f"another country {since_s / 60:.0f} min later"))
    if features[U.IMPOSSIBLE_TRAVEL] == 1:
        distance, speed = float(features[U.DISTANCE]), float(features[U.SPEED])
        found.append(Finding(Kind.TRAVEL, _HIGH, f"{distance:.0f} km at {speed:.0f} km/h"))
    return found


def _of_verdict(decision: Decision) -> list[Finding]:
    score = decision.score
    if score > HIGH_SCORE:
        rank = _CRITICAL if score > CRITICAL_SCORE else _HIGH
        return [Finding(Kind.SCORE, rank, f"score {score:.2f}")]
    if decision.decision != "approve":
        said = "reviewed by chance" if decision.explored else f"{decision.decision} at score {score:.2f}"
        return [Finding(Kind.VERDICT, _MEDIUM, said)]
    return []
