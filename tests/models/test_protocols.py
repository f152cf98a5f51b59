"""Who is trained on and who is tested on."""

import numpy as np
import pytest

from models.history import History
from models.protocols import ProtocolError, folds, stream, temporal
from state.contract import DAY_MS
from state.layout import TRANSACTION

DAYS = 40
USERS = 30


def past(frauds: dict[int, list[int]]) -> History:
    """One transaction of every user a day; frauds: users by day."""
    n = DAYS * USERS
    transactions = np.zeros(n, TRANSACTION)
    day, user = np.divmod(np.arange(n), USERS)
    transactions["time"] = day * DAY_MS + user
    is_fraud = np.array([u in frauds.get(d, []) for d, u in zip(day.tolist(), user.tolist(), strict=True)])
    time = transactions["time"]
    return History(transactions, user, np.full(n, -1), is_fraud, time + 7 * DAY_MS, np.full(n, "", object))


def days_of(history: History, rows: np.ndarray) -> set[int]:  # type: ignore[type-arg]
    return set((history.time[rows] // DAY_MS).tolist())


FRAUDS = {3: [0], 12: [1], 16: [2], 17: [3], 18: [4], 25: [5, 1], 30: [6], 36: [7]}


def test_a_fold_trains_on_a_week_and_tests_on_the_week_after_next() -> None:
    history = past(FRAUDS)
    (fold,) = folds(history, [10 * DAY_MS], "strict")
    assert fold.name == "1970-01-11"
    assert days_of(history, fold.train) == set(range(10, 17))
    assert days_of(history, fold.test) == set(range(24, 31))


def test_an_open_history_begins_with_the_file_and_ends_with_the_week() -> None:
    history = past(FRAUDS)
    (fold,) = folds(history, [10 * DAY_MS], "open")
    assert days_of(history, fold.train) == set(range(17))
    label_known = history.labelled_at[fold.train].max()
    assert label_known <= history.time[fold.test].min(), "no label is younger than the delay"


def test_users_known_to_be_compromised_leave_the_test() -> None:
    history = past(FRAUDS)
    for mode in ("strict", "open"):
        (fold,) = folds(history, [10 * DAY_MS], mode)
        by_day = {
            d: set(history.user[fold.test[history.time[fold.test] // DAY_MS == d]].tolist())
            for d in range(24, 31)
        }
        assert 0 in by_day[24], "defrauded before the training week, which the protocol does not look at"
        assert not any({1, 2} & users for users in by_day.values()), "defrauded in the training week"
        # Before test day d the frauds of day 16 + d become known: user 3 on day 17, user 4 on day 18.
        assert [3 in by_day[d] for d in (24, 25, 26)] == [True, False, False]
        assert [4 in by_day[d] for d in (24, 25, 26)] == [True, True, False]
        assert {5, 6} <= by_day[30]


@pytest.mark.parametrize(
    ("frauds", "message"),
    [
        ({25: [5]}, "1970-01-11: the training block has one class only, 0 frauds in 210"),
        ({12: [1]}, "1970-01-11: the test block has one class only, 0 frauds"),
    ],
)
def test_a_fold_with_one_class_is_an_error(frauds: dict[int, list[int]], message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        list(folds(past(frauds), [10 * DAY_MS], "strict"))


def test_a_fold_outside_the_history_is_an_error() -> None:
    with pytest.raises(ProtocolError, match="there are no transactions in the test block"):
        list(folds(past(FRAUDS), [30 * DAY_MS], "open"))


def test_stream_leaves_a_gap_and_removes_nobody() -> None:
    history = past(FRAUDS)
    fold = stream(history, 17 * DAY_MS, 24 * DAY_MS)
    assert days_of(history, fold.train) == set(range(17))
    assert days_of(history, fold.test) == set(range(24, DAYS))
    assert len(fold.test) == (DAYS - 24) * USERS


@pytest.mark.parametrize(("train", "test", "delay"), [(0.6, 0.2, 2), (0.9, 0.3, 5), (0.3, 0.3, 0)])
def test_temporal_blocks_are_apart_by_the_delay(train: float, test: float, delay: int) -> None:
    history = past(FRAUDS)
    fold = temporal(history, train, test, delay * DAY_MS)
    apart = history.time[fold.test].min() - history.time[fold.train].max()
    assert apart >= delay * DAY_MS
    assert days_of(history, fold.test) >= set(range(round(DAYS * (1 - test)) + 1, DAYS))
