import numpy as np
import pytest

from models.metrics import card_precision, daily_top, deciles, metrics
from state.contract import DAY_MS

DAY = np.array([0, 0, 0, 0, 1, 1, 1, 1]) * DAY_MS
USER = np.array([1, 1, 2, 3, 1, 2, 3, 4])
FRAUD = np.array([1, 0, 0, 1, 1, 1, 0, 0], bool)


def test_card_precision_by_hand() -> None:
    score = np.array([0.1, 0.9, 0.8, 0.2, 0.95, 0.7, 0.6, 0.1])
    # Day 0: users 1 (its highest score; a fraud of the day) and 2: 1 of 2. User 1 leaves.
    # Day 1: users 2 (fraud) and 3: 1 of 2.
    assert card_precision(score, FRAUD, DAY, USER, top=2) == pytest.approx(0.5)


def test_user_found_leaves_later_days() -> None:
    score = np.array([0.9, 0, 0, 0, 0.9, 0, 0.5, 0])
    assert card_precision(score, FRAUD, DAY, USER, top=1) == pytest.approx(0.5)  # user 3 on day 1, no fraud


def test_top_shrinks_with_few_users() -> None:
    assert daily_top(DAY, USER) == 1
    assert daily_top(np.zeros(1000, np.int64), np.arange(1000)) == 20
    assert daily_top(np.zeros(100_000, np.int64), np.arange(100_000)) == 100


def test_perfect_scores() -> None:
    figures = metrics(FRAUD.astype(float), FRAUD, DAY, USER, daily_top(DAY, USER))
    assert figures["auc_roc"] == figures["average_precision"] == figures["recall_at_fpr_0.1%"] == 1
    assert figures["brier"] == 0
    assert figures["fraud_rate"] == figures["mean_score"] == 0.5


def test_deciles() -> None:
    bands = deciles(np.array([0.0, 0.05, 0.95, 1.0]), np.array([False, True, True, True]))
    assert [(b.low, b.rows, b.observed) for b in bands] == [(0.0, 2, 0.5), (0.9, 2, 1.0)]
    assert bands[0].score == pytest.approx(0.025)
