"""The unchanging part of the simulated world: terminals, users with their habits, and journeys."""

from dataclasses import dataclass
from typing import Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from simulator.config import DAY_MS, SimulationConfig
from simulator.geography import CITIES, City, distance_km
from simulator.rows import NONE, Bools, Floats, Ints, random_stream

HOUR_MS: Final = 3_600_000
LOCAL_FAVOURITES: Final = 9
ONLINE_FAVOURITES: Final = 3
BILLERS: Final = 200
ANYTIME_SHARE: Final = 0.05
"""Share of what users do outside their habitual hours."""
OTHER_DEVICE_SHARE: Final = 0.3
"""Share of a second or third device, where a user has them."""
BORROWED_DEVICE_SHARE: Final = 0.008
NIGHT_SHIFT_SHARE: Final = 0.06
WALLET_SHARE: Final = 0.35
SHARED_CARD_SHARE: Final = 0.02
"""Share of the users whose card a relative in another city also uses."""

TERMINALS, USERS, JOURNEYS = 1, 2, 3  # concerns of the random streams


class Category(NamedTuple):
    """What is sold at a terminal."""

    name: str
    price: float
    """Factor on a user's ordinary amount."""
    share: float
    """Share among the terminals of its kind."""


SHOP_CATEGORIES: Final = (
    Category("groceries", 1.0, 0.26),
    Category("restaurant", 0.8, 0.20),
    Category("fuel", 1.4, 0.08),
    Category("clothing", 1.7, 0.10),
    Category("health", 0.9, 0.08),
    Category("transport", 0.4, 0.08),
    Category("entertainment", 0.9, 0.07),
    Category("home", 2.3, 0.06),
    Category("electronics", 4.5, 0.04),
    Category("hotel", 6.0, 0.03),
)
ONLINE_CATEGORIES: Final = (
    Category("online_retail", 1.3, 0.45),
    Category("digital_goods", 0.3, 0.25),
    Category("online_travel", 5.0, 0.12),
    Category("gaming", 0.5, 0.10),
    Category("electronics", 4.0, 0.08),
)
CASH = Category("cash", 1.0, 1.0)
CATEGORIES: Final = (*SHOP_CATEGORIES, *ONLINE_CATEGORIES, CASH)
CASH_CATEGORY: Final = len(CATEGORIES) - 1
DIGITAL_CATEGORY: Final = len(SHOP_CATEGORIES) + 1


@dataclass(frozen=True, slots=True)
class Market:
    """Terminals grouped by place, drawn in proportion to their popularity."""

    terminal: Ints
    cumulative: Floats
    first: Ints
    last: Ints

    @classmethod
    def of(cls, terminal: Ints, group: Ints, popularity: Floats, groups: int) -> Self:
        """`group` and `popularity` are those of `terminal`; every group in range(groups) is non-empty."""
        order = np.argsort(group, kind="stable")
        edges = np.searchsorted(group[order], np.arange(groups + 1))
        return cls(terminal[order], np.cumsum(popularity[order]), edges[:-1], edges[1:] - 1)

    def draw(self, rng: np.random.Generator, group: Ints) -> Ints:
        """One terminal of each given group."""
        first, last = self.first[group], self.last[group]
        low = np.where(first > 0, self.cumulative[first - 1], 0.0)
        target = low + rng.random(len(group)) * (self.cumulative[last] - low)
        drawn: Ints = np.clip(np.searchsorted(self.cumulative, target, side="right"), first, last)
        return self.terminal[drawn]


@dataclass(frozen=True, slots=True)
class Terminals:
    """Terminals by index. Online ones have city -1 and no place."""

    city: Ints
    country: npt.NDArray[np.str_]
    category: Ints
    latitude: Floats
    longitude: Floats
    price: Floats
    reports_place: Bools
    shops: Market
    cash_machines: Market
    online: Market
    digital: Market


@dataclass(frozen=True, slots=True)
class Users:
    """Habits of each user by index; arrays of length users, or (users, k)."""

    home: Ints
    daily_rate: Floats
    weekday: Floats
    """(users, 7), Monday first, mean 1."""
    peaks: Floats
    """(users, 2) local hours of the two daily peaks."""
    spread: Floats
    """Hours of standard deviation around the peaks."""
    first_peak_share: Floats
    log_amount: Floats
    log_deviation: Floats
    online_share: Floats
    curiosity: Floats
    """Share of purchases outside the favourites."""
    local_favourites: Ints
    online_favourites: Ints
    cash_machine: Ints
    devices: Ints
    """Number of devices, 1 to 3."""
    device_life: Floats
    """Days until the main device is replaced, again and again."""
    device_age: Floats
    """Age of the main device on the first day, in days."""
    wallet: Bools
    """Pays at the till with the main device."""
    relative_city: Ints
    """City of a relative who also uses the card, or -1."""
    payday: Ints
    salary: Floats
    opening_balance: Floats
    receivers: Ints
    """(users, 5) users that money is sent to."""
    billers: Ints
    """(users, 3)"""
    bills: Floats
    """(users, 3) usual amount of each biller."""


