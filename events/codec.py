"""From the bytes of Kafka values to checked records, a batch at a time."""

from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import inspect

from events import avro
from events.invalid import Invalid, Reason, refuse
from events.scan import PLAIN, SUSPECT, scan
from events.strict_json import explain, parse
from events.types import EARLIEST_MS, IDENTIFIER_PATTERN, LABEL_PATTERN, LATEST_MS, epoch_ms

__all__ = ["Decoder", "Invalid"]

Record = TypeVar("Record", bound=msgspec.Struct)

MAX_REMEMBERED = 65_536  # accepted texts per field, a few MB at most
PROVED_BY_SCAN = {IDENTIFIER_PATTERN, LABEL_PATTERN}
DECODING_ERRORS = (msgspec.MsgspecError, UnicodeError, RecursionError)


class _TextField:
    """A text field with a rule beyond its length, and the values that were last found to keep it."""

    def __init__(self, name: str, extra: dict[str, Any]) -> None:
        self.name = name
        self.of = _reader(name)
        self.proved_by_scan = extra.get("pattern") in PROVED_BY_SCAN
        self._holds: Callable[[str], object] = extra["holds"]
        self._reason: Reason = extra["reason"]
        self._accepted: set[str | None] = {None}

    def refused(self, records: Sequence[Any]) -> set[str]:
        """The values of this field that break its rule."""
        unknown: set[Any] = set(map(self.of, records)) - self._accepted
        if not unknown:
            return unknown
        refused = {value for value in unknown if not self._holds(value)}
        if len(self._accepted) + len(unknown) > MAX_REMEMBERED:
            self._accepted = {None}
        self._accepted |= unknown - refused
        return refused

    def fault(self, record: Any) -> Invalid | None:
        value = self.of(record)
        if value is None or self._holds(value):
            return None
        return refuse(self._reason, f"{value[:100]!r} is not allowed here", self.name)


class _TimeField:
    """A time in either wire form; msgspec bounds the number, not the date-time."""

    def __init__(self, name: str, extra: dict[str, Any]) -> None:
        self.name = name
        self.of = _reader(name)
        self._happened: bool = extra["happened"]

    def all_hold(self, records: Sequence[Any], latest_ms: int) -> bool:
        times = list(map(self.of, records))
        if not set(map(type, times)) <= {int}:
            times = [epoch_ms(time) for time in times if time is not None]
        return not times or (min(times) >= EARLIEST_MS and max(times) <= self._limit(latest_ms))

    def fault(self, record: Any, latest_ms: int) -> Invalid | None:
        time = self.of(record)
        if time is None:
            return None
        ms = epoch_ms(time)
        if not EARLIEST_MS <= ms <= LATEST_MS:
            return refuse("out_of_range", "the time is not between the years 2000 and 2100", self.name)
        if ms > self._limit(latest_ms):
            return refuse(
                "future_event", f"the time lies {ms - latest_ms} ms after the latest accepted", self.name
            )
        return None

    def _limit(self, latest_ms: int) -> int:
        return min(LATEST_MS, latest_ms) if self._happened else LATEST_MS


