"""Kafka records as the stages see them: where each came from, and what becomes of one that is refused."""

import msgspec
from pyflink.common import Types
from pyflink.datastream import OutputTag

from events.decision import DeadLetter
from events.invalid import Invalid

BYTES = Types.PRIMITIVE_ARRAY(Types.BYTE())
RECORD = Types.ROW_NAMED(["k", "v"], [BYTES, BYTES])
DEAD_LETTERS = OutputTag("dead-letters", BYTES)

KINDS = 4
"""A source may read so many topics; the kind of a record is the number of its topic."""
PARTITION_UNIT = 1 << 40
"""In SQL topic, partition and offset become one: (KINDS * partition + kind) * PARTITION_UNIT + offset."""


def kind_of(position: int) -> int:
    """Which of the topics of its source a record came from."""
    return position // PARTITION_UNIT % KINDS


class Source(msgspec.Struct, frozen=True):
    """Where a record came from."""

    topic: str
    partition: int
    offset: int
    key: str | None
    payload: bytes | None

    @classmethod
    def at(cls, position: int, topic: str, key: str | None, payload: bytes | None) -> "Source":
        """The source of the record at a position."""
        return cls(topic, position // PARTITION_UNIT // KINDS, position % PARTITION_UNIT, key, payload)


def dead_letter(invalid: Invalid, source: Source, max_bytes: int) -> bytes:
    """The dead letter of a refused record as JSON of at most `max_bytes`; the payload is cut to fit."""
    payload = source.payload or b""
    limit = max_bytes * 3 // 4 - 2048  # base64 and the other fields
    letter = DeadLetter(
        reason=invalid.reason,
        detail=invalid.detail,
        field=invalid.field,
        topic=source.topic,
        partition=source.partition,
        offset=source.offset,
        key=source.key.encode()[:1024] if source.key is not None else None,
        payload=payload[:limit],
        truncated_from=len(payload) if len(payload) > limit else None,
    )
    return msgspec.json.encode(letter)
