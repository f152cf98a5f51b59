"""The terminal's features: velocity, amounts, distinct users, delayed fraud risk, in one sequential pass."""

import math
from typing import Any

import numba as nb
import numpy as np

from state.contract import BUCKETS, DAY_MS, FRAUD_WINDOW_MS, RISK_WINDOWS, TERMINAL_WINDOWS, T
from state.layout import TERMINAL_FRAUDS, TERMINAL_LAYOUT, USER_CELLS
from state.rings import advance, fold, fold_label, sample_deviation, window_totals

WINDOWS_S = np.array(TERMINAL_WINDOWS, np.int64) // 1000
WIDTHS = np.array(TERMINAL_WINDOWS, np.int64) // BUCKETS
LONGEST_MS = TERMINAL_WINDOWS[-1]
RISK_1D, RISK_7D, RISK_30D = (w // BUCKETS for w in RISK_WINDOWS)
SATURATED = 65535
N_TERMINAL = T.DAYS_SINCE_LEGITIMATE.value + 1


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
def _between(ring: Any, newest_ms: int, first: int, last: int, width: int) -> int:
    """Sum over the buckets first to last, as far as the ring holds them."""
    head = newest_ms // width
    total = np.int64(0)
    for bucket in range(max(first, head - len(ring) + 1), min(last, head) + 1):
        total += np.int64(ring[bucket % len(ring)])
    return int(total)


@nb.njit(cache=True)
def _transactions(p: Any, newest_ms: int, after_ms: int, until_ms: int, last: int) -> int:
    """Transactions between the buckets of two times, by the finest ring that goes back so far.

    last: 0 to count the bucket of until_ms, -1 to leave it out; that of after_ms is always left out.
    """
    if newest_ms // RISK_1D - after_ms // RISK_1D < len(p.risk_1d):
        width = RISK_1D
        return int(_between(p.risk_1d, newest_ms, after_ms // width + 1, until_ms // width + last, width))
    if newest_ms // RISK_7D - after_ms // RISK_7D < len(p.risk_7d):
        width = RISK_7D
        return int(_between(p.risk_7d, newest_ms, after_ms // width + 1, until_ms // width + last, width))
    width = RISK_30D
    return int(_between(p.risk_30d, newest_ms, after_ms // width + 1, until_ms // width + last, width))


@nb.njit(cache=True)
def _days_clean(p: Any, newest_ms: int, time: int, before_s: int) -> float:
    """Time since the bucket with the last transaction before that of before_s; NaN where none is held."""
    bucket = np.int64(before_s) * 1000 // RISK_1D - 1
    while newest_ms // RISK_1D - bucket < len(p.risk_1d):
        if p.risk_1d[bucket % len(p.risk_1d)] > 0:
            return (time - bucket * RISK_1D) / DAY_MS
        bucket -= 1
    return np.nan


@nb.njit(cache=True)
def _latest_first(p: Any, time: int, order: Any) -> int:
    """How many known frauds lie in FRAUD_WINDOW_MS before time; order: i8 [TERMINAL_FRAUDS], their places."""
    n = 0
    oldest = (time - FRAUD_WINDOW_MS) // 1000
    for k in range(TERMINAL_FRAUDS):
        second = np.int64(p.fraud_second[k])
        if p.fraud_id[k] == 0 or second < oldest or second > time // 1000:
            continue
        at = n
        while at > 0 and p.fraud_second[order[at - 1]] < p.fraud_second[k]:
            order[at] = order[at - 1]
            at -= 1
        order[at] = k
        n += 1
    return n


@nb.njit(cache=True)
def _frauds(  # noqa: PLR0913, PLR0917
    p: Any, time: int, newest_ms: int, until_ms: int, order: Any, o: Any
) -> None:
    n = _latest_first(p, time, order)
    o[T.FRAUDS.value] = n
    o[T.DAYS_SINCE_FRAUD.value : T.FRAUD_RATIO_LEAST.value + 1] = np.nan
    if n == 0:
        return
    second = time / 1000.0
    latest, first = np.int64(p.fraud_second[order[0]]), np.int64(p.fraud_second[order[n - 1]])
    o[T.DAYS_SINCE_FRAUD.value] = (second - latest) * 1000.0 / DAY_MS
    o[T.DAYS_SINCE_FIRST_FRAUD.value] = (second - first) * 1000.0 / DAY_MS
    o[T.LEGITIMATE_SINCE_FRAUD.value] = _transactions(p, newest_ms, latest * 1000, until_ms, 0)

    run = 1
    start = latest
    while run < n:
        earlier = np.int64(p.fraud_second[order[run]])
        if _transactions(p, newest_ms, earlier * 1000, min(start * 1000, until_ms), -1) > 0:
            break
        start = earlier
        run += 1
    o[T.FRAUD_RUN.value] = run
    o[T.DAYS_SINCE_RUN.value] = (second - start) * 1000.0 / DAY_MS
    o[T.DAYS_CLEAN.value] = _days_clean(p, newest_ms, time, start)
    amount, ratio, least = 0.0, 0.0, np.inf
    for k in range(run):
        amount += p.fraud_amount[order[k]]
        ratio += p.fraud_ratio[order[k]]
        least = min(least, p.fraud_ratio[order[k]])
    o[T.FRAUD_AMOUNT.value] = amount / run
    o[T.FRAUD_RATIO.value] = ratio / run
    o[T.FRAUD_RATIO_LEAST.value] = least if not math.isnan(ratio) else np.nan


@nb.njit(cache=True)
def _days_since_legitimate(p: Any, newest_ms: int, time: int, until_ms: int) -> float:
    """Time since the last bucket that is older than the delay and holds more than known frauds; else NaN."""
    bucket = until_ms // RISK_1D - 1
    while newest_ms // RISK_1D - bucket < len(p.risk_1d):
        others = np.int64(p.risk_1d[bucket % len(p.risk_1d)])
        if others > 0:
            for k in range(TERMINAL_FRAUDS):
                others -= p.fraud_id[k] != 0 and np.int64(p.fraud_second[k]) * 1000 // RISK_1D == bucket
            if others > 0:
                return (time - bucket * RISK_1D) / DAY_MS
        bucket -= 1
    return np.nan


@nb.njit(cache=True)
def _defrauded(p: Any, time: int, newest_ms: int, own: bool) -> float:
    """Share of the visits in the longest window by users with a known fraud, this one with them."""
    width = WIDTHS[-1]
    advance(p.defrauded_count, p.last_ms, newest_ms, width)
    if own:
        fold(p.defrauded_count, newest_ms, time, width, 1)
    defrauded, visits = window_totals(p.defrauded_count, p.window_count[-1], newest_ms, time, width)
    return defrauded / visits if visits > 0 else np.nan


@nb.njit(cache=True)
def terminal_kernel(  # noqa: PLR0913, PLR0917 - each is an input of the pass
    profiles: Any, row: Any, transactions: Any, user_frauds: Any, risk_delay_ms: int, out: Any
) -> None:
    """Features of each transaction against its terminal's profile; the profile is updated in place.

    profiles: TERMINAL_PROFILE [p]; row: i8 [n], the profile of each transaction, or -1 where it has no
    terminal (its features are NaN); transactions: TRANSACTION [n]; user_frauds: f4 [n], the known frauds of
    each transaction's user; risk_delay_ms: 0 to MAX_RISK_DELAY_MS; out: f4 [n, N_TERMINAL].
    """
    order = np.empty(TERMINAL_FRAUDS, np.int64)
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
        late = newest - t.time >= LONGEST_MS
        if not late:
            if p.risk_1d[t.time // RISK_1D % len(p.risk_1d)] < SATURATED:
                fold(p.risk_1d, newest, t.time, RISK_1D, 1)
            fold(p.risk_7d, newest, t.time, RISK_7D, 1)
            fold(p.risk_30d, newest, t.time, RISK_30D, 1)
        until = t.time - risk_delay_ms
        o[T.RISK.value] = _risk(p.risk_1d, p.fraud_second, newest, until, RISK_1D)
        o[T.RISK.value + 1] = _risk(p.risk_7d, p.fraud_second, newest, until, RISK_7D)
        o[T.RISK.value + 2] = _risk(p.risk_30d, p.fraud_second, newest, until, RISK_30D)

        _frauds(p, t.time, newest, until, order, o)

        o[T.DAYS_SINCE_LEGITIMATE.value] = _days_since_legitimate(p, newest, t.time, until)
        o[T.DEFRAUDED_SHARE.value] = _defrauded(p, t.time, newest, user_frauds[i] > 0)

        p.last_ms = newest
        if late:
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
        at = fold_label(p.fraud_id, p.fraud_second, labels[i])
        if at >= 0:
            p.fraud_amount[at] = labels[i].amount if labels[i].is_fraud else 0.0
            p.fraud_ratio[at] = labels[i].ratio if labels[i].is_fraud else 0.0
