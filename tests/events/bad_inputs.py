"""Values (and keys) that must not become a transaction, each with the reason and field that are due.

Shared by the tests of the decoder and those of the whole job.
"""

import json
from importlib.resources import files
from typing import Any, NamedTuple

from events import avro
from events.invalid import Reason
from events.transaction import Transaction

KEY = b"user-1"
ABSENT = object()
SCHEMA_ID: int = json.loads((files("events") / "schemas" / "ids.json").read_text())["transaction"]

_VALID = {
    "transaction_id": "tx-1",
    "user_id": "user-1",
    "event_time": 1_790_000_000_000,
    "amount": 12.5,
}


class BadInput(NamedTuple):
    """A Kafka record and why it is refused. Under the valid key only the value is at fault."""

    name: str
    value: bytes | None
    reason: Reason
    field: str | None = None
    key: bytes | None = KEY


def transaction(**changes: Any) -> bytes:
    """A valid transaction as JSON but for `changes`; ABSENT takes a field away."""
    members = {name: value for name, value in (_VALID | changes).items() if value is not ABSENT}
    return json.dumps(members).encode()


def with_literal(field: str, literal: str | bytes) -> bytes:
    """A valid transaction but for one field, whose value is the given JSON text, right or wrong."""
    text = literal.encode() if isinstance(literal, str) else literal
    return transaction(**{field: "@"}).replace(b'"@"', text)


def _nested(depth: int) -> str:
    return "[" * depth + "]" * depth


_RECORD = Transaction(transaction_id="tx-1", user_id="user-1", event_time=1_790_000_000_000, amount=12.5)
_CONFLUENT = avro.to_confluent(_RECORD, SCHEMA_ID)
_SINGLE_OBJECT = avro.to_single_object(_RECORD)
_AVRO_ID = b"\x08tx-1"
"""The first field in the body: its length, zigzag-encoded, and its text."""


def _avro(**changes: Any) -> bytes:
    """A transaction in Confluent's framing that Avro allows and the contract does not."""
    members = {name: getattr(_RECORD, name) for name in Transaction.__struct_fields__}
    return avro.to_confluent(Transaction(**(members | changes)), SCHEMA_ID)


