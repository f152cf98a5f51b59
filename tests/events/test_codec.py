"""Records survive their wire forms, and the fast path answers as the strict one."""

import json
from importlib.resources import files
from typing import Any

import msgspec
import pytest
from bad_inputs import BAD_INPUTS, transaction, with_literal
from hypothesis import example, given, settings
from hypothesis import strategies as st
from records import json_payloads, records, transactions

from events import avro, codec
from events.audit import AuditEvent
from events.codec import Decoder, Invalid
from events.control import ModelUpdate, OnlineCommand, Rule
from events.example import Example
from events.feedback import Feedback, Label
from events.scan import LABELLED, PLAIN, SUSPECT, scan
from events.topics import TOPICS, Topic
from events.transaction import Transaction
from events.types import LATEST_MS, epoch_ms

DECODERS: dict[type[msgspec.Struct], Decoder[Any]] = {
    type_: Decoder(type_)
    for type_ in (Transaction, Label, Feedback, ModelUpdate, Rule, OnlineCommand, Example, AuditEvent)
}
SCHEMA_IDS: dict[str, int] = json.loads((files("events") / "schemas" / "ids.json").read_text())
decoder = DECODERS[Transaction]


def _in_ms(record: msgspec.Struct) -> msgspec.Struct:
    """The record with its times as Avro keeps them."""
    times = {
        name: epoch_ms(getattr(record, name))
        for name in ("event_time", "labelled_at", "issued_at", "expires_at")
        if getattr(record, name, None) is not None
    }
    return msgspec.structs.replace(record, **times)


@given(records)
def test_json_round_trip(record: msgspec.Struct) -> None:
    assert DECODERS[type(record)].decode([msgspec.json.encode(record)]) == [record]


@given(records)
def test_avro_round_trip_in_both_framings(record: msgspec.Struct) -> None:
    schema_id = SCHEMA_IDS[avro.stem_of(type(record))]
    payloads = [avro.to_confluent(record, schema_id), avro.to_single_object(record)]

    assert DECODERS[type(record)].decode(payloads) == [_in_ms(record)] * 2


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_every_topic_has_a_valid_example_in_both_encodings(topic: Topic) -> None:
    record = topic.example
    decode = Decoder(type(record)).decode

    assert decode([msgspec.json.encode(record), avro.to_single_object(record)]) == [record] * 2


@settings(max_examples=150)
@given(st.lists(json_payloads(), max_size=8), st.integers(LATEST_MS // 4, LATEST_MS))
@example([bad.value for bad in BAD_INPUTS], LATEST_MS)
@example([transaction(), b"", transaction(ip="::1"), transaction(country="fr")], LATEST_MS)
def test_fast_path_answers_as_the_strict_one(payloads: list[bytes | None], latest_ms: int) -> None:
    answers = decoder.decode(payloads, latest_ms)

    assert answers == [decoder.decode_strictly(payload, latest_ms) for payload in payloads]
    assert answers == [answer for payload in payloads for answer in decoder.decode([payload], latest_ms)]
    assert answers == decoder.decode(payloads, latest_ms)


@given(
    st.lists(
        st.binary(max_size=60) | st.binary(max_size=60).map(lambda body: b"\0\0\0\0\x0f" + body), max_size=4
    )
)
def test_any_bytes_get_an_answer(payloads: list[bytes]) -> None:
    answers = decoder.decode(payloads)

    assert answers == [decoder.decode_strictly(payload) for payload in payloads]


@given(st.lists(transactions, max_size=5))
def test_valid_transactions_are_never_refused(batch: list[Transaction]) -> None:
    assert decoder.decode([msgspec.json.encode(t) for t in batch], LATEST_MS) == batch


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (transaction(), PLAIN),
        (transaction(extra="a" * 500), PLAIN),
        (b" \n" + transaction() + b" ", PLAIN),
        (transaction(merchant_category="Grocery, online"), LABELLED),
        (transaction(user_id="o'neill"), SUSPECT),
        (transaction(user_id=""), SUSPECT),
        (transaction(user_id="-rf"), SUSPECT),
        (transaction(user_id="é"), SUSPECT),
        (transaction(extra={}), SUSPECT),
        (transaction(extra=[]), SUSPECT),
        (transaction()[:-1] + b',"amount":1}', SUSPECT),
        (transaction(**{f"k{i}": i for i in range(60)}), PLAIN),
        (transaction(**{f"k{i}": i for i in range(61)}), SUSPECT),
        (
            avro.to_confluent(Transaction("t", "u", 1_790_000_000_000, 1.0), SCHEMA_IDS["transaction"]),
            SUSPECT,
        ),
        (b"", SUSPECT),
        (b"{", PLAIN),
    ],
)
def test_scan_sorts_payloads(payload: bytes, expected: int) -> None:
    neighbour = transaction()

    assert list(scan([neighbour, payload, neighbour])) == [PLAIN, expected, PLAIN]


