"""What a model is worth: ranking, alert budget, calibration."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score, roc_curve

from state.contract import DAY_MS

TOP_SHARE = 0.02
"""Share of a day's active users that are alerted for card precision, at most `MAX_TOP`."""
MAX_TOP = 100


class Decile(NamedTuple):
    """Mean score and observed share of frauds among the rows of one band of scores."""

    low: float
    rows: int
    score: float
    observed: float


def metrics(
    score: NDArray[np.float64],
    is_fraud: NDArray[np.bool_],
    time: NDArray[np.int64],
    user: NDArray[np.int64],
    top: int,
) -> dict[str, float]:
    """Figures for scores f8 [n] of transactions of both classes.

    recall_at_fpr_*: share of the frauds found at that share of false alarms. card_precision_at_*: see
    `card_precision`, for `top` users.
    """
    fpr, recall, _ = roc_curve(is_fraud, score)
    return {
        "auc_roc": float(roc_auc_score(is_fraud, score)),
        "average_precision": float(average_precision_score(is_fraud, score)),
        f"card_precision_at_{top}": card_precision(score, is_fraud, time, user, top),
        "recall_at_fpr_0.1%": float(np.interp(0.001, fpr, recall)),
        "recall_at_fpr_1%": float(np.interp(0.01, fpr, recall)),
        "brier": float(brier_score_loss(is_fraud, score)),
        "fraud_rate": float(is_fraud.mean()),
        "mean_score": float(score.mean()),
    }


def daily_top(time: NDArray[np.int64], user: NDArray[np.int64]) -> int:
    """How many users a day card precision looks at: 100, fewer where few users are active."""
    pairs = np.unique(np.stack((time // DAY_MS, user)), axis=1)
    active = len(pairs[0]) / len(np.unique(pairs[0]))
    return int(np.clip(round(active * TOP_SHARE), 1, MAX_TOP))


def card_precision(
    score: NDArray[np.float64],
    is_fraud: NDArray[np.bool_],
    time: NDArray[np.int64],
    user: NDArray[np.int64],
    top: int,
) -> float:
    """Of the `top` users with the highest score of the day, the share with a fraud that day; mean over days.

    A user found leaves the later days. As in Le Borgne et al., Reproducible Machine Learning for Credit
    Card Fraud Detection, section 4.4.
    """
    day = time // DAY_MS
    found: set[int] = set()
    shares = []
    for d in np.unique(day):
        rows = np.flatnonzero(day == d)
        rows = rows[~np.isin(user[rows], list(found))]
        users, number = np.unique(user[rows], return_inverse=True)
        highest = np.zeros(len(users))
        np.maximum.at(highest, number, score[rows])
        defrauded = np.bincount(number, is_fraud[rows], len(users)) > 0
        alerted = np.argsort(-highest, kind="stable")[:top]
        hits = alerted[defrauded[alerted]]
        found.update(users[hits].tolist())
        shares.append(len(hits) / top)
    return float(np.mean(shares))


def daily_precision(
    score: NDArray[np.float64],
    is_fraud: NDArray[np.bool_],
    time: NDArray[np.int64],
    user: NDArray[np.int64],
    top: int,
) -> tuple[float, float]:
    """Precision of the `top` transactions, and of the `top` users, with the highest score of each day.

    Means over days; no user leaves. A user's score is that of the highest transaction of the day.
    """
    day = time // DAY_MS
    of_transactions, of_users = [], []
    for d in np.unique(day):
        rows = np.flatnonzero(day == d)
        rows = rows[np.argsort(-score[rows], kind="stable")]
        of_transactions.append(is_fraud[rows[:top]].sum() / top)
        users, first, number = np.unique(user[rows], return_index=True, return_inverse=True)
        defrauded = np.bincount(number, is_fraud[rows], len(users)) > 0
        of_users.append(defrauded[np.argsort(first, kind="stable")[:top]].sum() / top)
    return float(np.mean(of_transactions)), float(np.mean(of_users))


def alerted(score: NDArray[np.float64], time: NDArray[np.int64], per_day: float) -> NDArray[np.bool_]:
    """Which transactions are alerted, bool [n], when the budget of each day goes to the highest scores."""
    day = time // DAY_MS
    chosen = np.zeros(len(score), np.bool_)
    for d in np.unique(day):
        rows = np.flatnonzero(day == d)
        chosen[rows[np.argsort(-score[rows], kind="stable")[: round(per_day)]]] = True
    return chosen


def cost(
    chosen: NDArray[np.bool_], is_fraud: NDArray[np.bool_], amount: NDArray[np.float64], false_alarm: float
) -> dict[str, float]:
    """What the alerts `chosen` cost: `false_alarm` each where wrong, the amount of each fraud missed.

    share_saved compares with alerting nothing.
    """
    lost = float(amount[is_fraud & ~chosen].sum())
    spent = false_alarm * float((chosen & ~is_fraud).sum())
    without = float(amount[is_fraud].sum())
    return {
        "amount_lost": lost,
        "false_alarm_cost": spent,
        "cost": lost + spent,
        "share_saved": (without - lost - spent) / without if without > 0 else 0.0,
    }


def deciles(score: NDArray[np.float64], is_fraud: NDArray[np.bool_]) -> list[Decile]:
    """Calibration in bands of a tenth of the score; bands without rows are left out."""
    band = np.minimum((score * 10).astype(np.int64), 9)
    return [
        Decile(b / 10, int(rows.sum()), float(score[rows].mean()), float(is_fraud[rows].mean()))
        for b in range(10)
        if (rows := band == b).any()
    ]
