"""What came of a run: does every line have its answer, how fast, and how much fraud was caught."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cli.demo.job import Run
from cli.demo.traffic import Traffic
from cli.records import lines_of
from events.decision import DeadLetter
from events.types import Verdict
from models.rules import VERDICTS
from simulator.config import DAY_MS, LEGITIMATE

APPROVE, REVIEW, BLOCK = range(len(VERDICTS))
"""Levels: positions in VERDICTS."""


class Decided(msgspec.Struct, gc=False):
    """The part of a decision that is counted here."""

    transaction_id: str
    decision: Verdict
    score: float
    decided_at: int
    model_version: str
    degraded: bool = False


class Reconciliation(NamedTuple):
    """Lines in against answers out."""

    lines: int
    decisions: int
    dead_letters: int
    repeats: int
    problems: list[str]

    @property
    def holds(self) -> bool:
        """Whether every line has exactly the answer that is due to it."""
        return not self.problems


class Speed(NamedTuple):
    """Times of a run.

    start_s: from the start of the process to the first decision; scoring_s: on to the last one; total_s: from
    start to end of the process. batch_size and batch_ms describe the micro-batches of the terminal stage:
    median number of decisions, and median and 99th percentile of the time from one to the next.
    """

    start_s: float
    scoring_s: float
    total_s: float
    decisions: int
    batch_size: float
    batch_ms: tuple[float, float]

    @property
    def rate(self) -> float:
        """Decisions a second between the first and the last."""
        return self.decisions / max(self.scoring_s, 1e-3)


class Caught(NamedTuple):
    """Alerts against the truth: how many, the share that is fraud, and of fraud the share that is among them.

    `value_recall` is of the money that was at stake.
    """

    alerts: int
    precision: float
    recall: float
    value_recall: float


class Pattern(NamedTuple):
    """One fraud pattern: transactions in all, blocked, and reviewed; the rest was approved."""

    name: str
    frauds: int
    blocked: int
    reviewed: int


class Outcome(NamedTuple):
    """A run as it is shown. `scored` has a row per transaction: TRUTH, decision, level and score.

    Fraud is counted from day `warm_up` on: on the first days no user has a history. budget: the
    `alerts_per_day` highest scores of each of these days.
    """

    reconciliation: Reconciliation
    speed: Speed
    scored: pd.DataFrame
    letters: list[DeadLetter]
    verdicts: dict[str, int]
    degraded: int
    model_version: str
    warm_up: int
    days: int
    alerts_per_day: int
    frauds: int
    blocked: Caught
    alerted: Caught
    budget: Caught
    patterns: list[Pattern]

    @property
    def measured(self) -> pd.DataFrame:
        """The rows of `scored` after the warm-up."""
        return self.scored[self.scored["day"] >= self.warm_up]


def outcome(traffic: Traffic, results: Path, run: Run, warm_up: int, alerts_per_day: int) -> Outcome:
    """Read the results of a run over `traffic` and hold them against the truth."""
    decided = list(_records(results / "decisions", Decided))
    letters = list(_records(results / "dead_letter", DeadLetter))
    scored = _scored(traffic.truth, decided)
    measured = scored[scored["day"] >= warm_up]
    is_fraud = measured["is_fraud"].to_numpy(bool)
    level = measured["level"].to_numpy()
    return Outcome(
        reconciliation=reconcile(traffic, decided, letters),
        speed=speed(decided, run),
        scored=scored,
        letters=letters,
        verdicts=dict(Counter(d.decision for d in decided)),
        degraded=sum(d.degraded for d in decided),
        model_version=decided[-1].model_version if decided else "",
        warm_up=warm_up,
        days=int(scored["day"].max()) + 1,
        alerts_per_day=alerts_per_day,
        frauds=int(is_fraud.sum()),
        blocked=caught(measured, level == BLOCK),
        alerted=caught(measured, level >= REVIEW),
        budget=caught(measured, highest_of_each_day(measured, alerts_per_day)),
        patterns=_patterns(measured),
    )


def reconcile(traffic: Traffic, decided: list[Decided], letters: list[DeadLetter]) -> Reconciliation:
    """One decision for every transaction, one dead letter with its bytes for every spoilt line, no more."""
    times = Counter(d.transaction_id for d in decided)
    due = set(traffic.truth["transaction_id"])
    problems = []
    for what, count in (
        ("transactions have no decision", len(due - times.keys())),
        ("decisions are on transactions that were never sent", len(times.keys() - due)),
        ("decisions were given more than once", sum(n - 1 for n in times.values())),
    ):
        if count:
            problems.append(f"{count:,} {what}")
    returned, spoilt = Counter(letter.payload for letter in letters), Counter(traffic.spoilt)
    if missing := (spoilt - returned).total():
        problems.append(f"{missing:,} spoilt lines have no dead letter")
    if extra := (returned - spoilt).total():
        problems.append(f"{extra:,} dead letters are not of spoilt lines")
    answered = len(decided) + len(letters) + traffic.repeats
    if answered != traffic.lines:
        problems.append(f"{traffic.lines:,} lines in, {answered:,} accounted for")
    return Reconciliation(traffic.lines, len(decided), len(letters), traffic.repeats, problems)


def speed(decided: list[Decided], run: Run) -> Speed:
    """Times of a run; decisions of one micro-batch share their `decided_at`."""
    stamps, sizes = np.unique([d.decided_at for d in decided], return_counts=True)
    if not len(stamps):
        return Speed(run.ended - run.started, 0.0, run.ended - run.started, 0, 0.0, (0.0, 0.0))
    gaps = np.diff(stamps) if len(stamps) > 1 else np.zeros(1)
    return Speed(
        start_s=stamps[0] / 1000 - run.started,
        scoring_s=float(stamps[-1] - stamps[0]) / 1000,
        total_s=run.ended - run.started,
        decisions=len(decided),
        batch_size=float(np.median(sizes)),
        batch_ms=(float(np.median(gaps)), float(np.percentile(gaps, 99))),
    )


def caught(scored: pd.DataFrame, alert: NDArray[np.bool_]) -> Caught:
    """What the alerts, bool [rows of `scored`], are worth."""
    is_fraud = scored["is_fraud"].to_numpy(bool)
    amount = scored["amount"].to_numpy()
    hits = alert & is_fraud
    return Caught(
        alerts=int(alert.sum()),
        precision=_share(hits.sum(), alert.sum()),
        recall=_share(hits.sum(), is_fraud.sum()),
        value_recall=_share(amount[hits].sum(), amount[is_fraud].sum()),
    )


def highest_of_each_day(scored: pd.DataFrame, number: int) -> NDArray[np.bool_]:
    """Bool [rows]: whether a row is among the `number` highest scores of its day; of equals, the earlier."""
    rank = scored.groupby("day")["score"].rank(method="first", ascending=False)
    return np.asarray(rank <= number)


def _scored(truth: pd.DataFrame, decided: list[Decided]) -> pd.DataFrame:
    """The transactions that have a decision, in the order of their event times, with it."""
    answers = pd.DataFrame(
        {
            "transaction_id": [d.transaction_id for d in decided],
            "decision": [d.decision for d in decided],
            "score": [d.score for d in decided],
        }
    ).drop_duplicates("transaction_id")
    scored = truth.merge(answers, on="transaction_id", validate="one_to_one")
    first_day = truth["event_time"].min() // DAY_MS
    return scored.assign(
        day=scored["event_time"] // DAY_MS - first_day,
        level=scored["decision"].map({verdict: i for i, verdict in enumerate(VERDICTS)}).astype(np.int8),
    )


def _patterns(scored: pd.DataFrame) -> list[Pattern]:
    """Fraud by pattern, best caught first."""
    frauds = scored[scored["fraud_scenario"] != LEGITIMATE]
    found = [
        Pattern(
            str(name), len(rows), int((rows["level"] == BLOCK).sum()), int((rows["level"] == REVIEW).sum())
        )
        for name, rows in frauds.groupby("fraud_scenario")
    ]
    return sorted(found, key=lambda p: (p.blocked + p.reviewed) / p.frauds, reverse=True)


def _records(folder: Path, record_type: type[Any]) -> Iterator[Any]:
    """Every record of an output folder; a sink that wrote nothing has none."""
    if folder.is_dir():
        decode = msgspec.json.Decoder(record_type).decode
        yield from (decode(line) for _, line in lines_of(folder))


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0
