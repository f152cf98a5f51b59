"""Distinct users and delayed risk of a terminal."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from events.transaction import Transaction
from events.types import EARLIEST_MS, LATEST_MS
from state.contract import FEATURE_NAMES, N_TERMINAL, N_USER
from state.layout import LABEL, TERMINAL_LAYOUT, TERMINAL_PROFILE
from state.terminal_kernel import SATURATED, label_terminal, terminal_kernel
from tests.state.histories import DAY_MS, HOUR_MS, START_MS, History, arrays, label, replayed
from tests.state.reference import KnownLabel

RISKS = [FEATURE_NAMES.index(f"terminal_risk_{w}") - N_USER for w in ("24h", "7d", "30d")]
USERS_30D = FEATURE_NAMES.index("terminal_users_30d")


def visits(users: int, each: int = 1, gap_ms: int = 1000) -> list[Transaction]:
    """Every user in turn, again and again, at one terminal."""
    return [
        Transaction(f"id{k}", f"user-{k % users}", START_MS + k * gap_ms, 1.0, terminal_id="t")
        for k in range(users * each)
    ]


def test_distinct_users_are_right_to_a_few_per_cent_up_to_400() -> None:
    estimates = np.array([
        replayed(History([t.__class__(**{**{f: getattr(t, f) for f in t.__struct_fields__}, "user_id": f"{seed}-{t.user_id}"}) for t in visits(400)], [])).features[:, USERS_30D]
        for seed in range(8)
    ])  # fmt: skip
    true = np.arange(1, 401)
    error = estimates / true - 1
    # Whang et al.: the standard error at load r = n / 256 is sqrt(256 (e^r - r - 1)) / n, 5.9 % at most here.
    load = true / 256
    standard = np.sqrt(256 * (np.exp(load) - load - 1)) / true
    assert standard.max() < 0.06
    assert np.abs(error).max() < 4 * standard.max()
    assert np.sqrt((error[:, 49::50] ** 2).mean()) < 0.06
    assert np.abs(error.mean(axis=0))[99::100].max() < 0.06


def test_repeated_visits_and_old_ones_do_not_count() -> None:
    assert replayed(History(visits(3, each=20), [])).features[-1, USERS_30D] == pytest.approx(3, rel=0.02)
    late = Transaction("after", "user-x", START_MS + 60 * DAY_MS, 1.0, terminal_id="t")
    assert replayed(History([*visits(50), late], [])).features[-1, USERS_30D] == pytest.approx(1, rel=0.02)


def test_a_late_visitor_counts_in_the_own_window() -> None:
    later = Transaction("later", "u", START_MS + HOUR_MS, 1.0, terminal_id="t")
    earlier = Transaction("earlier", "u", START_MS, 1.0, terminal_id="t")
    assert replayed(History([later, earlier], [])).features[1, USERS_30D] == pytest.approx(1, rel=0.01)


def test_more_users_than_cells_saturate_without_error() -> None:
    found = replayed(History(visits(4000), [])).features[-1, USERS_30D]
    assert found == pytest.approx(256 * np.log(256))


def test_without_a_terminal_all_features_are_missing_and_nothing_is_written() -> None:
    profiles = np.zeros(1, TERMINAL_PROFILE)
    out = np.full((1, N_TERMINAL), 7, np.float32)
    terminal_kernel(profiles, np.array([-1]), arrays(visits(1)), 0, out)
    assert np.isnan(out).all()
    assert profiles.tobytes() == bytes(TERMINAL_PROFILE.itemsize)


@pytest.mark.parametrize("delay_days", [0, 1, 7, 30])
def test_risk_looks_at_the_window_that_ended_one_delay_ago(delay_days: int) -> None:
    """One transaction a day, that of day 40 a fraud, known at once: it shows when its window comes by."""
    transactions = [
        Transaction(f"id{k}", "u", START_MS + k * DAY_MS + HOUR_MS, 1.0, terminal_id="t") for k in range(110)
    ]
    known = [KnownLabel(41, label(transactions[40], True))]
    features = replayed(History(transactions, known), delay_days * DAY_MS).features
    week = features[:, FEATURE_NAMES.index("terminal_risk_7d")]
    at_risk = np.flatnonzero(week > 0)
    assert at_risk[0] == max(40 + delay_days, 41)
    assert at_risk[-1] == 40 + delay_days + 6
    np.testing.assert_allclose(week[at_risk], 1 / 7, rtol=1e-6)
    assert np.isnan(week[:delay_days]).all()
    assert not np.isnan(week[delay_days:]).any()


def profile_with(transactions: list[Transaction]) -> np.ndarray:  # type: ignore[type-arg]
    profiles = np.zeros(1, TERMINAL_PROFILE)
    n = len(transactions)
    terminal_kernel(profiles, np.zeros(n, np.int64), arrays(transactions), 0, np.empty((n, N_TERMINAL), np.float32))
    return profiles


def risks(profiles: np.ndarray, at: Transaction) -> list[float]:  # type: ignore[type-arg]
    """The three risks that a transaction would see; the profiles stay as they are."""
    out = np.empty((1, N_TERMINAL), np.float32)
    terminal_kernel(profiles.copy(), np.zeros(1, np.int64), arrays([at]), 0, out)
    found: list[float] = out[0, RISKS].tolist()
    return found


labels_of_terminal = st.lists(
    st.tuples(st.integers(0, 39), st.booleans()), max_size=25, unique_by=lambda label: label[0]
)


def label_rows(drawn: list[tuple[int, bool]], transactions: list[Transaction]) -> np.ndarray:  # type: ignore[type-arg]
    labels = np.zeros(len(drawn), LABEL)
    ids = arrays(transactions)["id"]
    for row, (k, fraud) in zip(labels, drawn, strict=True):
        row["time"], row["id"], row["is_fraud"] = transactions[k].event_time, ids[k], fraud
    return labels


@settings(max_examples=40, deadline=None, derandomize=True)
@given(labels_of_terminal, st.randoms(use_true_random=False))
def test_the_order_and_repetition_of_labels_do_not_matter(drawn: list[tuple[int, bool]], random: object) -> None:
    transactions = visits(40, gap_ms=DAY_MS // 8)
    now = Transaction("now", "u", transactions[-1].event_time, 1.0, terminal_id="t")
    profiles = profile_with(transactions)
    shuffled = profiles.copy()
    labels = label_rows(drawn, transactions)
    label_terminal(profiles, np.zeros(len(labels), np.int64), labels)
    order = np.array(random.choices(range(len(drawn)), k=3 * len(drawn)) + list(range(len(drawn))), np.int64)  # type: ignore[attr-defined]
    label_terminal(shuffled, np.zeros(len(order), np.int64), labels[order])
    assert risks(profiles, now) == pytest.approx(risks(shuffled, now), nan_ok=True)
    frauds = sum(fraud for _, fraud in drawn)
    assert risks(profiles, now)[2] == pytest.approx(frauds / 41)
