"""The heuristic that decides while no model does: a score card over the features of the contract.

Every sign that a transaction shows adds its points, in units of log odds; a sign whose feature is NaN is
not shown. The score is the logistic function of the points above `BASE_POINTS`, which stands for a
transaction without any sign. The points are an expert's, not fitted: they hold on data never seen, but the
score is an ordering more than a probability. Additive points as log odds: Good, Probability and the
Weighing of Evidence (1950).
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from events.control import Thresholds
from state.contract import FEATURE_NAMES, N_FEATURES

VERSION: Final = "heuristic-1"
BASE_POINTS: Final = -5.0
THRESHOLDS: Final = Thresholds(review=0.12, block=0.73)
"""Reviewed from 3 points on, blocked from 6: block needs at least two independent signs."""


class Sign(NamedTuple):
    """Worth `points` where each of `features` is above the limit beside it. See `SIGNS`."""

    points: float
    features: tuple[tuple[str, float], ...]
    why: str


SIGNS: Final[tuple[Sign, ...]] = (
    Sign(1.0, (("user_amount_ratio", 3.0),), "three times the user's mean amount"),
    Sign(1.5, (("user_amount_ratio", 6.0),), "six times the user's mean amount"),
    Sign(1.0, (("user_amount_z", 4.0),), "four deviations above the user's mean"),
    Sign(0.5, (("amount_log", 5.4),), "more than about 220"),
    Sign(1.5, (("user_count_5m", 3.0),), "fourth transaction within 5 minutes"),
    Sign(1.0, (("user_count_1h", 5.0),), "sixth transaction within the hour"),
    Sign(1.0, (("duplicate_amount", 2.0),), "the same amount for the fourth time"),
    Sign(3.0, (("impossible_travel", 0.5),), "nobody travels that fast"),
    Sign(1.0, (("new_country", 0.5), ("foreign", 0.5)), "a foreign country never visited"),
    Sign(0.5, (("new_device", 0.5),), "a device never seen"),
    Sign(1.0, (("new_device", 0.5), ("card_not_present", 0.5)), "card not present from a device never seen"),
    Sign(1.0, (("new_device", 0.5), ("user_amount_ratio", 2.0)), "a large amount from a device never seen"),
    Sign(2.0, (("terminal_risk_7d", 0.05),), "frauds became known at the terminal"),
    Sign(1.5, (("terminal_risk_30d", 0.05),), "frauds became known at the terminal in the month"),
    Sign(1.0, (("terminal_amount_ratio", 5.0),), "five times the terminal's mean amount"),
    Sign(1.0, (("transfer", 0.5), ("new_receiver", 0.5)), "a transfer to a receiver never paid before"),
    Sign(1.5, (("transfer", 0.5), ("balance_share", 0.8)), "a transfer of most of the balance"),
    Sign(1.5, (("cash_out", 0.5), ("balance_share", 0.8)), "a cash-out of most of the balance"),
    Sign(1.0, (("user_frauds", 0.5),), "the user was defrauded before"),
    Sign(0.5, (("night", 0.5),), "at night"),
)

_CONDITIONS: Final = tuple(dict.fromkeys(condition for sign in SIGNS for condition in sign.features))
_COLUMNS: Final = np.array([FEATURE_NAMES.index(name) for name, _ in _CONDITIONS])
_LIMITS: Final = np.array([limit for _, limit in _CONDITIONS], np.float32)
_NEEDS: Final = np.array([[c in sign.features for sign in SIGNS] for c in _CONDITIONS], np.float32)
_NEEDED: Final = _NEEDS.sum(axis=0)
_POINTS: Final = np.array([sign.points for sign in SIGNS])
_SHARES: Final = np.zeros((len(SIGNS), N_FEATURES))
for _sign, _shares in zip(SIGNS, _SHARES, strict=True):
    _shares[[FEATURE_NAMES.index(name) for name, _ in _sign.features]] = _sign.points / len(_sign.features)


def heuristic(features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Scores f8 [n] in [0, 1] of features f4 [n, N_FEATURES]; any value of a feature is allowed."""
    score: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-BASE_POINTS - _shown(features) @ _POINTS))
    return score


def contributions(features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Points that each feature adds, f8 [n, N_FEATURES], to features f4 [n, N_FEATURES].

    With `BASE_POINTS` they sum to the log odds of the score. Features that show a sign only together share
    its points alike, which is their Shapley value (Shapley, A Value for n-Person Games, 1953).
    """
    return _shown(features) @ _SHARES


def _shown(features: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which of the SIGNS each row of features shows, bool [n, signs]."""
    met = features[:, _COLUMNS] > _LIMITS  # NaN compares false
    shown: NDArray[np.bool_] = met.astype(np.float32) @ _NEEDS == _NEEDED
    return shown
