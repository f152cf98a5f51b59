"""Avro for the records of the contract: schemas made from the structs, both framings, and safe reading."""

import io
import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, TypeVar, cast

import fastavro
import msgspec
from fastavro.schema import fingerprint, to_parsing_canonical_form
from msgspec import inspect

from events.invalid import Invalid, refuse
from events.strict_json import explain
from events.topics import TOPICS
from events.types import epoch_ms

Record = TypeVar("Record", bound=msgspec.Struct)
Schema = dict[str, Any]

NAMESPACE = "fraudstream"
CONFLUENT = b"\x00"
"""First byte of the framing of Confluent's clients; a big-endian 4-byte schema id follows, then the body."""
SINGLE_OBJECT = b"\xc3\x01"
"""Marker of Avro's single-object encoding; the schema's CRC-64-AVRO follows in 8 little-endian bytes."""

_SYMBOL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TIMESTAMP = {"type": "long", "logicalType": "timestamp-millis"}
_PRIMITIVES: dict[type[inspect.Type], str] = {
    inspect.NoneType: "null",
    inspect.BoolType: "boolean",
    inspect.IntType: "long",
    inspect.FloatType: "double",
    inspect.StrType: "string",
    inspect.BytesType: "bytes",
}


@cache
def schema_of(record_type: type[msgspec.Struct]) -> Schema:
    """The Avro schema of a struct: an optional field is a union with null, a time is timestamp-millis,
    and a Literal of names is an enum. Limits of range and text have no place in Avro; `read` holds them.
    """
    return cast(Schema, _record(cast(inspect.StructType, inspect.type_info(record_type)), set()))


def _record(info: inspect.StructType, named: set[str]) -> Any:
    name = info.cls.__name__
    if name in named:
        return f"{NAMESPACE}.{name}"
    named.add(name)
    fields = [_field(field, name, named) for field in info.fields]
    doc = summary_of(info.cls)
    return {"type": "record", "namespace": NAMESPACE, "name": name, "doc": doc, "fields": fields}


def summary_of(record_type: type[msgspec.Struct]) -> str:
    """The first paragraph of a struct's docstring, on one line."""
    return " ".join((record_type.__doc__ or "").split("\n\n")[0].split())


def _field(field: inspect.Field, record: str, named: set[str]) -> Schema:
    schema: Schema = {"name": field.name, "type": _type(field.type, f"{record}_{field.name}", named)}
    description = _description(field.type)
    if description:
        schema["doc"] = description
    if field.default is not msgspec.NODEFAULT:
        schema["default"] = field.default
    elif field.default_factory is not msgspec.NODEFAULT:
        schema["default"] = field.default_factory()
    return schema


def _description(type_: inspect.Type) -> str | None:
    if isinstance(type_, inspect.UnionType) and len(type_.types) == 2 and type_.includes_none:
        return next(filter(None, map(_description, type_.types)), None)
    if isinstance(type_, inspect.Metadata):
        return (type_.extra_json_schema or {}).get("description") or _description(type_.type)
    return None


def _type(type_: inspect.Type, name: str, named: set[str]) -> Any:
    """The Avro type of a msgspec type; an enum gets `name`."""
    if isinstance(type_, inspect.Metadata):
        if (type_.extra or {}).get("logical_type"):
            return _TIMESTAMP
        return _type(type_.type, name, named)
    if isinstance(type_, inspect.UnionType):
        return _union(type_, name, named)
    if isinstance(type_, inspect.StructType):
        return _record(type_, named)
    if isinstance(type_, inspect.LiteralType):
        if all(_SYMBOL.fullmatch(str(symbol)) for symbol in type_.values):
            return {"type": "enum", "name": name, "symbols": list(type_.values)}
        return "string"
    if isinstance(type_, inspect.ListType):
        return {"type": "array", "items": _type(type_.item_type, name, named)}
    if isinstance(type_, inspect.DictType):
        return {"type": "map", "values": _type(type_.value_type, name, named)}
    return _PRIMITIVES[type(type_)]


def _union(union: inspect.UnionType, name: str, named: set[str]) -> Any:
    branches = []
    for alternative in sorted(union.types, key=lambda type_: not isinstance(type_, inspect.NoneType)):
        bare = alternative.type if isinstance(alternative, inspect.Metadata) else alternative
        if isinstance(bare, inspect.DateTimeType):
            continue  # a time has two forms in JSON, one in Avro
        branch = _type(alternative, name, named)
        branches += branch if isinstance(branch, list) else [branch]
    return branches[0] if len(branches) == 1 else branches


class Writer(msgspec.Struct, frozen=True):
    """A schema that payloads were written by, parsed by fastavro, and its CRC-64-AVRO fingerprint."""

    schema: Schema
    fingerprint: bytes