def test_many_unknown_keys_are_no_fault() -> None:
    [answer] = decoder.decode([transaction(**{f"k{i}": {"nested": [i, "ü"]} for i in range(1000)})])

    assert isinstance(answer, Transaction)


@pytest.mark.parametrize("depth", [1, 30, 31])
def test_unknown_fields_may_nest(depth: int) -> None:
    [answer] = decoder.decode([with_literal("extra", "[" * depth + "]" * depth)])

    assert isinstance(answer, Transaction)


@pytest.mark.parametrize(
    "ip", ["0.0.0.0", "255.255.255.255", "::", "::1", "2001:db8::8a2e:370:7334", "::ffff:1.2.3.4"]
)
def test_ip_addresses(ip: str) -> None:
    [answer] = decoder.decode([transaction(ip=ip)])

    assert isinstance(answer, Transaction)
    assert answer.ip == ip


def test_memory_of_accepted_texts_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MAX_REMEMBERED", 10)
    forgetful = Decoder(Transaction)

    for i in range(100):
        batch = [transaction(ip=f"10.0.{i}.{j}", country="fr" if j == 2 else "FR") for j in range(4)]
        answers = forgetful.decode(batch)
        assert [isinstance(answer, Invalid) for answer in answers] == [False, False, True, False]

    assert all(len(text._accepted) <= 14 for text in forgetful._texts)


@pytest.mark.parametrize(
    ("record_type", "payload", "reason", "field"),
    [
        (
            Feedback,
            {"label": "fraud", "source": "analyst", "labelled_at": 1_790_000_000_000},
            "inconsistent",
            None,
        ),
        (
            Feedback,
            {
                "label": "fraud",
                "source": "analyst",
                "labelled_at": 1_790_000_000_000,
                "anomaly_id": "a-1",
                "notes": "\u202e",
            },
            "bad_text",
            "notes",
        ),
        (
            ModelUpdate,
            {
                "slot": "thresholds",
                "thresholds": {"review": 0.9, "block": 0.5},
                "issued_at": 1_790_000_000_000,
                "issued_by": "a",
            },
            "inconsistent",
            "thresholds",
        ),
        (
            ModelUpdate,
            {
                "slot": "thresholds",
                "thresholds": {"review": 0.9},
                "issued_at": 1_790_000_000_000,
                "issued_by": "a",
            },
            "missing_field",
            "thresholds.block",
        ),
        (
            ModelUpdate,
            {
                "slot": "model",
                "artefact": "models/../../etc",
                "issued_at": 1_790_000_000_000,
                "issued_by": "a",
            },
            "bad_identifier",
            "artefact",
        ),
        (
            ModelUpdate,
            {
                "slot": "model",
                "artefact": "/models/b",
                "issued_at": 1_790_000_000_000,
                "issued_by": "a",
                "previous": ["/models/a", "/models/../etc"],
            },
            "bad_identifier",
            "previous[1]",
        ),
    ],
)
def test_other_records_name_the_field_too(
    record_type: type[msgspec.Struct], payload: dict[str, object], reason: str, field: str | None
) -> None:
    [answer] = DECODERS[record_type].decode([msgspec.json.encode(payload)])

    assert isinstance(answer, Invalid)
    assert (answer.reason, answer.field) == (reason, field)


RULE: dict[str, Any] = {
    "rule_id": "r", "version": 1, "owner": "o", "verdict": "block",
    "all": [{"feature": "amount", "operator": ">", "value": 5}],
}  # fmt: skip
ALLOWED = {
    "verdict": "approve",
    "allow": True,
    "expires_at": 1_790_000_000_000,
    "all": [{"field": "user_id", "operator": "in", "values": ["u"]}],
}


def test_rules_as_they_are_written() -> None:
    flat = {"feature": "amount", "operator": ">", "value": 5}
    first = {name: value for name, value in RULE.items() if name != "all"} | flat
    answers = DECODERS[Rule].decode([msgspec.json.encode(r) for r in (RULE, first, RULE | ALLOWED)])

    conditions = [answer.conditions for answer in answers if isinstance(answer, Rule)]
    assert len(conditions) == 3, answers
    assert conditions[0] == conditions[1]


def condition(**members: Any) -> dict[str, Any]:
    return {"all": [{name: value for name, value in members.items() if value is not None}]}


