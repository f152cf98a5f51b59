"""Ordinary life: one day of traffic in which everyone is who they say they are.

It holds what makes detection hard: journeys, new devices, large purchases, sessions of small online
purchases, refunds, money sent to people for the first time, and cards shared within a family.
"""

from datetime import date, timedelta
from typing import Final

import numpy as np

from simulator.config import DAY_MS
from simulator.rows import NONE, Channel, Floats, Ints, Kind, Rows, blank, random_stream
from simulator.world import HOUR_MS, World, favourite

PURCHASES, SALARIES, REFUNDS, SESSIONS = 10, 11, 12, 13  # concerns of the random streams

LEAST_GAP_MS: Final = 180_000
"""Between two payments of one user, who has to walk."""
LARGE_SHARE: Final = 0.008
REFUND_SHARE: Final = 0.012
NEW_RECEIVER_SHARE: Final = 0.12
RELATIVE_SHARE: Final = 0.05
"""Share of the payments with a shared card that the relative makes."""
MOBILE_PURCHASE_SHARE: Final = 0.4
MOBILE_BANKING_SHARE: Final = 0.7
MOBILE_NETWORK_SHARE: Final = 0.6
"""Share of what happens on the mobile that does not go through the network at home."""
NEAREST_CASH_MACHINE_SHARE: Final = 0.7
FIXED_BILL_SHARE: Final = 0.6
"""Share of the bills that are the same every time."""
ROUND_TRANSFER_SHARE: Final = 0.55
LARGE_TRANSFER_SHARE: Final = 0.03
MUCH_CASH_SHARE: Final = 0.02
CHEAP: Final = 3.0
"""Up to here prices are not made to end in .99 or .00."""


def ordinary_day(world: World, day: int) -> Rows:
    """Ordinary transactions that begin on `day` (0 is the first), in no order.

    Some, such as refunds, happen on a later day.
    """
    payments = _payments(world, day)
    return np.concatenate(
        [payments, _salaries(world, day), _refunds(world, day, payments), _sessions(world, day)]
    )


def _payments(world: World, day: int) -> Rows:
    config, users, terminals = world.config, world.users, world.terminals
    rng = random_stream(config.seed, PURCHASES, day)
    start = config.start_ms + day * DAY_MS
    today = config.start + timedelta(days=day)

    user = np.repeat(
        np.arange(config.users), rng.poisson(users.daily_rate * users.weekday[:, today.weekday()] * 0.95)
    )
    n = len(user)
    rows = blank(n)
    rows["user"] = user
    rows["event_time"] = start + _spaced(user, world.time_of_day(rng, user))
    rows["kind"] = rng.choice(
        [Kind.PURCHASE, Kind.PAYMENT, Kind.TRANSFER, Kind.CASH_OUT, Kind.DEBIT],
        size=n,
        p=[0.82, 0.05, 0.05, 0.06, 0.02],
    )

    city = _whereabouts(world, start, user, rows["event_time"])
    on_the_way = city == NONE
    at_home = city == users.home[user]
    rows["kind"][on_the_way & (rows["kind"] == Kind.CASH_OUT)] = Kind.PURCHASE

    purchase = rows["kind"] == Kind.PURCHASE
    online = purchase & (on_the_way | (rng.random(n) < users.online_share[user]))
    at_till = purchase & ~online
    relative = at_till & (users.relative_city[user] != NONE) & (rng.random(n) < RELATIVE_SHARE)
    city = np.where(relative, users.relative_city[user], city)
    curious = rng.random(n) < users.curiosity[user]

    chosen = np.where(
        curious,
        terminals.online.draw(rng, np.zeros_like(user)),
        favourite(rng, users.online_favourites, user),
    )
    local = np.where(
        curious | ~at_home | relative,
        terminals.shops.draw(rng, np.maximum(city, 0)),
        favourite(rng, users.local_favourites, user),
    )
    cash_machine = np.where(
        at_home & (rng.random(n) < NEAREST_CASH_MACHINE_SHARE),
        users.cash_machine[user],
        terminals.cash_machines.draw(rng, np.maximum(city, 0)),
    )
    cash_out = rows["kind"] == Kind.CASH_OUT
    rows["terminal"] = np.select([online, at_till, cash_out], [chosen, local, cash_machine], NONE)
    rows["channel"] = np.select(
        [online, at_till, cash_out, rows["kind"] == Kind.DEBIT],
        [
            np.where(rng.random(n) < MOBILE_PURCHASE_SHARE, Channel.MOBILE, Channel.ONLINE),
            np.full(n, Channel.POS),
            np.full(n, Channel.ATM),
            np.full(n, Channel.BANK),
        ],
        np.where(rng.random(n) < MOBILE_BANKING_SHARE, Channel.MOBILE, Channel.ONLINE),
    )

    own = world.purchase_amount(rng, user, rows["terminal"])
    large = rng.random(n) < LARGE_SHARE
    own *= np.where(large, rng.lognormal(np.log(5.0), 0.45, n), 1.0)
    which = rng.integers(0, 3, n)
    bill = users.bills[user, which] * np.where(
        rng.random(n) < FIXED_BILL_SHARE, 1.0, rng.uniform(0.85, 1.2, n)
    )
    notes = np.clip(np.round(own * 2.5 / 10), 1, 60) * 10
    notes *= np.where(rng.random(n) < MUCH_CASH_SHARE, rng.integers(3, 12, n), 1)
    sent = own * rng.lognormal(np.log(3.0), 0.6, n)
    sent = np.where(rng.random(n) < ROUND_TRANSFER_SHARE, np.maximum(np.round(sent / 10), 1) * 10, sent)
    # Deposits, savings, a car: a large part of what the account held.
    moved = np.round(users.opening_balance[user] * rng.uniform(0.15, 0.95, n), -1)
    sent = np.where(rng.random(n) < LARGE_TRANSFER_SHARE, np.maximum(sent, moved), sent)
    billed = (rows["kind"] == Kind.PAYMENT) | (rows["kind"] == Kind.DEBIT)
    transfer = rows["kind"] == Kind.TRANSFER
    rows["amount"] = _priced(np.select([billed, cash_out, transfer], [bill, notes, sent], own))

    known = users.receivers[user, rng.integers(0, 5, n)]
    new = rng.random(n) < NEW_RECEIVER_SHARE
    stranger = (user + rng.integers(1, config.users, n)) % config.users
    rows["receiver"] = np.select(
        [billed, transfer], [users.billers[user, which], np.where(new, stranger, known)], NONE
    )

    remote = (rows["channel"] == Channel.ONLINE) | (rows["channel"] == Channel.MOBILE)
    with_wallet = at_till & ~relative & users.wallet[user]
    rows["device"] = np.select(
        [remote, with_wallet], [world.any_device(rng, user, day), world.main_device(user, day)], NONE
    )
    away = (rows["channel"] == Channel.MOBILE) & (rng.random(n) < MOBILE_NETWORK_SHARE) | ~at_home
    network = np.where(
        away, 2**23 + (np.maximum(city, 0) * 4096 + rng.integers(0, 4096, n)), world.home_address(user)
    )
    rows["ip"] = np.where(remote, network, NONE)
    return rows


