"""The feature contract once more, as slow as it is plain: every feature from the full history of every event.

Nothing here is shared with the kernels but the names of the features. Where an event arrives out of order,
a window holds what a ring of 20 buckets that ends with the newest event still holds: that is the one thing
which the definitions leave to the engine.
"""

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from xxhash import xxh3_64_intdigest

from events.feedback import Label
from events.transaction import Transaction
from events.types import epoch_ms

NAN = math.nan
DAY_S = 86_400
USER_WINDOWS_S = {
    "1m": 60, "5m": 300, "30m": 1800, "1h": 3600, "24h": DAY_S, "7d": 7 * DAY_S, "30d": 30 * DAY_S,
}  # fmt: skip
TERMINAL_WINDOWS_S = {"5m": 300, "1h": 3600, "24h": DAY_S, "7d": 7 * DAY_S, "30d": 30 * DAY_S}
RISK_WINDOWS_S = {"24h": DAY_S, "7d": 7 * DAY_S, "30d": 30 * DAY_S}
LONGEST_MS = 30 * DAY_S * 1000
LONGEST_DELAY_MS = 30 * DAY_S * 1000
IDS_REMEMBERED = 32


class KnownLabel(NamedTuple):
    """A label and the position in the history of the transaction before which it becomes known."""

    before: int
    label: Label


class KnownFraud(NamedTuple):
    """A known fraud, and its amount against the median of what its user had spent when it became known."""

    label: Label
    ratio: float


class Expected(NamedTuple):
    """What the engine should say of one transaction; no features where it repeats another."""

    status: str
    features: dict[str, float]


def reference(
    history: Sequence[Transaction], labels: Sequence[KnownLabel] = (), risk_delay_ms: int = 7 * DAY_S * 1000
) -> list[Expected]:
    """What the engine should say of each transaction of a history, in the order of arrival."""
    results: list[Expected] = []
    for i, t in enumerate(history):
        scored = [(e, r.status) for e, r in zip(history, results, strict=False) if r.features]
        own_scored = [e for e, _ in scored if e.user_id == t.user_id]
        own = [e for e, status in scored if e.user_id == t.user_id and status == "FOLDED"]
        status = _status(t, own_scored, own)
        if status in ("REPEAT", "CONFLICT"):
            results.append(Expected(status, {}))
            continue
        frauds = _frauds([known for known in labels if known.before <= i], history, results)
        of_terminal = [f for f in frauds if f.label.terminal_id == t.terminal_id]
        visits = [(e, r) for e, r in zip(history, results, strict=False) if r.features]
        features = (
            _calendar(t)
            | _amount(t, own)
            | _median(t, own)
            | _sequence(t, own)
            | _velocity(t, own)
            | _novelty(t, own)
            | _country(t, own)
            | _place(t, own)
            | _account(t)
            | _receiver(t, own)
            | _user_frauds(t, [f.label for f in frauds if f.label.user_id == t.user_id])
            | _terminal(
                t,
                [e for e, _ in scored if e.terminal_id == t.terminal_id],
                [f.label for f in of_terminal],
                risk_delay_ms,
            )
            | _terminal_frauds(
                t, [e for e, _ in visits if e.terminal_id == t.terminal_id], of_terminal, risk_delay_ms
            )
        )
        features |= _defrauded(t, features, [(e, r) for e, r in visits if e.terminal_id == t.terminal_id])
        results.append(Expected(status, features))
    return results


