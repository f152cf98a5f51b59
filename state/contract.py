"""The feature contract: every feature the engine computes, in order, with its unit and definition.

A model states the `CONTRACT_VERSION` it was trained on; the scorer refuses any other. Adding, removing,
reordering or redefining a feature means a new version.

Conventions: windows end at the transaction's own event time and include the transaction; histories
(`*_mean`, `*_ratio`, "known", "last") exclude it. A feature whose definition needs an optional field is
NaN when the transaction lacks that field, and a feature that compares with a history is NaN while that
history is empty. Times are UTC.
"""

from enum import IntEnum
from typing import NamedTuple

CONTRACT_VERSION = 2

SECOND_MS = 1000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

BUCKETS = 20  # a window of length L slides in buckets of L / BUCKETS, that is 5 %
USER_WINDOWS = (MINUTE_MS, 5 * MINUTE_MS, 30 * MINUTE_MS, HOUR_MS, DAY_MS, 7 * DAY_MS, 30 * DAY_MS)
TERMINAL_WINDOWS = (5 * MINUTE_MS, HOUR_MS, DAY_MS, 7 * DAY_MS, 30 * DAY_MS)
RISK_WINDOWS = (DAY_MS, 7 * DAY_MS, 30 * DAY_MS)
DEFAULT_RISK_DELAY_MS = 7 * DAY_MS
MAX_RISK_DELAY_MS = 30 * DAY_MS

WINDOW_NAMES = {
    MINUTE_MS: "1m",
    5 * MINUTE_MS: "5m",
    30 * MINUTE_MS: "30m",
    HOUR_MS: "1h",
    DAY_MS: "24h",
    7 * DAY_MS: "7d",
    30 * DAY_MS: "30d",
}

NIGHT_ENDS_HOUR = 6
RAPID_SUCCESSION_S = 60
HISTORY = 50  # amounts that the median is taken of
RECENT = 20
SEQUENCE = 10  # transactions that a sequence model sees before the present one
FRAUD_WINDOW_MS = 60 * DAY_MS
DUPLICATE_LOOKBACK = 10
IMPOSSIBLE_SPEED_KMH = 900.0
IMPOSSIBLE_DISTANCE_KM = 50.0


class Feature(NamedTuple):
    """One column of the feature vector."""

    name: str
    unit: str
    definition: str


class U(IntEnum):
    """Position of each user-stage feature in the vector. Window blocks are named by their first column."""

    AMOUNT = 0
    AMOUNT_LOG = 1
    AMOUNT_ROUND = 2
    HOUR = 3
    WEEKDAY = 4
    HOUR_SIN = 5
    HOUR_COS = 6
    WEEKDAY_SIN = 7
    WEEKDAY_COS = 8
    NIGHT = 9
    WEEKEND = 10
    COUNT = 11
    SUM = 18
    AMOUNT_MEAN = 25
    AMOUNT_DEVIATION = 26
    AMOUNT_RATIO = 27
    AMOUNT_Z = 28
    RECENT_MEAN = 29
    RECENT_DEVIATION = 30
    RECENT_RATIO = 31
    RECENT_Z = 32
    SECONDS_SINCE_LAST = 33
    RAPID_SUCCESSION = 34
    DUPLICATE_AMOUNT = 35
    NEW_DEVICE = 36
    DEVICE_COUNT = 37
    NEW_TERMINAL = 38
    TERMINAL_FREQUENCY = 39
    NEW_COUNTRY = 40
    COUNTRY_CHANGE = 41
    FOREIGN = 42
    DISTANCE = 43
    SPEED = 44
    IMPOSSIBLE_TRAVEL = 45
    CARD_NOT_PRESENT = 46
    TRANSFER = 47
    CASH_OUT = 48
    BALANCE_CHANGE = 49
    BALANCE_ERROR = 50
    BALANCE_SHARE = 51
    NEW_RECEIVER = 52
    RECEIVERS_24H = 53
    USER_FRAUDS = 54
    DAYS_SINCE_USER_FRAUD = 55
    MEDIAN = 56
    MEDIAN_RATIO = 57
    MEDIAN_DEVIATION = 58
    MEDIAN_Z = 59
    LARGEST_3 = 60
    LARGEST_7 = 61
    SEQUENCE_AMOUNT = 62
    SEQUENCE_AGE = 72
    SEQUENCE_TERMINAL = 82