@dataclass(frozen=True, slots=True)
class Journeys:
    """Travels away from home, sorted by departure; times in ms since the epoch."""

    user: Ints
    city: Ints
    departure: Ints
    arrival: Ints
    departure_back: Ints
    arrival_back: Ints

    def under_way(self, start: int, end: int, users: int) -> Ints:
        """For every user the journey that touches [start, end), or -1. There is at most one a day."""
        journey = np.full(users, NONE, dtype=np.int64)
        # No journey lasts longer than 20 days.
        low, high = np.searchsorted(self.departure, [start - 20 * DAY_MS, end])
        candidates = np.arange(low, high)
        candidates = candidates[self.arrival_back[candidates] >= start]
        journey[self.user[candidates]] = candidates
        return journey


@dataclass(frozen=True, slots=True)
class World:
    """Everything about a simulated world that does not depend on the day."""

    config: SimulationConfig
    cities: tuple[City, ...]
    city_distance: Floats
    """(cities, cities) in km."""
    utc_offset: Floats
    terminals: Terminals
    users: Users
    journeys: Journeys

    @classmethod
    def build(cls, config: SimulationConfig) -> Self:
        """The world of a configuration; one of few terminals has few cities."""
        cities = CITIES[: int(np.clip(config.terminals // 10, 2, len(CITIES)))]
        latitude = np.array([city.latitude for city in cities])
        longitude = np.array([city.longitude for city in cities])
        distance = distance_km(latitude[:, None], longitude[:, None], latitude[None, :], longitude[None, :])
        terminals = _build_terminals(config, cities)
        users = _build_users(config, cities, terminals)
        return cls(
            config,
            cities,
            distance,
            np.array([city.utc_offset for city in cities]),
            terminals,
            users,
            _build_journeys(config, users.home, cities, distance),
        )

    def time_of_day(self, rng: np.random.Generator, user: Ints) -> Ints:
        """Milliseconds after midnight UTC at which each user is active, by own habit."""
        users = self.users
        second = rng.random(len(user)) >= users.first_peak_share[user]
        hour = users.peaks[user, second.astype(np.int64)] + users.spread[user] * rng.standard_normal(
            len(user)
        )
        anytime = rng.random(len(user)) < ANYTIME_SHARE
        hour = np.where(anytime, rng.uniform(0, 24, len(user)), hour) - self.utc_offset[users.home[user]]
        return np.asarray((np.mod(hour, 24.0) * HOUR_MS).astype(np.int64) % DAY_MS)

    def purchase_amount(self, rng: np.random.Generator, user: Ints, terminal: Ints) -> Floats:
        """An ordinary amount of each user at each terminal: log-normal, times the level of prices there.

        The level is 1 where there is no terminal.
        """
        users = self.users
        own = users.log_amount[user] + users.log_deviation[user] * rng.standard_normal(len(user))
        return np.asarray(np.exp(own) * np.where(terminal == NONE, 1.0, self.terminals.price[terminal]))

    def main_device(self, user: Ints, day: int) -> Ints:
        """The device each user mostly uses; another one after each replacement."""
        age = day + self.users.device_age[user]
        return user * 1024 + (age // self.users.device_life[user]).astype(np.int64) % 1024

    def any_device(self, rng: np.random.Generator, user: Ints, day: int) -> Ints:
        """One of the devices of each user, or (seldom) one never seen before."""
        count = self.users.devices[user]
        other = rng.integers(1, 4, len(user))
        takes_other = (rng.random(len(user)) < OTHER_DEVICE_SHARE) & (other < count)
        device = np.where(takes_other, foreign_devices(user * 4 + other), self.main_device(user, day))
        borrowed = rng.random(len(user)) < BORROWED_DEVICE_SHARE
        return np.where(borrowed, foreign_devices(rng.integers(2**40, 2**41, len(user))), device)

    def home_address(self, user: Ints) -> Ints:
        """IP address (24 bits) of each user's home network; a few users share one."""
        return (user * 40_503 + 12_345) % 2**23


def foreign_devices(number: Ints) -> Ints:
    """Device codes that no main device has."""
    return number + 2**42


def _zipf_choice(rng: np.random.Generator, n: int, k: int, exponent: float) -> Ints:
    """`n` numbers in range(k), the first the most frequent."""
    weight = (1.0 + np.arange(k)) ** -exponent
    return rng.choice(k, size=n, p=weight / weight.sum())


def favourite(rng: np.random.Generator, favourites: Ints, user: Ints) -> Ints:
    """One of each user's favourite terminals, the first ones more often."""
    return favourites[user, _zipf_choice(rng, len(user), favourites.shape[1], 0.9)]


def _shares(values: list[float]) -> Floats:
    weights = np.array(values)
    return np.asarray(weights / weights.sum())


def _build_terminals(config: SimulationConfig, cities: tuple[City, ...]) -> Terminals:
    rng = random_stream(config.seed, TERMINALS)
    n, n_cities = config.terminals, len(cities)
    n_online = max(3, round(0.12 * n))
    n_cash = max(n_cities, round(0.06 * n))
    n_shops = n - n_online - n_cash

    city_share = _shares([city.weight for city in cities])
    shop_city = np.concatenate(
        [np.arange(n_cities), rng.choice(n_cities, size=n_shops - n_cities, p=city_share)]
    )
    cash_city = np.concatenate(
        [np.arange(n_cities), rng.choice(n_cities, size=n_cash - n_cities, p=city_share)]
    )
    city = np.concatenate([shop_city, cash_city, np.full(n_online, NONE)])

    shop_category = rng.choice(
        len(SHOP_CATEGORIES), size=n_shops, p=_shares([c.share for c in SHOP_CATEGORIES])
    )
    online_category = rng.choice(
        len(ONLINE_CATEGORIES), size=n_online, p=_shares([c.share for c in ONLINE_CATEGORIES])
    )
    online_category[0] = DIGITAL_CATEGORY - len(SHOP_CATEGORIES)
    category = np.concatenate(
        [shop_category, np.full(n_cash, CASH_CATEGORY), online_category + len(SHOP_CATEGORIES)]
    )

    centre = np.array([[c.latitude, c.longitude] for c in cities])
    # Two kilometres of standard deviation, at most six: nobody crosses town at the speed of an aircraft.
    offset = np.clip(rng.standard_normal((n, 2)), -3, 3) * 0.02
    offset[:, 1] /= np.cos(np.radians(centre[city, 0]))
    place = np.round(centre[city] + offset, 5)
    place[city == NONE] = np.nan

    popularity = 1.0 + rng.pareto(1.3, n)
    price = np.array([c.price for c in CATEGORIES])[category] * np.exp(0.25 * rng.standard_normal(n))
    country_of_city = np.array([c.country for c in cities])
    online_country = rng.choice(np.array(["FR", "DE", "GB", "US", "IE", "NL", "LU", "CN"]), size=n)
    index = np.arange(n)
    shops, cash_machines, online = np.split(index, [n_shops, n_shops + n_cash])
    digital = index[category == DIGITAL_CATEGORY]

    def market(members: Ints, group: Ints, groups: int) -> Market:
        return Market.of(members, group, popularity[members], groups)

    return Terminals(
        city=city,
        country=np.where(city == NONE, online_country, country_of_city[city]),
        category=category,
        latitude=place[:, 0],
        longitude=place[:, 1],
        price=price,
        reports_place=rng.random(n) >= config.missing_rate,
        shops=market(shops, city[shops], n_cities),
        cash_machines=market(cash_machines, city[cash_machines], n_cities),
        online=market(online, np.zeros_like(online), 1),
        digital=market(digital, np.zeros_like(digital), 1),
    )


def _build_users(config: SimulationConfig, cities: tuple[City, ...], terminals: Terminals) -> Users:
    rng = random_stream(config.seed, USERS)
    n = config.users
    user = np.arange(n)
    home_weight = _shares([city.weight if city.currency else 0.0 for city in cities])
    home = rng.choice(len(cities), size=n, p=home_weight)

    rate = np.exp(0.7 * rng.standard_normal(n))
    weekday = np.exp(0.2 * rng.standard_normal((n, 7))) * np.array([0.9, 0.9, 0.95, 1.0, 1.15, 1.2, 0.9])
    night_shift = rng.random(n) < NIGHT_SHIFT_SHARE
    peaks = rng.normal([12.3, 18.4], [1.8, 1.8], size=(n, 2)) + np.where(night_shift, 9.5, 0.0)[:, None]
    log_amount = rng.normal(np.log(24.0), 0.5, n)
    daily_rate = rate * config.transactions_per_user_day / rate.mean()

    # Of four popular shops the nearest becomes a favourite: people buy close to where they live.
    candidates = terminals.shops.draw(rng, np.repeat(home, 4 * LOCAL_FAVOURITES)).reshape(
        n, LOCAL_FAVOURITES, 4
    )
    centre = np.array([[c.latitude, c.longitude] for c in cities])[home]
    dwelling = centre + np.clip(rng.standard_normal((n, 2)), -3, 3) * 0.02
    distance = np.hypot(
        terminals.latitude[candidates] - dwelling[:, 0, None, None],
        terminals.longitude[candidates] - dwelling[:, 1, None, None],
    )
    nearest = np.take_along_axis(candidates, distance.argmin(axis=2)[:, :, None], axis=2)[:, :, 0]

    anywhere = np.zeros(n * ONLINE_FAVOURITES, dtype=np.int64)
    bills = np.exp(rng.normal(np.log(60.0), 0.7, (n, 3)))
    # What comes in is about what goes out in a month, for some a little more, for some less.
    monthly_spending = 30 * daily_rate * np.exp(log_amount + 0.2) * 2.6
    salary = np.maximum(monthly_spending * rng.uniform(0.95, 1.3, n), 400.0)
    return Users(
        home=home,
        daily_rate=daily_rate,
        weekday=weekday / weekday.mean(axis=1, keepdims=True),
        peaks=peaks,
        spread=rng.uniform(0.8, 2.6, n),
        first_peak_share=rng.uniform(0.2, 0.8, n),
        log_amount=log_amount,
        log_deviation=rng.uniform(0.4, 0.8, n),
        online_share=rng.beta(2, 5, n),
        curiosity=rng.beta(2, 8, n),
        local_favourites=nearest,
        online_favourites=terminals.online.draw(rng, anywhere).reshape(n, ONLINE_FAVOURITES),
        cash_machine=terminals.cash_machines.draw(rng, home),
        devices=rng.choice([1, 2, 3], size=n, p=[0.55, 0.33, 0.12]),
        device_life=rng.uniform(90, 700, n),
        device_age=rng.uniform(0, 700, n),
        wallet=rng.random(n) < WALLET_SHARE,
        relative_city=np.where(
            rng.random(n) < SHARED_CARD_SHARE, rng.choice(len(cities), size=n, p=home_weight), NONE
        ),
        payday=rng.integers(1, 29, n),
        salary=np.round(salary, 2),
        opening_balance=np.round(salary * rng.gamma(1.5, 1.2, n) + 50.0, 2),
        receivers=(user[:, None] + rng.integers(1, n, (n, 5))) % n,
        billers=rng.integers(0, BILLERS, (n, 3)) + n,
        bills=np.round(bills, 2),
    )


def _build_journeys(
    config: SimulationConfig, home: Ints, cities: tuple[City, ...], city_distance: Floats
) -> Journeys:
    """About one journey in 50 days, mostly not far, at the pace of a train or an airliner."""
    rng = random_stream(config.seed, JOURNEYS)
    n_cities = len(cities)
    run_up = 14
    count = rng.poisson((config.days + run_up) / 50 * rng.gamma(1.0, 1.0, config.users))
    user = np.repeat(np.arange(config.users), count)

    near = np.exp(-city_distance / 900.0) * np.array([city.weight + 1.0 for city in cities])
    attraction = near + 0.1
    np.fill_diagonal(attraction, 0.0)
    # Row h of the cumulative shares runs from h to h + 1, so that one search draws for all homes.
    cumulative = np.cumsum(attraction / attraction.sum(axis=1, keepdims=True), axis=1)
    cumulative = (cumulative + np.arange(n_cities)[:, None]).ravel()
    drawn = np.searchsorted(cumulative, home[user] + rng.random(len(user)), side="right")
    city = np.minimum(drawn - home[user] * n_cities, n_cities - 1)

    start = rng.integers(-run_up, config.days, len(user)) * DAY_MS + config.start_ms
    departure = start + (rng.uniform(0.25, 0.7, len(user)) * DAY_MS).astype(np.int64)
    lasting = ((1.0 + city_distance[home[user], city] / 700.0) * HOUR_MS).astype(np.int64)
    arrival = departure + lasting
    departure_back = arrival + (rng.uniform(0.8, 11.0, len(user)) * DAY_MS).astype(np.int64)
    arrival_back = departure_back + lasting

    # Who is still away cannot leave: keep a journey only a day after all earlier ones of the user.
    order = np.lexsort((departure, user))
    # Times relative to each user, far enough apart that one running maximum serves all users.
    epoch, lifetime = config.start_ms - 30 * DAY_MS, (config.days + 100) * DAY_MS
    shift = user[order] * lifetime
    back = np.maximum.accumulate(arrival_back[order] - epoch + shift)
    earlier = np.concatenate([[-lifetime], back[:-1]])
    kept = order[departure[order] - epoch + shift > earlier + DAY_MS]
    kept = kept[np.argsort(departure[kept], kind="stable")]
    return Journeys(
        user[kept], city[kept], departure[kept], arrival[kept], departure_back[kept], arrival_back[kept]
    )