def windowed(times: Sequence[int], at: int, newest: int, length_ms: int) -> list[int] | None:
    """Which of the times lie in the 20 buckets that end with that of `at`, as far as they are still held.

    A bucket is a twentieth of the window. None where not even the bucket of `at` is held any more.
    """
    width = length_ms // 20
    held_from = newest // width - 19
    if at // width < held_from:
        return None
    first = max(at // width - 19, held_from)
    return [k for k, time in enumerate(times) if first <= time // width <= at // width]


def _ms(t: Transaction | Label) -> int:
    return epoch_ms(t.event_time)


def _status(t: Transaction, scored: Sequence[Transaction], folded: Sequence[Transaction]) -> str:
    for earlier in scored[-IDS_REMEMBERED:]:
        if earlier.transaction_id == t.transaction_id:
            return "REPEAT" if (_ms(earlier), earlier.amount) == (_ms(t), t.amount) else "CONFLICT"
    newest = max((_ms(e) for e in folded), default=_ms(t))
    return "LATE" if newest - _ms(t) >= LONGEST_MS else "FOLDED"


def _frauds(
    known: Sequence[KnownLabel], history: Sequence[Transaction], results: Sequence[Expected]
) -> list[KnownFraud]:
    """What is known as fraud: the last label of a transaction says what it is, the first one its ratio."""
    frauds: dict[tuple[str, str], KnownFraud] = {}
    for before, label in known:
        name = label.user_id, label.transaction_id
        if not label.is_fraud:
            frauds.pop(name, None)
            continue
        folded = zip(history[:before], results, strict=False)
        spent = [e.amount for e, r in folded if r.status == "FOLDED" and e.user_id == label.user_id][-50:]
        median = statistics.median(spent) if spent else NAN
        amount = label.amount if label.amount is not None else NAN
        frauds.setdefault(name, KnownFraud(label, amount / median if median > 0 else NAN))
    return list(frauds.values())


def _calendar(t: Transaction) -> dict[str, float]:
    when = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=_ms(t))
    midnight = when.replace(hour=0, minute=0, second=0, microsecond=0)
    of_day = (when - midnight) / timedelta(days=1)
    of_week = (when - midnight + timedelta(days=when.weekday())) / timedelta(days=7)
    return {
        "hour": when.hour,
        "weekday": when.weekday(),
        "hour_sin": math.sin(math.tau * of_day),
        "hour_cos": math.cos(math.tau * of_day),
        "weekday_sin": math.sin(math.tau * of_week),
        "weekday_cos": math.cos(math.tau * of_week),
        "night": when.hour in range(6),
        "weekend": when.strftime("%a") in ("Sat", "Sun"),
    }


def _against(amount: float, history: Sequence[float]) -> tuple[float, float, float, float]:
    """Mean, deviation, ratio and z of an amount against earlier ones."""
    mean = statistics.fmean(history) if history else NAN
    deviation = statistics.stdev(history) if len(history) > 1 else NAN
    return (
        mean,
        deviation,
        amount / mean if mean > 0 else NAN,
        (amount - mean) / deviation if deviation > 0 else NAN,
    )


def _amount(t: Transaction, own: Sequence[Transaction]) -> dict[str, float]:
    amounts = [e.amount for e in own]
    mean, deviation, ratio, z = _against(t.amount, amounts)
    recent_mean, recent_deviation, recent_ratio, recent_z = _against(t.amount, amounts[-20:])
    return {
        "amount": t.amount,
        "amount_log": math.log(1 + t.amount) if t.amount > 1e-3 else t.amount,
        "amount_round": t.amount > 0 and (t.amount / 10).is_integer(),
        "user_amount_mean": mean,
        "user_amount_deviation": deviation,
        "user_amount_ratio": ratio,
        "user_amount_z": z,
        "recent_amount_mean": recent_mean,
        "recent_amount_deviation": recent_deviation,
        "recent_amount_ratio": recent_ratio,
        "recent_amount_z": recent_z,
        "duplicate_amount": amounts[-10:].count(t.amount),
    }


def _median(t: Transaction, own: Sequence[Transaction]) -> dict[str, float]:
    spent = [e.amount for e in own[-50:]]
    median = statistics.median(spent) if spent else NAN
    deviation = statistics.fmean(abs(a - median) for a in spent) if len(spent) > 1 else NAN
    return {
        "user_amount_median": median,
        "median_ratio": t.amount / median if median > 0 else NAN,
        "median_deviation": deviation,
        "median_z": (t.amount - median) / deviation if deviation > 0 else NAN,
        "largest_ratio_3": max(spent[-3:]) / median if median > 0 else NAN,
        "largest_ratio_7": max(spent[-7:]) / median if median > 0 else NAN,
    }


def _sequence(t: Transaction, own: Sequence[Transaction]) -> dict[str, float]:
    features: dict[str, float] = {}
    for k in range(1, 11):
        e = own[-k] if k <= len(own) else None
        same = e.terminal_id == t.terminal_id if e is not None and t.terminal_id is not None else NAN
        features[f"previous_amount_{k}"] = e.amount if e is not None else NAN
        features[f"previous_age_{k}"] = _ms(t) / 1000 - _ms(e) // 1000 if e is not None else NAN
        features[f"previous_terminal_{k}"] = same
    return features


def _window_features(
    prefix: str, windows: dict[str, int], t: Transaction, earlier: Sequence[Transaction]
) -> dict[str, float]:
    members = [*earlier, t]
    times = [_ms(e) for e in members]
    features: dict[str, float] = {}
    for name, seconds in windows.items():
        inside = windowed(times, _ms(t), max(times), seconds * 1000)
        features[f"{prefix}_count_{name}"] = len(inside) if inside is not None else NAN
        features[f"{prefix}_sum_{name}"] = (
            math.fsum(members[k].amount for k in inside) if inside is not None else NAN
        )
    return features


def _velocity(t: Transaction, own: Sequence[Transaction]) -> dict[str, float]:
    since = (_ms(t) - max(_ms(e) for e in own)) / 1000 if own else NAN
    return _window_features("user", USER_WINDOWS_S, t, own) | {
        "seconds_since_last": since,
        "rapid_succession": abs(since) <= 60 if own else NAN,
    }


def latest_distinct(values: Sequence[str], count: int) -> list[str]:
    """The last `count` distinct values, the latest first."""
    return list(dict.fromkeys(reversed(values)))[:count]


def _novelty(t: Transaction, own: Sequence[Transaction]) -> dict[str, float]:
    devices = [e.device_id for e in own if e.device_id is not None]
    terminals = [e.terminal_id for e in own if e.terminal_id is not None]
    features = dict.fromkeys(("new_device", "device_count", "new_terminal", "terminal_frequency"), NAN)
    if t.device_id is not None:
        features["new_device"] = t.device_id not in latest_distinct(devices, 8)
        features["device_count"] = len({*devices, t.device_id})
    if t.terminal_id is not None:
        features["new_terminal"] = t.terminal_id not in terminals
        features["terminal_frequency"] = terminals.count(t.terminal_id) / len(terminals) if terminals else NAN
    return features


def majority(votes: Sequence[str]) -> str:
    """What holds the majority of the votes, if anything does (Boyer and Moore, 1981); else a candidate."""
    leader, lead = votes[0], 0
    for vote in votes:
        if lead == 0:
            leader = vote
        lead += 1 if vote == leader else -1
    return leader


def _country(t: Transaction, own: Sequence[Transaction]) -> dict[str, float]:
    if t.country is None:
        return dict.fromkeys(("new_country", "country_change", "foreign"), NAN)
    countries = [e.country for e in own if e.country is not None]
    return {
        "new_country": t.country not in latest_distinct(countries, 8),
        "country_change": t.country != countries[-1] if countries else NAN,
        "foreign": t.country != majority(countries) if countries else NAN,
    }


def _unit_vector(t: Transaction) -> tuple[float, float, float]:
    assert t.latitude is not None
    assert t.longitude is not None
    latitude, longitude = math.radians(t.latitude), math.radians(t.longitude)
    return (
        math.cos(latitude) * math.cos(longitude),
        math.cos(latitude) * math.sin(longitude),
        math.sin(latitude),
    )


def great_circle_km(a: Transaction, b: Transaction) -> float:
    """Angle between the two position vectors, by the chord, times the mean radius of the Earth."""
    chord = math.dist(_unit_vector(a), _unit_vector(b))
    return 6371.0088 * 2 * math.asin(min(chord / 2, 1.0))


def _place(t: Transaction, own: Sequence[Transaction]) -> dict[str, float]:
    places = [e for e in own if e.latitude is not None and e.longitude is not None]
    if t.latitude is None or t.longitude is None or not places:
        return dict.fromkeys(("distance_km", "speed_kmh", "impossible_travel"), NAN)
    last = max(reversed(places), key=_ms)
    km = great_circle_km(last, t)
    kmh = km / (max(abs(_ms(t) - _ms(last)), 1000) / 3_600_000)
    return {"distance_km": km, "speed_kmh": kmh, "impossible_travel": kmh > 900 and km > 50}


def _account(t: Transaction) -> dict[str, float]:
    before = t.balance_before if t.balance_before is not None else NAN
    after = t.balance_after if t.balance_after is not None else NAN
    typed = t.transaction_type is not None
    return {
        "card_not_present": not t.card_present if t.card_present is not None else NAN,
        "transfer": t.transaction_type == "transfer" if typed else NAN,
        "cash_out": t.transaction_type == "cash_out" if typed else NAN,
        "balance_change": after - before,
        "balance_error": before - t.amount - after,
        "balance_share": t.amount / before if before > 0 else NAN,
    }


def _receiver(t: Transaction, own: Sequence[Transaction]) -> dict[str, float]:
    """A receiver is known by the latest second at which it was paid; it is in the window by that second."""
    if t.receiver_id is None:
        return dict.fromkeys(("new_receiver", "receivers_24h"), NAN)
    second = _ms(t) // 1000
    latest: dict[str, int] = {}
    for e in own:
        if e.receiver_id is not None:
            latest[e.receiver_id] = max(latest.get(e.receiver_id, 0), _ms(e) // 1000)
    last_16 = sorted(latest, key=latest.__getitem__, reverse=True)[:16]
    within = {r for r in last_16 if second - DAY_S < latest[r] <= second} | {t.receiver_id}
    return {"new_receiver": t.receiver_id not in last_16, "receivers_24h": min(len(within), 16)}


def _user_frauds(t: Transaction, frauds: Sequence[Label]) -> dict[str, float]:
    latest = max((_ms(label) // 1000 for label in frauds), default=NAN)
    return {
        "user_frauds": min(len(frauds), 8),
        "days_since_user_fraud": (_ms(t) / 1000 - latest) / DAY_S,
    }


def _terminal(
    t: Transaction, earlier: Sequence[Transaction], frauds: Sequence[Label], risk_delay_ms: int
) -> dict[str, float]:
    names = (
        [f"terminal_{what}_{w}" for what in ("count", "sum", "users") for w in TERMINAL_WINDOWS_S]
        + ["terminal_amount_mean", "terminal_amount_ratio", "terminal_amount_z"]
        + [f"terminal_risk_{w}" for w in RISK_WINDOWS_S]
    )
    if t.terminal_id is None:
        return dict.fromkeys(names, NAN)
    amounts = [e.amount for e in in_time(earlier)]
    mean, _, ratio, z = _against(t.amount, amounts)
    features = _window_features("terminal", TERMINAL_WINDOWS_S, t, earlier)
    features |= {f"terminal_users_{w}": _users(t, earlier, s) for w, s in TERMINAL_WINDOWS_S.items()}
    features |= {"terminal_amount_mean": mean, "terminal_amount_ratio": ratio, "terminal_amount_z": z}
    for w, seconds in RISK_WINDOWS_S.items():
        features[f"terminal_risk_{w}"] = _risk(t, earlier, frauds, seconds * 1000, risk_delay_ms)
    return features


def in_time(visits: Sequence[Transaction]) -> list[Transaction]:
    """Those that were not late when they came."""
    newest = 0
    kept = []
    for e in visits:
        newest = max(newest, _ms(e))
        if newest - _ms(e) < LONGEST_MS:
            kept.append(e)
    return kept


def _users(t: Transaction, earlier: Sequence[Transaction], window_s: int) -> float:
    """Linear counting over 256 cells: a cell is in the window by the latest second at which it was hit."""

    def cell(e: Transaction) -> int:
        return xxh3_64_intdigest(e.user_id.encode()) % 256

    second = _ms(t) // 1000
    latest: dict[int, int] = {}
    for e in earlier:
        latest[cell(e)] = max(latest.get(cell(e), 0), _ms(e) // 1000)
    hit = {c for c, last in latest.items() if second - window_s < last <= second} | {cell(t)}
    return -256 * math.log(1 - len(hit) / 256)


def _terminal_frauds(
    t: Transaction, earlier: Sequence[Transaction], frauds: Sequence[KnownFraud], delay_ms: int
) -> dict[str, float]:
    now = _ms(t)
    times = [_ms(e) for e in in_time([*earlier, t])]
    names = (
        "terminal_frauds", "days_since_terminal_fraud", "days_since_first_terminal_fraud",
        "legitimate_since_terminal_fraud", "terminal_fraud_run", "days_since_terminal_fraud_run",
        "days_clean_before_run", "terminal_fraud_amount", "terminal_fraud_ratio",
        "terminal_fraud_ratio_least",
    )  # fmt: skip
    if t.terminal_id is None:
        return dict.fromkeys([*names, "days_since_terminal_legitimate"], NAN)
    features = dict.fromkeys(names, NAN) | {
        "terminal_frauds": 0,
        "days_since_terminal_legitimate": _days_since_legitimate(t, times, frauds, delay_ms),
    }
    second = {id(f): _ms(f.label) // 1000 for f in frauds}
    recent = [f for f in frauds if (now - 60 * DAY_S * 1000) // 1000 <= second[id(f)] <= now // 1000]
    if not recent:
        return features
    recent.sort(key=lambda f: -second[id(f)])
    run = [recent[0]]
    for f in recent[1:]:
        start_ms = second[id(run[-1])] * 1000
        if between(times, second[id(f)] * 1000, min(start_ms, now - delay_ms), False) > 0:
            break
        run.append(f)
    latest, first, start = (second[id(f)] for f in (recent[0], recent[-1], run[-1]))
    amounts = [f.label.amount if f.label.amount is not None else NAN for f in run]
    ratios = [f.ratio for f in run]
    return features | {
        "terminal_frauds": len(recent),
        "days_since_terminal_fraud": (now / 1000 - latest) / DAY_S,
        "days_since_first_terminal_fraud": (now / 1000 - first) / DAY_S,
        "legitimate_since_terminal_fraud": between(times, latest * 1000, now - delay_ms, True),
        "terminal_fraud_run": len(run),
        "days_since_terminal_fraud_run": (now / 1000 - start) / DAY_S,
        "days_clean_before_run": _days_clean(t, times, start),
        "terminal_fraud_amount": sum(amounts) / len(run),
        "terminal_fraud_ratio": sum(ratios) / len(run),
        "terminal_fraud_ratio_least": min(ratios) if not math.isnan(sum(ratios)) else NAN,
    }


SLOT_MS = DAY_S * 1000 // 20
SLOTS = 20 + 30 * 20 + 1


def between(times: Sequence[int], after_ms: int, until_ms: int, inclusive: bool) -> int:
    """Events between the buckets of two times, in the finest buckets that are held back to the first."""
    newest = max(times)
    for window_days in (1, 7, 30):
        width = window_days * SLOT_MS
        held_from = newest // width - (20 + math.ceil(LONGEST_DELAY_MS / width))
        if after_ms // width >= held_from:
            break
    first, last = max(after_ms // width + 1, held_from), until_ms // width - (not inclusive)
    return sum(first <= time // width <= last for time in times)


def _slots(times: Sequence[int]) -> dict[int, int]:
    """Events by buckets of 72 minutes, as far as those are held."""
    held_from = max(times) // SLOT_MS - SLOTS + 1
    slots = Counter(time // SLOT_MS for time in times)
    return {slot: count for slot, count in slots.items() if slot >= held_from}


def _days_clean(t: Transaction, times: Sequence[int], start_s: int) -> float:
    before = [slot for slot in _slots(times) if slot < start_s * 1000 // SLOT_MS]
    return (_ms(t) - max(before) * SLOT_MS) / (DAY_S * 1000) if before else NAN


def _days_since_legitimate(
    t: Transaction, times: Sequence[int], frauds: Sequence[KnownFraud], delay_ms: int
) -> float:
    known = Counter(_ms(f.label) // 1000 * 1000 // SLOT_MS for f in frauds)
    slots = _slots(times).items()
    others = [s for s, count in slots if s < (_ms(t) - delay_ms) // SLOT_MS and count > known[s]]
    return (_ms(t) - max(others) * SLOT_MS) / (DAY_S * 1000) if others else NAN


def _defrauded(
    t: Transaction, features: dict[str, float], earlier: Sequence[tuple[Transaction, Expected]]
) -> dict[str, float]:
    if t.terminal_id is None:
        return {"terminal_defrauded_30d": NAN}
    times = [_ms(e) for e, _ in earlier] + [_ms(t)]
    frauds = [r.features["user_frauds"] for _, r in earlier] + [features["user_frauds"]]
    inside = windowed(times, _ms(t), max(times), 30 * DAY_S * 1000)
    share = sum(frauds[k] > 0 for k in inside) / len(inside) if inside else NAN
    return {"terminal_defrauded_30d": share}


def _risk(
    t: Transaction, earlier: Sequence[Transaction], frauds: Sequence[Label], length_ms: int, delay_ms: int
) -> float:
    """Frauds / transactions in the 20 buckets that end with that of one delay ago, at most 1."""
    width = length_ms // 20
    times = [_ms(e) for e in in_time([*earlier, t])]
    last = (_ms(t) - delay_ms) // width
    held_from = max(times) // width - 20 - math.ceil(LONGEST_DELAY_MS / width)
    total = sum(max(last - 19, held_from) <= time // width <= last for time in times)
    known = sum(last - 19 <= _ms(label) // width <= last for label in frauds)
    return min(known / total, 1.0) if total else NAN
