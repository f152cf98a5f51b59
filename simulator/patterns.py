"""The fraud patterns. Each draws one campaign: the transactions of one crime.

A pattern is a frozen dataclass of its parameters. `PATTERNS` holds the usual manner of each and
`CHANGED` the manner it takes up after the drift `changes`. All multiples of amounts refer to
what the same user ordinarily pays at the same terminal.
"""

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from simulator.config import DAY_MS
from simulator.geography import distance_km
from simulator.rows import Channel, Floats, Ints, Kind, Rows, blank
from simulator.world import HOUR_MS, World, favourite, foreign_devices

MINUTE_MS: Final = 60_000
Span = tuple[float, float]

MOBILE_SHARE: Final = 0.4

MULES_PER_USER: Final = 0.005
AIRLINER_KMH: Final = 900.0


@dataclass(frozen=True, slots=True)
class Scene:
    """What a pattern can see of the day on which it strikes."""

    world: World
    day: int
    ordinary: Rows
    """Ordinary transactions of the day."""
    balance: Floats
    """Account balance of each user at the start of the day."""

    @property
    def start_ms(self) -> int:
        """Beginning of the day, in ms since the epoch."""
        return self.world.config.start_ms + self.day * DAY_MS


class Pattern(Protocol):
    """A way to commit fraud, which can draw any number of campaigns."""

    @property
    def usual_size(self) -> float:
        """About how many transactions a campaign has."""

    @property
    def lead_days(self) -> int:
        """About half the length of a campaign."""

    def campaign(self, scene: Scene, rng: np.random.Generator) -> Rows:
        """The transactions of one campaign, from the scene's day on; empty if no victim is found."""


def _one_user(scene: Scene, rng: np.random.Generator) -> int:
    return int(rng.integers(0, scene.world.config.users))


def _online(rows: Rows, where: Ints, device: int, rng: np.random.Generator) -> None:
    """Make the given rows card-not-present, from one device and network of the fraudster."""
    rows["channel"][where] = Channel.MOBILE if rng.random() < MOBILE_SHARE else Channel.ONLINE
    rows["device"][where] = device
    rows["ip"][where] = rng.integers(0, 2**24)


def _unknown_device(rng: np.random.Generator) -> int:
    return int(foreign_devices(rng.integers(2**41, 2**42, 1))[0])


def _scaled(scene: Scene, rng: np.random.Generator, rows: Rows, factor: Span) -> Floats:
    """Ordinary amounts times one factor each, in cents."""
    ordinary = scene.world.purchase_amount(rng, rows["user"], rows["terminal"])
    return np.asarray(np.maximum(np.round(ordinary * rng.uniform(*factor, len(rows)), 2), 0.1))


@dataclass(frozen=True, slots=True)
class AmountSpike:
    """A stolen card buys one to three things far dearer than the owner would, within three hours.

    Half the purchases are at tills of the owner's town, half online from an unknown device. Some keep
    the owner's hours, some do not.
    """

    factor: Span = (2.5, 9.0)
    own_hours: float = 0.6
    online: float = 0.5
    usual_size: float = 2.0
    lead_days: int = 0

    def campaign(self, scene: Scene, rng: np.random.Generator) -> Rows:
        """See Pattern."""
        world = scene.world
        rows = blank(int(rng.integers(1, 4)))
        user = np.full(len(rows), _one_user(scene, rng))
        rows["user"] = user
        begin = (
            world.time_of_day(rng, user[:1])[0] if rng.random() < self.own_hours else rng.integers(0, DAY_MS)
        )
        rows["event_time"] = scene.start_ms + begin + np.sort(rng.integers(0, 3 * HOUR_MS, len(rows)))
        online = rng.random(len(rows)) < self.online
        rows["terminal"] = np.where(
            online,
            world.terminals.online.draw(rng, np.zeros_like(user)),
            world.terminals.shops.draw(rng, world.users.home[user]),
        )
        _online(rows, np.flatnonzero(online), _unknown_device(rng), rng)
        rows["amount"] = _scaled(scene, rng, rows, self.factor)
        return rows


