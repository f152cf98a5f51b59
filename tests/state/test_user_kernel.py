"""What the user's profile remembers, forgets and refuses to be disturbed by."""

import time
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from events.transaction import Transaction
from events.types import EARLIEST_MS, LATEST_MS
from state.contract import FEATURE_NAMES, N_USER
from state.layout import SEEN, USER_PROFILE
from state.user_kernel import Status, user_kernel
from tests.state.histories import (
    DAY_MS,
    HOUR_MS,
    MINUTE_MS,
    START_MS,
    History,
    arrays,
    histories,
    milliseconds,
    replayed,
    steady,
)
from tests.state.reference import majority

COUNTS = [FEATURE_NAMES.index(f"user_count_{w}") for w in ("1m", "5m", "30m", "1h", "24h", "7d", "30d")]
LENGTHS_MS = np.array([MINUTE_MS, 5 * MINUTE_MS, 30 * MINUTE_MS, HOUR_MS, DAY_MS, 7 * DAY_MS, 30 * DAY_MS])


def every(minutes: float, count: int, **fields: list[Any]) -> list[Transaction]:
    """Transactions of one user at a steady pace, with the fields given value by value."""
    return [
        Transaction(
            f"id{k}",
            "u",
            START_MS + round(k * minutes * MINUTE_MS),
            1.0,
            **{n: v[k] for n, v in fields.items()},
        )
        for k in range(count)
    ]


def feature(transactions: list[Transaction], name: str) -> list[float]:
    column: list[float] = replayed(History(transactions, [])).features[:, FEATURE_NAMES.index(name)].tolist()
    return column


def test_windows_are_off_by_at_most_one_bucket() -> None:
    rng = np.random.default_rng(5)
    gaps = rng.choice(
        [100, 2_000, 30_000, 10 * MINUTE_MS, 6 * HOUR_MS, 3 * DAY_MS],
        1500,
        p=[0.3, 0.3, 0.2, 0.1, 0.07, 0.03],
    )
    times = START_MS + np.cumsum(rng.integers(0, gaps))
    counts = replayed(History([Transaction(f"id{k}", "u", int(t), 1.0) for k, t in enumerate(times)], []))
    position = np.arange(len(times))
    for column, length in zip(COUNTS, LENGTHS_MS, strict=True):
        bucketed = counts.features[:, column]
        at_most = position - np.searchsorted(times, times - length, side="right") + 1
        at_least = position - np.searchsorted(times, times - 0.95 * length, side="right") + 1
        # Of several events in one millisecond each sees those that arrived before it.
        assert (bucketed <= at_most).all()
        assert (bucketed >= at_least).all()
        assert (at_least < at_most).any(), "the bounds must differ for the test to mean anything"


@settings(max_examples=25, derandomize=True)
@given(histories(labelled=False), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 15)), max_size=8))
def test_repeats_change_no_other_feature(history: History, again: list[tuple[int, int]]) -> None:
    transactions = list(history.transactions)
    is_original = [True] * len(transactions)
    for source, distance in again:
        k = source % len(transactions)
        at = min(k + 1 + distance, len(transactions))
        transactions.insert(at, transactions[k])
        is_original.insert(at, False)
    alone, mixed = replayed(history), replayed(History(transactions, []))
    kept = np.array(is_original)
    # A repeat of a conflicting transaction conflicts too.
    assert set(mixed.status[~kept].tolist()) <= {Status.REPEAT, Status.CONFLICT}
    assert mixed.features[kept].tobytes() == alone.features.tobytes()
    assert mixed.status[kept].tobytes() == alone.status.tobytes()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, Status.REPEAT),
        ({"device_id": "another"}, Status.REPEAT),
        ({"amount": 12.51}, Status.CONFLICT),
        ({"amount": 0.0}, Status.CONFLICT),
        ({"event_time": START_MS + 1}, Status.CONFLICT),
        ({"event_time": START_MS - 90 * DAY_MS}, Status.CONFLICT),
        ({"transaction_id": "other"}, Status.FOLDED),
    ],
)
def test_a_repeat_is_the_same_id_at_the_same_time_with_the_same_amount(
    change: dict[str, Any], expected: Status
) -> None:
    first = Transaction("id", "u", START_MS, 12.5, device_id="phone")
    then = Transaction("then", "u", START_MS + 5000, 1.0)
    result = replayed(History([first, then, msgspec.structs.replace(first, **change)], []))
    assert result.status.tolist() == [Status.FOLDED, Status.FOLDED, expected]


