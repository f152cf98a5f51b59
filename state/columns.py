"""From records of the wire contract to the arrays that the kernels read."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from events.feedback import Label
from events.transaction import Transaction
from events.types import epoch_ms
from state.layout import LABEL, TRANSACTION, TRANSACTION_TYPES

TYPE_CODES: dict[str | None, int] = {None: 0} | {name: k + 1 for k, name in enumerate(TRANSACTION_TYPES)}
EVENT_TIME = Transaction.__struct_fields__.index("event_time")


def field_values(transaction: Transaction) -> list[Any]:
    """The fields in the order of the struct, event_time as epoch milliseconds."""
    values = list(msgspec.structs.astuple(transaction))
    values[EVENT_TIME] = epoch_ms(values[EVENT_TIME])
    return values


def _hashes(values: Sequence[str | None]) -> NDArray[np.uint64]:
    """A stable 64-bit hash (xxh3) of each value; 0 for a missing one."""
    return np.array([xxh3_64_intdigest(v.encode()) if v is not None else 0 for v in values], np.uint64)


def _country_codes(values: Sequence[str | None]) -> list[int]:
    return [ord(v[0]) << 8 | ord(v[1]) if v is not None else 0 for v in values]


def transaction_array(rows: Sequence[Sequence[Any]]) -> NDArray[np.void]:
    """TRANSACTION [n] from n rows of `field_values`."""
    array = np.empty(len(rows), TRANSACTION)
    if not rows:
        return array
    column = dict(zip(Transaction.__struct_fields__, zip(*rows, strict=True), strict=True))
    array["time"] = column["event_time"]
    array["id"] = _hashes(column["transaction_id"])
    array["user"] = _hashes(column["user_id"])
    array["terminal"] = _hashes(column["terminal_id"])
    array["device"] = _hashes(column["device_id"])
    array["receiver"] = _hashes(column["receiver_id"])
    array["country"] = _country_codes(column["country"])
    array["type"] = [TYPE_CODES[v] for v in column["transaction_type"]]
    for name in ("amount", "latitude", "longitude", "balance_before", "balance_after", "card_present"):
        array[name] = np.array(column[name], np.float64)  # None becomes NaN
    return array


def label_array(labels: Sequence[Label]) -> NDArray[np.void]:
    """LABEL [n] from n labels."""
    array = np.empty(len(labels), LABEL)
    array["time"] = [epoch_ms(label.event_time) for label in labels]
    array["id"] = _hashes([label.transaction_id for label in labels])
    array["amount"] = np.array([label.amount for label in labels], np.float64)  # None becomes NaN
    array["ratio"] = np.nan
    array["is_fraud"] = [label.is_fraud for label in labels]
    return array
