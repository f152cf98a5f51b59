"""The terminal's features: velocity, amounts, distinct users, delayed fraud risk, in one sequential pass."""

import math
from typing import Any

import numba as nb
import numpy as np

from state.contract import BUCKETS, RISK_WINDOWS, TERMINAL_WINDOWS, T
from state.layout import TERMINAL_LAYOUT, USER_CELLS
from state.rings import advance, fold, fold_label, sample_deviation, window_totals

WINDOWS_S = np.array(TERMINAL_WINDOWS, np.int64) // 1000
WIDTHS = np.array(TERMINAL_WINDOWS, np.int64) // BUCKETS
LONGEST_MS = TERMINAL_WINDOWS[-1]
RISK_1D, RISK_7D, RISK_30D = (w // BUCKETS for w in RISK_WINDOWS)
SATURATED = 65535
N_TERMINAL = T.RISK.value + len(RISK_WINDOWS)


@nb.njit(cache=True)
def _distinct_users(user_second: Any, own: int, second: int, window_s: int) -> float:
    """Users seen in the window, by linear counting over cells that keep the time of the last visit.

    The user's own cell counts always: behind a later visit the time of this one is not kept.

    Linear counting is from Whang, Vander-Zanden and Taylor (1990), the vector of time stamps from Kim and
    O'Hallaron (2003). Exact to a few per cent up to about 400 users; it ends at 256 ln 256 = 1,420.
    """
    lowest = np.uint32(max(second - window_s + 1, 1))
    highest = np.uint32(second)
    hit = np.uint32(0)
    for k in range(USER_CELLS):
        hit += np.uint32((user_second[k] >= lowest) & (user_second[k] <= highest))
    hit += np.uint32(user_second[own] > highest)
    empty = max(USER_CELLS - np.int64(hit), 1)
    return USER_CELLS * math.log(USER_CELLS / empty)


@nb.njit(cache=True)
def _risk(ring: Any, seconds: Any, newest_ms: int, until_ms: int, width: int) -> float:
    """Known frauds / transactions over the BUCKETS buckets that end with that of until_ms; else NaN."""
    last = until_ms // width
    head = newest_ms // width
    total = np.int64(0)
    for bucket in range(max(last - BUCKETS + 1, head - len(ring) + 1), min(last, head) + 1):
        total += np.int64(ring[bucket % len(ring)])
    if total == 0:
        return np.nan
    frauds = 0
    for k in range(len(seconds)):
        if seconds[k] != 0:
            bucket = np.int64(seconds[k]) * 1000 // width
            frauds += last - BUCKETS < bucket <= last
    return min(frauds / total, 1.0)


@nb.njit(cache=True)
def terminal_kernel(profiles: Any, row: Any, transactions: Any, risk_delay_ms: int, out: Any) -> None:
    """Features of each transaction against its terminal's profile; the profile is updated in place.

    profiles: TERMINAL_PROFILE [p]; row: i8 [n], the profile of each transaction, or -1 where it has no
    terminal (its features are NaN); transactions: TRANSACTION [n]; risk_delay_ms: 0 to MAX_RISK_DELAY_MS;
    out: f4 [n, N_TERMINAL].
    """
    for i in range(len(row)):
        o = out[i]
        if row[i] < 0:
            o[:] = np.nan
            continue
        p = profiles[row[i]]
        t = transactions[i]
        if p.count == 0:
            p.version = TERMINAL_LAYOUT
            p.last_ms = t.time
        newest = max(p.last_ms, t.time)
        second = t.time // 1000

        deviation = sample_deviation(p.count, p.m2)
        o[T.AMOUNT_MEAN.value] = p.mean if p.count > 0 else np.nan
        o[T.AMOUNT_RATIO.value] = t.amount / p.mean if p.count > 0 and p.mean > 0.0 else np.nan
        o[T.AMOUNT_Z.value] = (t.amount - p.mean) / deviation if deviation > 0.0 else np.nan

        cell = t.user % USER_CELLS
        p.user_second[cell] = max(np.int64(p.user_second[cell]), second)
        for w in range(len(WIDTHS)):
            advance(p.window_count[w], p.last_ms, newest, WIDTHS[w])
            advance(p.window_sum[w], p.last_ms, newest, WIDTHS[w])
            fold(p.window_count[w], newest, t.time, WIDTHS[w], 1)
            fold(p.window_sum[w], newest, t.time, WIDTHS[w], t.amount)
            c, s = window_totals(p.window_count[w], p.window_sum[w], newest, t.time, WIDTHS[w])
            o[T.COUNT.value + w] = c
            o[T.SUM.value + w] = s
            o[T.USERS.value + w] = _distinct_users(p.user_second, cell, second, WINDOWS_S[w])

        advance(p.risk_1d, p.last_ms, newest, RISK_1D)
        advance(p.risk_7d, p.last_ms, newest, RISK_7D)
        advance(p.risk_30d, p.last_ms, newest, RISK_30D)
        if p.risk_1d[t.time // RISK_1D % len(p.risk_1d)] < SATURATED:
            fold(p.risk_1d, newest, t.time, RISK_1D, 1)
        fold(p.risk_7d, newest, t.time, RISK_7D, 1)
        fold(p.risk_30d, newest, t.time, RISK_30D, 1)
        until = t.time - risk_delay_ms
        o[T.RISK.value] = _risk(p.risk_1d, p.fraud_second, newest, until, RISK_1D)
        o[T.RISK.value + 1] = _risk(p.risk_7d, p.fraud_second, newest, until, RISK_7D)
        o[T.RISK.value + 2] = _risk(p.risk_30d, p.fraud_second, newest, until, RISK_30D)

        p.last_ms = newest
        if newest - t.time >= LONGEST_MS:
            continue
        p.count += 1
        delta = t.amount - p.mean
        p.mean += delta / p.count
        p.m2 += delta * (t.amount - p.mean)


@nb.njit(cache=True)
def label_terminal(profiles: Any, row: Any, labels: Any) -> None:
    """Fold labels (LABEL [n]) into the terminals' known frauds (TERMINAL_PROFILE [p], row i8 [n])."""
    for i in range(len(row)):
        p = profiles[row[i]]
        p.version = TERMINAL_LAYOUT
        fold_label(p.fraud_id, p.fraud_second, labels[i])