class T(IntEnum):
    """Position of each terminal-stage feature, counted from the start of the terminal's block."""

    COUNT = 0
    SUM = 5
    USERS = 10
    AMOUNT_MEAN = 15
    AMOUNT_RATIO = 16
    AMOUNT_Z = 17
    RISK = 18
    FRAUDS = 21
    DAYS_SINCE_FRAUD = 22
    DAYS_SINCE_FIRST_FRAUD = 23
    LEGITIMATE_SINCE_FRAUD = 24
    FRAUD_RUN = 25
    DAYS_SINCE_RUN = 26
    DAYS_CLEAN = 27
    FRAUD_AMOUNT = 28
    FRAUD_RATIO = 29
    FRAUD_RATIO_LEAST = 30
    DEFRAUDED_SHARE = 31
    DAYS_SINCE_LEGITIMATE = 32


def _windows(windows: tuple[int, ...], name: str, unit: str, definition: str) -> list[Feature]:
    return [Feature(name.format(WINDOW_NAMES[w]), unit, definition.format(WINDOW_NAMES[w])) for w in windows]


def _sequence(name: str, unit: str, definition: str) -> list[Feature]:
    return [Feature(name.format(k), unit, definition.format(k)) for k in range(1, SEQUENCE + 1)]


USER_FEATURES: tuple[Feature, ...] = (
    Feature("amount", "currency", "amount of the transaction"),
    Feature("amount_log", "ln(currency)", "ln(1 + amount)"),
    Feature("amount_round", "0/1", "amount is a positive whole multiple of 10"),
    Feature("hour", "h", "hour of the day, 0 to 23"),
    Feature("weekday", "d", "day of the week, Monday 0 to Sunday 6"),
    Feature("hour_sin", "1", "sin(2 pi * time of day / 24 h)"),
    Feature("hour_cos", "1", "cos(2 pi * time of day / 24 h)"),
    Feature("weekday_sin", "1", "sin(2 pi * time of week / 7 d)"),
    Feature("weekday_cos", "1", "cos(2 pi * time of week / 7 d)"),
    Feature("night", "0/1", f"hour < {NIGHT_ENDS_HOUR}"),
    Feature("weekend", "0/1", "Saturday or Sunday"),
    *_windows(USER_WINDOWS, "user_count_{}", "1", "transactions of the user in the last {}"),
    *_windows(USER_WINDOWS, "user_sum_{}", "currency", "amount spent by the user in the last {}"),
    Feature("user_amount_mean", "currency", "mean amount over the user's whole history"),
    Feature("user_amount_deviation", "currency", "sample standard deviation over that history (2 or more)"),
    Feature("user_amount_ratio", "1", "amount / user_amount_mean"),
    Feature("user_amount_z", "1", "(amount - user_amount_mean) / user_amount_deviation"),
    Feature("recent_amount_mean", "currency", f"mean amount of the user's last {RECENT} transactions"),
    Feature("recent_amount_deviation", "currency", f"sample standard deviation of the last {RECENT}"),
    Feature("recent_amount_ratio", "1", "amount / recent_amount_mean"),
    Feature("recent_amount_z", "1", "(amount - recent_amount_mean) / recent_amount_deviation"),
    Feature("seconds_since_last", "s", "time since the user's latest transaction; negative behind it"),
    Feature("rapid_succession", "0/1", f"at most {RAPID_SUCCESSION_S} s from the user's latest transaction"),
    Feature("duplicate_amount", "1", f"how many of the user's last {DUPLICATE_LOOKBACK} had the same amount"),
    Feature("new_device", "0/1", "device not among the user's last 8 devices"),
    Feature("device_count", "1", "devices seen with the user and this one; a device new again counts again"),
    Feature("new_terminal", "0/1", "terminal not among the 24 that the user visited last"),
    Feature("terminal_frequency", "1", "share of the user's earlier terminal visits that were to this one"),
    Feature("new_country", "0/1", "country not among the user's last 8 countries"),
    Feature("country_change", "0/1", "country differs from that of the user's previous transaction"),
    Feature("foreign", "0/1", "country differs from the user's home, the majority country of the history"),
    Feature("distance_km", "km", "great-circle distance from the user's previous place"),
    Feature("speed_kmh", "km/h", "distance_km / time since that place was visited (at least 1 s)"),
    Feature(
        "impossible_travel",
        "0/1",
        f"speed_kmh > {IMPOSSIBLE_SPEED_KMH:.0f} and distance_km > {IMPOSSIBLE_DISTANCE_KM:.0f}",
    ),
    Feature("card_not_present", "0/1", "the card was not present"),
    Feature("transfer", "0/1", "transaction_type is transfer"),
    Feature("cash_out", "0/1", "transaction_type is cash_out"),
    Feature("balance_change", "currency", "balance_after - balance_before"),
    Feature("balance_error", "currency", "balance_before - amount - balance_after"),
    Feature("balance_share", "1", "amount / balance_before (where positive)"),
    Feature("new_receiver", "0/1", "receiver not among the user's last 16 receivers"),
    Feature("receivers_24h", "1", "distinct receivers in the last 24 h, counted up to 16"),
    Feature("user_frauds", "1", "the user's known frauds, counted up to 8"),
    Feature("days_since_user_fraud", "d", "time since the user's latest known fraud"),
    Feature("user_amount_median", "currency", f"median amount of the user's last {HISTORY} transactions"),
    Feature("median_ratio", "1", "amount / user_amount_median"),
    Feature("median_deviation", "currency", f"mean distance of the last {HISTORY} amounts from that median"),
    Feature("median_z", "1", "(amount - user_amount_median) / median_deviation"),
    Feature("largest_ratio_3", "1", "largest of the user's last 3 amounts / user_amount_median"),
    Feature("largest_ratio_7", "1", "largest of the user's last 7 amounts / user_amount_median"),
    *_sequence("previous_amount_{}", "currency", "amount of the user's transaction {} before this one"),
    *_sequence("previous_age_{}", "s", "time since that transaction, {} before this one"),
    *_sequence("previous_terminal_{}", "0/1", "the transaction {} before this one was at the same terminal"),
)