def test_the_id_of_another_user_is_no_repeat() -> None:
    pair = [Transaction("id", user, START_MS, 1.0) for user in ("u", "v")]
    assert replayed(History(pair, [])).status.tolist() == [Status.FOLDED, Status.FOLDED]


def test_a_late_transaction_is_recognised_when_it_comes_again() -> None:
    now, late = Transaction("now", "u", START_MS, 1.0), Transaction("late", "u", START_MS - 40 * DAY_MS, 1.0)
    result = replayed(History([now, late, late, msgspec.structs.replace(late, amount=2.0)], []))
    assert result.status.tolist() == [Status.FOLDED, Status.LATE, Status.REPEAT, Status.CONFLICT]


def test_as_many_ids_are_remembered_as_the_profile_says() -> None:
    transactions = every(1, SEEN + 1)
    status = replayed(History([*transactions, transactions[1], transactions[0]], [])).status.tolist()
    assert status == [Status.FOLDED] * (SEEN + 1) + [Status.REPEAT, Status.FOLDED]


@pytest.mark.parametrize(
    ("behind_ms", "expected"),
    [
        (0, Status.FOLDED),
        (30 * DAY_MS - 1, Status.FOLDED),
        (30 * DAY_MS, Status.LATE),
        (20 * 365 * DAY_MS, Status.LATE),
    ],
)
def test_only_what_is_older_than_the_longest_window_is_late(behind_ms: int, expected: Status) -> None:
    pair = [Transaction("first", "u", START_MS, 1.0), Transaction("second", "u", START_MS - behind_ms, 1.0)]
    assert replayed(History(pair, [])).status.tolist() == [Status.FOLDED, expected]


@settings(max_examples=25, derandomize=True)
@given(
    histories(labelled=False, late=False),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**10)), max_size=6),
)
def test_late_transactions_disturb_no_later_feature(history: History, late: list[tuple[int, int]]) -> None:
    """Without a risk delay; with one the risk windows reach back further, and late ones count."""
    transactions = list(history.transactions)
    is_late = [False] * len(transactions)
    for number, (place, beyond_ms) in enumerate(late):
        k = place % len(transactions)
        change = {"transaction_id": f"late{number}", "event_time": START_MS - 30 * DAY_MS - beyond_ms}
        transactions.insert(k + 1, msgspec.structs.replace(transactions[k], **change))
        is_late.insert(k + 1, True)
    alone, mixed = replayed(history, 0), replayed(History(transactions, []), 0)
    kept = ~np.array(is_late)
    assert (mixed.status[~kept] == Status.LATE).all()
    assert mixed.features[kept].tobytes() == alone.features.tobytes()


@settings(max_examples=25, derandomize=True)
@given(histories(labelled=False), st.randoms(use_true_random=False))
def test_window_counts_do_not_depend_on_the_order_of_arrival(history: History, random: Any) -> None:
    distinct = list({t.transaction_id: t for t in history.transactions}.values())
    newest = max(milliseconds(distinct))
    final = [Transaction(f"final-{user}", user, newest, 1.0, terminal_id="t1") for user in "ab"]
    shuffled = random.sample(distinct, len(distinct))
    one = replayed(History([*distinct, *final], [])).features[-2:]
    other = replayed(History([*shuffled, *final], [])).features[-2:]
    for k, name in enumerate(FEATURE_NAMES):
        if "_count_" in name or "_users_" in name or "_risk_" in name:
            np.testing.assert_array_equal(one[:, k], other[:, k], name)
        if "_sum_" in name:
            np.testing.assert_allclose(one[:, k], other[:, k], rtol=2e-6, err_msg=name)


