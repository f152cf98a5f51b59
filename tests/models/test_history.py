from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from events.transaction import Transaction
from models.history import HistoryError, history, transactions
from state.columns import field_values, transaction_array
from state.contract import DAY_MS
from state.layout import TRANSACTION, TRANSACTION_TYPES

NOW = 1_790_000_000_000
START = 1_780_000_000_000
NAMES = st.sampled_from(["a", "b-1", "c", "d"])
PLACES = st.floats(-90, 90)


def optional(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


ROWS = st.lists(
    st.builds(
        Transaction,
        transaction_id=st.uuids().map(str),
        user_id=NAMES,
        event_time=st.integers(START, NOW),
        amount=st.floats(0, 1e10),
        terminal_id=optional(NAMES),
        transaction_type=optional(st.sampled_from(TRANSACTION_TYPES)),
        country=optional(st.sampled_from(["FR", "DE", "GB"])),
        latitude=optional(PLACES),
        longitude=optional(PLACES),
        device_id=optional(NAMES),
        card_present=optional(st.booleans()),
        receiver_id=optional(NAMES),
        balance_before=optional(st.floats(-1e10, 1e10)),
        balance_after=optional(st.floats(-1e10, 1e10)),
    ),
    min_size=1,
    max_size=12,
)


def frame(n: int = 4, **columns: Any) -> pd.DataFrame:
    """n transactions of one user, a second apart, the last one a fraud."""
    plain = {
        "transaction_id": [f"t{i}" for i in range(n)],
        "user_id": ["u"] * n,
        "event_time": START + 1000 * np.arange(n),
        "amount": np.arange(n, dtype=float),
        "is_fraud": [0] * (n - 1) + [1],
    }
    return pd.DataFrame({**plain, **columns})


@settings(max_examples=100)
@given(ROWS)
def test_columns_give_the_array_that_records_give(records: list[Transaction]) -> None:
    rows = [field_values(record) for record in records]
    columns = pd.DataFrame(rows, columns=list(Transaction.__struct_fields__))
    assert transactions(columns).tobytes() == _zeroed(transaction_array(rows)).tobytes()


def _zeroed(array: NDArray[np.void]) -> NDArray[np.void]:
    """The same array with the padding between its fields zeroed, so that bytes can be compared."""
    same = np.zeros(len(array), array.dtype)
    for name in TRANSACTION.names or ():
        same[name] = array[name]
    return same


def test_history_is_in_order_of_time() -> None:
    mixed = frame(terminal_id=["x", None, "y", "x"], fraud_scenario=[None, None, None, "spike"]).iloc[::-1]
    past = history(mixed, 7, NOW)
    assert past.time.tolist() == [START, START + 1000, START + 2000, START + 3000]
    assert past.terminal[0] == past.terminal[3] != past.terminal[2]
    assert past.terminal[1] == -1
    assert past.is_fraud.tolist() == [False, False, False, True]
    assert past.scenario.tolist() == ["", "", "", "spike"]


def test_labels_are_folded_once_known() -> None:
    past = history(frame(is_fraud=[1, 1, 0, 0], labelled_at=[START + 2500, np.nan, START, START]), 7, NOW)
    known = past.known_labels()
    assert known.before.tolist() == [
        3
    ]  # the second fraud never becomes known, legitimate labels are left out
    assert known.labels["id"].tolist() == [past.transactions["id"][0]]


def test_label_known_with_a_transaction_comes_after_it() -> None:
    past = history(frame(is_fraud=[1, 0, 0, 0], labelled_at=START + 1000), 7, NOW)
    assert past.known_labels().before.tolist() == [2]


def test_without_times_labels_are_known_after_the_delay() -> None:
    past = history(frame(), 2, NOW)
    assert (past.labelled_at - past.time).tolist() == [2 * DAY_MS] * 4
    assert len(past.known_labels().labels) == 0


@pytest.mark.parametrize("column", ["transaction_id", "user_id", "event_time", "amount", "is_fraud"])
def test_required_columns(column: str) -> None:
    with pytest.raises(HistoryError, match=f"column {column} is missing"):
        history(frame().drop(columns=column), 7, NOW)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"event_time": [START, START, START, NOW + 1]}, "event_time: 1 lie in the future"),
        ({"event_time": [0, 1, START, START]}, "event_time: 2 lie before the year 2000"),
        ({"event_time": ["2026-01-01"] * 4}, "event_time: must be whole milliseconds"),
        ({"amount": [1.0, None, 2.0, 3.0]}, "amount: 1 values are missing"),
        ({"amount": [1.0, -1.0, 2.0, 3.0]}, "amount: 1 are not within"),
        ({"amount": [1.0, float("inf"), 2.0, 3.0]}, "amount: 1 are not within"),
        ({"amount": ["1"] * 4}, "amount: must be a number"),
        ({"is_fraud": [0, 1, 2, 0]}, "is_fraud: must be 0 or 1"),
        ({"user_id": ["u", None, None, "u"]}, "user_id: 2 values are missing"),
    ],
)
def test_bad_values(columns: dict[str, Any], reason: str) -> None:
    with pytest.raises(HistoryError, match=reason):
        history(frame(**columns), 7, NOW)


def test_empty() -> None:
    with pytest.raises(HistoryError, match="there are no transactions"):
        history(frame().iloc[:0], 7, NOW)