TERMINAL_FEATURES: tuple[Feature, ...] = (
    *_windows(TERMINAL_WINDOWS, "terminal_count_{}", "1", "transactions at the terminal in the last {}"),
    *_windows(TERMINAL_WINDOWS, "terminal_sum_{}", "currency", "amount taken at the terminal in the last {}"),
    *_windows(
        TERMINAL_WINDOWS,
        "terminal_users_{}",
        "1",
        "distinct users at the terminal in the last {}, by linear counting over 256 cells",
    ),
    Feature("terminal_amount_mean", "currency", "mean amount over the terminal's whole history"),
    Feature("terminal_amount_ratio", "1", "amount / terminal_amount_mean"),
    Feature("terminal_amount_z", "1", "(amount - terminal_amount_mean) / sample standard deviation"),
    *_windows(
        RISK_WINDOWS,
        "terminal_risk_{}",
        "1",
        "known frauds / transactions at the terminal in the {} that ended one risk delay ago",
    ),
    Feature("terminal_frauds", "1", "known frauds at the terminal in the last 60 d, counted up to 32"),
    Feature("days_since_terminal_fraud", "d", "time since the latest of them"),
    Feature("days_since_first_terminal_fraud", "d", "time since the first of them"),
    Feature(
        "legitimate_since_terminal_fraud",
        "1",
        "transactions at the terminal after the latest of them and up to one risk delay ago",
    ),
    Feature("terminal_fraud_run", "1", "latest known frauds with no transaction known as legitimate between"),
    Feature("days_since_terminal_fraud_run", "d", "time since the first fraud of that run"),
    Feature("days_clean_before_run", "d", "time since the last transaction before that run"),
    Feature("terminal_fraud_amount", "currency", "mean amount of the frauds of that run"),
    Feature("terminal_fraud_ratio", "1", "mean over that run of amount / the user's median at labelling"),
    Feature("terminal_fraud_ratio_least", "1", "least of these ratios"),
    Feature(
        "terminal_defrauded_30d", "1", "share of the transactions of the last 30d by users with a known fraud"
    ),
    Feature(
        "days_since_terminal_legitimate",
        "d",
        "time since the last transaction at the terminal, at least one risk delay ago, not known as fraud",
    ),
)

FEATURES: tuple[Feature, ...] = USER_FEATURES + TERMINAL_FEATURES
FEATURE_NAMES: tuple[str, ...] = tuple(f.name for f in FEATURES)
N_USER = len(USER_FEATURES)
N_TERMINAL = len(TERMINAL_FEATURES)
N_FEATURES = len(FEATURES)
