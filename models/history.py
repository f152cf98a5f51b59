"""Recorded transactions with their truth, from columns with wire names to the arrays that replay reads."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from events.types import EARLIEST_MS, MAX_AMOUNT
from state.columns import TYPE_CODES
from state.contract import DAY_MS
from state.layout import LABEL, TRANSACTION
from state.replay import KnownLabels

REQUIRED = ("transaction_id", "user_id", "event_time", "amount", "is_fraud")
NUMBERS = ("latitude", "longitude", "balance_before", "balance_after", "card_present")


class HistoryError(ValueError):
    """The transactions cannot be trained on; the message names the column and the reason."""


class History(NamedTuple):
    """n transactions in the order of their event times.

    transactions: TRANSACTION [n]; user: i8 [n], number of the user; terminal: i8 [n], number of the terminal
    or -1; is_fraud: bool [n]; labelled_at: i8 [n], ms since the epoch at which a fraud becomes known;
    scenario: fraud pattern of each, "" where the source names none.
    """

    transactions: NDArray[np.void]
    user: NDArray[np.int64]
    terminal: NDArray[np.int64]
    is_fraud: NDArray[np.bool_]
    labelled_at: NDArray[np.int64]
    scenario: NDArray[Any]

    @property
    def time(self) -> NDArray[np.int64]:
        """Event times i8 [n] in ms since the epoch, ascending."""
        times: NDArray[np.int64] = self.transactions["time"]
        return times

    def known_labels(self) -> KnownLabels:
        """The frauds as labels, each folded before the first transaction after it became known.

        A legitimate label changes no profile unless it takes back a fraud, so those are left out.
        """
        frauds = np.flatnonzero(self.is_fraud)
        frauds = frauds[np.argsort(self.labelled_at[frauds], kind="stable")]
        before = np.searchsorted(self.time, self.labelled_at[frauds], side="right")
        heard = before < len(self.time)
        frauds, before = frauds[heard], before[heard]
        labels = np.empty(len(frauds), LABEL)
        labels["time"] = self.time[frauds]
        labels["id"] = self.transactions["id"][frauds]
        labels["amount"] = self.transactions["amount"][frauds]
        labels["ratio"] = np.nan
        labels["is_fraud"] = True
        return KnownLabels(labels, self.user[frauds], self.terminal[frauds], before)


def history(frame: pd.DataFrame, label_delay_days: float, now_ms: int) -> History:
    """The history in a DataFrame with wire columns and `is_fraud`, sorted by time.

    event_time is in ms since the epoch. A column `labelled_at` (ms; NaN for never) says when each label
    became known, else `label_delay_days` after the transaction; `fraud_scenario` is optional too. Raises
    HistoryError for an empty frame, missing columns or values, and values or times out of range.
    """
    _check(frame, now_ms)
    frame = frame.sort_values("event_time", kind="stable", ignore_index=True)
    time = frame["event_time"].to_numpy(np.int64)
    if "labelled_at" in frame:
        never = np.iinfo(np.int64).max
        labelled_at = np.asarray(frame["labelled_at"].astype("Int64").fillna(never), np.int64)
    else:
        labelled_at = time + round(label_delay_days * DAY_MS)
    scenario = frame.get("fraud_scenario", pd.Series("", frame.index))
    return History(
        transactions(frame),
        pd.factorize(frame["user_id"])[0].astype(np.int64),
        pd.factorize(_column(frame, "terminal_id"))[0].astype(np.int64),
        frame["is_fraud"].to_numpy(np.int64) == 1,
        labelled_at,
        scenario.fillna("").astype(str).to_numpy(object),
    )


def transactions(frame: pd.DataFrame) -> NDArray[np.void]:
    """TRANSACTION [n] from wire columns; equal to `state.columns.transaction_array` over the same rows."""
    array = np.zeros(len(frame), TRANSACTION)
    array["time"] = frame["event_time"]
    array["amount"] = frame["amount"]
    for name, column in (
        ("id", "transaction_id"),
        ("user", "user_id"),
        ("terminal", "terminal_id"),
        ("device", "device_id"),
        ("receiver", "receiver_id"),
    ):
        array[name] = _coded(_column(frame, column), lambda v: xxh3_64_intdigest(v.encode()), np.uint64)
    array["country"] = _coded(_column(frame, "country"), lambda v: ord(v[0]) << 8 | ord(v[1]), np.uint16)
    array["type"] = _coded(_column(frame, "transaction_type"), TYPE_CODES.__getitem__, np.uint8)
    for name in NUMBERS:
        array[name] = pd.to_numeric(_column(frame, name)).to_numpy(np.float64, na_value=np.nan)
    return array


def _column(frame: pd.DataFrame, name: str) -> "pd.Series[Any]":
    return frame[name] if name in frame else pd.Series(None, frame.index, dtype=object)


def _coded(values: "pd.Series[Any]", code: Callable[[str], int], dtype: type[np.generic]) -> NDArray[Any]:
    """The code of each value, 0 for a missing one; each distinct value is coded once."""
    position, distinct = pd.factorize(values)
    codes = np.array([code(value) for value in distinct] + [0], dtype)  # a missing value has position -1
    return codes[position]


def _check(frame: pd.DataFrame, now_ms: int) -> None:
    """Raises HistoryError for the first reason why the frame is no good."""
    _check_presence(frame)
    time = frame["event_time"]
    if not pd.api.types.is_integer_dtype(time):
        raise HistoryError(f"event_time: must be whole milliseconds since the epoch, not {time.dtype}")
    if time.min() < EARLIEST_MS:
        raise HistoryError(f"event_time: {int((time < EARLIEST_MS).sum())} lie before the year 2000")
    if time.max() > now_ms:
        raise HistoryError(f"event_time: {int((time > now_ms).sum())} lie in the future")
    if not pd.api.types.is_numeric_dtype(frame["amount"]):
        raise HistoryError(f"amount: must be a number, not {frame['amount'].dtype}")
    strange = ~frame["amount"].between(0, MAX_AMOUNT)
    if strange.any():
        raise HistoryError(f"amount: {int(strange.sum())} are not within 0 to {MAX_AMOUNT:g}")
    if not frame["is_fraud"].isin([0, 1]).all():
        raise HistoryError("is_fraud: must be 0 or 1")


def _check_presence(frame: pd.DataFrame) -> None:
    missing = [name for name in REQUIRED if name not in frame]
    if missing:
        raise HistoryError(f"column {missing[0]} is missing; there are {', '.join(map(str, frame.columns))}")
    if frame.empty:
        raise HistoryError("there are no transactions")
    for name in REQUIRED:
        if frame[name].isna().any():
            raise HistoryError(f"{name}: {int(frame[name].isna().sum())} values are missing")