@pytest.mark.parametrize(
    ("changes", "reason", "field", "detail"),
    [
        ({"all": []}, "inconsistent", None, "at least one condition"),
        ({"all": None}, "wrong_type", "all", "null"),
        ({"all": [RULE["all"][0]] * 9}, "out_of_range", "all", "length <= 8"),
        ({"feature": "amount"}, "inconsistent", None, "all stands without"),
        ({"shadwo": True}, "unknown_field", None, "shadwo"),
        ({"owner": None}, "wrong_type", "owner", "null"),
        ({"owner": ""}, "out_of_range", "owner", "length >= 1"),
        ({"owner": "a b"}, "bad_identifier", "owner", "a b"),
        ({"rule_id": "../x"}, "bad_identifier", "rule_id", "x"),
        ({"version": 0}, "out_of_range", "version", ">= 1"),
        ({"version": 1.5}, "wrong_type", "version", "float"),
        ({"verdict": "jail"}, "unknown_value", "verdict", "jail"),
        ({"shadow": "yes"}, "wrong_type", "shadow", "str"),
        ({"description": "a\u202eb"}, "bad_text", "description", "not allowed"),
        ({"expires_at": "tomorrow"}, "bad_time", "expires_at", "RFC3339"),
        ({"expires_at": 5}, "out_of_range", "expires_at", "946684800000"),
        (condition(operator=">", value=1), "inconsistent", "all[0]", "either a feature or a field"),
        (
            condition(feature="amount", field="ip", operator=">", value=1),
            "inconsistent",
            "all[0]",
            "either a feature or a field",
        ),
        (condition(feature="amount", operator="~", value=1), "unknown_value", "all[0].operator", "~"),
        (condition(feature="amount", operator=">"), "inconsistent", "all[0]", "one value"),
        (condition(feature="amount", operator="in", values=["1"]), "inconsistent", "all[0]", "one value"),
        (condition(feature="amount", operator=">", value="5"), "wrong_type", "all[0].value", "str"),
        (condition(feature="a b", operator=">", value=5), "bad_identifier", "all[0].feature", "matching"),
        (condition(feature="amount", operator=">", valeu=5), "unknown_field", "all[0]", "valeu"),
        (condition(field="user", operator="in", values=["u"]), "unknown_value", "all[0].field", "user"),
        (condition(field="user_id", operator="in", values=[]), "inconsistent", "all[0]", "at least one"),
        (condition(field="user_id", operator="=="), "inconsistent", "all[0]", "at least one"),
        (condition(field="user_id", operator="in", values=[7]), "wrong_type", "all[0].values[0]", "int"),
        (condition(field="user_id", operator="in", values=[""]), "out_of_range", "all[0].values[0]", "1"),
        (
            condition(field="user_id", operator="in", values=["u"] * 10_001),
            "out_of_range",
            "all[0].values",
            "10000",
        ),
        (ALLOWED | {"verdict": "block"}, "inconsistent", None, "needs the verdict approve"),
        (ALLOWED | {"expires_at": None}, "inconsistent", None, "and expires_at"),
        (ALLOWED | {"all": RULE["all"]}, "inconsistent", None, "names whom"),
    ],
)
def test_rules_that_say_nothing_sensible(
    changes: dict[str, Any], reason: str, field: str | None, detail: str
) -> None:
    [answer] = DECODERS[Rule].decode([msgspec.json.encode(RULE | changes)])

    assert isinstance(answer, Invalid), answer
    assert (answer.reason, answer.field) == (reason, field)
    assert detail in answer.detail


def test_a_rule_without_an_owner() -> None:
    [answer] = DECODERS[Rule].decode(
        [msgspec.json.encode({name: value for name, value in RULE.items() if name != "owner"})]
    )

    assert isinstance(answer, Invalid)
    assert (answer.reason, answer.field) == ("missing_field", "owner")


def test_a_deadline_may_lie_ahead_but_nothing_that_happened() -> None:
    label = Label(
        transaction_id="t", user_id="u", event_time=1_790_000_000_000, is_fraud=True, source="customer",
        labelled_at=1_790_000_000_001,
    )  # fmt: skip
    rule = Rule(
        rule_id="r", version=1, owner="o", feature="amount", operator=">", value=1.0, verdict="block",
        expires_at=LATEST_MS,
    )  # fmt: skip

    [refused] = DECODERS[Label].decode([msgspec.json.encode(label)], latest_ms=1_790_000_000_000)
    assert isinstance(refused, Invalid)
    assert (refused.reason, refused.field) == ("future_event", "labelled_at")
    assert DECODERS[Rule].decode([msgspec.json.encode(rule)], latest_ms=1_790_000_000_000) == [rule]


def test_latest_is_inclusive() -> None:
    payload = transaction(event_time=1_790_000_000_000)

    assert isinstance(decoder.decode([payload], 1_790_000_000_000)[0], Transaction)
    assert isinstance(decoder.decode([payload], 1_789_999_999_999)[0], Invalid)


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2026-11-21T00:00:00Z", 1_795_219_200_000),
        ("2026-11-21T01:30:00.123999+01:30", 1_795_219_200_123),
        ("2026-11-20T19:00:00.0009-05:00", 1_795_219_200_000),
    ],
)
def test_date_times_become_milliseconds(text: str, ms: int) -> None:
    [answer] = decoder.decode([transaction(event_time=text)])

    assert isinstance(answer, Transaction)
    assert epoch_ms(answer.event_time) == ms
