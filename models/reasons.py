"""Reason codes: what analysts read in place of features.

Each feature of the contract belongs to one code, and the catalogue is stable: a code is never given another
meaning. What is said of a feature is a fact with its value, true whichever way it moved the score.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from events.types import Verdict
from state.contract import (
    DUPLICATE_LOOKBACK,
    FEATURE_NAMES,
    FEATURES,
    HISTORY,
    RAPID_SUCCESSION_S,
    RECENT,
    RISK_WINDOWS,
    SECOND_MS,
    SEQUENCE,
    TERMINAL_WINDOWS,
    USER_WINDOWS,
    WINDOW_NAMES,
)

Phrase = str | tuple[str, str]
"""A template over features by name; for a feature that is 0 or 1 a template for each."""


class Code(NamedTuple):
    """One entry of the catalogue.

    phrases: what to say of each feature of this code; unknown: what to say where a value is missing.
    """

    code: str
    title: str
    phrases: Mapping[str, Phrase]
    unknown: str


class Reason(msgspec.Struct, frozen=True):
    """What the features of one code did to one score.

    log_odds: what they added, less than 0 where they lowered it; text: the fact that did most of it; values:
    the features that moved the score, those that did most first, None where missing.
    """

    code: str
    title: str
    log_odds: float
    text: str
    values: dict[str, float | None]


_DURATIONS: Final = (
    (120.0, 1, "s"),
    (7_200.0, 60, "min"),
    (172_800.0, 3_600, "h"),
    (math.inf, 86_400, "days"),
)


def _duration(seconds: float) -> str:
    length, unit = next((length, unit) for below, length, unit in _DURATIONS if seconds < below)
    return f"{seconds / length:.1f}".removesuffix(".0") + f" {unit}"


def _alike(names: Sequence[str], phrase: Phrase) -> dict[str, Phrase]:
    return dict.fromkeys(names, phrase)


def _windows(windows: Sequence[int], name: str, phrase: str) -> dict[str, Phrase]:
    """A phrase for the feature of each window; `*` stands for the window's name, `~` for its length."""
    named = [(WINDOW_NAMES[w], _duration(w / SECOND_MS)) for w in windows]
    return {name.replace("*", w): phrase.replace("*", w).replace("~", length) for w, length in named}


def _sequence(name: str, phrase: Phrase) -> dict[str, Phrase]:
    """A phrase for each earlier transaction; in both, `*` stands for how many transactions ago it was."""
    places = [str(k) for k in range(1, SEQUENCE + 1)]
    if isinstance(phrase, str):
        return {name.replace("*", k): phrase.replace("*", k) for k in places}
    no, yes = phrase
    return {name.replace("*", k): (no.replace("*", k), yes.replace("*", k)) for k in places}


