"""The feature contract: its names, its positions, and which features need which field."""

import msgspec
import numpy as np
import pytest

from events.transaction import Transaction
from state import terminal_kernel as terminal_stage
from state import user_kernel as user_stage
from state.contract import (
    FEATURE_NAMES,
    FEATURES,
    N_FEATURES,
    N_TERMINAL,
    N_USER,
    RISK_WINDOWS,
    SEQUENCE,
    TERMINAL_WINDOWS,
    USER_WINDOWS,
    WINDOW_NAMES,
    T,
    U,
)
from state.layout import TERMINAL_PROFILE, USER_PROFILE
from state.terminal_kernel import terminal_kernel
from state.user_kernel import Status, user_kernel
from tests.state.histories import DAY_MS, START_MS, History, arrays, replayed

SENTINEL = np.float32(-12345.678)
NAMED_OTHERWISE = {
    U.COUNT: "user_count_1m", U.SUM: "user_sum_1m", U.AMOUNT_MEAN: "user_amount_mean",
    U.AMOUNT_DEVIATION: "user_amount_deviation", U.AMOUNT_RATIO: "user_amount_ratio",
    U.AMOUNT_Z: "user_amount_z", U.RECENT_MEAN: "recent_amount_mean",
    U.RECENT_DEVIATION: "recent_amount_deviation", U.RECENT_RATIO: "recent_amount_ratio",
    U.RECENT_Z: "recent_amount_z", U.DISTANCE: "distance_km",
    U.SPEED: "speed_kmh", U.MEDIAN: "user_amount_median",
    U.LARGEST_3: "largest_ratio_3", U.LARGEST_7: "largest_ratio_7",
    U.SEQUENCE_AMOUNT: "previous_amount_1", U.SEQUENCE_AGE: "previous_age_1",
    U.SEQUENCE_TERMINAL: "previous_terminal_1",
}  # fmt: skip
OF_TERMINAL = {
    T.COUNT: "terminal_count_5m", T.SUM: "terminal_sum_5m", T.USERS: "terminal_users_5m",
    T.AMOUNT_MEAN: "terminal_amount_mean", T.AMOUNT_RATIO: "terminal_amount_ratio",
    T.AMOUNT_Z: "terminal_amount_z", T.RISK: "terminal_risk_24h",
    T.FRAUDS: "terminal_frauds", T.DAYS_SINCE_FRAUD: "days_since_terminal_fraud",
    T.DAYS_SINCE_FIRST_FRAUD: "days_since_first_terminal_fraud",
    T.LEGITIMATE_SINCE_FRAUD: "legitimate_since_terminal_fraud", T.FRAUD_RUN: "terminal_fraud_run",
    T.DAYS_SINCE_RUN: "days_since_terminal_fraud_run", T.DAYS_CLEAN: "days_clean_before_run",
    T.FRAUD_AMOUNT: "terminal_fraud_amount", T.FRAUD_RATIO: "terminal_fraud_ratio",
    T.FRAUD_RATIO_LEAST: "terminal_fraud_ratio_least", T.DEFRAUDED_SHARE: "terminal_defrauded_30d",
    T.DAYS_SINCE_LEGITIMATE: "days_since_terminal_legitimate",
}  # fmt: skip
COMPLETE = Transaction(
    "now", "u", START_MS + 40 * DAY_MS, 20.0, terminal_id="t", currency="SEK", merchant_category="food",
    transaction_type="transfer", channel="web", country="SE", latitude=59.0, longitude=18.0, device_id="d",
    ip="10.0.0.1", card_present=True, receiver_id="r", balance_before=100.0, balance_after=80.0,
)  # fmt: skip
PREVIOUS_TERMINAL = {f"previous_terminal_{k}" for k in range(1, SEQUENCE + 1)}
PREVIOUS = PREVIOUS_TERMINAL | {
    f"previous_{what}_{k}" for what in ("amount", "age") for k in range(1, SEQUENCE + 1)
}
OF_FRAUDS = set(FEATURE_NAMES[N_USER + T.DAYS_SINCE_FRAUD : N_USER + T.FRAUD_RATIO_LEAST + 1])
PLACE = {"distance_km", "speed_kmh", "impossible_travel"}
NEEDED_BY = {
    "terminal_id": {"new_terminal", "terminal_frequency", *PREVIOUS_TERMINAL, *FEATURE_NAMES[N_USER:]},
    "currency": set(),
    "merchant_category": set(),
    "transaction_type": {"transfer", "cash_out"},
    "channel": set(),
    "country": {"new_country", "country_change", "foreign"},
    "latitude": PLACE,
    "longitude": PLACE,
    "device_id": {"new_device", "device_count"},
    "ip": set(),
    "card_present": {"card_not_present"},
    "receiver_id": {"new_receiver", "receivers_24h"},
    "balance_before": {"balance_change", "balance_error", "balance_share"},
    "balance_after": {"balance_change", "balance_error"},
}


