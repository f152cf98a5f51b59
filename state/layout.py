"""Layout of the packed profiles and of the transactions and labels that the kernels read.

A profile is one row of a NumPy structured type, stored as bytes. Its first field is the version of the
layout; `state.migration` turns older rows into the present layout.
"""

import numpy as np

from state.contract import (
    BUCKETS,
    HISTORY,
    MAX_RISK_DELAY_MS,
    RECENT,
    RISK_WINDOWS,
    TERMINAL_WINDOWS,
    USER_WINDOWS,
)

USER_LAYOUT = 2
TERMINAL_LAYOUT = 2

SEEN = 32  # transaction ids remembered per user
KNOWN_DEVICES = 8
KNOWN_TERMINALS = 24
KNOWN_COUNTRIES = 8
KNOWN_RECEIVERS = 16
USER_FRAUDS = 8
TERMINAL_FRAUDS = 32
USER_CELLS = 256  # cells of the linear counting of a terminal's users


def risk_buckets(window: int) -> int:
    """Buckets that a risk window needs so that it can end as long ago as the longest delay."""
    return BUCKETS + -(-MAX_RISK_DELAY_MS // (window // BUCKETS)) + 1


USER_PROFILE = np.dtype(
    [
        ("version", "u2"),
        ("home_votes", "u2"),
        ("country", "u2"),  # ISO 3166-1 alpha-2 as two bytes; 0 means none yet
        ("home", "u2"),
        ("count", "u4"),
        ("device_count", "u4"),
        ("first_ms", "i8"),
        ("last_ms", "i8"),  # latest event time: it says which buckets the rings hold
        ("mean", "f8"),
        ("m2", "f8"),
        ("window_count", "u4", (len(USER_WINDOWS), BUCKETS)),
        ("window_sum", "f4", (len(USER_WINDOWS), BUCKETS)),
        ("seen", "u8", (SEEN,)),  # 48 bits of the transaction id, 16 bits of its content
        ("recent_amount", "f4", (HISTORY,)),  # NaN where an older layout did not keep it
        ("recent_second", "u4", (RECENT,)),
        ("recent_terminal", "u4", (RECENT,)),
        ("devices", "u4", (KNOWN_DEVICES,)),
        ("terminals", "u4", (KNOWN_TERMINALS,)),
        ("terminal_count", "u4", (KNOWN_TERMINALS,)),
        ("terminal_total", "u4"),
        ("seen_count", "u4"),
        ("receivers", "u4", (KNOWN_RECEIVERS,)),
        ("receiver_second", "u4", (KNOWN_RECEIVERS,)),
        ("countries", "u2", (KNOWN_COUNTRIES,)),
        ("latitude", "f4"),
        ("longitude", "f4"),
        ("place_ms", "i8"),
        ("fraud_id", "u4", (USER_FRAUDS,)),
        ("fraud_second", "u4", (USER_FRAUDS,)),
    ],
    align=True,
)

TERMINAL_PROFILE = np.dtype(
    [
        ("version", "u2"),
        ("count", "u4"),
        ("last_ms", "i8"),
        ("mean", "f8"),
        ("m2", "f8"),
        ("window_count", "u4", (len(TERMINAL_WINDOWS), BUCKETS)),
        ("window_sum", "f4", (len(TERMINAL_WINDOWS), BUCKETS)),
        ("user_second", "u4", (USER_CELLS,)),
        # Counts saturate at 65,535 per bucket of 72 minutes.
        ("risk_1d", "u2", (risk_buckets(RISK_WINDOWS[0]),)),
        ("risk_7d", "u4", (risk_buckets(RISK_WINDOWS[1]),)),
        ("risk_30d", "u4", (risk_buckets(RISK_WINDOWS[2]),)),
        ("fraud_id", "u4", (TERMINAL_FRAUDS,)),
        ("fraud_second", "u4", (TERMINAL_FRAUDS,)),
        ("fraud_amount", "f4", (TERMINAL_FRAUDS,)),
        ("fraud_ratio", "f4", (TERMINAL_FRAUDS,)),
        ("defrauded_count", "u4", (BUCKETS,)),  # over the longest of the windows
    ],
    align=True,
)

TRANSACTION = np.dtype(
    [
        ("time", "i8"),  # ms since the epoch
        ("amount", "f8"),
        ("id", "u8"),  # hashes: 0 means that the field is missing
        ("user", "u4"),
        ("terminal", "u4"),
        ("device", "u4"),
        ("receiver", "u4"),
        ("latitude", "f4"),
        ("longitude", "f4"),
        ("balance_before", "f8"),
        ("balance_after", "f8"),
        ("card_present", "f4"),  # 1, 0 or NaN
        ("country", "u2"),
        ("type", "u1"),  # position in TRANSACTION_TYPES + 1; 0 means missing
    ],
    align=True,
)

LABEL = np.dtype(
    [
        ("time", "i8"),
        ("id", "u8"),
        ("amount", "f4"),  # NaN where the label does not say
        ("ratio", "f4"),  # against the user's median when the label came; the user's kernel fills it in
        ("is_fraud", "?"),
    ],
    align=True,
)

TRANSACTION_TYPES = ("purchase", "payment", "transfer", "cash_out", "cash_in", "debit", "refund")
TRANSFER = TRANSACTION_TYPES.index("transfer") + 1
CASH_OUT = TRANSACTION_TYPES.index("cash_out") + 1
