"""Analysts' rules: what they add to a transaction, and how long taking one stops the stage."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.engine import payloads
from events.codec import Decoder
from events.control import MAX_VALUES, Condition, Rule
from events.transaction import Transaction
from models.rules import Ruleset
from state.columns import field_values, transaction_array
from state.contract import FEATURE_NAMES
from state.replay import replay

ROWS = 20_000
RARE = 0.97
"""Quantile of a feature above which a condition is met; two of them make a rule that hits rarely."""
LEAST_S = 1.0
LISTED = ("user_id", "terminal_id", "device_id")


def traffic() -> tuple[NDArray[np.float32], list[list[Any]]]:
    """Features f4 [n, N_FEATURES] and rows of simulated transactions."""
    rows = [field_values(msgspec.json.decode(p, type=Transaction)) for p in payloads()[:ROWS]]
    user, terminal = (
        np.unique([str(row[i]) for row in rows], return_inverse=True)[1].astype(np.int64) for i in (1, 4)
    )
    return replay(transaction_array(rows), user, terminal).features, rows


def feature_rules(features: NDArray[np.float32], count: int) -> list[Rule]:
    """Rules of two conditions on features that occur, each on the rare side of one."""
    rng = np.random.default_rng(1)
    present = np.flatnonzero(np.isfinite(features).mean(axis=0) > 0.5)
    limits = np.nanquantile(features[:, present], RARE, axis=0)
    return [
        Rule(
            rule_id=f"features-{i}", version=1, owner="benchmark", verdict="review",
            all=[
                Condition(feature=FEATURE_NAMES[present[k]], operator=">", value=float(limits[k]))
                for k in rng.choice(len(present), 2, replace=False)
            ],
        )
        for i in range(count)
    ]  # fmt: skip


def list_rules(rows: Sequence[Sequence[Any]], count: int, length: int) -> list[Rule]:
    """Block lists, each with one value that occurs."""
    rng = np.random.default_rng(2)
    return [
        Rule(
            rule_id=f"list-{i}", version=1, owner="benchmark", verdict="block",
            all=[
                Condition(
                    field=LISTED[i % 3],  # type: ignore[arg-type]
                    operator="in",
                    values=[str(rows[rng.integers(ROWS)][1]), *(f"listed-{i}-{k}" for k in range(1, length))],
                )
            ],
        )
        for i in range(count)
    ]  # fmt: skip


def _best(run: Callable[[], int]) -> float:
    """CPU seconds per transaction, the best of three passes; `run` answers how many it took."""
    run()
    best = float("inf")
    for _ in range(3):
        start, done = time.process_time(), 0
        while time.process_time() - start < LEAST_S:
            done += run()
        best = min(best, (time.process_time() - start) / done)
    return best


def evaluation(features: NDArray[np.float32], rows: list[list[Any]], rules: list[Rule], batch: int) -> float:
    """CPU seconds per transaction of all that the terminal stage does for rules, but for Flink's counters."""
    ruleset = Ruleset()
    for rule in rules:
        ruleset.apply(rule, 0)
    levels, score = np.zeros(batch, np.int8), np.zeros(batch)
    parts = [slice(start, start + batch) for start in range(0, min(ROWS, 200 * batch), batch)][:-1]

    def run() -> int:
        for part in parts:
            hits = ruleset.evaluate(features[part], rows[part], 1)
            if hits is not None:
                hits.decide(levels)
                hits.alert_scores(score)
                hits.names()
        return len(parts) * batch

    return _best(run)


def taking(features: NDArray[np.float32], rows: list[list[Any]], others: list[Rule]) -> float:
    """CPU seconds from the bytes of a full list to the first batch that it was held against."""
    ruleset, decoder = Ruleset(), Decoder(Rule)
    for rule in others:
        ruleset.apply(rule, 0)
    spent = []
    for version in range(1, 8):
        (rule,) = list_rules(rows, 1, MAX_VALUES)
        payload = msgspec.json.encode(msgspec.structs.replace(rule, rule_id="new", version=version))
        start = time.process_time()
        (read,) = decoder.decode([payload])
        assert isinstance(read, Rule)
        ruleset.apply(read, 0)
        ruleset.evaluate(features[:64], rows[:64], 1)
        spent.append(time.process_time() - start)
    return sorted(spent)[len(spent) // 2]


def measure() -> Iterator[str]:
    """The table of all of them."""
    features, rows = traffic()
    sets = {
        "no rules": [],
        "1 on features": feature_rules(features, 1),
        "100 on features": feature_rules(features, 100),
        "10 lists of 10,000": list_rules(rows, 10, MAX_VALUES),
        "100 on features, 10 lists of 10,000": feature_rules(features, 100)
        + list_rules(rows, 10, MAX_VALUES),
        "800 on features, 200 lists of 1,000": feature_rules(features, 800) + list_rules(rows, 200, 1_000),
    }
    yield "| rules | CPU us per transaction, batch 64 | batch 1 |"
    yield "|---|---|---|"
    for name, rules in sets.items():
        large, small = (evaluation(features, rows, rules, batch) for batch in (64, 1))
        yield f"| {name} | {large * 1e6:.2f} | {small * 1e6:.1f} |"
    yield ""
    yield "| taking a list of 10,000 | CPU ms until it is in force |"
    yield "|---|---|"
    for name, others in (("alone", []), ("beside 10 others", list_rules(rows, 10, MAX_VALUES))):
        yield f"| {name} | {taking(features, rows, others) * 1e3:.1f} |"
