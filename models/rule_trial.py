"""What rules would have done, over recorded transactions with the features that the job would compute."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from events.control import Rule
from events.transaction import Transaction
from events.types import Verdict
from models.history import history
from models.rules import Ruleset
from state.contract import DAY_MS
from state.replay import replay
from state.user_kernel import Status

CHUNK = 65_536


class Outcome(msgspec.Struct, frozen=True):
    """What a rule hits, were it live: transactions, these per day, and users.

    frauds: among the hits; precision: frauds / hits; recall: frauds / all frauds. None where it is not known
    which transactions are fraud, or there is nothing to divide by.
    """

    rule_id: str
    verdict: Verdict
    allow: bool
    hits: int
    hits_per_day: float
    users: int
    frauds: int | None
    precision: float | None
    recall: float | None


class Trial(msgspec.Struct, frozen=True):
    """Rules over n transactions. frauds: among them, None where it is not known."""

    transactions: int
    days: float
    frauds: int | None
    outcomes: list[Outcome]


class _Tally:
    """Counts of one rule."""

    def __init__(self, users: int) -> None:
        self.hits = self.frauds = 0
        self.users = np.zeros(users, np.bool_)

    def add(self, user: NDArray[np.int64], is_fraud: NDArray[np.bool_]) -> None:
        self.hits += len(user)
        self.frauds += int(is_fraud.sum())
        self.users[user] = True


def try_rules(rules: Sequence[Rule], frame: pd.DataFrame, label_delay_days: float, now_ms: int) -> Trial:
    """Each rule as if it were enabled, live and without an end, over a frame with wire columns.

    The column is_fraud may be missing. Rules have different ids. Raises HistoryError where the transactions
    cannot be replayed, RuleRefusedError where a rule is no good.
    """
    ruleset = Ruleset()
    for rule in rules:
        ruleset.apply(msgspec.structs.replace(rule, enabled=True, shadow=False), None)
    known = "is_fraud" in frame
    frame = frame.sort_values("event_time", kind="stable", ignore_index=True)
    past = history(frame if known else frame.assign(is_fraud=0), label_delay_days, now_ms)
    features, status = replay(
        past.transactions, past.user, past.terminal, past.known_labels(), round(label_delay_days * DAY_MS)
    )
    tallies = {rule.rule_id: _Tally(int(past.user.max()) + 1) for rule in rules}
    for part, rows in _chunks(frame):
        hits = ruleset.evaluate(features[part], rows, 0)
        if hits is None:
            continue
        for rule, hit in zip(hits.rules, hits.hit & (status[part] <= Status.LATE), strict=True):
            tallies[rule.rule_id].add(past.user[part][hit], past.is_fraud[part][hit])

    scored = status <= Status.LATE
    frauds = int(past.is_fraud[scored].sum())
    days = max((int(past.time[-1]) - int(past.time[0])) / DAY_MS, 1.0)
    return Trial(
        int(scored.sum()),
        days,
        frauds if known else None,
        [_outcome(rule, tallies[rule.rule_id], days, frauds if known else None) for rule in rules],
    )


def _chunks(frame: pd.DataFrame) -> Iterator[tuple[slice, list[tuple[Any, ...]]]]:
    """Slices of the frame, and the rows in them as values of a Transaction's fields."""
    absent = [None] * CHUNK
    for start in range(0, len(frame), CHUNK):
        part = slice(start, start + CHUNK)
        chunk = frame[part]
        columns = (
            chunk[name].tolist() if name in frame else absent[: len(chunk)]
            for name in Transaction.__struct_fields__
        )
        yield part, list(zip(*columns, strict=True))


def _outcome(rule: Rule, tally: _Tally, days: float, frauds: int | None) -> Outcome:
    return Outcome(
        rule.rule_id,
        rule.verdict,
        rule.allow,
        tally.hits,
        tally.hits / days,
        int(tally.users.sum()),
        tally.frauds if frauds is not None else None,
        tally.frauds / tally.hits if frauds is not None and tally.hits else None,
        tally.frauds / frauds if frauds else None,
    )
