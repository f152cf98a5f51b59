"""Every bad input is refused for the right reason; none is slow or disturbs its neighbours."""

import time
from collections import Counter

import pytest
from bad_inputs import BAD_INPUTS, BadInput, transaction

from events.codec import Decoder, Invalid
from events.invalid import MAX_DETAIL, MAX_FIELD
from events.transaction import Transaction

LATEST_MS = 1_795_000_000_000  # November 2026
OF_THE_VALUE = [bad for bad in BAD_INPUTS if bad.reason not in ("missing_key", "key_mismatch")]
OF_THE_KEY = [bad for bad in BAD_INPUTS if bad not in OF_THE_VALUE]

decoder = Decoder(Transaction)


def test_names_are_unique() -> None:
    assert [name for name, count in Counter(bad.name for bad in BAD_INPUTS).items() if count > 1] == []


@pytest.mark.parametrize("bad", OF_THE_VALUE, ids=lambda bad: bad.name)
def test_bad_value_is_refused_with_reason_and_field(bad: BadInput) -> None:
    [answer] = decoder.decode([bad.value], LATEST_MS)

    assert isinstance(answer, Invalid)
    assert (answer.reason, answer.field) == (bad.reason, bad.field)
    assert decoder.decode_strictly(bad.value, LATEST_MS) == answer


@pytest.mark.parametrize("bad", OF_THE_VALUE, ids=lambda bad: bad.name)
def test_detail_is_fit_for_a_log_line(bad: BadInput) -> None:
    [answer] = decoder.decode([bad.value], LATEST_MS)

    assert isinstance(answer, Invalid)
    assert answer.detail.isprintable()
    assert 0 < len(answer.detail) <= MAX_DETAIL
    assert len(answer.field or "") <= MAX_FIELD


@pytest.mark.parametrize("bad", OF_THE_KEY, ids=lambda bad: bad.name)
def test_where_the_key_is_bad_the_value_is_good(bad: BadInput) -> None:
    [answer] = decoder.decode([bad.value], LATEST_MS)

    assert isinstance(answer, Transaction)
    assert bad.key is None or bad.key.decode() != answer.user_id


def test_bad_values_leave_the_good_ones_of_the_batch_alone() -> None:
    good = transaction()
    batch = [value for bad in OF_THE_VALUE for value in (good, bad.value)]

    answers = decoder.decode(batch, LATEST_MS)

    assert answers[::2] == decoder.decode([good]) * len(OF_THE_VALUE)
    assert [a.reason for a in answers[1::2] if isinstance(a, Invalid)] == [bad.reason for bad in OF_THE_VALUE]


@pytest.mark.parametrize(
    "unit",
    [
        b"[",
        b"[]",
        b'{"a":',
        b'"',
        b'\\"',
        b'"a":1,',
        b"1",
        b"\x80",
        b"\xc3\x01",
        b"\\u0041",
        b" ",
        b",",
        b"x'",
        b"[],",
    ],
    ids=repr,
)
@pytest.mark.parametrize(
    "frame", [b"%s", b'{"a":%s', b'{"user_id":"%s', b'{"a":[%s', b"\x00\x00\x00\x00\x0f%s"], ids=repr
)
def test_time_grows_no_faster_than_length(unit: bytes, frame: bytes) -> None:
    value = frame % (unit * (100_000 // len(unit)))

    start = time.process_time()
    [answer] = decoder.decode([value])
    assert time.process_time() - start < 0.5  # linear work takes some 20 ms, quadratic minutes

    assert isinstance(answer, Invalid)


def test_quoted_input_is_escaped_and_cut() -> None:
    [injection, long_key] = decoder.decode(
        [transaction(user_id="u\n\x1b[2J\u202e"), b'{"%s":1,"%s":1}' % (b"k" * 5000, b"k" * 5000)]
    )

    assert isinstance(injection, Invalid)
    assert "\\n" in injection.detail
    assert isinstance(long_key, Invalid)
    assert long_key.field == "k" * 97 + "..."