def test_histories_do_not_depend_on_the_order_of_arrival_within_the_longest_window() -> None:
    rng = np.random.default_rng(8)
    transactions = [
        Transaction(
            f"id{k}", "u", START_MS + int(rng.integers(29 * DAY_MS)), float(rng.integers(1, 99)),
            device_id=f"d{rng.integers(5)}", terminal_id=f"t{rng.integers(20)}",
            receiver_id=f"r{rng.integers(9)}", country="SE" if rng.random() < 0.7 else "NO",
        )
        for k in range(60)
    ]  # fmt: skip
    final = Transaction(
        "final", "u", START_MS + 29 * DAY_MS, 5.0, "t3", country="NO", device_id="d9", receiver_id="r3"
    )
    names = (
        "user_amount_mean", "user_amount_deviation", "user_amount_z", "new_device", "device_count",
        "new_terminal", "terminal_frequency", "new_country", "foreign", "new_receiver", "receivers_24h",
        "seconds_since_last", "terminal_amount_mean",
    )  # fmt: skip
    columns = [FEATURE_NAMES.index(name) for name in names]
    one, other = (
        replayed(History([*(transactions[k] for k in order), final], [])).features[-1, columns]
        for order in (range(60), rng.permutation(60))
    )
    np.testing.assert_allclose(one, other, rtol=2e-6)


@pytest.mark.parametrize(
    ("field", "known", "new"), [("device_id", 8, "new_device"), ("country", 8, "new_country")]
)
def test_what_is_in_daily_use_is_not_displaced_by_what_came_once(field: str, known: int, new: str) -> None:
    others = [chr(65 + k) * 2 for k in range(3 * known)]
    values = [value for other in others for value in ("ZZ", other)]
    found = feature(every(60, len(values), **{field: values}), new)
    assert found[::2] == [1.0] + [0.0] * (len(others) - 1), "always among the last ones"
    assert found[1::2] == [1.0] * len(others)


@pytest.mark.parametrize(
    ("field", "known", "new"),
    [("device_id", 8, "new_device"), ("country", 8, "new_country"), ("receiver_id", 16, "new_receiver")],
)
def test_the_last_ones_are_known_and_those_before_are_forgotten(field: str, known: int, new: str) -> None:
    values = [chr(65 + k) * 2 for k in range(known + 1)]
    assert feature(every(60, known + 2, **{field: [*values, values[1]]}), new)[-1] == 0.0
    assert feature(every(60, known + 2, **{field: [*values, values[0]]}), new)[-1] == 1.0


def test_device_count_goes_on_where_the_known_devices_are_full() -> None:
    assert feature(every(60, 30, device_id=[f"d{k}" for k in range(30)]), "device_count") == list(
        range(1, 31)
    )


def test_the_24_terminals_visited_last_stay_known() -> None:
    values = [f"usual{k % 20}" for k in range(60)] + [f"once{k}" for k in range(10)] + ["usual15", "usual3"]
    transactions = every(60, len(values), terminal_id=values)
    assert feature(transactions, "new_terminal")[-2:] == [0.0, 1.0]
    frequency = feature(transactions, "terminal_frequency")
    assert frequency[-2:] == [pytest.approx(3 / 70), 0.0]


def test_new_terminals_used_in_turn_become_known_however_many_came_before() -> None:
    values = [f"usual{k % 30}" for k in range(90)] + ["new0", "new1"] * 3
    transactions = every(60, len(values), terminal_id=values)
    assert feature(transactions, "new_terminal")[-6:] == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]


