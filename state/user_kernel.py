"""The user's features: one sequential pass that reads them from the profile, then folds the event in.

Sequential, so two events of one user in one batch see each other; and the same code replays history for
training, so what a model learns from is what it will be given.
"""

import math
from enum import IntEnum
from typing import Any

import numba as nb
import numpy as np

from state.contract import (
    BUCKETS,
    DAY_MS,
    DUPLICATE_LOOKBACK,
    HISTORY,
    HOUR_MS,
    IMPOSSIBLE_DISTANCE_KM,
    IMPOSSIBLE_SPEED_KMH,
    NIGHT_ENDS_HOUR,
    RAPID_SUCCESSION_S,
    RECENT,
    SEQUENCE,
    USER_WINDOWS,
    U,
)
from state.layout import CASH_OUT, SEEN, TRANSFER, USER_LAYOUT
from state.rings import advance, fold, fold_label, sample_deviation, window_totals

EARTH_RADIUS_KM = 6371.0088  # mean radius, IUGG
WIDTHS = np.array(USER_WINDOWS, np.int64) // BUCKETS
LONGEST_MS = USER_WINDOWS[-1]
ID_BITS = np.uint64(0xFFFFFFFFFFFF0000)
VOTES_MAX = 65535
N_USER = U.SEQUENCE_TERMINAL.value + SEQUENCE


class Status(IntEnum):
    """What became of a transaction in the user's profile."""

    FOLDED = 0
    LATE = 1  # older than the longest window: scored, not folded
    REPEAT = 2  # the same transaction once more: neither scored nor folded
    CONFLICT = 3  # the same id with another time or amount


