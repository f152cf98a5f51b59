"""Schemas made from the structs, the catalogue, and resolution of older writers."""

import io
import json
from pathlib import Path
from typing import Any

import fastavro
import pytest

from events import avro
from events.codec import Decoder, Invalid
from events.control import ModelUpdate, Rule, Thresholds
from events.decision import Anomaly
from events.feedback import Label
from events.topics import TOPICS, Topic
from events.transaction import Transaction

SCHEMAS = Path(avro.__file__).parent / "schemas"
OLDER = json.loads((Path(__file__).parent / "schemas" / "transaction_older.avsc").read_text())


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_shipped_schemas_are_valid_and_have_an_id(topic: Topic) -> None:
    stem = avro.stem_of(topic.record_type)
    schema = json.loads((SCHEMAS / f"{stem}.avsc").read_text())

    assert fastavro.parse_schema(schema)
    assert isinstance(json.loads((SCHEMAS / "ids.json").read_text())[stem], int)


def test_fingerprint_is_the_one_of_the_specification() -> None:
    # The CRC-64-AVRO of "int" in the Avro specification's test vectors.
    assert avro.fingerprint_of("int") == 0x7275D51A3F395C8F.to_bytes(8, "little")  # type: ignore[arg-type]


def test_optional_fields_default_to_null_and_times_are_timestamps() -> None:
    fields = {field["name"]: field for field in avro.schema_of(Transaction)["fields"]}

    assert fields["event_time"]["type"] == {"type": "long", "logicalType": "timestamp-millis"}
    assert fields["country"]["type"] == ["null", "string"]
    assert fields["country"]["default"] is None
    assert "default" not in fields["amount"]


def test_a_record_used_twice_is_defined_once() -> None:
    text = json.dumps(avro.schema_of(Anomaly))

    assert text.count('"name": "Transaction"') == 1
    assert text.count('"name": "Decision"') == 1


def test_a_stock_avro_reader_understands_the_bytes() -> None:
    record = Transaction("tx-1", "user-1", 1_790_000_000_123, 12.5, country="FR")

    tree = fastavro.schemaless_reader(
        io.BytesIO(avro.to_confluent(record, 1)[5:]), avro.schema_of(Transaction), None
    )

    assert isinstance(tree, dict)
    assert tree["event_time"].isoformat() == "2026-09-21T14:13:20.123000+00:00"
    assert (tree["country"], tree["ip"]) == ("FR", None)


@pytest.mark.parametrize("framing", ["confluent", "single object"])
def test_an_older_writer_is_resolved(framing: str) -> None:
    """It lacks later optional fields, has one that is gone, and wrote the amount as float."""
    catalogue = avro.SchemaCatalogue()
    catalogue.add(OLDER, 41)
    body = io.BytesIO()
    written: dict[str, Any] = {
        "transaction_id": "tx-1",
        "user_id": "user-1",
        "event_time": 1_790_000_000_000,
        "amount": 12.5,
    }
    fastavro.schemaless_writer(body, OLDER, written | {"terminal_id": "terminal-1", "batch": 7})
    header = b"\0\0\0\0\x29" if framing == "confluent" else b"\xc3\x01" + avro.fingerprint_of(OLDER)

    [answer] = Decoder(Transaction, catalogue).decode([header + body.getvalue()])

    assert answer == Transaction(**written, terminal_id="terminal-1")
    [stranger] = Decoder(Transaction).decode([header + body.getvalue()])
    assert isinstance(stranger, Invalid)
    assert stranger.reason == "unknown_schema"


@pytest.mark.parametrize("framing", ["confluent", "single object"])
def test_rules_in_the_schema_of_the_first_ones_are_still_read(framing: str) -> None:
    first = json.loads((SCHEMAS / "rule_first.avsc").read_text())
    body = io.BytesIO()
    written: dict[str, Any] = {
        "rule_id": "r", "version": 2, "owner": "o", "feature": "amount", "operator": ">=", "value": 10.5,
        "verdict": "review", "enabled": True, "shadow": True, "expires_at": 1_790_000_000_000,
    }  # fmt: skip
    fastavro.schemaless_writer(body, first, written)
    header = b"\0\0\0\0\x07" if framing == "confluent" else b"\xc3\x01" + avro.fingerprint_of(first)

    assert Decoder(Rule).decode([header + body.getvalue()]) == [Rule(**written)]