@given(st.lists(st.sampled_from(["SE", "NO", "DE"]), min_size=1, max_size=30))
@settings(max_examples=30, derandomize=True)
def test_home_is_the_majority_country(countries: list[str]) -> None:
    transactions = every(60, len(countries) + 1, country=[*countries, "SE"])
    swedish = majority(countries) == "SE"
    if 2 * countries.count("SE") > len(countries):
        assert swedish
    assert feature(transactions, "foreign")[-1] == float(not swedish)


def test_receivers_are_counted_up_to_sixteen_and_for_a_day() -> None:
    values = [f"r{k}" for k in range(20)] + ["r19"]
    assert feature(every(1, 21, receiver_id=values), "receivers_24h") == [*range(1, 17), *[16] * 5]
    # One an hour: a day later the first of them is out of the window.
    assert feature(every(6 * 60, 21, receiver_id=values), "receivers_24h")[-2:] == [4.0, 3.0]


def test_prices_in_cents_agree_to_single_precision() -> None:
    amounts = [9.99, 9.99, 10.01, 1234.56, 0.01, 9.99]
    transactions = [Transaction(f"id{k}", "u", START_MS + k, amount) for k, amount in enumerate(amounts)]
    result = replayed(History(transactions, []))
    row = dict(zip(FEATURE_NAMES, result.features[-1].tolist(), strict=True))
    assert row["duplicate_amount"] == 2
    for prefix in ("user", "recent"):
        assert row[f"{prefix}_amount_mean"] == pytest.approx(np.mean(amounts[:5]), rel=1e-6)
        assert row[f"{prefix}_amount_deviation"] == pytest.approx(np.std(amounts[:5], ddof=1), rel=1e-6)
    assert row["user_sum_30d"] == pytest.approx(sum(amounts), rel=1e-6)


def test_equal_amounts_have_no_deviation_to_divide_by() -> None:
    transactions = [Transaction(f"id{k}", "u", START_MS + k, 9.99) for k in range(30)]
    for name in ("user_amount_z", "recent_amount_z"):
        assert np.isnan(feature(transactions, name)).all()
    assert feature(transactions, "recent_amount_deviation")[2:] == [0.0] * 28


def test_jumps_over_the_whole_range_of_times_are_as_fast_as_any() -> None:
    count = 4000
    transactions = arrays(steady(count, 1))
    transactions["id"] = np.arange(1, count + 1, dtype=np.uint64) << np.uint64(16)
    transactions["time"][::2] = EARLIEST_MS
    transactions["time"][1::2] = LATEST_MS
    rows = np.arange(count) // 2
    profiles = np.zeros(count // 2, USER_PROFILE)
    out, status = np.empty((count, N_USER), np.float32), np.empty(count, np.uint8)
    user_kernel(profiles[:1], rows[:1], transactions[:1], out[:1], status[:1])  # compiled or loaded
    profiles[:] = 0
    begun = time.perf_counter()
    user_kernel(profiles, rows, transactions, out, status)
    assert time.perf_counter() - begun < 1.0
    assert (status == Status.FOLDED).all()
    assert (out[:, COUNTS] == 1).all()
    np.testing.assert_array_equal(
        out[1::2, FEATURE_NAMES.index("seconds_since_last")], np.float32((LATEST_MS - EARLIEST_MS) / 1000)
    )


def test_after_a_jump_back_the_windows_are_those_of_before() -> None:
    """One event of the far future must not make what follows impossible: it is late, and scored as such."""
    now = every(1, 3)
    far = Transaction("far", "u", LATEST_MS, 1.0)
    after = Transaction("after", "u", START_MS + HOUR_MS, 1.0)
    result = replayed(History([*now, far, after], []))
    assert result.status.tolist() == [0, 0, 0, 0, Status.LATE]
    assert np.isnan(result.features[-1, COUNTS]).all()
    assert result.features[-1, FEATURE_NAMES.index("user_amount_mean")] == 1.0
