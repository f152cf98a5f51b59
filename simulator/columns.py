"""Columns with wire names: from packed rows to DataFrames, and from DataFrames to JSON records."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np
import pandas as pd

from events.feedback import Label, Source
from events.transaction import Transaction
from simulator.config import DAY_MS, SCENARIOS
from simulator.rows import NONE, Bools, Channel, Ints, Kind, Rows, random_stream
from simulator.world import BILLERS, CATEGORIES, World

MISSING = 20  # concern of the random streams

WIRE_COLUMNS: Final = Transaction.__struct_fields__
TRUTH_COLUMNS: Final = ("is_fraud", "fraud_scenario")
LABEL_COLUMNS: Final = Label.__struct_fields__
SOURCES: Final[tuple[Source, ...]] = ("chargeback", "analyst", "customer")

WITH_BALANCE: Final = (Kind.PAYMENT, Kind.TRANSFER, Kind.CASH_OUT, Kind.CASH_IN, Kind.DEBIT)
"""Account transactions; the acquirer of a card purchase does not know the balance."""

LABEL_ROW: Final = np.dtype(
    [
        ("number", "i8"),
        ("user", "i4"),
        ("terminal", "i4"),
        ("event_time", "i8"),
        ("amount", "f8"),
        ("labelled_at", "i8"),
        ("is_fraud", "?"),
        ("source", "i1"),
    ]
)


class _WireTransaction(Transaction, frozen=True, gc=False, omit_defaults=True):
    """A Transaction that leaves missing fields out of its JSON."""


class _WireLabel(Label, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """A Label that leaves missing fields out of its JSON."""


class Naming:
    """The names that the codes of one world stand for."""

    def __init__(self, world: World) -> None:
        """Make the names once: rows are then named by look-up."""
        config = world.config
        self._seed = config.seed
        accounts = [f"u{i:07d}" for i in range(config.users)]
        accounts += [f"b{i:05d}" for i in range(BILLERS)]
        self._accounts = np.array(accounts, dtype=object)
        self._terminals = np.array([f"t{i:06d}" for i in range(config.terminals)], dtype=object)
        self._currency = np.array([city.currency or "EUR" for city in world.cities], dtype=object)
        self._home_country = np.array([city.country for city in world.cities], dtype=object)
        self._kinds = np.array([kind.name.lower() for kind in Kind], dtype=object)
        self._channels = np.array([channel.name.lower() for channel in Channel], dtype=object)
        self._categories = np.array([category.name for category in CATEGORIES], dtype=object)
        self._scenarios = np.array(SCENARIOS, dtype=object)
        self._sources = np.array(SOURCES, dtype=object)
        self._terminal_country = world.terminals.country.astype(object)
        self._world = world

    def transactions(self, rows: Rows, first_number: int) -> pd.DataFrame:
        """Wire columns and ground truth of rows that are numbered from `first_number` on.

        Which optional fields are missing depends on the seed and the numbers alone, so that it says
        nothing about fraud.
        """
        world, terminals, n = self._world, self._world.terminals, len(rows)
        rng = random_stream(world.config.seed, MISSING, first_number)
        rate = world.config.missing_rate

        def kept(factor: float) -> Bools:
            return np.asarray(rng.random(n) >= factor * rate)

        user, terminal, channel = rows["user"], rows["terminal"], rows["channel"]
        home = world.users.home[user]
        has_terminal = terminal != NONE
        present = (channel == Channel.POS) | (channel == Channel.ATM)
        placed = present & has_terminal & terminals.reports_place[terminal] & kept(1.0)
        country = np.where(has_terminal, self._terminal_country[terminal], self._home_country[home])
        with_balance = np.isin(rows["kind"], WITH_BALANCE) & kept(2.0)
        return pd.DataFrame(
            {
                "transaction_id": [f"s{self._seed}-{i}" for i in range(first_number, first_number + n)],
                "user_id": self._accounts[user],
                "event_time": rows["event_time"].astype(np.int64),
                "amount": rows["amount"].astype(np.float64),
                "terminal_id": _where(has_terminal, self._terminals[terminal]),
                "currency": self._currency[home],
                "merchant_category": _where(
                    has_terminal & kept(1.0), self._categories[terminals.category[terminal]]
                ),
                "transaction_type": _where(kept(0.3), self._kinds[rows["kind"]]),
                "channel": _where(kept(0.6), self._channels[channel]),
                "country": _where(kept(0.5), country),
                "latitude": np.where(placed, terminals.latitude[terminal], np.nan),
                "longitude": np.where(placed, terminals.longitude[terminal], np.nan),
                "device_id": _where((rows["device"] != NONE) & kept(2.0), _device_names(rows["device"])),
                "ip": _where((rows["ip"] != NONE) & kept(1.5), _addresses(rows["ip"])),
                "card_present": _where(has_terminal & kept(1.0), present.astype(object)),
                "receiver_id": _where(rows["receiver"] != NONE, self._accounts[rows["receiver"]]),
                "balance_before": np.where(with_balance, rows["balance_before"], np.nan),
                "balance_after": np.where(with_balance, rows["balance_after"], np.nan),
                "is_fraud": (rows["scenario"] != 0).astype(np.int8),
                "fraud_scenario": self._scenarios[rows["scenario"]],
            }
        )

    def labels(self, rows: Rows) -> pd.DataFrame:
        """Columns of Label for rows of LABEL_ROW."""
        terminal = rows["terminal"]
        return pd.DataFrame(
            {
                "transaction_id": [f"s{self._seed}-{i}" for i in rows["number"].tolist()],
                "user_id": self._accounts[rows["user"]],
                "event_time": rows["event_time"].astype(np.int64),
                "is_fraud": rows["is_fraud"].astype(bool),
                "source": self._sources[rows["source"]],
                "labelled_at": rows["labelled_at"].astype(np.int64),
                "terminal_id": _where(terminal != NONE, self._terminals[terminal]),
                "amount": rows["amount"],
            }
        )


def maturity_labels(transactions: pd.DataFrame, delay_days: float) -> pd.DataFrame:
    """Columns of Label for recorded transactions with `is_fraud`: all known after the same delay."""
    labels = transactions[["transaction_id", "user_id", "event_time", "amount", "is_fraud"]].copy()
    labels["is_fraud"] = labels["is_fraud"].astype(bool)
    labels["source"] = "chargeback"
    labels["labelled_at"] = labels["event_time"] + round(delay_days * DAY_MS)
    labels["terminal_id"] = transactions.get("terminal_id", None)
    return labels[list(LABEL_COLUMNS)]


def encode_transactions(frame: pd.DataFrame) -> list[bytes]:
    """Each row as the JSON of a Transaction, missing fields left out; other columns are ignored."""
    encode = msgspec.json.Encoder().encode
    columns = [_values(frame, name) for name in WIRE_COLUMNS]
    return [encode(_WireTransaction(*values)) for values in zip(*columns, strict=True)]


def encode_labels(frame: pd.DataFrame) -> list[bytes]:
    """Each row as the JSON of a Label."""
    encode = msgspec.json.Encoder().encode
    columns = [_values(frame, name) for name in LABEL_COLUMNS]
    return [
        encode(_WireLabel(**dict(zip(LABEL_COLUMNS, values, strict=True))))
        for values in zip(*columns, strict=True)
    ]


def _values(frame: pd.DataFrame, name: str) -> Sequence[Any]:
    if name not in frame:
        return [None] * len(frame)
    column = frame[name]
    missing = column.isna().to_numpy()
    if not missing.any():
        return column.tolist()
    values = column.to_numpy(dtype=object, copy=True)
    values[missing] = None
    return list(values)


def _where(present: Bools, values: Any) -> Any:
    out = np.array(values, dtype=object)
    out[~present] = None
    return out


def _device_names(device: Ints) -> Any:
    # An odd factor permutes the 48-bit numbers: names are unique and tell nothing of the owner.
    mixed = (device.astype(np.uint64) * np.uint64(0x9E3779B97F4B)) & np.uint64(2**48 - 1)
    return np.array([f"d{code:012x}" for code in mixed.tolist()], dtype=object)


def _addresses(ip: Ints) -> Any:
    return np.array([f"10.{i >> 16 & 255}.{i >> 8 & 255}.{i & 255}" for i in ip.tolist()], dtype=object)