class Decoder(Generic[Record]):
    """Decodes the values of one topic: JSON or, told apart by the first bytes, Avro in either framing.

    Most payloads are flat JSON objects whose texts are all identifiers. One scan over the batch finds
    those; for them msgspec and a set look-up per column suffice. Every other payload is read as by
    `decode_strictly`, which knows no shortcut and is the reference for what `decode` answers.

    Not safe for use by several threads at once.
    """

    def __init__(self, record_type: type[Record], catalogue: avro.SchemaCatalogue | None = None) -> None:
        """Avro payloads are read by the schemas in `catalogue`, by default those shipped."""
        self._type = record_type
        self._catalogue = catalogue or avro.SchemaCatalogue.shipped()
        self._from_json = msgspec.json.Decoder(record_type).decode
        found = list(marks(inspect.type_info(record_type), ""))
        self._texts = [_TextField(path, extra) for path, extra in found if "holds" in extra]
        self._times = [_TimeField(path, extra) for path, extra in found if "happened" in extra]
        self._unproved = [field for field in self._texts if not field.proved_by_scan]

    def decode(
        self, payloads: Sequence[bytes | None], latest_ms: int | None = None
    ) -> list[Record | Invalid]:
        """One record or Invalid per payload, in order; never raises for what a payload holds.

        A time at which something happened is refused as `future_event` if it lies after `latest_ms`
        (milliseconds since the epoch). Times stay in their wire form; see `events.types.epoch_ms`.
        """
        latest = LATEST_MS if latest_ms is None else latest_ms
        values = [payload or b"" for payload in payloads]
        flags = scan(values)
        plain = None if any(flags) else self._read_plain(values)
        answers: list[Any] = plain or list(map(self._read_as_scanned, values, flags))
        records = plain or [answer for answer in answers if type(answer) is not Invalid]
        for i in self._suspects(answers, records, flags, latest):
            answers[i] = self._checked(answers[i], latest)
        return answers

    def decode_strictly(self, payload: bytes | None, latest_ms: int | None = None) -> Record | Invalid:
        """What `decode` answers for one payload, found without scan or memory; some 15 us."""
        return self._checked(self._read(payload or b""), LATEST_MS if latest_ms is None else latest_ms)

    def _suspects(self, answers: list[Any], records: list[Any], flags: bytes, latest_ms: int) -> set[int]:
        """Positions of answers whose texts or times may break a rule; `records` are those not Invalid."""
        suspects = {i for i, flag in enumerate(flags) if flag != PLAIN}
        for text in self._unproved:
            refused = text.refused(records)
            if refused:
                suspects.update(
                    i
                    for i, answer in enumerate(answers)
                    if type(answer) is not Invalid and text.of(answer) in refused
                )
        if not all(time.all_hold(records, latest_ms) for time in self._times):
            suspects.update(range(len(answers)))
        return suspects

    def _read_plain(self, values: Sequence[bytes]) -> list[Record] | None:
        try:
            return list(map(self._from_json, values))
        except DECODING_ERRORS:
            return None  # which one it is, reading them one at a time tells

    def _read_as_scanned(self, value: bytes, flag: int) -> Record | Invalid:
        if flag == SUSPECT:
            return self._read(value)
        try:
            return self._from_json(value)
        except DECODING_ERRORS:
            return self._read(value)

    def _read(self, value: bytes) -> Record | Invalid:
        """The record in a payload, its texts and times not yet checked."""
        if value[:1] == avro.CONFLUENT or value[:2] == avro.SINGLE_OBJECT:
            return avro.read(value, self._type, self._catalogue)
        if not value.strip(b" \t\r\n"):
            return refuse("empty", "the value is empty or null")
        tree = parse(value)
        if isinstance(tree, Invalid):
            return tree
        try:
            return self._from_json(value)
        except DECODING_ERRORS as error:
            return explain(error)

    def _checked(self, answer: Record | Invalid, latest_ms: int) -> Record | Invalid:
        if isinstance(answer, Invalid):
            return answer
        faults = (fault for text in self._texts if (fault := text.fault(answer)))
        late_faults = (fault for time in self._times if (fault := time.fault(answer, latest_ms)))
        return next(faults, None) or next(late_faults, None) or answer


def marks(type_: inspect.Type, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The `extra` of every Meta in a type, each with the dotted path of its field."""
    if isinstance(type_, inspect.Metadata):
        if type_.extra:
            yield path, type_.extra
        yield from marks(type_.type, path)
    elif isinstance(type_, inspect.UnionType):
        for alternative in type_.types:
            yield from marks(alternative, path)
    elif isinstance(type_, inspect.StructType):
        for field in type_.fields:
            yield from marks(field.type, f"{path}.{field.name}" if path else field.name)


def _reader(path: str) -> Callable[[Any], Any]:
    """Reads the attribute at a dotted path; None where a part of the way is None."""
    if "." not in path:
        return attrgetter(path)
    names = path.split(".")

    def read(record: Any) -> Any:
        for name in names:
            if record is None:
                return None
            record = getattr(record, name)
        return record

    return read
