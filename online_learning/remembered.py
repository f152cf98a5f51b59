"""What is kept of decisions, packed: by this a label finds what it speaks of, months later."""

import zlib
from collections.abc import Sequence

import msgspec
import numpy as np

from events.decision import FeatureVector, decision_id
from online_learning.precedence import SOURCES, Ruling
from state.migration import UnknownLayoutError

LAYOUT = 1
"""First byte of every packed value; a change of the structs below means a new number and a migration."""

DEFLATE = -zlib.MAX_WBITS  # without header and checksum: state has its own


class Basis(msgspec.Struct, gc=False):
    """The part of a decision that says what it was made with; see `Decision`."""

    model_version: str
    contract_version: int
    features: FeatureVector
    parts: dict[str, float] = {}


class Snapshot(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """What a decision was made with, to learn from.

    parts, part_scores: their names, and f4 for each; features: deflated, for many are counts or zero: of 500
    bytes some 310 are left, in 25 us. sampled: as of an example, None for 1.
    """

    score: float
    model_version: str
    contract_version: int
    parts: list[str]
    part_scores: bytes
    features: bytes
    sampled: float | None

    @classmethod
    def of(cls, score: float, basis: Basis, sampled: float) -> "Snapshot":
        """What is kept of a decision."""
        return cls(
            score,
            basis.model_version,
            basis.contract_version,
            list(basis.parts),
            np.array(list(basis.parts.values()), "<f4").tobytes(),
            zlib.compress(basis.features, wbits=DEFLATE),
            None if sampled == 1.0 else sampled,
        )

    @property
    def basis(self) -> Basis:
        """What the decision was made with; the scores of its parts as f4, all else as it was."""
        scores = np.frombuffer(self.part_scores, "<f4").tolist()
        return Basis(
            self.model_version,
            self.contract_version,
            zlib.decompress(self.features, wbits=DEFLATE),
            dict(zip(self.parts, scores, strict=True)),
        )


class Remembered(msgspec.Struct, array_like=True, gc=False):
    """A decision, and the label that holds for its transaction.

    snapshot: None for a decision of which only so much is kept as a label needs. changes: how often each of
    SOURCES has set the label.
    """

    user_id: str
    terminal_id: str | None
    event_time: int
    amount: float
    snapshot: Snapshot | None
    ruling: Ruling | None = None
    changes: list[int] = msgspec.field(default_factory=lambda: [0] * len(SOURCES))

    def decision_id(self, transaction_id: str) -> str:
        """Id of the decision, from that of the transaction it is kept under."""
        return decision_id(self.user_id, transaction_id)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Remembered]).decode


def pack(decisions: Sequence[Remembered]) -> bytes:
    """The decisions on one transaction id: one, or one per user where users share the id."""
    return bytes((LAYOUT,)) + _encode(decisions)


def unpack(data: bytes) -> list[Remembered]:
    """Raises UnknownLayoutError for a layout that this version cannot read."""
    if data[0] != LAYOUT:
        raise UnknownLayoutError(f"decisions are kept in layout {data[0]}, known: {LAYOUT}")
    return _decode(memoryview(data)[1:])