CATALOGUE: Final[tuple[Code, ...]] = (
    Code(
        "AMOUNT",
        "Amount",
        {
            **_alike(("amount", "amount_log"), "the amount is {amount:,.2f}{money}"),
            "amount_round": (
                "the amount of {amount:,.2f}{money} is no whole multiple of 10",
                "the amount of {amount:,.2f}{money} is a whole multiple of 10",
            ),
        },
        "the amount is not known",
    ),
    Code(
        "AMOUNT_UNUSUAL",
        "Amount against the user's habit",
        {
            **_alike(
                ("user_amount_mean", "user_amount_ratio"),
                "{amount:,.2f}{money} is {user_amount_ratio:,.1f} times the user's mean amount of "
                "{user_amount_mean:,.2f}{money}",
            ),
            **_alike(
                ("user_amount_deviation", "user_amount_z"),
                "{amount:,.2f}{money} lies {user_amount_z:+,.1f} standard deviations from the user's mean "
                "amount of {user_amount_mean:,.2f}{money}",
            ),
            **_alike(
                ("recent_amount_mean", "recent_amount_ratio"),
                "{amount:,.2f}{money} is {recent_amount_ratio:,.1f} times the mean of "
                f"the user's last {RECENT} amounts, " + "{recent_amount_mean:,.2f}{money}",
            ),
            **_alike(
                ("recent_amount_deviation", "recent_amount_z"),
                "{amount:,.2f}{money} lies {recent_amount_z:+,.1f} standard deviations from the mean of "
                f"the user's last {RECENT} amounts, " + "{recent_amount_mean:,.2f}{money}",
            ),
            **_alike(
                ("user_amount_median", "median_ratio"),
                "{amount:,.2f}{money} is {median_ratio:,.1f} times the median of "
                f"the user's last {HISTORY} amounts, " + "{user_amount_median:,.2f}{money}",
            ),
            **_alike(
                ("median_deviation", "median_z"),
                "{amount:,.2f}{money} lies {median_z:+,.1f} mean distances from the median of "
                f"the user's last {HISTORY} amounts, " + "{user_amount_median:,.2f}{money}",
            ),
        },
        "there are no earlier amounts of the user to compare with",
    ),
    Code(
        "EARLIER_AMOUNTS",
        "Amounts just before",
        {
            "largest_ratio_3": "the largest of the user's last 3 amounts is {largest_ratio_3:,.1f} times the "
            "median of {user_amount_median:,.2f}{money}",
            "largest_ratio_7": "the largest of the user's last 7 amounts is {largest_ratio_7:,.1f} times the "
            "median of {user_amount_median:,.2f}{money}",
            **_sequence(
                "previous_amount_*",
                "the amount of the user's transaction * before this one was {previous_amount_*:,.2f}{money}",
            ),
        },
        "the user has not made so many transactions",
    ),
    Code(
        "VELOCITY",
        "Pace of the user's transactions",
        {
            **_windows(USER_WINDOWS, "user_count_*", "the user's transaction number {user_count_*:.0f} in ~"),
            "seconds_since_last": "{seconds_since_last} from the user's latest transaction",
            "rapid_succession": (
                f"more than {RAPID_SUCCESSION_S} s from the user's latest transaction",
                f"at most {RAPID_SUCCESSION_S} s from the user's latest transaction",
            ),
            **_sequence("previous_age_*", "{previous_age_*} from the user's transaction * before this one"),
        },
        "the pace of the user's transactions is not known",
    ),
    Code(
        "SPENDING",
        "What the user spent lately",
        _windows(USER_WINDOWS, "user_sum_*", "the user spent {user_sum_*:,.2f}{money} in ~"),
        "the user's spending is not known",
    ),
    Code(
        "REPEATED_AMOUNT",
        "Same amount again",
        {
            "duplicate_amount": f"of the user's last {DUPLICATE_LOOKBACK} transactions, "
            "{duplicate_amount:.0f} had this amount"
        },
        "the user has no earlier amounts",
    ),
    Code(
        "TIME",
        "Time of day and week",
        {
            **_alike(("hour", "hour_sin", "hour_cos"), "made in the hour from {hour:.0f}:00 UTC"),
            "night": ("made by day, from {hour:.0f}:00 UTC", "made at night, from {hour:.0f}:00 UTC"),
            **_alike(("weekday", "weekday_sin", "weekday_cos"), "made on a {weekday}"),
            "weekend": ("made on a {weekday}, a working day", "made on a {weekday}"),
        },
        "the time is not known",
    ),
    Code(
        "NEW_DEVICE",
        "Device",
        {
            "new_device": ("the device is one that the user had before", "the device is new to the user"),
            "device_count": "the user has been seen with {device_count:.0f} devices",
        },
        "the device is not known",
    ),
    Code(
        "NEW_TERMINAL",
        "Terminal unfamiliar to the user",
        {
            "new_terminal": (
                "the terminal is one that the user visited before",
                "the terminal is new to the user",
            ),
            "terminal_frequency": "{terminal_frequency:.0%} of the user's visits were to this terminal",
            **_sequence(
                "previous_terminal_*",
                (
                    "the user's transaction * before this one was at another terminal",
                    "the user's transaction * before this one was at this terminal",
                ),
            ),
        },
        "there is no terminal to compare with",
    ),
    Code(
        "COUNTRY",
        "Country",
        {
            "new_country": ("the user was in this country before", "the country is new to the user"),
            "country_change": (
                "the country is that of the transaction before",
                "the country differs from that of the transaction before",
            ),
            "foreign": ("the country is the user's own", "the country is not the user's own"),
        },
        "there is no country to compare with",
    ),
    Code(
        "IMPOSSIBLE_TRAVEL",
        "Distance and speed of travel",
        {
            "distance_km": "{distance_km:,.0f} km from the user's previous place",
            **_alike(
                ("speed_kmh", "impossible_travel"),
                "{distance_km:,.0f} km from the user's previous place, a journey at {speed_kmh:,.0f} km/h",
            ),
        },
        "there is no previous place to compare with",
    ),
    Code(
        "CARD_NOT_PRESENT",
        "Card not present",
        {"card_not_present": ("the card was present", "the card was not present")},
        "it is not known whether the card was present",
    ),
    Code(
        "TRANSACTION_TYPE",
        "Transfer or cash-out",
        {
            "transfer": ("it is no transfer", "it is a transfer"),
            "cash_out": ("it is no cash-out", "it is a cash-out"),
        },
        "the type of transaction is not known",
    ),
    Code(
        "BALANCE",
        "Balance of the account",
        {
            "balance_change": "the balance changed by {balance_change:+,.2f}{money}",
            "balance_error": "the balance is {balance_error:,.2f}{money} off what the amount explains",
            "balance_share": "the amount is {balance_share:.0%} of the balance before",
        },
        "the balance is not known",
    ),
    Code(
        "NEW_RECEIVER",
        "Receiver",
        {
            "new_receiver": ("the user paid this receiver before", "the receiver is new to the user"),
            "receivers_24h": "receivers that the user paid in 24 h: {receivers_24h:.0f}",
        },
        "there is no receiver",
    ),
    Code(
        "USER_KNOWN_FRAUD",
        "User defrauded before",
        {
            "user_frauds": "known frauds of the user: {user_frauds:.0f}",
            "days_since_user_fraud": "the user's latest known fraud was {days_since_user_fraud} ago",
        },
        "the user has no known fraud",
    ),
    Code(
        "TERMINAL_VELOCITY",
        "Traffic at the terminal",
        {
            **_windows(
                TERMINAL_WINDOWS,
                "terminal_count_*",
                "the terminal's transaction number {terminal_count_*:.0f} in ~",
            ),
            **_windows(
                TERMINAL_WINDOWS, "terminal_sum_*", "the terminal took {terminal_sum_*:,.2f}{money} in ~"
            ),
            **_windows(
                TERMINAL_WINDOWS, "terminal_users_*", "users at the terminal in ~: {terminal_users_*:.0f}"
            ),
        },
        "the traffic at the terminal is not known",
    ),
    Code(
        "TERMINAL_AMOUNT_UNUSUAL",
        "Amount against the terminal's habit",
        {
            **_alike(
                ("terminal_amount_mean", "terminal_amount_ratio"),
                "{amount:,.2f}{money} is {terminal_amount_ratio:,.1f} times the terminal's mean amount of "
                "{terminal_amount_mean:,.2f}{money}",
            ),
            "terminal_amount_z": "{amount:,.2f}{money} lies {terminal_amount_z:+,.1f} standard deviations "
            "from the terminal's mean amount of {terminal_amount_mean:,.2f}{money}",
        },
        "there are no earlier amounts at the terminal to compare with",
    ),
    Code(
        "TERMINAL_KNOWN_FRAUD",
        "Known fraud at the terminal",
        {
            **_windows(
                RISK_WINDOWS,
                "terminal_risk_*",
                "{terminal_risk_*:.1%} of the terminal's transactions were frauds, in the latest ~ whose "
                "frauds are known by now",
            ),
            "terminal_frauds": "known frauds at the terminal in 60 days: {terminal_frauds:.0f}",
            "days_since_terminal_fraud": "the terminal's latest known fraud was "
            "{days_since_terminal_fraud} ago",
            "days_since_first_terminal_fraud": "the terminal's first known fraud in 60 days was "
            "{days_since_first_terminal_fraud} ago",
            "legitimate_since_terminal_fraud": "transactions at the terminal since its latest known fraud: "
            "{legitimate_since_terminal_fraud:.0f}",
            "terminal_fraud_run": "length of the terminal's latest unbroken run of known frauds: "
            "{terminal_fraud_run:.0f}",
            "days_since_terminal_fraud_run": "the terminal's latest run of known frauds began "
            "{days_since_terminal_fraud_run} ago",
            "days_since_terminal_legitimate": "the terminal's latest transaction not known as fraud, among "
            "those old enough to be known, was {days_since_terminal_legitimate} ago",
            "days_clean_before_run": "the last transaction before the terminal's run of known frauds was "
            "{days_clean_before_run} ago",
            "terminal_fraud_amount": "the frauds of the terminal's latest run had a mean amount of "
            "{terminal_fraud_amount:,.2f}{money}",
            "terminal_fraud_ratio": "the frauds of the terminal's latest run were on average "
            "{terminal_fraud_ratio:,.1f} times their users' median",
            "terminal_fraud_ratio_least": "the frauds of the terminal's latest run were at least "
            "{terminal_fraud_ratio_least:,.1f} times their users' median",
        },
        "nothing is known of this kind of frauds at the terminal",
    ),
    Code(
        "TERMINAL_DEFRAUDED_USERS",
        "Defrauded users at the terminal",
        {
            "terminal_defrauded_30d": "{terminal_defrauded_30d:.1%} of the terminal's transactions in "
            "30 days were by users with a known fraud"
        },
        "the terminal's users are not known",
    ),
)