@nb.njit(cache=True)
def _content(t: Any) -> np.uint64:
    """16 bits of a hash over time and amount (Fibonacci hashing, Knuth, TAOCP 3, 6.4)."""
    mixed = np.uint64(t.time) * np.uint64(0x9E3779B97F4A7C15) ^ np.uint64(np.int64(t.amount * 10000.0))
    return (mixed * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(48)


@nb.njit(cache=True)
def _recognise(p: Any, seal: np.uint64) -> int:
    """FOLDED for an id not seen before, else REPEAT or CONFLICT."""
    for k in range(SEEN):
        if p.seen[k] & ID_BITS == seal & ID_BITS and p.seen[k] != 0:
            return Status.REPEAT.value if p.seen[k] == seal else Status.CONFLICT.value
    return Status.FOLDED.value


@nb.njit(cache=True)
def _calendar(t: Any, o: Any) -> None:
    of_day = t.time % DAY_MS
    days = t.time // DAY_MS
    weekday = (days + 3) % 7  # 1970-01-01 was a Thursday
    hour = of_day // HOUR_MS
    day_angle = 2.0 * math.pi * of_day / DAY_MS
    week_angle = 2.0 * math.pi * (weekday + of_day / DAY_MS) / 7.0
    o[U.HOUR.value] = hour
    o[U.WEEKDAY.value] = weekday
    o[U.HOUR_SIN.value] = math.sin(day_angle)
    o[U.HOUR_COS.value] = math.cos(day_angle)
    o[U.WEEKDAY_SIN.value] = math.sin(week_angle)
    o[U.WEEKDAY_COS.value] = math.cos(week_angle)
    o[U.NIGHT.value] = hour < NIGHT_ENDS_HOUR
    o[U.WEEKEND.value] = weekday >= 5


@nb.njit(cache=True)
def _amounts(p: Any, t: Any, o: Any) -> None:
    a = t.amount
    o[U.AMOUNT.value] = a
    o[U.AMOUNT_LOG.value] = math.log1p(a)
    o[U.AMOUNT_ROUND.value] = a > 0.0 and a % 10.0 == 0.0

    deviation = sample_deviation(p.count, p.m2)
    o[U.AMOUNT_MEAN.value] = p.mean if p.count > 0 else np.nan
    o[U.AMOUNT_DEVIATION.value] = deviation
    o[U.AMOUNT_RATIO.value] = a / p.mean if p.count > 0 and p.mean > 0.0 else np.nan
    o[U.AMOUNT_Z.value] = (a - p.mean) / deviation if deviation > 0.0 else np.nan

    n = min(np.int64(p.count), RECENT)
    mean = 0.0
    for back in range(1, n + 1):
        mean += p.recent_amount[(p.count - back) % HISTORY]
    mean = mean / n if n > 0 else np.nan
    m2 = 0.0
    for back in range(1, n + 1):
        m2 += (p.recent_amount[(p.count - back) % HISTORY] - mean) ** 2
    deviation = sample_deviation(n, m2)
    o[U.RECENT_MEAN.value] = mean
    o[U.RECENT_DEVIATION.value] = deviation
    o[U.RECENT_RATIO.value] = a / mean if mean > 0.0 else np.nan
    o[U.RECENT_Z.value] = (a - mean) / deviation if deviation > 0.0 else np.nan

    same = 0
    for back in range(1, min(n, DUPLICATE_LOOKBACK) + 1):
        same += p.recent_amount[(p.count - back) % HISTORY] == np.float32(a)
    o[U.DUPLICATE_AMOUNT.value] = same


@nb.njit(cache=True)
def _median(p: Any, known: Any) -> float:
    """Median of the last HISTORY amounts, NaN where there are none; known: f4 [HISTORY], overwritten."""
    n = 0
    for k in range(min(np.int64(p.count), HISTORY)):
        amount = p.recent_amount[k]
        if math.isnan(amount):
            continue
        at = n  # insertion sort: few values, and nothing to allocate
        while at > 0 and known[at - 1] > amount:
            known[at] = known[at - 1]
            at -= 1
        known[at] = amount
        n += 1
    if n == 0:
        return np.nan
    return (np.float64(known[(n - 1) // 2]) + np.float64(known[n // 2])) / 2.0


@nb.njit(cache=True)
def _largest(p: Any, last: int) -> float:
    """Largest of the last amounts."""
    largest = np.float32(0.0)
    for back in range(1, min(np.int64(p.count), last) + 1):
        largest = max(largest, p.recent_amount[(p.count - back) % HISTORY])
    return float(largest)


@nb.njit(cache=True)
def _deviations(p: Any, t: Any, o: Any, scratch: Any) -> None:
    median = _median(p, scratch)
    distance = 0.0
    n = 0
    for k in range(min(np.int64(p.count), HISTORY)):
        if not math.isnan(p.recent_amount[k]):
            distance += abs(p.recent_amount[k] - median)
            n += 1
    deviation = distance / n if n > 1 else np.nan
    o[U.MEDIAN.value] = median
    o[U.MEDIAN_RATIO.value] = t.amount / median if median > 0.0 else np.nan
    o[U.MEDIAN_DEVIATION.value] = deviation
    o[U.MEDIAN_Z.value] = (t.amount - median) / deviation if deviation > 0.0 else np.nan
    o[U.LARGEST_3.value] = _largest(p, 3) / median if median > 0.0 else np.nan
    o[U.LARGEST_7.value] = _largest(p, 7) / median if median > 0.0 else np.nan


@nb.njit(cache=True)
def _sequence(p: Any, t: Any, o: Any) -> None:
    for k in range(SEQUENCE):
        if k >= p.count:
            o[U.SEQUENCE_AMOUNT.value + k] = np.nan
            o[U.SEQUENCE_AGE.value + k] = np.nan
            o[U.SEQUENCE_TERMINAL.value + k] = np.nan
            continue
        back = p.count - 1 - k
        o[U.SEQUENCE_AMOUNT.value + k] = p.recent_amount[back % HISTORY]
        o[U.SEQUENCE_AGE.value + k] = t.time / 1000.0 - p.recent_second[back % RECENT]
        o[U.SEQUENCE_TERMINAL.value + k] = (
            p.recent_terminal[back % RECENT] == t.terminal if t.terminal != 0 else np.nan
        )


@nb.njit(cache=True)
def _position(known: Any, value: Any) -> int:
    """Index of value in known, or -1."""
    for k in range(len(known)):
        if known[k] == value:
            return k
    return -1


@nb.njit(cache=True)
def _to_front(known: Any, at: int, value: Any) -> None:
    """Move value, which stands at `at`, to the front; if it is not known yet (-1), the last makes room."""
    for k in range(at if at >= 0 else len(known) - 1, 0, -1):
        known[k] = known[k - 1]
    known[0] = value


@nb.njit(cache=True)
def _device(p: Any, t: Any, o: Any, folds: bool) -> None:
    if t.device == 0:
        o[U.NEW_DEVICE.value] = np.nan
        o[U.DEVICE_COUNT.value] = np.nan
        return
    at = _position(p.devices, t.device)
    o[U.NEW_DEVICE.value] = at < 0
    o[U.DEVICE_COUNT.value] = p.device_count + (at < 0)
    if not folds:
        return
    _to_front(p.devices, at, t.device)
    p.device_count += at < 0


@nb.njit(cache=True)
def _terminal(p: Any, t: Any, o: Any, folds: bool) -> None:
    if t.terminal == 0:
        o[U.NEW_TERMINAL.value] = np.nan
        o[U.TERMINAL_FREQUENCY.value] = np.nan
        return
    at = _position(p.terminals, t.terminal)
    o[U.NEW_TERMINAL.value] = at < 0
    visits = p.terminal_count[at] if at >= 0 else 0
    o[U.TERMINAL_FREQUENCY.value] = visits / p.terminal_total if p.terminal_total > 0 else np.nan
    if not folds:
        return
    _to_front(p.terminals, at, t.terminal)
    _to_front(p.terminal_count, at, visits + 1)
    p.terminal_total += 1


@nb.njit(cache=True)
def _country(p: Any, t: Any, o: Any, folds: bool) -> None:
    if t.country == 0:
        o[U.NEW_COUNTRY.value] = np.nan
        o[U.COUNTRY_CHANGE.value] = np.nan
        o[U.FOREIGN.value] = np.nan
        return
    at = _position(p.countries, t.country)
    o[U.NEW_COUNTRY.value] = at < 0
    o[U.COUNTRY_CHANGE.value] = p.country != t.country if p.country != 0 else np.nan
    o[U.FOREIGN.value] = p.home != t.country if p.home != 0 else np.nan
    if not folds:
        return
    _to_front(p.countries, at, t.country)
    p.country = t.country
    # Majority vote of Boyer and Moore (1981): the home is what outvotes everything else.
    if p.home == t.country:
        p.home_votes += p.home_votes < VOTES_MAX
    elif p.home_votes == 0:
        p.home = t.country
        p.home_votes = 1
    else:
        p.home_votes -= 1


@nb.njit(cache=True)
def _haversine_km(lat1: float, lon1: float, lat2: float, lon2: float) -> float:
    """Great-circle distance (Sinnott, Virtues of the haversine, 1984)."""
    a, b = math.radians(lat1), math.radians(lat2)
    h = math.sin((b - a) / 2) ** 2 + math.cos(a) * math.cos(b) * math.sin(math.radians(lon2 - lon1) / 2) ** 2
    return 2.0 * EARTH_RADIUS_KM * math.asin(math.sqrt(min(h, 1.0)))


@nb.njit(cache=True)
def _place(p: Any, t: Any, o: Any, folds: bool) -> None:
    o[U.DISTANCE.value] = np.nan
    o[U.SPEED.value] = np.nan
    o[U.IMPOSSIBLE_TRAVEL.value] = np.nan
    if math.isnan(t.latitude) or math.isnan(t.longitude):
        return
    if p.place_ms != 0:
        km = _haversine_km(p.latitude, p.longitude, t.latitude, t.longitude)
        kmh = km * HOUR_MS / max(abs(t.time - p.place_ms), 1000)
        o[U.DISTANCE.value] = km
        o[U.SPEED.value] = kmh
        o[U.IMPOSSIBLE_TRAVEL.value] = kmh > IMPOSSIBLE_SPEED_KMH and km > IMPOSSIBLE_DISTANCE_KM
    if folds and t.time >= p.place_ms:
        p.latitude = t.latitude
        p.longitude = t.longitude
        p.place_ms = t.time


@nb.njit(cache=True)
def _account(t: Any, o: Any) -> None:
    o[U.CARD_NOT_PRESENT.value] = 1.0 - t.card_present
    o[U.TRANSFER.value] = t.type == TRANSFER if t.type != 0 else np.nan
    o[U.CASH_OUT.value] = t.type == CASH_OUT if t.type != 0 else np.nan
    o[U.BALANCE_CHANGE.value] = t.balance_after - t.balance_before
    o[U.BALANCE_ERROR.value] = t.balance_before - t.amount - t.balance_after
    o[U.BALANCE_SHARE.value] = t.amount / t.balance_before if t.balance_before > 0.0 else np.nan


@nb.njit(cache=True)
def _receiver(p: Any, t: Any, o: Any, folds: bool) -> None:
    if t.receiver == 0:
        o[U.NEW_RECEIVER.value] = np.nan
        o[U.RECEIVERS_24H.value] = np.nan
        return
    second = t.time // 1000
    at = _position(p.receivers, t.receiver)
    distinct = 1
    for k in range(len(p.receivers)):
        age = second - np.int64(p.receiver_second[k])
        distinct += k != at and p.receivers[k] != 0 and 0 <= age < DAY_MS // 1000
    o[U.NEW_RECEIVER.value] = at < 0
    o[U.RECEIVERS_24H.value] = min(distinct, len(p.receivers))
    if not folds:
        return
    if at < 0:
        at = np.argmin(p.receiver_second)  # the one longest unused makes room, unless this is older still
        if p.receiver_second[at] > second:
            return
        p.receivers[at] = t.receiver
        p.receiver_second[at] = 0
    p.receiver_second[at] = max(np.int64(p.receiver_second[at]), second)


@nb.njit(cache=True)
def _frauds(p: Any, t: Any, o: Any) -> None:
    known = 0
    latest = np.int64(0)
    for k in range(len(p.fraud_id)):
        if p.fraud_id[k] != 0:
            known += 1
            latest = max(latest, np.int64(p.fraud_second[k]))
    o[U.USER_FRAUDS.value] = known
    o[U.DAYS_SINCE_USER_FRAUD.value] = (t.time / 1000.0 - latest) * 1000.0 / DAY_MS if known > 0 else np.nan


@nb.njit(cache=True)
def user_kernel(profiles: Any, row: Any, transactions: Any, out: Any, status: Any) -> None:
    """Features of each transaction against its user's profile; the profile is updated in place.

    profiles: USER_PROFILE [p]; row: i8 [n], the profile of each transaction; transactions: TRANSACTION [n];
    out: f4 [n, >= N_USER], its first N_USER columns are written; status: u1 [n], a Status each.
    A REPEAT or CONFLICT gets NaN features and leaves the profile alone.
    """
    scratch = np.empty(HISTORY, np.float32)
    for i in range(len(row)):
        p = profiles[row[i]]
        t = transactions[i]
        o = out[i]
        seal = (t.id & ID_BITS) | _content(t)
        status[i] = _recognise(p, seal)
        if status[i] != Status.FOLDED.value:
            o[:N_USER] = np.nan
            continue

        if p.count == 0:
            p.version = USER_LAYOUT
            p.first_ms = t.time
            p.last_ms = t.time
        folds = p.last_ms - t.time < LONGEST_MS
        status[i] = Status.FOLDED.value if folds else Status.LATE.value
        since_ms = t.time - p.last_ms
        o[U.SECONDS_SINCE_LAST.value] = since_ms / 1000.0 if p.count > 0 else np.nan
        o[U.RAPID_SUCCESSION.value] = abs(since_ms) <= RAPID_SUCCESSION_S * 1000 if p.count > 0 else np.nan

        _calendar(t, o)
        _amounts(p, t, o)
        _deviations(p, t, o, scratch)
        _sequence(p, t, o)
        _device(p, t, o, folds)
        _terminal(p, t, o, folds)
        _country(p, t, o, folds)
        _place(p, t, o, folds)
        _account(t, o)
        _receiver(p, t, o, folds)
        _frauds(p, t, o)

        newest = max(p.last_ms, t.time)
        for w in range(len(WIDTHS)):
            advance(p.window_count[w], p.last_ms, newest, WIDTHS[w])
            advance(p.window_sum[w], p.last_ms, newest, WIDTHS[w])
            fold(p.window_count[w], newest, t.time, WIDTHS[w], 1)
            fold(p.window_sum[w], newest, t.time, WIDTHS[w], t.amount)
            c, s = window_totals(p.window_count[w], p.window_sum[w], newest, t.time, WIDTHS[w])
            o[U.COUNT.value + w] = c
            o[U.SUM.value + w] = s

        p.seen[p.seen_count % SEEN] = seal
        p.seen_count += 1
        if not folds:
            continue
        p.recent_amount[p.count % HISTORY] = t.amount
        p.recent_second[p.count % RECENT] = t.time // 1000
        p.recent_terminal[p.count % RECENT] = t.terminal
        p.count += 1
        delta = t.amount - p.mean
        p.mean += delta / p.count
        p.m2 += delta * (t.amount - p.mean)
        p.last_ms = newest


@nb.njit(cache=True)
def label_user(profiles: Any, row: Any, labels: Any) -> None:
    """Fold labels (LABEL [n]) into the users' known frauds (USER_PROFILE [p], row i8 [n]).

    `ratio` of each label is set, for its terminal: an amount that is usual for the user speaks against the
    terminal, an unusual one against the card.
    """
    scratch = np.empty(HISTORY, np.float32)
    for i in range(len(row)):
        p = profiles[row[i]]
        p.version = USER_LAYOUT
        fold_label(p.fraud_id, p.fraud_second, labels[i])
        median = _median(p, scratch)
        labels[i].ratio = labels[i].amount / median if median > 0.0 else np.nan
