"""What is put into a transaction on its way to Kafka."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import identifiers, transactions

from events.codec import Decoder
from events.transaction import Transaction
from serving.gateway.ingest import correlated

DECODER = Decoder(Transaction)
BODY: dict[str, Any] = {"transaction_id": "t", "user_id": "u", "event_time": 1_790_000_000_000, "amount": 1}


@given(
    transactions,
    identifiers,
    st.sampled_from(["", " ", "\r\n\t"]),
    st.dictionaries(st.sampled_from(["more", "{", "a\u00e9", "correlation"]), st.just({"correlation_id": 1})),
    st.booleans(),
)
def test_it_is_read_back_and_all_else_is_as_it_was(
    record: Transaction, correlation_id: str, blank: str, unknown: dict[str, Any], ascii_only: bool
) -> None:
    members = json.loads(msgspec.json.encode(record)) | unknown
    members = {name: value for name, value in members.items() if value is not None}
    value = (blank + json.dumps(members, ensure_ascii=ascii_only) + blank).encode()
    (before,) = DECODER.decode([value])
    assert isinstance(before, Transaction)
    after = correlated(value, correlation_id) if before.correlation_id is None else value

    kept = before.correlation_id or correlation_id
    assert DECODER.decode_strictly(after) == msgspec.structs.replace(before, correlation_id=kept)
    if before.correlation_id is None:
        assert after.replace(b'"correlation_id":"%b",' % correlation_id.encode(), b"", 1) == value


@pytest.mark.parametrize("name", ["correlation_id", "correlation\\u005fid"])
def test_a_member_that_is_null_is_not_put_in_twice(name: str) -> None:
    value = json.dumps(BODY).encode()[:-1] + f', "{name}": null}}'.encode()
    assert correlated(value, "c-1") == value
    assert isinstance(DECODER.decode_strictly(value), Transaction)