@dataclass(frozen=True, slots=True)
class CompromisedTerminal:
    """A shop's terminal is compromised for some weeks, and forged copies of its customers' cards are
    used there.

    Customers are the users who have the shop among their favourites. A share of their cards is
    misused, each one to three times, at this terminal, by amounts somewhat above the owner's.
    """

    weeks: Span = (2.0, 4.0)
    share: Span = (0.2, 0.5)
    factor: Span = (1.0, 2.6)
    usual_size: float = 10.0
    lead_days: int = 10

    def campaign(self, scene: Scene, rng: np.random.Generator) -> Rows:
        """See Pattern."""
        world = scene.world
        # The shop of a random user's liking, so that it has customers.
        terminal = int(rng.choice(world.users.local_favourites[_one_user(scene, rng)]))
        customers = np.flatnonzero((world.users.local_favourites == terminal).any(axis=1))
        misused = rng.permutation(customers)[: max(1, round(len(customers) * rng.uniform(*self.share)))]
        user = np.repeat(misused, rng.integers(1, 4, len(misused)))
        rows = blank(len(user))
        rows["user"] = user
        rows["terminal"] = terminal
        lasting = int(rng.uniform(*self.weeks) * 7)
        rows["event_time"] = (
            scene.start_ms + rng.integers(0, lasting, len(rows)) * DAY_MS + world.time_of_day(rng, user)
        )
        rows["amount"] = _scaled(scene, rng, rows, self.factor)
        return rows


@dataclass(frozen=True, slots=True)
class AccountTakeover:
    """Someone else signs in with a device and from a place that the user never had, and within a few
    hours makes several purchases.

    The device, one for all, is unknown. The tills (paid by its wallet) are all in one other city; the
    rest is online.
    """

    count: tuple[int, int] = (3, 8)
    hours: Span = (1.0, 8.0)
    factor: Span = (0.9, 4.0)
    online: float = 0.55
    usual_size: float = 5.5
    lead_days: int = 0

    def campaign(self, scene: Scene, rng: np.random.Generator) -> Rows:
        """See Pattern."""
        world = scene.world
        rows = blank(int(rng.integers(self.count[0], self.count[1] + 1)))
        user = np.full(len(rows), _one_user(scene, rng))
        home = int(world.users.home[user[0]])
        city = (home + int(rng.integers(1, len(world.cities)))) % len(world.cities)
        rows["user"] = user
        lasting = int(rng.uniform(*self.hours) * HOUR_MS)
        rows["event_time"] = (
            scene.start_ms + rng.integers(0, DAY_MS) + np.sort(rng.integers(0, lasting, len(rows)))
        )
        online = rng.random(len(rows)) < self.online
        rows["terminal"] = np.where(
            online,
            world.terminals.online.draw(rng, np.zeros_like(user)),
            world.terminals.shops.draw(rng, np.full(len(rows), city)),
        )
        device = _unknown_device(rng)
        _online(rows, np.flatnonzero(online), device, rng)
        rows["device"] = device
        rows["amount"] = _scaled(scene, rng, rows, self.factor)
        return rows


@dataclass(frozen=True, slots=True)
class CardTesting:
    """A burst of tiny online payments finds out whether a stolen card works, then a large one follows.

    The tests go to one online terminal within minutes; the large payment to another, up to an hour
    later, all from one unknown device.
    """

    tests: tuple[int, int] = (5, 12)
    tiny: Span = (0.2, 3.0)
    within_minutes: Span = (2.0, 20.0)
    factor: Span = (3.0, 12.0)
    usual_size: float = 9.5
    lead_days: int = 0

    def campaign(self, scene: Scene, rng: np.random.Generator) -> Rows:
        """See Pattern."""
        world = scene.world
        tests = int(rng.integers(self.tests[0], self.tests[1] + 1))
        rows = blank(tests + 1)
        rows["user"] = _one_user(scene, rng)
        burst = rng.uniform(*self.within_minutes) * MINUTE_MS
        offset = np.append(np.sort(rng.uniform(0, burst, tests)), burst + rng.uniform(2, 60) * MINUTE_MS)
        rows["event_time"] = scene.start_ms + rng.integers(0, DAY_MS) + offset.astype(np.int64)
        shops = world.terminals.online.draw(rng, np.zeros(2, dtype=np.int64))
        rows["terminal"] = shops[0]
        rows["terminal"][-1] = shops[1]
        _online(rows, np.arange(len(rows)), _unknown_device(rng), rng)
        rows["amount"] = _scaled(scene, rng, rows, self.factor)
        rows["amount"][:-1] = np.round(rng.uniform(*self.tiny, tests), 2)
        return rows