VERBS: Final[Mapping[Verdict, str]] = {
    "approve": "Approved",
    "review": "Sent to review",
    "block": "Blocked",
}
WEEKDAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
NAMED: Final = 3
"""Reasons that a sentence names."""
SIGNIFICANT: Final = 2
"""Digits that `rounded` leaves."""

_MEMBERS: Final = np.array(
    [[name in code.phrases for code in CATALOGUE] for name in FEATURE_NAMES], np.float64
)
_UNIT_SECONDS: Final = {"s": 1.0, "d": 86_400.0}
_SECONDS: Final = {f.name: _UNIT_SECONDS[f.unit] for f in FEATURES if f.unit in _UNIT_SECONDS}


def reasons(
    contributions: NDArray[np.float64], features: NDArray[np.float32], currency: str | None = None
) -> list[Reason]:
    """Reasons of one score, the one that raised it most first; codes that did nothing are left out.

    contributions: f8 [N_FEATURES], in log-odds, of features f4 [N_FEATURES].
    """
    known = {n: v for n, v in zip(FEATURE_NAMES, features.tolist(), strict=True) if math.isfinite(v)}
    spoken = _spoken(known, currency)
    added = {n: v for n, v in zip(FEATURE_NAMES, contributions.tolist(), strict=True) if v}
    summed = contributions @ _MEMBERS
    found = []
    for k in np.argsort(-summed, kind="stable").tolist():
        code, log_odds = CATALOGUE[k], float(summed[k])
        moved = sorted(code.phrases.keys() & added.keys(), key=lambda name: -abs(added[name]))
        if not moved:
            continue
        most = max(moved, key=lambda name: added[name] * (1 if log_odds >= 0 else -1))
        values = {name: float(f"{known[name]:.7g}") if name in known else None for name in moved}
        found.append(Reason(code.code, code.title, log_odds, _said(code, most, spoken), values))
    return found


