"""A fraud pattern that nobody has seen: `python -m benchmarks.drift_loop` writes docs/drift-loop.md.

Simulated traffic, in which a pattern appears on some day. Hour after hour transactions are scored, analysts
answer the alerts that their budget allows, and the online learner learns the answers. Beside it stand a
static model and one fitted with hindsight, on days with the pattern that the comparison leaves out.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks.__main__ import machine
from benchmarks.online_loop import PRESUMED, Decided, OnlineLoop
from models.evaluation_plots import plot
from models.history import History, history
from models.metrics import alerted
from models.parts.fitted import FitOptions
from models.parts.trees import TreeOptions
from models.parts.trees import fit as fit_trees
from simulator.config import DEFAULT_MIX, Drift, SimulationConfig
from simulator.simulation import simulate
from state.contract import DAY_MS
from state.replay import replay

DOCS: Final = Path(__file__).resolve().parent.parent / "docs"
PLOTS: Final = DOCS / "drift-loop"
HOUR_MS: Final = 3_600_000
DELAY_DAYS: Final = 7
DAYS_AFTER: Final = 8
"""That are compared, from the day of the pattern on; hindsight learns from those that follow."""
PATTERNS: Final = "card_testing,account_takeover"
RECOVERED: Final = 2
"""Days until the online learner should have recovered."""

STATIC: Final = "static"
LEARNER: Final = "online learner"
HINDSIGHT: Final = "hindsight"
NOTICED_HOURS: Final = 8
NEVER: Final = np.iinfo(np.int64).max

Score = NDArray[np.float64]

HEAD: Final = """# A pattern that nobody has seen

`python -m benchmarks.drift_loop` on {machine}

