"""Known frauds inside the profiles of users and terminals."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from events.transaction import Transaction
from state.contract import FEATURE_NAMES, N_TERMINAL, N_USER, U
from state.layout import (
    LABEL,
    TERMINAL_FRAUDS,
    TERMINAL_LAYOUT,
    TERMINAL_PROFILE,
    USER_FRAUDS,
    USER_LAYOUT,
    USER_PROFILE,
)
from state.terminal_kernel import label_terminal, terminal_kernel
from state.user_kernel import label_user, user_kernel
from tests.state.histories import DAY_MS, START_MS, History, arrays, label, replayed
from tests.state.reference import KnownLabel

NOW_MS = START_MS + 10 * DAY_MS

verdicts = st.lists(st.tuples(st.integers(0, 200), st.booleans()), max_size=40, unique_by=lambda v: v[0])


def label_rows(drawn: list[tuple[int, bool]]) -> NDArray[np.void]:
    """LABEL [n] of the transactions of these numbers, one an hour."""
    labels = np.zeros(len(drawn), LABEL)
    for row, (number, is_fraud) in zip(labels, drawn, strict=True):
        row["time"] = START_MS + number * 3_600_000
        row["id"] = (number + 1) << 40
        row["amount"] = number
        row["is_fraud"] = is_fraud
    return labels


def known(
    labels: NDArray[np.void], profiles: tuple[NDArray[np.void], NDArray[np.void]] | None = None
) -> dict[str, float]:
    """What a transaction at NOW_MS sees of these labels."""
    users, terminals = profiles or (np.zeros(1, USER_PROFILE), np.zeros(1, TERMINAL_PROFILE))
    rows = np.zeros(len(labels), np.int64)
    label_user(users, rows, labels)
    label_terminal(terminals, rows, labels)
    one = np.zeros(1, np.int64)
    transaction = arrays([Transaction("now", "u", NOW_MS, 1.0, terminal_id="t")])
    by_user, by_terminal = np.empty((1, N_USER), np.float32), np.empty((1, N_TERMINAL), np.float32)
    user_kernel(users.copy(), one, transaction, by_user, np.empty(1, np.uint8))
    terminal_kernel(terminals.copy(), one, transaction, by_user[:, U.USER_FRAUDS], 0, by_terminal)
    features = dict(zip(FEATURE_NAMES, [*by_user[0].tolist(), *by_terminal[0].tolist()], strict=True))
    at_terminal = int((terminals["fraud_id"] != 0).sum())
    return {k: v for k, v in features.items() if "fraud" in k or "risk" in k} | {"at_terminal": at_terminal}


@settings(max_examples=50, derandomize=True)
@given(verdicts, st.randoms(use_true_random=False))
def test_neither_order_nor_repetition_of_labels_matters(drawn: list[tuple[int, bool]], random: Any) -> None:
    again = [*drawn, *(random.choices(drawn, k=len(drawn)) if drawn else [])]
    random.shuffle(again)
    once = known(label_rows(drawn))
    np.testing.assert_equal(known(label_rows(again)), once)
    frauds = [number for number, is_fraud in drawn if is_fraud]
    assert once["user_frauds"] == min(len(frauds), USER_FRAUDS)
    assert once["at_terminal"] == min(len(frauds), TERMINAL_FRAUDS)
    if frauds:
        assert once["days_since_user_fraud"] == pytest.approx(10 - max(frauds) / 24, abs=1e-5)


@settings(max_examples=30, derandomize=True)
@given(st.lists(st.integers(0, 200), max_size=USER_FRAUDS - 1, unique=True), st.integers(201, 300))
def test_a_correction_restores_what_was_known_before(frauds: list[int], mistaken: int) -> None:
    profiles = np.zeros(1, USER_PROFILE), np.zeros(1, TERMINAL_PROFILE)
    before = known(label_rows([(0, False), *((number, True) for number in frauds)]), profiles)
    rows_before = tuple(p.tobytes() for p in profiles)
    assert known(label_rows([(mistaken, True)]), profiles) != before
    np.testing.assert_equal(known(label_rows([(mistaken, False)]), profiles), before)
    assert tuple(p.tobytes() for p in profiles) == rows_before


def test_the_last_label_of_a_transaction_holds() -> None:
    for verdict in (True, False):
        labels = label_rows([(5, True), (5, False), (5, not verdict), (5, verdict)])
        assert known(labels)["user_frauds"] == verdict


def test_a_legitimate_verdict_on_what_was_never_suspected_changes_nothing() -> None:
    profiles = np.zeros(1, USER_PROFILE), np.zeros(1, TERMINAL_PROFILE)
    known(label_rows([(3, True)]), profiles)
    rows_before = tuple(p.tobytes() for p in profiles)
    known(label_rows([(4, False)]), profiles)
    assert tuple(p.tobytes() for p in profiles) == rows_before


@pytest.mark.parametrize(
    ("dtype", "fold", "layout", "capacity"),
    [
        (USER_PROFILE, label_user, USER_LAYOUT, USER_FRAUDS),
        (TERMINAL_PROFILE, label_terminal, TERMINAL_LAYOUT, TERMINAL_FRAUDS),
    ],
)
def test_the_latest_frauds_are_kept_where_there_are_more_than_the_profile_holds(
    dtype: np.dtype[np.void], fold: Any, layout: int, capacity: int
) -> None:
    numbers = np.random.default_rng(4).permutation(3 * capacity).tolist()
    labels = label_rows([(number, True) for number in numbers])
    profiles = np.zeros(1, dtype)
    fold(profiles, np.zeros(len(labels), np.int64), labels)
    assert (
        sorted(profiles["fraud_second"][0].tolist()) == sorted((labels["time"] // 1000).tolist())[-capacity:]
    )
    assert profiles["version"][0] == layout


def test_labels_of_someone_never_seen_are_there_at_the_first_transaction() -> None:
    seen = known(label_rows([(0, True)]))
    assert (seen["user_frauds"], seen["days_since_user_fraud"]) == (1, 10)
    assert seen["terminal_risk_7d"] == 0, "ten days ago is not in the last seven"
    assert seen["terminal_risk_30d"] == 1


def test_a_label_is_seen_from_the_next_transaction_on() -> None:
    transactions = [Transaction(f"id{k}", "u", START_MS + k * DAY_MS, 1.0) for k in range(4)]
    verdicts_in_turn = [(1, 0, True), (2, 1, True), (3, 1, False)]
    labels = [KnownLabel(before, label(transactions[k], fraud)) for before, k, fraud in verdicts_in_turn]
    features = replayed(History(transactions, labels)).features
    assert features[:, FEATURE_NAMES.index("user_frauds")].tolist() == [0, 1, 2, 1]
    np.testing.assert_array_equal(
        features[:, FEATURE_NAMES.index("days_since_user_fraud")], [np.nan, 1, 1, 3]
    )
