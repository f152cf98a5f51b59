"""The simulation: ordinary life and fraud, day by day, with balances and delayed labels."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from simulator.columns import LABEL_ROW, SOURCES, Naming
from simulator.config import DAY_MS, DEFAULT_MIX, SCENARIOS, SimulationConfig
from simulator.ordinary import ordinary_day
from simulator.patterns import CHANGED, PATTERNS, Scene
from simulator.rows import ROW, Bools, Floats, Ints, Kind, Rows, random_stream
from simulator.world import HOUR_MS, World

LABELS = 30  # concern of the random streams
SOURCE_SHARES: Final = (0.6, 0.25, 0.15)
ANALYST_DAYS_PER_CHARGEBACK_DAY: Final = 1 / 7
"""Analysts and customers report in a seventh of the time of a chargeback."""
INCOMING: Final = (Kind.CASH_IN, Kind.REFUND)


@dataclass(frozen=True, slots=True)
class Simulation:
    """A whole simulated run in memory.

    `transactions` has the wire columns (event_time in ms since the epoch), `is_fraud` (0 or 1) and
    `fraud_scenario`, ordered by event_time. `labels` has the columns of Label ordered by labelled_at,
    including those that become known only after the last day.
    """

    config: SimulationConfig
    transactions: pd.DataFrame
    labels: pd.DataFrame


@dataclass(frozen=True, slots=True)
class Day:
    """The transactions of one day, and the labels that become known on it.

    The last day also brings the labels that become known after it.
    """

    day: int
    transactions: pd.DataFrame
    labels: pd.DataFrame


def simulate(config: SimulationConfig) -> Simulation:
    """Simulate the whole run in memory; see `simulate_days` for runs that are too large."""
    days = list(simulate_days(config))
    return Simulation(
        config,
        pd.concat([day.transactions for day in days], ignore_index=True),
        pd.concat([day.labels for day in days], ignore_index=True),
    )


def simulate_days(config: SimulationConfig) -> Iterator[Day]:
    """Simulate day by day; memory depends on users, terminals and one day's traffic."""
    world = World.build(config)
    naming = Naming(world)
    fraud = _Fraud(world)
    balance = world.users.opening_balance.copy()
    waiting = np.empty(0, dtype=ROW)
    unlabelled = np.empty(0, dtype=LABEL_ROW)
    number = 0
    for day in range(config.days):
        end = config.start_ms + (day + 1) * DAY_MS
        ordinary = ordinary_day(world, day)
        rows = np.concatenate([waiting, ordinary, fraud.campaigns(Scene(world, day, ordinary, balance))])
        due = rows["event_time"] < end
        waiting, rows = rows[~due], rows[due]
        rows = rows[np.argsort(rows["event_time"], kind="stable")]
        _keep_accounts(rows, balance)

        unlabelled = np.concatenate([unlabelled, _labels(config, day, rows, number)])
        known = (
            unlabelled["labelled_at"] < end if day + 1 < config.days else np.ones(len(unlabelled), dtype=bool)
        )
        labels, unlabelled = unlabelled[known], unlabelled[~known]
        labels = labels[np.argsort(labels["labelled_at"], kind="stable")]
        yield Day(day, naming.transactions(rows, number), naming.labels(labels))
        number += len(rows)


