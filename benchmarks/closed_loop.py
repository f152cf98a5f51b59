"""What feedback is worth: `python -m benchmarks.closed_loop FILE` writes docs/closed-loop.md with its plots.

FILE is a table of the card-fraud handbook's simulator (Le Borgne et al., Reproducible Machine Learning for
Credit Card Fraud Detection). Day after day the transactions are scored, analysts review the cards that rank
highest and answer the same day, and everything else becomes known days later. The systems compared differ
in what they do with those answers.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import numpy as np
import typer
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks.__main__ import machine
from benchmarks.online_loop import PRESUMED, Decided, OnlineLoop, Rows
from models.evaluation_plots import plot
from models.history import History, history
from models.metrics import daily_precision
from models.parts.fitted import FitOptions
from models.parts.trees import TreeOptions
from models.parts.trees import fit as fit_trees
from models.sources import read
from state.contract import DAY_MS, FEATURE_NAMES, N_FEATURES
from state.layout import LABEL
from state.replay import KnownLabels, Replayer

DOCS: Final = Path(__file__).resolve().parent.parent / "docs"
PLOTS: Final = DOCS / "closed-loop"
WARM_UP: Final = 42
FIRST_DAY: Final = 98
"""All systems live from day `WARM_UP` on, with a new model every week, so that models have seen what answers
do to features; from day `FIRST_DAY` on, 2018-07-08 of the handbook's, they are compared.
"""
WEEK: Final = 7
COMPROMISED_TERMINAL: Final = "2"
"""Scenario of the handbook's simulator: for 28 days all that is paid at a terminal is fraud."""
ORACLE_DAYS: Final = 36
LEGITIMATE_SHARE: Final = 0.04
"""Of the legitimate transactions that a training takes, so that a night is enough for it."""
LABEL_FEATURES: Final = np.array(
    [
        k
        for k, name in enumerate(FEATURE_NAMES)
        if any(part in name for part in ("fraud", "risk", "legitimate"))
    ]
)
"""Columns that known labels make."""

HEAD: Final = """# What feedback is worth

`{command}` on {machine}

Day after day the file's transactions are scored, analysts review the {cards} cards whose highest transaction
scores highest and say the same day what was fraud, and everything else becomes known some days later. What
differs is what becomes of that. One seed ({seed}); what differs in the third digit may be luck.

| system | |
|---|---|
| static, blind to labels | trees without the features that known frauds make |
| static | trees; frauds enter the profiles once they are known without an analyst |
| static, answers in profiles | the same, and what analysts find enters the profiles the same day |
| online learner | static, corrected by the online learner, which learns what analysts and chargebacks say |
| trained every night | trees grown anew every night on all that is known; profiles as with static |
| all together | the profiles, the nights and the learner |
| oracle | recognises every fraud, but at a compromised terminal only if an earlier one there is known |
| oracle, told the same day | the same, and what analysts find is known the same day |

All live from day {warm_up} of the file on, with new trees every week, so that these have seen what answers do
to features; from day {first} on, when only the nightly ones are still trained, they are compared. Trees are
grown on the frauds and {share:.0%} of the legitimate transactions that are known. The learner presumes
{presumed:.0%} of what is not reviewed to be legitimate. Card precision is the share of {cards} cards a day
that have a fraud, precision the share of frauds among the {cards} transactions with the highest score; nobody
leaves once found.
"""

Features = NDArray[np.float32]
Score = NDArray[np.float64]
Predict = Callable[[Features], Score]


class System(NamedTuple):
    """What is done with labels once they are known.

    features: they enter the profiles; fed_back: analysts' answers do so the same day; nightly: the trees are
    grown anew every night; online: the online learner learns them.
    """

    name: str
    features: bool = True
    fed_back: bool = False
    nightly: bool = False
    online: bool = False


STATIC: Final = System("static")
SYSTEMS: Final = (
    System("static, blind to labels", features=False),
    STATIC,
    System("static, answers in profiles", fed_back=True),
    System("online learner", online=True),
    System("trained every night", nightly=True),
    System("all together", fed_back=True, nightly=True, online=True),
)