Simulated traffic ({world}). From day `drift_day` on it has a pattern that the ensemble has never seen.
Analysts answer {budget} alerts a day, within the hour; of all frauds customers report a
share by themselves, after {hours} hours on average; the rest becomes known after a week. Of the transactions
that nobody asks about {presumed:.0%} are presumed legitimate at once, as `--presume-sample` does, and all
decisions are kept (`--keep-sample 1`). Nothing is trained anew: the online learner corrects the static trees.
*Hindsight* is trees grown on all days but the compared ones, those after them with the pattern included.
Recall is by the same budget of alerts each day. The tables give means from day 3 on; *labelled* are
frauds of the pattern with a label by the end of day 2, *others* all other frauds.
"""


class World(NamedTuple):
    """users, terminals, days, fraud_rate, seed: of the simulator; drift_day: on which the pattern appears.

    share: of the frauds that the pattern makes up from then on, about.
    """

    users: int = 8_000
    terminals: int = 3_000
    days: int = 62
    fraud_rate: float = 0.012
    share: float = 0.5
    seed: int = 3
    drift_day: int = 45


class Lesson(NamedTuple):
    """Where labels come from.

    budget: alerts a day that analysts answer at once; reported: share of frauds that customers report.
    """

    budget: int
    reported: float


class Traffic(NamedTuple):
    """A history with features f4 [n, N_FEATURES]; day: i8 [n], 0 is the first."""

    past: History
    features: NDArray[np.float32]
    day: NDArray[np.int64]


def traffic(world: World, pattern: str) -> Traffic:
    """The world's transactions, in which the pattern appears on `drift_day`."""
    simulation = simulate(
        SimulationConfig(
            users=world.users,
            terminals=world.terminals,
            days=world.days,
            fraud_rate=world.fraud_rate,
            seed=world.seed,
            mix=DEFAULT_MIX | {pattern: world.share / (1 - world.share)},
            drift=(Drift(pattern=pattern, day=world.drift_day, change="appears"),),
            label_delay_days=DELAY_DAYS,
        )
    )
    past = history(simulation.transactions, DELAY_DAYS, round(time.time() * 1000))
    delay = DELAY_DAYS * DAY_MS
    features = replay(past.transactions, past.user, past.terminal, past.known_labels(), delay).features
    return Traffic(past, features, (past.time - past.time[0] // DAY_MS * DAY_MS) // DAY_MS)


def fitted(of: Traffic, rows: NDArray[np.bool_], options: FitOptions) -> Score:
    """Scores f8 [n] of all transactions by trees grown on some rows."""
    kept = rows & ~np.isnan(of.features[:, 0])
    part = fit_trees(of.features[kept], of.past.is_fraud[kept], options, TreeOptions())
    return part.native(of.features)


class Learnt(NamedTuple):
    """Scores f8 [n] with the online learner.

    labelled: frauds of the pattern that were labelled by the end of each day since the drift; promotions: how
    often the scorer got new weights.
    """

    score: Score
    labelled: list[int]
    promotions: int


def reports(of: Traffic, share: float, seed: int) -> NDArray[np.int64]:
    """When the customer reports each transaction, i8 [n], milliseconds since the epoch; NEVER for the others.

    share: of the frauds; they are noticed after `NOTICED_HOURS` on average.
    """
    rng = np.random.default_rng(seed)
    noticed = of.past.time + rng.exponential(NOTICED_HOURS * HOUR_MS, len(of.day)).astype(np.int64)
    reported: NDArray[np.int64] = np.where(
        of.past.is_fraud & (rng.random(len(of.day)) < share), noticed, NEVER
    )
    return reported


def learn(of: Traffic, static: Score, world: World, pattern: str, lesson: Lesson) -> Learnt:
    """Live through the days from one label delay before the drift on, hour after hour."""
    past, decided, online = of.past, Decided(of.features), OnlineLoop()
    decided.offline[:] = decided.score[:] = static
    first = int(np.searchsorted(of.day, world.drift_day - DELAY_DAYS))
    reported = reports(of, lesson.reported, world.seed)
    known = np.zeros(len(of.day), np.bool_)
    found = np.zeros(world.days + 1, np.int64)
    for hour_ms in range(int(past.time[first]) // HOUR_MS * HOUR_MS, int(past.time[-1]) + 1, HOUR_MS):
        end_ms = hour_ms + HOUR_MS
        rows = np.arange(*np.searchsorted(past.time, (hour_ms, end_ms)))
        decided.score[rows] = online.score(of.features[rows], static[rows])
        alerts = np.sort(rows[np.argsort(-decided.score[rows], kind="stable")[: round(lesson.budget / 24)]])
        told = np.flatnonzero((reported > hour_ms) & (reported <= end_ms) & ~known)
        told = told[told >= first]
        charged_back = past.is_fraud & ~known & (past.labelled_at > hour_ms) & (past.labelled_at <= end_ms)
        due = np.flatnonzero(charged_back)
        due = due[due >= first]
        approved = np.setdiff1d(rows, alerts)
        online.learn(
            past, {"analyst": alerts, "customer": told, "chargeback": due}, approved, decided, end_ms
        )
        known[alerts] = known[told] = True
        labelled = np.concatenate((alerts, told))
        found[(hour_ms - past.time[0] // DAY_MS * DAY_MS) // DAY_MS] += (
            past.scenario[labelled] == pattern
        ).sum()
    return Learnt(decided.score, np.cumsum(found[world.drift_day :]).tolist(), online.promotions)


def recalls(of: Traffic, score: Score, world: World, frauds: NDArray[np.bool_], budget: int) -> Score:
    """Of some frauds of each day since the drift, f8 [DAYS_AFTER], the share among the alerts of that day.

    NaN for a day without any.
    """
    shares = np.full(DAYS_AFTER, np.nan)
    for after in range(DAYS_AFTER):
        rows = np.flatnonzero(of.day == world.drift_day + after)
        if frauds[rows].any():
            shares[after] = alerted(score[rows], of.past.time[rows], budget)[frauds[rows]].mean()
    return shares


class Shown(NamedTuple):
    """Recall of the pattern by day, f8 [DAYS_AFTER], by name of the system; others: of all other frauds, mean
    from the day on that counts.
    """

    pattern: dict[str, Score]
    others: dict[str, float]
    learnt: Learnt


def compare(world: World, pattern: str, lessons: Sequence[Lesson], options: FitOptions) -> Iterator[Shown]:
    """The static model, the learner and hindsight, for each way that labels come."""
    of = traffic(world, pattern)
    static = fitted(of, of.day < world.drift_day - DELAY_DAYS, options)
    compared = (of.day >= world.drift_day) & (of.day < world.drift_day + DAYS_AFTER)
    hindsight = fitted(of, ~compared, options)
    of_pattern = of.past.scenario == pattern
    for lesson in lessons:
        learnt = learn(of, static, world, pattern, lesson)
        scores = {STATIC: static, LEARNER: learnt.score, HINDSIGHT: hindsight}
        others = of.past.is_fraud & ~of_pattern
        yield Shown(
            {n: recalls(of, score, world, of_pattern, lesson.budget) for n, score in scores.items()},
            {
                n: float(np.nanmean(recalls(of, score, world, others, lesson.budget)[RECOVERED:]))
                for n, score in scores.items()
            },
            learnt,
        )


def by_day(pattern: str, shown: Shown) -> Iterator[str]:
    """One run day by day, as a table and a plot."""
    _plot(pattern, shown.pattern)
    yield "| day since the drift | " + " | ".join(shown.pattern) + " | frauds labelled so far |"
    yield "|---|" + "---|" * (len(shown.pattern) + 1)
    for day in range(DAYS_AFTER):
        cells = " | ".join("" if np.isnan(x[day]) else f"{x[day]:.2f}" for x in shown.pattern.values())
        yield f"| {day + 1} | {cells} | {shown.learnt.labelled[day]} |"
    yield from ("", f"![Recall by day](drift-loop/{pattern}.png)", "")


def summary(seed: int, lesson: Lesson, shown: Shown) -> str:
    """One run as a row: means from day `RECOVERED` + 1 on."""
    after = {name: float(np.nanmean(shares[RECOVERED:])) for name, shares in shown.pattern.items()}
    cells = (
        f"{lesson.reported:.0%}",
        str(seed),
        *(f"{share:.2f}" for share in after.values()),
        f"{after[LEARNER] / after[HINDSIGHT]:.0%}",
        str(shown.learnt.labelled[RECOVERED - 1]),
        str(shown.learnt.promotions),
        *(f"{share:.2f}" for share in shown.others.values()),
    )
    return "| " + " | ".join(cells) + " |"


HEADINGS: Final = (
    "reported", "seed", "static", "learner", "hindsight", "learner / hindsight", "labelled by day 2",
    "promotions", "others, static", "others, learner", "others, hindsight",
)  # fmt: skip


def _plot(pattern: str, shown: dict[str, Score]) -> None:
    with plot(PLOTS / f"{pattern}.png", f"Recall of {pattern}", "day since it appeared") as axes:
        axes.set(ylim=(0, 1.02))
        for name, shares in shown.items():
            axes.plot(np.arange(1, len(shares) + 1), shares, marker="o", label=name)
        axes.legend(fontsize=8)


def report(
    pattern: str, seeds: Sequence[int], lessons: Sequence[Lesson], options: FitOptions
) -> Iterator[str]:
    """One pattern: the first seed with the last way of labels day by day, then all of them."""
    rows, days = [], []
    for seed in seeds:
        for lesson, shown in zip(lessons, compare(World(seed=seed), pattern, lessons, options), strict=True):
            rows.append(summary(seed, lesson, shown))
            print(pattern, rows[-1], flush=True)
            if seed == seeds[0] and lesson == lessons[-1]:
                days = list(by_day(pattern, shown))
    yield from (f"## {pattern}", "", *days)
    yield "| " + " | ".join(HEADINGS) + " |"
    yield "|" + "---|" * len(HEADINGS)
    yield from (*sorted(rows), "")


def main(
    patterns: Annotated[str, typer.Option(help="One experiment each.")] = PATTERNS,
    budget: Annotated[int, typer.Option(min=24, help="Alerts a day.")] = 240,
    reported: Annotated[str, typer.Option(help="Shares of frauds that customers report.")] = "0,0.2,0.5",
    threads: Annotated[int, typer.Option(min=1)] = 1,
    seeds: Annotated[str, typer.Option(help="Of worlds.")] = "3,4,5",
) -> None:
    """Let patterns appear, and write docs/drift-loop.md."""
    PLOTS.mkdir(parents=True, exist_ok=True)
    options = FitOptions(1, threads)
    lessons = [Lesson(budget, float(share)) for share in reported.split(",")]
    worlds = [int(seed) for seed in seeds.split(",")]
    sections = [report(name, worlds, lessons, options) for name in patterns.split(",")]
    head = HEAD.format(
        world=World(), budget=budget, hours=NOTICED_HOURS, presumed=PRESUMED, machine=machine()
    )
    lines = [line for section in sections for line in section]
    (DOCS / "drift-loop.md").write_text("\n".join((head, *lines)))


if __name__ == "__main__":
    typer.run(main)
