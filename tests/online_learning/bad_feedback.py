"""Feedback that must not become an example, each with the reason and field that are due.

Shared by the tests of the join and those of the whole job. It is told to a world that knows the decision on
`t-1` of `u-1`, and one on `t-shared` for each of two users.
"""

import json
from typing import Any, NamedTuple

from events import avro
from events.decision import decision_id
from events.feedback import Feedback
from events.invalid import Reason

EVENT_MS = 1_790_000_000_000
LABELLED_MS = EVENT_MS + 60_000
ABSENT = object()
SHARED, FOREIGN = "t-shared", decision_id("u-1", "t-2")

_VALID = {"transaction_id": "t-1", "label": "fraud", "source": "analyst", "labelled_at": LABELLED_MS}


class BadFeedback(NamedTuple):
    """A Kafka record and why it is refused."""

    name: str
    value: bytes | None
    reason: Reason
    field: str | None = None
    key: str | None = "t-1"


def feedback(**changes: Any) -> bytes:
    """Valid feedback as JSON but for `changes`; ABSENT takes a field away."""
    members = {name: value for name, value in (_VALID | changes).items() if value is not ABSENT}
    return json.dumps(members).encode()


def with_literal(field: str, literal: str | bytes) -> bytes:
    """Valid feedback but for one field, whose value is the given JSON text, right or wrong."""
    text = literal.encode() if isinstance(literal, str) else literal
    return feedback(**{field: "@"}).replace(b'"@"', text)


_RECORD = Feedback(transaction_id="t-1", label="fraud", source="analyst", labelled_at=LABELLED_MS)
_CONFLUENT = avro.to_confluent(_RECORD, 4)
_SINGLE_OBJECT = avro.to_single_object(_RECORD)


def _avro(**changes: Any) -> bytes:
    """Feedback in Confluent's framing that Avro allows and the contract does not."""
    members = {name: getattr(_RECORD, name) for name in Feedback.__struct_fields__}
    return avro.to_confluent(Feedback(**(members | changes)), 4)