def test_every_feature_has_a_name_of_its_own_a_unit_and_a_definition() -> None:
    assert len(set(FEATURE_NAMES)) == len(FEATURE_NAMES) == N_FEATURES == N_USER + N_TERMINAL
    assert all(f.unit and f.definition for f in FEATURES)


def test_the_positions_are_those_of_the_names() -> None:
    for position in U:
        assert FEATURE_NAMES[position] == NAMED_OTHERWISE.get(position, position.name.lower())
    for place in T:
        assert FEATURE_NAMES[N_USER + place] == OF_TERMINAL[place]


def test_a_block_has_one_column_for_each_window() -> None:
    for start, prefix, windows in (
        (U.COUNT, "user_count", USER_WINDOWS),
        (U.SUM, "user_sum", USER_WINDOWS),
        (N_USER + T.COUNT, "terminal_count", TERMINAL_WINDOWS),
        (N_USER + T.SUM, "terminal_sum", TERMINAL_WINDOWS),
        (N_USER + T.USERS, "terminal_users", TERMINAL_WINDOWS),
        (N_USER + T.RISK, "terminal_risk", RISK_WINDOWS),
    ):
        names = FEATURE_NAMES[start : start + len(windows)]
        assert names == tuple(f"{prefix}_{WINDOW_NAMES[w]}" for w in windows)
    assert terminal_stage.N_TERMINAL == N_TERMINAL
    assert user_stage.N_USER == N_USER


def before(count: int) -> list[Transaction]:
    """Earlier transactions that leave no history empty and no deviation zero."""
    return [
        msgspec.structs.replace(
            COMPLETE,
            transaction_id=f"id{k}",
            amount=float(10 + k),
            event_time=START_MS + (40 - count + k) * DAY_MS,
        )
        for k in range(count)
    ]


def features_of(last: Transaction) -> dict[str, float]:
    row = replayed(History([*before(10), last], []), risk_delay_ms=DAY_MS).features[-1]
    return dict(zip(FEATURE_NAMES, row.tolist(), strict=True))


def test_the_optional_fields_are_those_of_the_wire_contract() -> None:
    optional = Transaction.__struct_fields__[-len(Transaction.__struct_defaults__) :]
    assert {*NEEDED_BY, "correlation_id"} == {*optional}  # which says nothing of the payment


@pytest.mark.parametrize("field", NEEDED_BY)
def test_a_missing_field_leaves_exactly_its_features_missing(field: str) -> None:
    complete = features_of(COMPLETE)
    # Nobody was defrauded; everything else is known of a complete transaction.
    undefrauded = {"days_since_user_fraud"} | OF_FRAUDS
    assert {name for name, value in complete.items() if np.isnan(value)} == undefrauded
    blank = features_of(msgspec.structs.replace(COMPLETE, **{field: None}))
    assert {name for name, value in blank.items() if np.isnan(value)} == NEEDED_BY[field] | undefrauded
    assert all(blank[name] == complete[name] for name in blank if not np.isnan(blank[name]))


def test_the_first_transaction_has_nothing_to_be_compared_with() -> None:
    row = replayed(History([COMPLETE], []), risk_delay_ms=0).features[0]
    missing = {name for name, value in zip(FEATURE_NAMES, row.tolist(), strict=True) if np.isnan(value)}
    ends = ("_mean", "_deviation", "_ratio", "_z")
    compared = {name for name in FEATURE_NAMES if name.endswith(ends)}
    assert missing == compared | PLACE | PREVIOUS | OF_FRAUDS | {
        "seconds_since_last", "rapid_succession", "terminal_frequency", "country_change", "foreign",
        "days_since_user_fraud", "user_amount_median", "largest_ratio_3", "largest_ratio_7",
        "days_since_terminal_legitimate",
    }  # fmt: skip


def test_the_kernels_write_every_feature() -> None:
    late = msgspec.structs.replace(COMPLETE, transaction_id="late", event_time=START_MS - DAY_MS)
    conflict = msgspec.structs.replace(COMPLETE, amount=21.0)
    bare = Transaction("bare", "u", START_MS + 41 * DAY_MS, 0.0)
    transactions = arrays([*before(3), COMPLETE, late, COMPLETE, conflict, bare])
    n = len(transactions)
    out, status = np.full((n, N_FEATURES + 1), SENTINEL), np.full(n, 99, np.uint8)
    user_kernel(np.zeros(1, USER_PROFILE), np.zeros(n, np.int64), transactions, out, status)
    expected = [0, 0, 0, Status.FOLDED, Status.LATE, Status.REPEAT, Status.CONFLICT, Status.FOLDED]
    assert status.tolist() == expected
    assert not (out[:, :N_USER] == SENTINEL).any()
    assert (out[:, N_USER:] == SENTINEL).all(), "and no other column"
    assert np.isnan(out[5:7, :N_USER]).all()

    block = np.full((n, N_TERMINAL), SENTINEL)
    rows = np.array([0] * (n - 1) + [-1])
    frauds = np.zeros(n, np.float32)
    terminal_kernel(np.zeros(1, TERMINAL_PROFILE), rows, transactions, frauds, 0, block)
    assert not (block == SENTINEL).any()