def leading(found: Sequence[Reason], verdict: Verdict, count: int = NAMED) -> list[Reason]:
    """Reasons that speak for a verdict: those that raised the score most, for an approval lowered it most."""
    if verdict == "approve":
        return [reason for reason in reversed(found) if reason.log_odds < 0][:count]
    return [reason for reason in found if reason.log_odds > 0][:count]


def listed(named: Sequence[Reason]) -> str:
    """The facts of some reasons, as `sentence` takes them."""
    return "; ".join(reason.text for reason in named) + "." if named else "no feature stands out."


def sentence(verdict: Verdict, score: float, told: str, rules: Sequence[str] = ()) -> str:
    """What an analyst reads of a decision: its verdict and score, what is told of it, the rules that hit."""
    hit = f" Rules that hit: {', '.join(rules)}." if rules else ""
    return f"{VERBS[verdict]} with a score of {score:.3g}: {told}{hit}"


def rounded(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features to SIGNIFICANT digits, so that they do not tell a transaction from others like it."""
    short = [float(f"{value:.{SIGNIFICANT}g}") for value in features.tolist()]
    return np.array(short, np.float32)


def _spoken(known: Mapping[str, float], currency: str | None) -> dict[str, float | str]:
    """Values as the templates take them: durations and the weekday in words, the rest as numbers."""
    spoken: dict[str, float | str] = {"money": f" {currency}" if currency else "", **known}
    for name in _SECONDS.keys() & known.keys():
        spoken[name] = _duration(abs(known[name]) * _SECONDS[name])
    if "weekday" in known:
        spoken["weekday"] = WEEKDAYS[int(known["weekday"]) % len(WEEKDAYS)]
    return spoken


def _said(code: Code, feature: str, spoken: Mapping[str, float | str]) -> str:
    try:
        phrase = code.phrases[feature]
        if isinstance(phrase, tuple):
            phrase = phrase[spoken[feature] == 1]
        return phrase.format_map(spoken)
    except KeyError:  # a value that the phrase needs is missing
        return code.unknown
