"""The kernels against the definitions, computed a second time in the plainest way."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state.contract import FEATURE_NAMES
from state.replay import Replay
from state.user_kernel import Status
from tests.state.histories import DAY_MS, History, histories, replayed, steady
from tests.state.reference import Expected, reference

APPROXIMATE = (
    "amount_log", "_sin", "_cos", "_sum_", "_mean", "_deviation", "_ratio", "_z", "seconds_since",
    "frequency", "_km", "balance_", "days_", "terminal_users", "risk", "median", "ratio_", "age_",
    "fraud_amount", "defrauded",
)  # fmt: skip
EXACT = np.array([not any(part in name for part in APPROXIMATE) for name in FEATURE_NAMES])


def assert_equal(expected: list[Expected], actual: Replay) -> None:
    """Statuses, counts and flags exactly, the rest in single precision; NaN where NaN is expected."""
    assert [Status(s).name for s in actual.status.tolist()] == [e.status for e in expected]
    for row, e in enumerate(expected):
        if not e.features:
            assert np.isnan(actual.features[row]).all()
            continue
        assert e.features.keys() == set(FEATURE_NAMES)
        wanted = np.array([e.features[name] for name in FEATURE_NAMES], np.float64)
        found = actual.features[row].astype(np.float64)
        close = np.isclose(found, wanted, rtol=2e-6, atol=1e-5, equal_nan=True)
        same = np.where(EXACT, np.isclose(found, wanted.astype(np.float32), 0, 0, equal_nan=True), close)
        wrong = {FEATURE_NAMES[k]: (found[k], wanted[k]) for k in np.flatnonzero(~same)}
        assert not wrong, f"transaction {row}: (found, expected) {wrong}"


@settings(max_examples=60, derandomize=True)
@given(histories(), st.sampled_from([0, 1, 7, 30]))
def test_the_kernels_compute_the_definitions(history: History, delay_days: int) -> None:
    expected = reference(history.transactions, history.labels, delay_days * DAY_MS)
    assert_equal(expected, replayed(history, delay_days * DAY_MS))


@pytest.mark.parametrize("seed", [1, 2])
def test_the_kernels_compute_the_definitions_of_a_long_history(seed: int) -> None:
    transactions = steady(500, seed, users=8, terminals=6)
    assert_equal(reference(transactions), replayed(History(transactions, [])))
