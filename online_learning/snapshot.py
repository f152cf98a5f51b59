"""Snapshots: structs of plain numbers and arrays as msgpack, nothing that could be code."""

from typing import Any, Final, TypeVar, get_origin

import msgspec
import numpy as np
from river.drift import PageHinkley
from xxhash import xxh3_128_digest

from models.artefact import FEATURES_SHA256
from online_learning import drift
from online_learning.recent import Kept, Recent

FORMAT: Final = 1
"""Another one with every change of what is in a snapshot or what it means."""

State = TypeVar("State", bound=msgspec.Struct)


class SnapshotRefusedError(Exception):
    """The bytes are no snapshot for this trainer; the message says why."""


class _Snapshot(msgspec.Struct, frozen=True):
    """`state` is looked at once the rest is known to be right. digest: XXH3 of it, 128 bits."""

    format: int
    features_sha256: str
    digest: bytes = b""
    state: msgspec.Raw = msgspec.Raw()


class _Array(msgspec.Struct, frozen=True):
    dtype: str
    shape: list[int]
    data: bytes


def encode(state: msgspec.Struct) -> bytes:
    """The snapshot of a state; equal states give equal bytes."""
    packed = msgspec.msgpack.encode(state, enc_hook=_plain)
    digest = xxh3_128_digest(packed)
    return msgspec.msgpack.encode(_Snapshot(FORMAT, FEATURES_SHA256, digest, msgspec.Raw(packed)))


def decode(data: bytes, state: type[State]) -> State:
    """The state in a snapshot. Raises SnapshotRefusedError."""
    try:
        snapshot = msgspec.msgpack.decode(data, type=_Snapshot)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise SnapshotRefusedError(f"not a snapshot: {error}") from error
    if snapshot.format != FORMAT:
        raise SnapshotRefusedError(f"a snapshot of format {snapshot.format}, this trainer reads {FORMAT}")
    if snapshot.features_sha256 != FEATURES_SHA256:
        raise SnapshotRefusedError("the snapshot is of another feature contract")
    if xxh3_128_digest(snapshot.state) != snapshot.digest:
        raise SnapshotRefusedError("the snapshot is damaged")
    return msgspec.msgpack.decode(snapshot.state, type=state, dec_hook=_rich)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return _Array(value.dtype.str, list(value.shape), value.tobytes())
    if isinstance(value, Recent):
        return value.kept()
    if isinstance(value, PageHinkley):
        return drift.numbers(value)
    raise NotImplementedError(type(value))


def _rich(kind: Any, value: Any) -> Any:
    if get_origin(kind) is np.ndarray:
        stored = msgspec.convert(value, _Array)
        return np.frombuffer(stored.data, stored.dtype).reshape(stored.shape).copy()
    if kind is Recent:
        return Recent.of(msgspec.convert(value, Kept, dec_hook=_rich))
    if kind is PageHinkley:
        return drift.restored(msgspec.convert(value, list[float]))
    raise NotImplementedError(kind)
