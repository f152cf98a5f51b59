"""Distinct users and delayed fraud risk of a terminal."""

import time

import numpy as np
import pytest

from events.transaction import Transaction
from events.types import EARLIEST_MS, LATEST_MS
from state.contract import FEATURE_NAMES, MAX_RISK_DELAY_MS, N_TERMINAL, N_USER
from state.layout import TERMINAL_PROFILE
from state.terminal_kernel import SATURATED, terminal_kernel
from tests.state.histories import DAY_MS, HOUR_MS, START_MS, History, arrays, label, replayed
from tests.state.reference import KnownLabel

USERS_30D = FEATURE_NAMES.index("terminal_users_30d")
RISK_24H = FEATURE_NAMES.index("terminal_risk_24h")
RISK_7D = FEATURE_NAMES.index("terminal_risk_7d")


def visits(users: int, each: int = 1, prefix: str = "user") -> list[Transaction]:
    """Every user in turn, again and again, one a second at one terminal."""
    return [
        Transaction(f"id{k}", f"{prefix}{k % users}", START_MS + k * 1000, 1.0, terminal_id="t")
        for k in range(users * each)
    ]


def users_30d(transactions: list[Transaction]) -> list[float]:
    column: list[float] = replayed(History(transactions, [])).features[:, USERS_30D].tolist()
    return column


def test_distinct_users_are_right_to_a_few_per_cent_up_to_400() -> None:
    true = np.arange(1, 401)
    error = np.array([users_30d(visits(400, prefix=f"{seed}-")) for seed in range(12)]) / true - 1
    root_mean_square = np.sqrt((error**2).mean(axis=0))
    assert root_mean_square[99::100].max() < 0.06
    assert np.abs(error).max() < 0.2
    assert np.abs(error.mean()) < 0.01, "no bias"


def test_repeated_visits_count_once_and_old_ones_no_more() -> None:
    assert users_30d(visits(3, each=20))[-1] == pytest.approx(3, rel=0.02)
    after = Transaction("after", "other", START_MS + 60 * DAY_MS, 1.0, terminal_id="t")
    assert users_30d([*visits(50), after])[-1] == pytest.approx(1, rel=0.01)


def test_a_visitor_who_was_seen_later_already_counts_in_the_own_window() -> None:
    later = Transaction("later", "u", START_MS + HOUR_MS, 1.0, terminal_id="t")
    earlier = Transaction("earlier", "u", START_MS, 1.0, terminal_id="t")
    assert users_30d([later, earlier])[1] == pytest.approx(1, rel=0.01)


def test_more_users_than_the_cells_can_tell_apart_are_the_most_they_can() -> None:
    assert users_30d(visits(3000))[-1] == pytest.approx(256 * np.log(256))


def test_without_a_terminal_all_features_are_missing_and_no_profile_is_touched() -> None:
    profiles = np.zeros(1, TERMINAL_PROFILE)
    out = np.full((1, N_TERMINAL), 7, np.float32)
    terminal_kernel(profiles, np.array([-1]), arrays(visits(1)), np.zeros(1, np.float32), 0, out)
    assert np.isnan(out).all()
    assert profiles.tobytes() == bytes(TERMINAL_PROFILE.itemsize)


@pytest.mark.parametrize("delay_days", [0, 1, 7, 30])
def test_risk_looks_at_the_window_that_ended_one_delay_ago(delay_days: int) -> None:
    """One transaction a day, the 41st a fraud that is known before the next comes."""
    transactions = [
        Transaction(f"id{k}", "u", START_MS + k * DAY_MS + HOUR_MS, 1.0, terminal_id="t") for k in range(90)
    ]
    known = [KnownLabel(41, label(transactions[40], True))]
    week = replayed(History(transactions, known), delay_days * DAY_MS).features[:, RISK_7D]
    at_risk = np.flatnonzero(week > 0)
    assert at_risk.tolist() == list(range(max(40 + delay_days, 41), 40 + delay_days + 7))
    np.testing.assert_allclose(week[at_risk], 1 / 7, rtol=1e-6)
    assert np.flatnonzero(np.isnan(week)).tolist() == list(range(delay_days))


def test_risk_is_a_share_even_where_more_frauds_are_known_than_transactions() -> None:
    transactions = visits(2)
    elsewhere = [label(Transaction(f"lost{k}", "u", START_MS, 1.0, terminal_id="t"), True) for k in range(5)]
    known = [KnownLabel(1, lost) for lost in elsewhere]
    # The labels' user must be one of the history.
    transactions[0] = Transaction("id0", "u", START_MS, 1.0, terminal_id="t")
    assert replayed(History(transactions, known), 0).features[1, RISK_24H] == 1.0


def test_the_daily_risk_saturates_instead_of_wrapping() -> None:
    n = SATURATED + 10
    transactions = np.repeat(arrays(visits(1)), n)
    profiles = np.zeros(1, TERMINAL_PROFILE)
    out = np.empty((n, N_TERMINAL), np.float32)
    terminal_kernel(profiles, np.zeros(n, np.int64), transactions, np.zeros(n, np.float32), 0, out)
    assert profiles["risk_1d"].max() == SATURATED
    assert profiles["risk_7d"].max() == n


def test_jumps_over_the_whole_range_of_times_are_as_fast_as_any() -> None:
    count = 4000
    transactions = np.repeat(arrays(visits(1)), count)
    transactions["time"][::2] = EARLIEST_MS
    transactions["time"][1::2] = LATEST_MS
    rows = np.arange(count) // 2
    profiles = np.zeros(count // 2, TERMINAL_PROFILE)
    out = np.empty((count, N_TERMINAL), np.float32)
    frauds = np.zeros(count, np.float32)
    terminal_kernel(profiles[:0], rows[:0], transactions[:0], frauds[:0], 0, out[:0])  # compiled or loaded
    begun = time.perf_counter()
    terminal_kernel(profiles, rows, transactions, frauds, MAX_RISK_DELAY_MS, out)
    assert time.perf_counter() - begun < 1.0
    assert (out[:, :5] == 1).all()
    assert np.isnan(out[1::2, RISK_24H - N_USER]).all()


def test_risk_of_a_late_transaction_reaches_as_far_back_as_the_profile_does() -> None:
    bucket_ms = 30 * DAY_MS // 20
    start_ms = START_MS // bucket_ms * bucket_ms
    transactions = [
        Transaction(f"id{k}", "u", start_ms + k * bucket_ms, 1.0, terminal_id="t") for k in (0, 40, 39)
    ]
    known = [KnownLabel(1, label(transactions[0], True))]
    features = replayed(History(transactions, known), MAX_RISK_DELAY_MS).features
    risk = features[:, FEATURE_NAMES.index("terminal_risk_30d")]
    np.testing.assert_array_equal(risk, [np.nan, np.nan, 1.0])
