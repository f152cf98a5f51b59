"""Histories for the tests of the engine: strategies, and the same history as the arrays of the kernels."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from events.feedback import Label
from events.transaction import Transaction
from events.types import epoch_ms
from state.columns import field_values, label_array, transaction_array
from state.contract import DEFAULT_RISK_DELAY_MS
from state.replay import KnownLabels, Replay, replay
from tests.state.reference import KnownLabel

START_MS = 1_772_323_200_000  # 2026-03-01T00:00:00Z
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

GAPS_MS = st.one_of(
    st.just(0),
    st.integers(1, 5_000),
    st.integers(5_000, 10 * MINUTE_MS),
    st.integers(10 * MINUTE_MS, 2 * DAY_MS),
    st.integers(2 * DAY_MS, 100 * DAY_MS),
)
LATENESS_MS = st.one_of(*(st.just(0),) * 6, st.integers(1, HOUR_MS), st.integers(HOUR_MS, 70 * DAY_MS))
# Whole 128ths are the same number in double and in single precision, so equality means the same in both.
AMOUNTS = st.one_of(
    st.sampled_from([0.0, 10.0, 50.0, 1e10]), st.integers(0, 1_000_000).map(lambda n: n / 128)
)
DEGREES = st.integers(-90 * 8, 90 * 8).map(lambda n: n / 8)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "terminal_id": st.sampled_from(["t1", "t2", "t3", None]),
    "transaction_type": st.sampled_from(["purchase", "transfer", "cash_out", None]),
    "country": st.sampled_from(["SE", "NO", "DE", None]),
    "latitude": DEGREES | st.none(),
    "longitude": DEGREES | st.none(),
    "device_id": st.sampled_from(["phone", "laptop", "tablet", None]),
    "card_present": st.sampled_from([True, False, None]),
    "receiver_id": st.sampled_from(["r1", "r2", "r3", None]),
    "balance_before": AMOUNTS | st.none(),
    "balance_after": AMOUNTS | st.none(),
}


class Keyed(dict[str, bytes]):
    """Keyed state; counts the reads."""

    reads = 0

    def get(self, key: str) -> bytes | None:  # type: ignore[override]
        self.reads += 1
        return super().get(key)

    def put(self, key: str, value: bytes) -> None:
        self[key] = value


class History(NamedTuple):
    """Transactions in the order of arrival, and labels in the order in which they become known."""

    transactions: list[Transaction]
    labels: list[KnownLabel]


@st.composite
def histories(draw: st.DrawFn, max_size: int = 40, *, labelled: bool = True, late: bool = True) -> History:
    """A few users at a few terminals: bursts, pauses, late arrivals, repeats, conflicts, labels."""
    event = st.tuples(
        GAPS_MS,
        LATENESS_MS if late else st.just(0),
        AMOUNTS,
        st.sampled_from("aab"),
        st.fixed_dictionaries(FIELDS),
    )
    now = START_MS
    transactions: list[Transaction] = []
    for gap, lateness, amount, user, fields in draw(st.lists(event, min_size=1, max_size=max_size)):
        now += gap
        number = len(transactions)
        transactions.append(Transaction(f"id{number}", user, now - lateness, amount, **fields))
    for source, amount in draw(st.lists(st.tuples(st.integers(0, 10**6), AMOUNTS | st.none()), max_size=4)):
        k = source % len(transactions)
        original = transactions[k]
        again = original if amount is None else msgspec.structs.replace(original, amount=amount)
        transactions.insert(k + 1 + source % 7, again)
    return History(transactions, draw(_labels(transactions)) if labelled else [])


@st.composite
def _labels(draw: st.DrawFn, transactions: Sequence[Transaction]) -> list[KnownLabel]:
    at = st.integers(0, len(transactions) - 1)
    drawn = draw(st.lists(st.tuples(at, at, st.sampled_from([True, True, False])), max_size=6))
    return [KnownLabel(before, label(transactions[k], fraud)) for before, k, fraud in sorted(drawn)]


def label(t: Transaction, is_fraud: bool) -> Label:
    """The truth about a transaction."""
    return Label(
        transaction_id=t.transaction_id, user_id=t.user_id, event_time=t.event_time, is_fraud=is_fraud,
        source="analyst", labelled_at=t.event_time, terminal_id=t.terminal_id,
        amount=t.amount,
    )  # fmt: skip


def steady(count: int, seed: int, users: int = 150, terminals: int = 40) -> list[Transaction]:
    """A plain stream in which the active users change slowly, all fields present now and then."""
    rng = np.random.default_rng(seed)
    times = START_MS + np.cumsum(rng.exponential(5 * MINUTE_MS, count)).astype(int)
    late = rng.random(count) < 0.1
    times[late] -= rng.integers(0, 40 * DAY_MS, late.sum())
    transactions: list[Transaction] = []
    for i in range(count):
        if transactions and rng.random() < 0.03:
            transactions.append(transactions[-1 - int(rng.integers(min(20, len(transactions))))])
            continue
        user = (i // 50 + int(rng.integers(60))) % users
        known = rng.random(4) < 0.9
        transactions.append(
            Transaction(
                f"id{i}",
                f"user{user}",
                int(times[i]),
                round(float(rng.lognormal(3, 1)), 2),
                terminal_id=f"terminal{(i // 100 + int(rng.integers(20))) % terminals}" if known[0] else None,
                country=str(rng.choice(["SE", "NO", "DE"])) if known[1] else None,
                device_id=f"device{user % 7}{rng.integers(3)}" if known[2] else None,
                receiver_id=f"receiver{rng.integers(30)}" if known[3] else None,
                latitude=float(rng.uniform(-90, 90)),
                longitude=float(rng.uniform(-180, 180)),
                transaction_type="transfer" if known[3] else None,
            )
        )
    return transactions


def arrays(transactions: Sequence[Transaction]) -> NDArray[np.void]:
    """TRANSACTION [n]."""
    return transaction_array([field_values(t) for t in transactions])


def numbered(names: Sequence[str | None]) -> tuple[NDArray[np.int64], dict[str, int]]:
    """i8 [n], a number for each name (-1 for none), and the numbers."""
    numbers = {name: k for k, name in enumerate(sorted({n for n in names if n is not None}))}
    return np.array([-1 if n is None else numbers[n] for n in names], np.int64), numbers


def replayed(history: History, risk_delay_ms: int = DEFAULT_RISK_DELAY_MS) -> Replay:
    """What the kernels make of a history."""
    transactions, labels = history
    user, users = numbered([t.user_id for t in transactions])
    terminal, terminals = numbered([t.terminal_id for t in transactions])
    known = KnownLabels(
        labels=label_array([known.label for known in labels]),
        user=np.array([users[known.label.user_id] for known in labels], np.int64),
        terminal=np.array([terminals.get(known.label.terminal_id or "", -1) for known in labels], np.int64),
        before=np.array([known.before for known in labels], np.int64),
    )
    return replay(arrays(transactions), user, terminal, known, risk_delay_ms)


def milliseconds(transactions: Sequence[Transaction]) -> list[int]:
    """Event times."""
    return [epoch_ms(t.event_time) for t in transactions]