class SchemaCatalogue:
    """The writer schemas an Avro payload may refer to, by Confluent id and by fingerprint."""

    def __init__(self) -> None:
        self._by_id: dict[int, Writer] = {}
        self._by_fingerprint: dict[bytes, Writer] = {}

    @classmethod
    @cache
    def shipped(cls) -> "SchemaCatalogue":
        """The schemas in `events/schemas`, under the ids in its `ids.json`."""
        return cls.from_folder(files("events") / "schemas")

    @classmethod
    def from_folder(cls, folder: Traversable) -> "SchemaCatalogue":
        """The `*.avsc` files that `ids.json` maps to their ids (file stem -> id), as a registry gave them.

        Raises OSError, ValueError or fastavro's schema errors if a file is missing or not a schema.
        """
        catalogue = cls()
        ids: Mapping[str, int] = json.loads((folder / "ids.json").read_text())
        for stem, confluent_id in ids.items():
            catalogue.add(json.loads((folder / f"{stem}.avsc").read_text()), confluent_id)
        return catalogue

    def add(self, schema: Schema, confluent_id: int | None = None) -> None:
        """Know a writer schema by its fingerprint, and by the id a registry gave it.

        Raises ValueError if it is not a record or the id is taken by another schema.
        """
        if schema.get("type") != "record":
            raise ValueError("a writer schema must be a record")
        writer = Writer(_parsed(schema), fingerprint_of(schema))
        if confluent_id is not None:
            registered = self._by_id.setdefault(confluent_id, writer)
            if registered.fingerprint != writer.fingerprint:
                raise ValueError(f"schema id {confluent_id} is taken")
        self._by_fingerprint[writer.fingerprint] = writer

    def writer(self, payload: bytes) -> tuple[Writer, int] | Invalid:
        """The schema an Avro payload names in its header, and where its body begins."""
        if payload[:1] == CONFLUENT:
            if len(payload) < 5:
                return refuse("bad_avro", "the value ends within the schema id")
            schema_id = int.from_bytes(payload[1:5], "big")
            writer = self._by_id.get(schema_id)
            return (writer, 5) if writer else refuse("unknown_schema", f"no schema has the id {schema_id}")
        if len(payload) < 10:
            return refuse("bad_avro", "the value ends within the schema fingerprint")
        writer = self._by_fingerprint.get(payload[2:10])
        if writer:
            return writer, 10
        return refuse("unknown_schema", f"no schema has the fingerprint {payload[2:10].hex()}")


def _parsed(schema: Schema) -> Schema:
    return cast(Schema, fastavro.parse_schema(_with_plain_times(schema)))


def _with_plain_times(schema: Any) -> Any:
    """`schema` with timestamp-millis read as plain long: a wild number must not fail as a date."""
    if isinstance(schema, list):
        return [_with_plain_times(branch) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _with_plain_times(value)
        for key, value in schema.items()
        if (key, value) != ("logicalType", "timestamp-millis")
    }


def fingerprint_of(schema: Schema) -> bytes:
    """CRC-64-AVRO of the schema's canonical form, little-endian, as in a single-object header."""
    return bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))


@cache
def _own(record_type: type[msgspec.Struct]) -> Writer:
    schema = schema_of(record_type)
    return Writer(_parsed(schema), fingerprint_of(schema))


def read(payload: bytes, record_type: type[Record], catalogue: SchemaCatalogue) -> Record | Invalid:
    """The record in an Avro payload of either framing, held to all limits that msgspec knows.

    A payload written by another version of the schema is resolved by Avro's rules.
    """
    found = catalogue.writer(payload)
    if isinstance(found, Invalid):
        return found
    writer, start = found
    own = _own(record_type)
    if writer.schema["name"] != own.schema["name"]:
        return refuse("unknown_schema", f"the schema is of {writer.schema['name']}, not {own.schema['name']}")
    body = io.BytesIO(payload)
    body.seek(start)
    try:
        same = writer.fingerprint == own.fingerprint
        tree = fastavro.schemaless_reader(body, writer.schema, None if same else own.schema)
    except Exception as error:  # noqa: BLE001 - fastavro lets through whatever its C code meets
        return refuse("bad_avro", f"{type(error).__name__}: {error}")
    if body.tell() != len(payload):
        return refuse("bad_avro", f"{len(payload) - body.tell()} bytes follow the record")
    try:
        return msgspec.convert(tree, record_type)
    except msgspec.ValidationError as error:
        return explain(error)


def to_confluent(record: msgspec.Struct, schema_id: int) -> bytes:
    """`record` in Confluent's framing, under the id a registry (or `ids.json`) gives its schema."""
    return CONFLUENT + schema_id.to_bytes(4, "big") + _body(record)


def to_single_object(record: msgspec.Struct) -> bytes:
    """`record` in Avro's single-object encoding."""
    return SINGLE_OBJECT + _own(type(record)).fingerprint + _body(record)


def _body(record: msgspec.Struct) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, _own(type(record)).schema, _tree(record))
    return out.getvalue()


def _tree(value: Any) -> Any:
    """What fastavro writes for a value: structs become dicts, times milliseconds."""
    if isinstance(value, msgspec.Struct):
        return {name: _tree(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, list):
        return [_tree(item) for item in value]
    return epoch_ms(value) if isinstance(value, datetime) else value


def schema_files() -> Iterator[tuple[str, str]]:
    """Name and text of the `.avsc` file of every record that has a topic."""
    for topic in TOPICS:
        schema = schema_of(topic.record_type)
        yield f"{stem_of(topic.record_type)}.avsc", json.dumps(schema, indent=2) + "\n"


def stem_of(record_type: type[msgspec.Struct]) -> str:
    """File stem of a record's schema: DeadLetter -> dead_letter."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", record_type.__name__).lower()
