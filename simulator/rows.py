"""One simulated transaction as a packed row of codes; names come in only when columns are made."""

from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.void]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

NONE: Final = -1


class Kind(IntEnum):
    """Codes of `transaction_type`, in the order of KIND_NAMES."""

    PURCHASE = 0
    PAYMENT = 1
    TRANSFER = 2
    CASH_OUT = 3
    CASH_IN = 4
    DEBIT = 5
    REFUND = 6


class Channel(IntEnum):
    """Codes of `channel`. At POS and ATM the card is present and the place is the terminal's."""

    POS = 0
    ATM = 1
    ONLINE = 2
    MOBILE = 3
    BANK = 4


ROW: Final = np.dtype(
    [
        ("event_time", "i8"),  # ms since the epoch, UTC
        ("user", "i4"),
        ("terminal", "i4"),
        ("receiver", "i4"),  # a user, or users + the number of a biller
        ("amount", "f8"),
        ("kind", "i1"),
        ("channel", "i1"),
        ("device", "i8"),
        ("ip", "i4"),
        ("scenario", "i1"),  # index in SCENARIOS
        ("balance_before", "f8"),
        ("balance_after", "f8"),
    ]
)


def blank(n: int) -> Rows:
    """`n` purchases at the till with nothing else known."""
    rows = np.zeros(n, dtype=ROW)
    for field in ("terminal", "receiver", "device", "ip"):
        rows[field] = NONE
    rows["balance_before"] = rows["balance_after"] = np.nan
    return rows


def random_stream(seed: int, *concern: int) -> np.random.Generator:
    """A generator for one concern: drawing more for one leaves all others as they were."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *concern])))
