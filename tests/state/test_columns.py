"""From records to the arrays of the kernels."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from events.feedback import Label
from events.transaction import Transaction
from state.columns import TYPE_CODES, field_values, label_array, transaction_array
from state.layout import CASH_OUT, LABEL, TRANSACTION, TRANSACTION_TYPES, TRANSFER
from tests.state.histories import AMOUNTS, FIELDS, START_MS

transactions = st.builds(
    Transaction,
    transaction_id=st.sampled_from(["a", "b"]),
    user_id=st.sampled_from(["u", "v"]),
    event_time=st.integers(START_MS, START_MS + 10**9),
    amount=AMOUNTS,
    **FIELDS,
)


@settings(max_examples=40, derandomize=True)
@given(st.lists(transactions, max_size=5))
def test_every_field_arrives_and_a_missing_one_is_marked(records: list[Transaction]) -> None:
    array = transaction_array([field_values(t) for t in records])
    assert array.dtype == TRANSACTION
    assert array.shape == (len(records),)
    for row, t in zip(array, records, strict=True):
        assert (row["time"], row["amount"]) == (t.event_time, t.amount)
        assert row["id"] == xxh3_64_intdigest(t.transaction_id.encode())
        for name, value in (
            ("user", t.user_id),
            ("terminal", t.terminal_id),
            ("device", t.device_id),
            ("receiver", t.receiver_id),
        ):
            assert row[name] == (xxh3_64_intdigest(value.encode()) % 2**32 if value is not None else 0)
        for name in ("latitude", "longitude", "balance_before", "balance_after", "card_present"):
            value = getattr(t, name)
            np.testing.assert_equal(float(row[name]), float(value) if value is not None else np.nan)
        assert int(row["country"]).to_bytes(2, "big") == (t.country.encode() if t.country else b"\0\0")
        types = (None, *TRANSACTION_TYPES)
        assert types[row["type"]] == t.transaction_type


def test_the_types_are_those_of_the_wire_contract() -> None:
    written = Transaction.__annotations__["transaction_type"].__args__[0].__args__
    assert written == TRANSACTION_TYPES
    assert (TYPE_CODES["transfer"], TYPE_CODES["cash_out"], TYPE_CODES[None]) == (TRANSFER, CASH_OUT, 0)


@pytest.mark.parametrize("zone_hours", [-5, 0, 9])
def test_both_forms_of_a_time_are_the_same_millisecond(zone_hours: int) -> None:
    moment = datetime.fromtimestamp(START_MS / 1000, UTC) + timedelta(microseconds=1999)
    local = moment + timedelta(hours=zone_hours)
    written = datetime.fromisoformat(f"{local:%Y-%m-%dT%H:%M:%S.%f}{zone_hours:+03d}:00")
    array = transaction_array(
        [field_values(Transaction("a", "u", time, 1.0)) for time in (START_MS + 1, written)]
    )
    assert array["time"].tolist() == [START_MS + 1] * 2
    assert array[0]["id"] == array[1]["id"]


def test_labels_carry_the_id_of_their_transaction() -> None:
    label = Label(
        transaction_id="a",
        user_id="u",
        event_time=START_MS,
        is_fraud=True,
        source="analyst",
        labelled_at=START_MS,
    )
    array = label_array([label])
    assert array.dtype == LABEL
    assert array[0]["id"] == transaction_array([field_values(Transaction("a", "u", START_MS, 1.0))])[0]["id"]
    assert (array[0]["time"], array[0]["is_fraud"]) == (START_MS, True)
    assert len(label_array([])) == 0
