"""What the user stage hands to the terminal stage: one packed sub-batch per destination shard."""

from typing import Any

import msgspec


class SubBatch(msgspec.Struct, array_like=True, gc=False):
    """Transactions of one user shard that go to one terminal shard, in order, and labels for its terminals.

    rows: n lists of field values, in the order of `Transaction`; transactions: TRANSACTION [n];
    features: f4 [n, N_USER]; late: positions of the late ones; labelled: the terminal of each label;
    labels: LABEL [m].
    """

    rows: list[Any] = []
    transactions: bytes = b""
    features: bytes = b""
    late: list[int] = []
    labelled: list[str] = []
    labels: bytes = b""


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(SubBatch).decode