BAD_INPUTS = (
    # Nothing there
    BadInput("null value", None, "empty"),
    BadInput("empty value", b"", "empty"),
    BadInput("white space only", b" \n\t\r ", "empty"),
    # Not JSON
    BadInput("truncated in a string", transaction()[:20], "malformed_json"),
    BadInput("truncated before the last brace", transaction()[:-1], "malformed_json"),
    BadInput("opening brace only", b"{", "malformed_json"),
    BadInput("trailing comma", transaction()[:-1] + b",}", "malformed_json"),
    BadInput("trailing garbage", transaction() + b"garbage", "malformed_json"),
    BadInput("trailing NUL", transaction() + b"\x00", "malformed_json"),
    BadInput("two objects", transaction() + transaction(), "malformed_json"),
    BadInput("two objects on two lines", transaction() + b"\n" + transaction(), "malformed_json"),
    BadInput("single quotes", transaction().replace(b'"', b"'"), "malformed_json"),
    BadInput("plain text", b"hello, world", "malformed_json"),
    BadInput("CSV line", b"tx-1,user-1,1790000000000,12.5", "malformed_json"),
    BadInput("XML", b"<transaction id='tx-1'/>", "malformed_json"),
    BadInput("unquoted key", b"{transaction_id: 1}", "malformed_json"),
    BadInput("comment", b"{/* */}", "malformed_json"),
    BadInput("leading zeros", with_literal("amount", "0012.5"), "malformed_json"),
    BadInput("hexadecimal amount", with_literal("amount", "0x10"), "malformed_json"),
    BadInput("raw line feed in a string", with_literal("user_id", '"user\n-1"'), "malformed_json"),
    BadInput("raw NUL in a string", with_literal("user_id", '"user\x00-1"'), "malformed_json"),
    BadInput("unknown escape", with_literal("user_id", r'"\x41"'), "malformed_json"),
    BadInput("byte order mark", b"\xef\xbb\xbf" + transaction(), "malformed_json"),
    BadInput("NaN in a list of an unknown field", with_literal("extra", "[NaN]"), "malformed_json"),
    # Not UTF-8
    BadInput("invalid UTF-8 in user_id", with_literal("user_id", b'"user-\xff"'), "invalid_utf8", "user_id"),
    BadInput(
        "invalid UTF-8 in an unknown field", with_literal("extra", b'"\xc0\xaf"'), "invalid_utf8", "extra"
    ),
    BadInput("encoded surrogate", with_literal("user_id", b'"\xed\xa0\x80"'), "invalid_utf8", "user_id"),
    BadInput("lone surrogate escape", with_literal("user_id", r'"user-\ud800"'), "invalid_utf8", "user_id"),
    BadInput(
        "lone surrogate in an unknown list", with_literal("extra", r'["\udc00"]'), "invalid_utf8", "extra"
    ),
    BadInput("UTF-16 with byte order mark", transaction().decode().encode("utf-16"), "invalid_utf8"),
    BadInput("UTF-16, little-endian", transaction().decode().encode("utf-16-le"), "malformed_json"),
    BadInput("UTF-16, big-endian", transaction().decode().encode("utf-16-be"), "unknown_schema"),
    BadInput("random bytes", b"\xff\xfe\xfd\x80\x81", "invalid_utf8"),
    # Not an object
    BadInput("array", b"[" + transaction() + b"]", "wrong_type"),
    BadInput("string", b'"tx-1"', "wrong_type"),
    BadInput("number", b"42", "wrong_type"),
    BadInput("null literal", b"null", "wrong_type"),
    BadInput("true", b"true", "wrong_type"),
    # Too deep
    BadInput("100,000 open brackets", b"[" * 100_000, "too_deep"),
    BadInput("100,000 nested objects", b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "too_deep"),
    BadInput("deep unknown field", with_literal("extra", _nested(32)), "too_deep"),
    BadInput("known field nested deeply", with_literal("amount", _nested(500)), "too_deep"),
    # Keys
    BadInput("empty object", b"{}", "missing_field", "transaction_id"),
    BadInput("no transaction_id", transaction(transaction_id=ABSENT), "missing_field", "transaction_id"),
    BadInput("no user_id", transaction(user_id=ABSENT), "missing_field", "user_id"),
    BadInput("no event_time", transaction(event_time=ABSENT), "missing_field", "event_time"),
    BadInput("no amount", transaction(amount=ABSENT), "missing_field", "amount"),
    BadInput("wrong letter case", transaction(amount=ABSENT, Amount=1.0), "missing_field", "amount"),
    BadInput("repeated amount", transaction()[:-1] + b',"amount":9999}', "duplicate_key", "amount"),
    BadInput("repeated user_id", b'{"user_id":"admin",' + transaction()[1:], "duplicate_key", "user_id"),
    BadInput(
        "repeated under an escape", transaction()[:-1] + rb',"\u0061mount":9999}', "duplicate_key", "amount"
    ),
    BadInput("repeated unknown key", transaction()[:-1] + b',"x":1,"x":2}', "duplicate_key", "x"),
    BadInput("repeated key further in", with_literal("extra", '{"x":1,"x":2}'), "duplicate_key", "x"),
    # Types
    BadInput("user_id null", transaction(user_id=None), "wrong_type", "user_id"),
    BadInput("user_id a number", transaction(user_id=1), "wrong_type", "user_id"),
    BadInput("user_id an array", transaction(user_id=["user-1"]), "wrong_type", "user_id"),
    BadInput("user_id a query operator", transaction(user_id={"$ne": None}), "wrong_type", "user_id"),
    BadInput("amount a string", transaction(amount="12.5"), "wrong_type", "amount"),
    BadInput("amount a boolean", transaction(amount=True), "wrong_type", "amount"),
    BadInput("amount null", transaction(amount=None), "wrong_type", "amount"),
    BadInput("event_time a boolean", transaction(event_time=True), "wrong_type", "event_time"),
    BadInput("event_time a fraction", transaction(event_time=1.79e12 + 0.5), "wrong_type", "event_time"),
    BadInput("event_time an object", transaction(event_time={"$date": 1}), "wrong_type", "event_time"),
    BadInput("card_present a number", transaction(card_present=1), "wrong_type", "card_present"),
    BadInput("card_present a string", transaction(card_present="true"), "wrong_type", "card_present"),
    BadInput("latitude a string", transaction(latitude="48.8"), "wrong_type", "latitude"),
    # Numbers
    BadInput("amount NaN", with_literal("amount", "NaN"), "not_finite", "amount"),
    BadInput("amount Infinity", with_literal("amount", "Infinity"), "not_finite", "amount"),
    BadInput("amount -Infinity", with_literal("amount", "-Infinity"), "not_finite", "amount"),
    BadInput("unknown field NaN", with_literal("extra", "NaN"), "not_finite", "extra"),
    BadInput("amount 1e999", with_literal("amount", "1e999"), "out_of_range", "amount"),
    BadInput("amount of 100,000 digits", with_literal("amount", "9" * 100_000), "out_of_range", "amount"),
    BadInput("negative amount", transaction(amount=-0.01), "out_of_range", "amount"),
    BadInput("huge amount", transaction(amount=10_000_000_000.5), "out_of_range", "amount"),
    BadInput("latitude beyond the pole", transaction(latitude=90.5), "out_of_range", "latitude"),
    BadInput("longitude beyond 180", transaction(longitude=-180.5), "out_of_range", "longitude"),
    BadInput("huge balance", transaction(balance_after=-1e11), "out_of_range", "balance_after"),
    # Times
    BadInput("1960 in ms", transaction(event_time=-315_619_200_000), "out_of_range", "event_time"),
    BadInput(
        "1960 as date-time", transaction(event_time="1960-01-01T00:00:00Z"), "out_of_range", "event_time"
    ),
    BadInput("2150 in ms", transaction(event_time=5_680_281_600_000), "out_of_range", "event_time"),
    BadInput(
        "2150 as date-time", transaction(event_time="2150-01-01T00:00:00Z"), "out_of_range", "event_time"
    ),
    BadInput(
        "year 1 east of UTC",
        transaction(event_time="0001-01-01T00:00:00+23:59"),
        "out_of_range",
        "event_time",
    ),
    BadInput("seconds, not ms", transaction(event_time=1_790_000_000), "out_of_range", "event_time"),
    BadInput("beyond 64 bits", transaction(event_time=10**30), "out_of_range", "event_time"),
    BadInput(
        "next century but in range", transaction(event_time=4_102_444_799_999), "future_event", "event_time"
    ),
    BadInput(
        "date-time ahead", transaction(event_time="2099-01-01T00:00:00+02:00"), "future_event", "event_time"
    ),
    BadInput("naive date-time", transaction(event_time="2026-11-20T10:00:00"), "bad_time", "event_time"),
    BadInput("date without time", transaction(event_time="2026-11-20"), "bad_time", "event_time"),
    BadInput("30 February", transaction(event_time="2026-02-30T10:00:00Z"), "bad_time", "event_time"),
    BadInput("time in words", transaction(event_time="yesterday"), "bad_time", "event_time"),
    BadInput("ms as a string", transaction(event_time="1790000000000"), "bad_time", "event_time"),
    # Texts
    BadInput("empty user_id", transaction(user_id=""), "out_of_range", "user_id"),
    BadInput("user_id of 129 characters", transaction(user_id="u" * 129), "out_of_range", "user_id"),
    BadInput("user_id of 1 MB", transaction(user_id="u" * 1_000_000), "out_of_range", "user_id"),
    BadInput(
        "1 MB of escapes", with_literal("user_id", '"' + "\\u0041" * 170_000 + '"'), "out_of_range", "user_id"
    ),
    BadInput("SQL in user_id", transaction(user_id="x'; DROP TABLE users;--"), "bad_identifier", "user_id"),
    BadInput("SQL in terminal_id", transaction(terminal_id="1 OR 1=1"), "bad_identifier", "terminal_id"),
    BadInput(
        "log line in user_id", transaction(user_id="u\n2026 INFO login ok"), "bad_identifier", "user_id"
    ),
    BadInput("carriage return", transaction(device_id="dev\r-1"), "bad_identifier", "device_id"),
    BadInput("escaped NUL", transaction(transaction_id="tx\x00-1"), "bad_identifier", "transaction_id"),
    BadInput("terminal colours", transaction(user_id="\x1b[31muser"), "bad_identifier", "user_id"),
    BadInput("text direction override", transaction(user_id="user\u202e1"), "bad_identifier", "user_id"),
    BadInput("zero-width space", transaction(user_id="user\u200b-1"), "bad_identifier", "user_id"),
    BadInput("Cyrillic look-alike", transaction(user_id="us\u0435r-1"), "bad_identifier", "user_id"),
    BadInput("markup", transaction(merchant_category="<script>"), "bad_identifier", "merchant_category"),
    BadInput("lookup string", transaction(channel="${jndi:ldap://x/a}"), "bad_identifier", "channel"),
    BadInput("shell command", transaction(receiver_id="$(reboot)"), "bad_identifier", "receiver_id"),
    BadInput("path", transaction(receiver_id="../../etc/passwd"), "bad_identifier", "receiver_id"),
    BadInput("line feed at the end", transaction(user_id="user-1\n"), "bad_identifier", "user_id"),
    BadInput(
        "unknown transaction_type", transaction(transaction_type="gift"), "unknown_value", "transaction_type"
    ),
    BadInput("country in lower case", transaction(country="fr"), "bad_country", "country"),
    BadInput("country of three letters", transaction(country="FRA"), "out_of_range", "country"),
    BadInput("currency with a digit", transaction(currency="EU1"), "bad_currency", "currency"),
    BadInput("currency symbol", transaction(currency="€"), "out_of_range", "currency"),
    BadInput("IP address out of range", transaction(ip="10.0.0.256"), "bad_ip", "ip"),
    BadInput("IP address with port", transaction(ip="10.0.0.1:80"), "bad_ip", "ip"),
    BadInput("IPv6 address with zone", transaction(ip="fe80::1%eth0"), "bad_ip", "ip"),
    BadInput("host name", transaction(ip="localhost"), "bad_ip", "ip"),
    # Avro
    BadInput("NUL alone", b"\x00", "bad_avro"),
    BadInput("truncated schema id", b"\x00\x00\x00", "bad_avro"),
    BadInput("unknown schema id", b"\x00\x00\x01\x86\xa0" + _CONFLUENT[5:], "unknown_schema"),
    BadInput("schema of another record", b"\x00\x00\x00\x00\x05" + _CONFLUENT[5:], "unknown_schema"),
    BadInput("truncated fingerprint", _SINGLE_OBJECT[:6], "bad_avro"),
    BadInput("unknown fingerprint", b"\xc3\x01" + b"\x07" * 8 + _SINGLE_OBJECT[10:], "unknown_schema"),
    BadInput("Avro header without body", _CONFLUENT[:5], "bad_avro"),
    BadInput("truncated Avro body", _CONFLUENT[:-3], "bad_avro"),
    BadInput("truncated single object", _SINGLE_OBJECT[:-1], "bad_avro"),
    BadInput("bytes after the Avro body", _CONFLUENT + b"\x00", "bad_avro"),
    BadInput("Avro string of 4 EB", _CONFLUENT[:5] + b"\xfe" + b"\xff" * 8 + b"\x01x", "bad_avro"),
    BadInput("Avro string of negative length", _CONFLUENT[:5] + b"\x01x", "bad_avro"),
    BadInput("endless Avro number", _CONFLUENT[:5] + b"\x80" * 100_000, "bad_avro"),
    BadInput("unknown Avro union branch", _CONFLUENT[:-1] + b"\x0e", "bad_avro"),
    BadInput("Avro string not UTF-8", _CONFLUENT.replace(_AVRO_ID, b"\x08\xff\xff\xff\xff"), "bad_avro"),
    BadInput("JSON behind an Avro header", _CONFLUENT[:5] + transaction(), "bad_avro"),
    BadInput("Avro amount NaN", _avro(amount=float("nan")), "out_of_range", "amount"),
    BadInput("Avro amount infinite", _avro(amount=float("inf")), "out_of_range", "amount"),
    BadInput("Avro time of 1960", _avro(event_time=-315_619_200_000), "out_of_range", "event_time"),
    BadInput("Avro time beyond all dates", _avro(event_time=2**62), "out_of_range", "event_time"),
    BadInput("Avro time ahead", _avro(event_time=4_102_444_799_999), "future_event", "event_time"),
    BadInput("SQL in an Avro user_id", _avro(user_id="x'; DROP TABLE users;--"), "bad_identifier", "user_id"),
    BadInput("Avro country", _avro(country="f1"), "bad_country", "country"),
    BadInput("Avro string of 1 MB", _avro(channel="c" * 1_000_000), "out_of_range", "channel"),
    # Kafka key
    BadInput("null key", transaction(), "missing_key", "key", None),
    BadInput("key of another user", transaction(), "key_mismatch", "key", b"user-2"),
    BadInput("key with a blank", transaction(), "key_mismatch", "key", b"user-1 "),
)