class Review(NamedTuple):
    """What analysts do in a day.

    cards: how many they review, those with the highest score; days_back: they ask about the card's
    transactions of that day and of so many days before.
    """

    cards: int = 100
    days_back: int = 0


class Lived(NamedTuple):
    """What a system said of the days that are compared.

    score: f8 [n], probability; hits: of each of them, the share of the reviewed cards with a fraud.
    """

    score: Score
    hits: list[float]


class Bench:
    """A history, and what it takes to let any system live through its last days."""

    def __init__(self, past: History, delay_days: int, review: Review, options: FitOptions) -> None:
        """delay_days: after which a label is known that no analyst gave."""
        self._past = past
        self._late = past.time + delay_days * DAY_MS
        self._risk_delay_ms = delay_days * DAY_MS
        self._review = review
        self._options = options
        start_day = int(past.time[0] // DAY_MS)
        self._warm_up, self._first = (
            int(np.searchsorted(past.time, (start_day + day) * DAY_MS)) for day in (WARM_UP, FIRST_DAY)
        )

    def live(self, system: System) -> Lived:
        """Each day, as the system lives it."""
        past, known_at, replayer = self._past, self._late.copy(), self._replayer()
        in_profiles = known_at if system.fed_back else self._late
        features = np.empty((len(past.time), N_FEATURES), np.float32)
        features[: self._warm_up] = self._features(replayer, self._late, 0, self._warm_up)
        decided = Decided(features)
        model = self._fit(features, np.flatnonzero(known_at < past.time[self._warm_up]), system)
        online = OnlineLoop() if system.online else None
        hits = []
        for day, (start, end, midnight) in enumerate(self._days(), WARM_UP):
            today = slice(start, end)
            features[today] = self._features(replayer, in_profiles, start, end)
            decided.offline[today] = model(features[today])
            decided.score[today] = (
                decided.offline[today]
                if online is None
                else online.score(features[today], decided.offline[today])
            )
            cards = self._highest(today, decided.score[today])
            if day >= FIRST_DAY:
                hits.append(self._hits(today, cards))
            answered = self._answered(cards, known_at, midnight)
            known_at[answered] = midnight - 1
            if online is not None:
                asked = answered[answered >= self._warm_up]
                due = self._due(known_at, midnight)
                approved = self._unasked(today, cards)
                online.learn(past, {"analyst": asked, "chargeback": due}, approved, decided, midnight)
            if system.nightly or (day < FIRST_DAY and (FIRST_DAY - 1 - day) % WEEK == 0):
                model = self._fit(features, np.flatnonzero(known_at[:end] < midnight), system)
        return Lived(decided.score[self._first :], hits)

    def oracle(self, fed_back: bool) -> Lived:
        """The most that labels allow: all frauds are recognised but those at terminals where none is known.

        fed_back: what analysts answer is known the same day. A fraud at a terminal that nothing is known of
        looks like any other transaction, and is ranked by chance.
        """
        past, known_at = self._past, self._late.copy()
        score = np.random.default_rng(self._options.seed).random(len(past.time)) / 2
        at_terminal = past.is_fraud & (past.scenario == COMPROMISED_TERMINAL)
        score[past.is_fraud & ~at_terminal] += 0.5
        hits = []
        for day, (start, end, midnight) in enumerate(self._days(), WARM_UP):
            today, before = slice(start, end), np.searchsorted(past.time, midnight - ORACLE_DAYS * DAY_MS)
            told = np.arange(before, start)
            told = told[at_terminal[told] & (known_at[told] < midnight - DAY_MS)]
            rows = np.arange(start, end)
            score[rows[at_terminal[rows] & np.isin(past.terminal[rows], past.terminal[told])]] += 0.5
            cards = self._highest(today, score[today])
            if day >= FIRST_DAY:
                hits.append(self._hits(today, cards))
            if fed_back:
                known_at[self._answered(cards, known_at, midnight)] = midnight - 1
        return Lived(score[self._first :], hits)

    def _days(self) -> Iterator[tuple[int, int, int]]:
        """First row of each day that is lived, the row behind its last, and when it ends."""
        time, start = self._past.time, self._warm_up
        while start < len(time):
            midnight = int(time[start] // DAY_MS + 1) * DAY_MS
            end = int(np.searchsorted(time, midnight))
            yield start, end, midnight
            start = end

    def _unasked(self, today: slice, cards: Rows) -> Rows:
        """Transactions of today that no analyst looks at."""
        rows = np.arange(today.start, today.stop)
        return rows[~np.isin(self._past.user[rows], cards)]

    def _due(self, known_at: NDArray[np.int64], midnight: int) -> Rows:
        """Decided frauds that became known today without an analyst; nobody charges back what was not."""
        late = (known_at >= midnight - DAY_MS) & (known_at < midnight - 1)
        due = np.flatnonzero(late & self._past.is_fraud)
        return due[due >= self._warm_up]

    def figures(self, lived: Lived) -> dict[str, float]:
        """What the scores were worth."""
        past, rows = self._past, slice(self._first, None)
        fraud, when, user = past.is_fraud[rows], past.time[rows], past.user[rows]
        precision, of_cards = daily_precision(lived.score, fraud, when, user, self._review.cards)
        return {
            "card precision": of_cards,
            "precision": precision,
            "AP": float(average_precision_score(fraud, lived.score)),
            "AUC": float(roc_auc_score(fraud, lived.score)),
        }

    def _fit(self, features: Features, rows: Rows, system: System) -> Predict:
        """Trees grown on the frauds and a share of the legitimate ones among rows; gives probabilities."""
        fraud = self._past.is_fraud[rows]
        kept = fraud | (np.random.default_rng(self._options.seed).random(len(rows)) < LEGITIMATE_SHARE)
        seen = _all if system.features else _blind
        native = fit_trees(seen(features[rows[kept]]), fraud[kept], self._options, TreeOptions()).native

        def predict(rows: Features) -> Score:
            p = native(seen(rows))
            odds = LEGITIMATE_SHARE * p / (1 - p)
            probability: Score = odds / (1 + odds)
            return probability

        return predict

    def _highest(self, today: slice, score: Score) -> Rows:
        """The cards of the day that rank highest, by their highest transaction."""
        users, number = np.unique(self._past.user[today], return_inverse=True)
        highest = np.full(len(users), -np.inf)
        np.maximum.at(highest, number, score)
        cards: Rows = users[np.argsort(-highest, kind="stable")[: self._review.cards]]
        return cards

    def _hits(self, today: slice, cards: Rows) -> float:
        defrauded = np.unique(self._past.user[today][self._past.is_fraud[today]])
        return len(np.intersect1d(defrauded, cards)) / self._review.cards

    def _answered(self, cards: Rows, known_at: NDArray[np.int64], midnight: int) -> Rows:
        """Transactions of the cards, of today and the days before, that nothing was known of."""
        time = self._past.time
        start, end = np.searchsorted(time, (midnight - (1 + self._review.days_back) * DAY_MS, midnight))
        rows = np.arange(start, end)
        return rows[np.isin(self._past.user[rows], cards) & (known_at[rows] >= midnight)]

    def _replayer(self) -> Replayer:
        past = self._past
        return Replayer(int(past.user.max()) + 1, int(past.terminal.max()) + 1, self._risk_delay_ms)

    def _features(self, replayer: Replayer, known_at: NDArray[np.int64], start: int, end: int) -> Features:
        """Features of the transactions from start to end, with the frauds that become known on the way."""
        past = self._past
        since = past.time[start - 1] if start else -1
        told = np.flatnonzero(past.is_fraud & (known_at > since) & (known_at <= past.time[end - 1]))
        told = told[np.argsort(known_at[told], kind="stable")]
        labels = np.zeros(len(told), LABEL)
        labels["time"], labels["id"] = past.time[told], past.transactions["id"][told]
        labels["amount"], labels["ratio"] = past.transactions["amount"][told], np.nan
        labels["is_fraud"] = True
        before = np.searchsorted(past.time[start:end], known_at[told], side="right")
        known = KnownLabels(labels, past.user[told], past.terminal[told], before)
        block = slice(start, end)
        return replayer.features(
            past.transactions[block], past.user[block], past.terminal[block], known
        ).features


def _all(features: Features) -> Features:
    return features


def _blind(features: Features) -> Features:
    """Features without what labels make."""
    blind = features.copy()
    blind[:, LABEL_FEATURES] = np.nan
    return blind


def _plot(name: str, lived: dict[str, list[float]]) -> None:
    """Card precision day after day, mean of a week."""
    title = "Share of reviewed cards with a fraud"
    with plot(PLOTS / f"{name}.png", title, "day", "mean of 7 days") as axes:
        for system, shares in lived.items():
            week = np.convolve(shares, np.ones(7) / 7, "valid")
            axes.plot(np.arange(7, len(shares) + 1), week, label=system, linewidth=1.3)
        axes.legend(fontsize=7)


def compare(name: str, bench: Bench) -> Iterator[str]:
    """All systems on one bench: a table and a plot."""
    hits: dict[str, list[float]] = {}
    found: dict[str, dict[str, float]] = {}
    for system in SYSTEMS:
        lived = bench.live(system)
        hits[system.name], found[system.name] = lived.hits, bench.figures(lived)
        print(name, system.name, found[system.name], flush=True)
    for oracle, fed_back in (("oracle", False), ("oracle, told the same day", True)):
        found[oracle] = bench.figures(bench.oracle(fed_back))
        print(name, oracle, found[oracle], flush=True)
    _plot(name, hits)
    static = found[STATIC.name]
    yield "| | " + " | ".join(static) + " | card precision against static |"
    yield "|---|" + "---|" * (len(static) + 1)
    for system_name, figures in found.items():
        cells = " | ".join(f"{value:.3f}" for value in figures.values())
        change = figures["card precision"] / static["card precision"] - 1
        yield f"| {system_name} | {cells} | {change:+.1%} |"
    yield from ("", f"![Card precision by day](closed-loop/{name}.png)", "")


def report(
    past: History, delays: Sequence[int], backs: Sequence[int], cards: int, options: FitOptions
) -> Iterator[str]:
    """Every delay with every way to review."""
    for delay in delays:
        for back in backs:
            asked = f"and the {back} days before" if back else "alone"
            yield f"## Labels after {delay} days; analysts ask about the day {asked}"
            yield ""
            yield from compare(f"{delay}-{back}", Bench(past, delay, Review(cards, back), options))


def main(  # noqa: PLR0913, PLR0917 - each is an option of the command
    data: Annotated[Path, typer.Argument(help="CSV or parquet file with is_fraud.")],
    format: Annotated[str, typer.Option(help="Of the file.")] = "handbook",  # noqa: A002
    delays: Annotated[str, typer.Option(help="Days until a label is known that no analyst gave.")] = "7,30",
    backs: Annotated[str, typer.Option(help="Days before today that analysts ask about.")] = "0",
    cards: Annotated[int, typer.Option(min=1, help="Reviewed each day.")] = 100,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    seed: Annotated[int, typer.Option(min=0)] = 1,
) -> None:
    """Let every system live through the days, and write docs/closed-loop.md."""
    PLOTS.mkdir(parents=True, exist_ok=True)
    past = history(read(data, format, ""), 0.0, round(time.time() * 1000))
    lines = list(report(past, _integers(delays), _integers(backs), cards, FitOptions(seed, threads)))
    head = HEAD.format(
        command=f"python -m benchmarks.closed_loop {data.name}", machine=machine(), cards=cards,
        warm_up=WARM_UP, first=FIRST_DAY, share=LEGITIMATE_SHARE, presumed=PRESUMED, seed=seed,
    )  # fmt: skip
    (DOCS / "closed-loop.md").write_text("\n".join((head, *lines)))


def _integers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    typer.run(main)