BAD_FEEDBACK = (
    # Of no transaction that was decided, or not of the one it names
    BadFeedback(
        "unknown transaction",
        feedback(transaction_id="t-none"),
        "unknown_transaction",
        "transaction_id",
        "t-none",
    ),
    BadFeedback(
        "unknown anomaly",
        feedback(transaction_id=ABSENT, anomaly_id="a-none"),
        "unknown_transaction",
        "anomaly_id",
        "a-none",
    ),
    BadFeedback(
        "transaction id as anomaly id",
        feedback(transaction_id=ABSENT, anomaly_id="t-1"),
        "unknown_transaction",
        "anomaly_id",
    ),
    BadFeedback(
        "anomaly id as transaction id",
        feedback(transaction_id=decision_id("u-1", "t-1")),
        "unknown_transaction",
        "transaction_id",
        decision_id("u-1", "t-1"),
    ),
    BadFeedback(
        "user id as transaction id",
        feedback(transaction_id="u-1"),
        "unknown_transaction",
        "transaction_id",
        "u-1",
    ),
    BadFeedback(
        "other letter case", feedback(transaction_id="T-1"), "unknown_transaction", "transaction_id", "T-1"
    ),
    BadFeedback(
        "anomaly of another transaction", feedback(anomaly_id=FOREIGN), "foreign_transaction", "anomaly_id"
    ),
    BadFeedback(
        "anomaly of another user",
        feedback(anomaly_id=decision_id("u-2", "t-1")),
        "foreign_transaction",
        "anomaly_id",
    ),
    BadFeedback(
        "transaction id that two users share",
        feedback(transaction_id=SHARED),
        "ambiguous_transaction",
        "transaction_id",
        SHARED,
    ),
    BadFeedback(
        "anomaly of neither of the two",
        feedback(transaction_id=SHARED, anomaly_id=FOREIGN),
        "foreign_transaction",
        "anomaly_id",
        SHARED,
    ),
    # Times
    BadFeedback(
        "labelled a day before the transaction",
        feedback(labelled_at=EVENT_MS - 86_400_000),
        "inconsistent",
        "labelled_at",
    ),
    BadFeedback(
        "labelled in 2001", feedback(labelled_at="2001-01-01T00:00:00Z"), "inconsistent", "labelled_at"
    ),
    BadFeedback("future", feedback(labelled_at=4_102_444_799_999), "future_event", "labelled_at"),
    BadFeedback(
        "future date-time", feedback(labelled_at="2099-01-01T00:00:00Z"), "future_event", "labelled_at"
    ),
    BadFeedback("1960 in ms", feedback(labelled_at=-315_619_200_000), "out_of_range", "labelled_at"),
    BadFeedback("2150", feedback(labelled_at="2150-01-01T00:00:00Z"), "out_of_range", "labelled_at"),
    BadFeedback("seconds, not ms", feedback(labelled_at=1_790_000_000), "out_of_range", "labelled_at"),
    BadFeedback("beyond 64 bits", feedback(labelled_at=10**30), "out_of_range", "labelled_at"),
    BadFeedback("naive date-time", feedback(labelled_at="2026-11-20T10:00:00"), "bad_time", "labelled_at"),
    BadFeedback("30 February", feedback(labelled_at="2026-02-30T10:00:00Z"), "bad_time", "labelled_at"),
    BadFeedback("time in words", feedback(labelled_at="just now"), "bad_time", "labelled_at"),
    BadFeedback("time NaN", with_literal("labelled_at", "NaN"), "not_finite", "labelled_at"),
    BadFeedback("time a fraction", feedback(labelled_at=1.79e12 + 0.5), "wrong_type", "labelled_at"),
    BadFeedback("time a boolean", feedback(labelled_at=True), "wrong_type", "labelled_at"),
    BadFeedback("time null", feedback(labelled_at=None), "wrong_type", "labelled_at"),
    # Nothing there
    BadFeedback("null value", None, "empty"),
    BadFeedback("empty value", b"", "empty"),
    BadFeedback("white space only", b" \n\t\r ", "empty"),
    # Not JSON, not UTF-8, not an object
    BadFeedback("truncated", feedback()[:-1], "malformed_json"),
    BadFeedback("two objects", feedback() + feedback(), "malformed_json"),
    BadFeedback("trailing NUL", feedback() + b"\x00", "malformed_json"),
    BadFeedback("plain text", b"t-1 was fraud, I am sure", "malformed_json"),
    BadFeedback("CSV line", b"t-1,fraud,analyst,1790000000000", "malformed_json"),
    BadFeedback("byte order mark", b"\xef\xbb\xbf" + feedback(), "malformed_json"),
    BadFeedback("raw line feed in notes", with_literal("notes", '"a\nb"'), "malformed_json"),
    BadFeedback("random bytes", b"\xff\xfe\xfd\x80\x81", "invalid_utf8"),
    BadFeedback("invalid UTF-8 in notes", with_literal("notes", b'"caf\xe9"'), "invalid_utf8", "notes"),
    BadFeedback("lone surrogate in notes", with_literal("notes", r'"\ud800"'), "invalid_utf8", "notes"),
    BadFeedback("array", b"[" + feedback() + b"]", "wrong_type"),
    BadFeedback("string", b'"fraud"', "wrong_type"),
    BadFeedback("100,000 open brackets", b"[" * 100_000, "too_deep"),
    BadFeedback("100,000 nested objects", b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "too_deep"),
    # Fields
    BadFeedback("empty object", b"{}", "missing_field", "label"),
    BadFeedback("neither transaction nor anomaly", feedback(transaction_id=ABSENT), "inconsistent"),
    BadFeedback("both null", feedback(transaction_id=None, anomaly_id=None), "inconsistent"),
    BadFeedback("no label", feedback(label=ABSENT), "missing_field", "label"),
    BadFeedback("no source", feedback(source=ABSENT), "missing_field", "source"),
    BadFeedback("no time", feedback(labelled_at=ABSENT), "missing_field", "labelled_at"),
    BadFeedback("label twice", feedback()[:-1] + b',"label":"legitimate"}', "duplicate_key", "label"),
    BadFeedback("unknown label", feedback(label="suspicious"), "unknown_value", "label"),
    BadFeedback("label in capitals", feedback(label="FRAUD"), "unknown_value", "label"),
    BadFeedback("label a number", feedback(label=1), "wrong_type", "label"),
    BadFeedback("label a boolean", feedback(label=True), "wrong_type", "label"),
    BadFeedback("label null", feedback(label=None), "wrong_type", "label"),
    BadFeedback("label NaN", with_literal("label", "NaN"), "not_finite", "label"),
    BadFeedback("unknown source", feedback(source="competitor"), "unknown_value", "source"),
    BadFeedback("source a list", feedback(source=["analyst", "chargeback"]), "wrong_type", "source"),
    # Texts
    BadFeedback("transaction id a number", feedback(transaction_id=1), "wrong_type", "transaction_id"),
    BadFeedback(
        "transaction id a query operator",
        feedback(transaction_id={"$ne": None}),
        "wrong_type",
        "transaction_id",
    ),
    BadFeedback("empty transaction id", feedback(transaction_id=""), "out_of_range", "transaction_id"),
    BadFeedback(
        "transaction id of 1 MB", feedback(transaction_id="t" * 1_000_000), "out_of_range", "transaction_id"
    ),
    BadFeedback("SQL", feedback(transaction_id="t-1' OR '1'='1"), "bad_identifier", "transaction_id"),
    BadFeedback("line feed at the end", feedback(transaction_id="t-1\n"), "bad_identifier", "transaction_id"),
    BadFeedback("zero-width space", feedback(transaction_id="t-1\u200b"), "bad_identifier", "transaction_id"),
    BadFeedback(
        "Cyrillic look-alike", feedback(transaction_id="\u0442-1"), "bad_identifier", "transaction_id"
    ),
    BadFeedback("terminal colours", feedback(analyst_id="\x1b[31mme"), "bad_identifier", "analyst_id"),
    BadFeedback(
        "log line in analyst id",
        feedback(analyst_id="me\n2026 INFO login ok"),
        "bad_identifier",
        "analyst_id",
    ),
    BadFeedback("path in anomaly id", feedback(anomaly_id="../../etc"), "bad_identifier", "anomaly_id"),
    BadFeedback("notes of 4,001 characters", feedback(notes="n" * 4_001), "out_of_range", "notes"),
    BadFeedback("notes of 1 MB", feedback(notes="n" * 900_000), "out_of_range", "notes"),
    BadFeedback("control characters in notes", feedback(notes="\x1b]0;owned\x07"), "bad_text", "notes"),
    BadFeedback("text direction override in notes", feedback(notes="\u202e"), "bad_text", "notes"),
    BadFeedback("NUL in notes", feedback(notes="a\x00b"), "bad_text", "notes"),
    BadFeedback("notes an object", feedback(notes={"text": "x"}), "wrong_type", "notes"),
    # Avro
    BadFeedback("NUL alone", b"\x00", "bad_avro"),
    BadFeedback("truncated schema id", _CONFLUENT[:3], "bad_avro"),
    BadFeedback("unknown schema id", b"\x00\x00\x01\x86\xa0" + _CONFLUENT[5:], "unknown_schema"),
    BadFeedback("schema of a label", b"\x00\x00\x00\x00\x05" + _CONFLUENT[5:], "unknown_schema"),
    BadFeedback("unknown fingerprint", b"\xc3\x01" + b"\x07" * 8 + _SINGLE_OBJECT[10:], "unknown_schema"),
    BadFeedback("truncated fingerprint", _SINGLE_OBJECT[:6], "bad_avro"),
    BadFeedback("Avro header without body", _CONFLUENT[:5], "bad_avro"),
    BadFeedback("truncated Avro body", _CONFLUENT[:-2], "bad_avro"),
    BadFeedback("bytes after the Avro body", _CONFLUENT + b"\x00", "bad_avro"),
    BadFeedback("endless Avro number", _CONFLUENT[:5] + b"\x80" * 100_000, "bad_avro"),
    BadFeedback("JSON behind an Avro header", _CONFLUENT[:5] + feedback(), "bad_avro"),
    BadFeedback("Avro of no transaction", _CONFLUENT.replace(b"\x02\x06t-1", b"\x00"), "inconsistent"),
    BadFeedback("Avro time ahead", _avro(labelled_at=4_102_444_799_999), "future_event", "labelled_at"),
    BadFeedback("Avro time of 1960", _avro(labelled_at=-315_619_200_000), "out_of_range", "labelled_at"),
    BadFeedback("Avro control characters", _avro(notes="\x1b[2J"), "bad_text", "notes"),
    BadFeedback(
        "Avro of an unknown transaction",
        _avro(transaction_id="t-avro"),
        "unknown_transaction",
        "transaction_id",
        "t-avro",
    ),
)