@pytest.mark.parametrize("framing", ["confluent", "single object"])
def test_transactions_in_the_schema_of_the_first_ones_are_still_read(framing: str) -> None:
    first = json.loads((SCHEMAS / "transaction_first.avsc").read_text())
    body = io.BytesIO()
    written: dict[str, Any] = {
        "transaction_id": "tx-1", "user_id": "user-1", "event_time": 1_790_000_000_000, "amount": 12.5,
        "country": "FR", "balance_after": 3.5,
    }  # fmt: skip
    fastavro.schemaless_writer(body, first, written)
    header = b"\0\0\0\0\x01" if framing == "confluent" else b"\xc3\x01" + avro.fingerprint_of(first)

    assert Decoder(Transaction).decode([header + body.getvalue()]) == [Transaction(**written)]


@pytest.mark.parametrize("framing", ["confluent", "single object"])
def test_model_updates_from_before_safe_mode_are_still_read(framing: str) -> None:
    second = json.loads((SCHEMAS / "model_update_second.avsc").read_text())
    body = io.BytesIO()
    written: dict[str, Any] = {
        "slot": "thresholds", "thresholds": {"review": 0.5, "block": 0.75}, "issued_at": 1_790_000_000_000,
        "issued_by": "a",
    }  # fmt: skip
    fastavro.schemaless_writer(body, second, written)
    header = b"\0\0\0\0\x0e" if framing == "confluent" else b"\xc3\x01" + avro.fingerprint_of(second)

    expected = ModelUpdate(**written | {"thresholds": Thresholds(0.5, 0.75)})
    assert Decoder(ModelUpdate).decode([header + body.getvalue()]) == [expected]


@pytest.mark.parametrize("framing", ["confluent", "single object"])
def test_model_updates_in_the_schema_of_the_first_ones_are_still_read(framing: str) -> None:
    first = json.loads((SCHEMAS / "model_update_first.avsc").read_text())
    body = io.BytesIO()
    written: dict[str, Any] = {
        "slot": "model", "artefact": "models/a", "thresholds": None, "issued_at": 1_790_000_000_000,
        "issued_by": "a", "previous": ["models/b"],
    }  # fmt: skip
    fastavro.schemaless_writer(body, first, written)
    header = b"\0\0\0\0\x06" if framing == "confluent" else b"\xc3\x01" + avro.fingerprint_of(first)

    assert Decoder(ModelUpdate).decode([header + body.getvalue()]) == [ModelUpdate(**written)]


def test_unknown_ids_and_fingerprints_are_named() -> None:
    by_id, by_fingerprint = Decoder(Transaction).decode([b"\0\0\0\x10\x00x", b"\xc3\x01" + b"\xab" * 8])

    assert isinstance(by_id, Invalid)
    assert "4096" in by_id.detail
    assert isinstance(by_fingerprint, Invalid)
    assert "ab" * 8 in by_fingerprint.detail


def test_a_catalogue_refuses_to_give_an_id_twice() -> None:
    catalogue = avro.SchemaCatalogue()
    catalogue.add(avro.schema_of(Transaction), 1)
    catalogue.add(avro.schema_of(Transaction), 1)

    with pytest.raises(ValueError, match="schema id 1 is taken"):
        catalogue.add(avro.schema_of(Label), 1)
    with pytest.raises(ValueError, match="must be a record"):
        catalogue.add({"type": "array", "items": "int"})


def test_bytes_and_schemas_are_deterministic() -> None:
    record = Transaction("tx-1", "user-1", 1_790_000_000_000, 12.5)

    assert avro.to_single_object(record) == avro.to_single_object(record)
    assert dict(avro.schema_files()) == dict(avro.schema_files())