def _spaced(user: Ints, time_of_day: Ints) -> Ints:
    """Times of day (ms), ascending within each user and at least LEAST_GAP_MS apart; `user` is sorted."""
    rank = np.arange(len(user)) * LEAST_GAP_MS
    apart = 400 * DAY_MS  # no user can push another's times
    time = np.sort(user * apart + time_of_day)
    return np.asarray(np.maximum.accumulate(time - rank) + rank - user * apart)


def _whereabouts(world: World, start: int, user: Ints, time: Ints) -> Ints:
    """City of each user at each time, -1 while on the way."""
    journeys = world.journeys
    journey = journeys.under_way(start, start + DAY_MS, world.config.users)[user]
    city = world.users.home[user].copy()
    travelling = np.flatnonzero(journey != NONE)
    journey, time = journey[travelling], time[travelling]
    away = (time >= journeys.departure[journey]) & (time < journeys.arrival_back[journey])
    there = (time >= journeys.arrival[journey]) & (time < journeys.departure_back[journey])
    city[travelling[away]] = NONE
    city[travelling[there]] = journeys.city[journey[there]]
    return city


def _priced(amount: Floats) -> Floats:
    """To the cent, at least 0.10; many prices end in .99 or .00."""
    cents = np.maximum(np.round(amount * 100), 10)
    # The last digit of the unrounded amount is as good as random, and needs no stream of its own.
    style = np.where(amount > CHEAP, (amount * 1e6).astype(np.int64) % 10, -1)
    whole = np.maximum(np.round(amount), 1) * 100
    return np.select([style // 2 == 0, style // 2 == 1], [whole - 1, whole], cents) / 100


def _salaries(world: World, day: int) -> Rows:
    today: date = world.config.start + timedelta(days=day)
    rng = random_stream(world.config.seed, SALARIES, day)
    user = np.flatnonzero(world.users.payday == today.day)
    rows = blank(len(user))
    rows["user"] = user
    rows["event_time"] = (
        world.config.start_ms + day * DAY_MS + rng.integers(2 * HOUR_MS, 9 * HOUR_MS, len(user))
    )
    rows["kind"] = Kind.CASH_IN
    rows["channel"] = Channel.BANK
    rows["amount"] = np.round(world.users.salary[user] * rng.choice([1.0, 1.0, 1.0, 1.08], len(user)), 2)
    return rows


def _refunds(world: World, day: int, payments: Rows) -> Rows:
    rng = random_stream(world.config.seed, REFUNDS, day)
    bought = payments[payments["kind"] == Kind.PURCHASE]
    rows: Rows = bought[rng.random(len(bought)) < REFUND_SHARE]
    later = rng.integers(1, 15, len(rows)) * DAY_MS + rng.integers(0, 4 * HOUR_MS, len(rows))
    rows["event_time"] += later
    rows["kind"] = Kind.REFUND
    rows["channel"] = Channel.BANK
    rows["device"] = rows["ip"] = NONE
    return rows


def _sessions(world: World, day: int) -> Rows:
    """Several small purchases in one app within minutes: games, songs, in-app goods."""
    config = world.config
    rng = random_stream(config.seed, SESSIONS, day)
    players = rng.integers(
        0, config.users, rng.poisson(0.002 * config.users * config.transactions_per_user_day)
    )
    begin = world.time_of_day(rng, players)
    shop = world.terminals.digital.draw(rng, np.zeros_like(players))
    device = world.any_device(rng, players, day)
    count = rng.integers(3, 9, len(players))
    session = np.repeat(np.arange(len(players)), count)
    user = players[session]
    rows = blank(len(session))
    rows["user"] = user
    rows["terminal"] = shop[session]
    rows["event_time"] = (
        config.start_ms + day * DAY_MS + begin[session] + rng.integers(0, 20 * 60_000, len(session))
    )
    rows["channel"] = np.where(
        rng.random(len(session)) < MOBILE_BANKING_SHARE, Channel.MOBILE, Channel.ONLINE
    )
    rows["amount"] = rng.choice(
        [0.49, 0.99, 1.99, 2.99, 4.99, 9.99], len(session), p=[0.1, 0.4, 0.2, 0.1, 0.15, 0.05]
    )
    rows["device"] = device[session]
    rows["ip"] = world.home_address(user)
    return rows