class _Fraud:
    """Starts campaigns so that fraud keeps its share of all transactions and each pattern its weight.

    Every day adds to what is owed of each pattern. While anything is owed, the pattern that lags most,
    counted in campaigns, starts one; so the whole is never off by more than half a campaign. Long
    campaigns are started ahead by half their length.
    """

    def __init__(self, world: World) -> None:
        config = world.config
        self._config = config
        self._names = list(DEFAULT_MIX)
        weight = np.array([config.mix.get(name, 0.0) for name in self._names])
        span = np.array([config.active_days(name) for name in self._names])
        days = np.arange(config.days)[:, None]
        share = weight * ((days >= span[:, 0]) & (days < span[:, 1]))
        total = share.sum(axis=1, keepdims=True)
        self._share: Floats = np.divide(share, total, out=np.zeros_like(share), where=total > 0)
        self._last_day = span[:, 1]
        # Per ordinary transaction, so that fraud / (fraud + ordinary) is the rate asked for.
        self._rate = config.fraud_rate / (1 - config.fraud_rate)
        self._owed = np.zeros(len(self._names))

    def campaigns(self, scene: Scene) -> Rows:
        day = scene.day
        self._owed += self._rate * self._share[day] * len(scene.ordinary)
        started = [np.empty(0, dtype=ROW)]
        for attempt in range(10 * len(self._names) + len(scene.ordinary)):
            patterns = [(CHANGED if self._config.changed(n, day) else PATTERNS)[n] for n in self._names]
            sizes = np.array([pattern.usual_size for pattern in patterns])
            owed = self._owed + self._ahead(day, np.array([pattern.lead_days for pattern in patterns]))
            lag = np.where(self._share[day] > 0, owed / sizes, -np.inf)
            choice = int(lag.argmax())
            if not np.isfinite(lag[choice]) or owed.sum() < sizes[choice] / 2:
                break
            rows = self._campaign(scene, choice, attempt)
            self._owed[choice] -= len(rows)
            started.append(rows)
        return np.concatenate(started)

    def _ahead(self, day: int, lead_days: Ints) -> Floats:
        """What will be owed of each pattern on the next `lead_days` days."""
        daily = self._config.users * self._config.transactions_per_user_day
        upcoming = [self._share[day + 1 : day + 1 + lead, i].sum() for i, lead in enumerate(lead_days)]
        return np.array(upcoming) * self._rate * daily

    def _campaign(self, scene: Scene, choice: int, attempt: int) -> Rows:
        name = self._names[choice]
        rng = random_stream(self._config.seed, zlib.crc32(name.encode()), scene.day, attempt)
        pattern = (CHANGED if self._config.changed(name, scene.day) else PATTERNS)[name]
        rows = pattern.campaign(scene, rng)
        end = self._config.start_ms + min(self._config.days, int(self._last_day[choice])) * DAY_MS
        rows = rows[rows["event_time"] < end]
        rows["scenario"] = SCENARIOS.index(name)
        return rows


def _keep_accounts(rows: Rows, balance: Floats) -> None:
    """Fill in the balances of time-ordered rows and carry `balance` (per user) to their end.

    Money sent to another user arrives at once. Accounts may be overdrawn.
    """
    n = len(rows)
    sign = np.where(np.isin(rows["kind"], INCOMING), 1.0, -1.0)
    arriving = np.flatnonzero((rows["kind"] == Kind.TRANSFER) & (rows["receiver"] < len(balance)))
    account = np.concatenate([rows["user"], rows["receiver"][arriving]])
    change = np.concatenate([sign * rows["amount"], rows["amount"][arriving]])
    position = np.concatenate([np.arange(n), arriving])
    order = np.lexsort((position, account))
    account, change = account[order], change[order]

    running = np.cumsum(change)
    first = (
        np.flatnonzero(np.r_[True, account[1:] != account[:-1]])
        if len(account)
        else np.empty(0, dtype=np.int64)
    )
    lengths = np.diff(np.r_[first, len(account)])
    before_first = np.repeat(running[first] - change[first], lengths)
    after = balance[account] + running - before_first

    own = order < n
    rows["balance_after"][order[own]] = np.round(after[own], 2)
    rows["balance_before"][order[own]] = np.round(after[own] - change[own], 2)
    last = first + lengths - 1
    balance[account[last]] = after[last]


def _labels(config: SimulationConfig, day: int, rows: Rows, first_number: int) -> Rows:
    """Labels (LABEL_ROW) of one day's transactions.

    Fraud becomes known by chargeback, an analyst or the customer after a delay of its own (gamma
    distributed); a legitimate transaction once the mean time to a chargeback has passed without one.
    """
    rng = random_stream(config.seed, LABELS, day)
    n = len(rows)
    labels: Rows = np.empty(n, dtype=LABEL_ROW)
    labels["number"] = np.arange(first_number, first_number + n)
    for field in ("user", "terminal", "event_time", "amount"):
        labels[field] = rows[field]
    fraud = rows["scenario"] != 0
    source = rng.choice(len(SOURCES), size=n, p=SOURCE_SHARES)
    chargeback = SOURCES.index("chargeback")
    mean_days = config.label_delay_days * np.where(source == chargeback, 1.0, ANALYST_DAYS_PER_CHARGEBACK_DAY)
    delay_days = np.where(fraud, mean_days * np.minimum(rng.gamma(2.0, 0.5, n), 4.0), config.label_delay_days)
    labels["labelled_at"] = rows["event_time"] + (delay_days * DAY_MS).astype(np.int64) + HOUR_MS // 60
    labels["is_fraud"] = fraud
    labels["source"] = np.where(fraud, source, chargeback)
    ever_known: Bools = fraud | (rng.random(n) < config.legitimate_labels)
    return np.asarray(labels[ever_known])