@dataclass(frozen=True, slots=True)
class ImpossibleTravel:
    """A forged card pays at a till so soon after the owner paid elsewhere that no airliner could have
    made the way (900 km/h); up to two more payments follow in the same city.
    """

    speed_kmh: Span = (950.0, 8_000.0)
    least_km: float = 500.0
    factor: Span = (0.8, 2.5)
    usual_size: float = 2.0
    lead_days: int = 0

    def campaign(self, scene: Scene, rng: np.random.Generator) -> Rows:
        """See Pattern."""
        world, terminals = scene.world, scene.world.terminals
        paid_at_till = np.flatnonzero(scene.ordinary["channel"] == Channel.POS)
        if not len(paid_at_till):
            return blank(0)
        anchor = scene.ordinary[rng.choice(paid_at_till)]
        here = terminals.city[anchor["terminal"]]
        far = np.flatnonzero(world.city_distance[here] >= self.least_km)
        if not len(far):
            return blank(0)
        count = int(rng.integers(1, 4))
        rows = blank(count)
        rows["user"] = anchor["user"]
        rows["terminal"] = terminals.shops.draw(rng, np.full(count, rng.choice(far)))
        first = rows["terminal"][0]
        distance = distance_km(
            terminals.latitude[anchor["terminal"]],
            terminals.longitude[anchor["terminal"]],
            terminals.latitude[first],
            terminals.longitude[first],
        )
        gap = float(distance) / rng.uniform(*self.speed_kmh) * HOUR_MS
        later = np.cumsum(rng.integers(5 * MINUTE_MS, 60 * MINUTE_MS, count))
        rows["event_time"] = anchor["event_time"] + int(gap) + later - later[0]
        rows["amount"] = _scaled(scene, rng, rows, self.factor)
        return rows


@dataclass(frozen=True, slots=True)
class TransferThenCashOut:
    """An account is drained: most of its balance goes to a mule, whom the victim never paid before,
    and the mule soon draws the money in cash.

    Mules are users with an otherwise ordinary life. Two kinds of transaction are fraudulent: the
    victim's transfer, and the mule's one to three cash-outs, which together come close to it.
    """

    share: Span = (0.6, 0.99)
    within_hours: Span = (0.2, 6.0)
    unknown_device: float = 0.7
    least_balance: float = 150.0
    usual_size: float = 3.0
    lead_days: int = 0

    def campaign(self, scene: Scene, rng: np.random.Generator) -> Rows:
        """See Pattern."""
        world, users = scene.world, scene.world.users
        candidates = rng.integers(0, world.config.users, 32)
        worthwhile = candidates[scene.balance[candidates] >= self.least_balance]
        if not len(worthwhile):
            return blank(0)
        victim = int(worthwhile[0])
        mules = max(2, int(world.config.users * MULES_PER_USER))
        # Mules are the last users, whose numbers say nothing about them.
        mule = world.config.users - 1 - int(rng.integers(0, mules))
        if mule == victim or mule in users.receivers[victim]:
            return blank(0)

        cash_outs = int(rng.integers(1, 4))
        rows = blank(1 + cash_outs)
        drained = float(np.round(scene.balance[victim] * rng.uniform(*self.share), 2))
        begin = scene.start_ms + int(rng.integers(0, DAY_MS))
        transfer, cash = rows[:1], rows[1:]
        transfer["user"] = victim
        transfer["event_time"] = begin
        transfer["kind"] = Kind.TRANSFER
        transfer["receiver"] = mule
        transfer["amount"] = drained
        transfer["channel"] = Channel.MOBILE
        if rng.random() < self.unknown_device:
            transfer["device"], transfer["ip"] = _unknown_device(rng), rng.integers(0, 2**24)
        else:
            owner = np.array([victim])
            transfer["device"], transfer["ip"] = (
                world.main_device(owner, scene.day),
                world.home_address(owner),
            )

        cash["user"] = mule
        cash["kind"] = Kind.CASH_OUT
        cash["channel"] = Channel.ATM
        cash["terminal"] = world.terminals.cash_machines.draw(rng, np.full(cash_outs, users.home[mule]))
        delay = np.sort(rng.uniform(*self.within_hours, cash_outs)) * HOUR_MS
        cash["event_time"] = begin + delay.astype(np.int64)
        parts = rng.dirichlet(np.full(cash_outs, 5.0)) * drained * rng.uniform(0.9, 1.0)
        cash["amount"] = np.maximum(np.floor(parts / 10) * 10, 10.0)
        return rows


@dataclass(frozen=True, slots=True)
class SlowMimicry:
    """A patient fraudster who knows the owner: for weeks, about one online payment every other day, at
    the owner's hours, at the owner's or at popular shops, by amounts only slightly raised.

    Half of these fraudsters even use the owner's device (malware), the others one of their own.
    """

    weeks: Span = (2.0, 5.0)
    count: tuple[int, int] = (6, 16)
    factor: Span = (1.1, 2.0)
    own_shops: float = 0.5
    own_device: float = 0.5
    usual_size: float = 11.0
    lead_days: int = 12

    def campaign(self, scene: Scene, rng: np.random.Generator) -> Rows:
        """See Pattern."""
        world = scene.world
        rows = blank(int(rng.integers(self.count[0], self.count[1] + 1)))
        user = np.full(len(rows), _one_user(scene, rng))
        rows["user"] = user
        lasting = int(rng.uniform(*self.weeks) * 7)
        rows["event_time"] = (
            scene.start_ms + rng.integers(0, lasting, len(rows)) * DAY_MS + world.time_of_day(rng, user)
        )
        rows["terminal"] = np.where(
            rng.random(len(rows)) < self.own_shops,
            favourite(rng, world.users.online_favourites, user),
            world.terminals.online.draw(rng, np.zeros_like(user)),
        )
        device = _unknown_device(rng)
        _online(rows, np.arange(len(rows)), device, rng)
        if rng.random() < self.own_device:
            rows["device"] = world.main_device(user, scene.day)
            rows["ip"] = world.home_address(user)
        rows["amount"] = _scaled(scene, rng, rows, self.factor)
        return rows


PATTERNS: Final[dict[str, Pattern]] = {
    "amount_spike": AmountSpike(),
    "compromised_terminal": CompromisedTerminal(),
    "account_takeover": AccountTakeover(),
    "card_testing": CardTesting(),
    "impossible_travel": ImpossibleTravel(),
    "transfer_then_cash_out": TransferThenCashOut(),
    "slow_mimicry": SlowMimicry(),
}

CHANGED: Final[dict[str, Pattern]] = {
    "amount_spike": AmountSpike(factor=(1.8, 3.5)),
    "compromised_terminal": CompromisedTerminal(weeks=(1.0, 2.0), share=(0.5, 0.8), factor=(0.5, 1.2)),
    "account_takeover": AccountTakeover(count=(2, 4), hours=(12.0, 48.0), factor=(0.7, 1.6), usual_size=3.0),
    "card_testing": CardTesting(tests=(2, 4), tiny=(5.0, 15.0), within_minutes=(60.0, 240.0), usual_size=4.0),
    "impossible_travel": ImpossibleTravel(speed_kmh=(920.0, 1_400.0), factor=(0.4, 1.0)),
    "transfer_then_cash_out": TransferThenCashOut(
        share=(0.15, 0.35), within_hours=(12.0, 48.0), unknown_device=0.2
    ),
    "slow_mimicry": SlowMimicry(factor=(0.9, 1.3), weeks=(4.0, 8.0)),
}
