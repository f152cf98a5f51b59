"""How well fraud is found: `python -m benchmarks.detection FILE` writes docs/detection.md and the model card.

FILE is a table of the card-fraud handbook's simulator (Le Borgne et al., Reproducible Machine Learning for
Credit Card Fraud Detection). Every figure comes from a command of `fraudstream`, which stands beside it.
Other data come from our own simulator, as it writes them and in the columns of other data sets.
"""

import json
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import pandas as pd
import typer
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks.__main__ import machine
from models.card import card
from models.evaluation_plots import plot
from models.history import History, history
from models.metrics import alerted, daily_precision
from models.recipe import PARTS
from models.registry import ARTEFACTS, entry
from models.signing import TRUSTED_KEYS, Keyring
from models.sources import read
from simulator.datasets import FORMATS
from state.contract import DAY_MS

DOCS: Final = Path(__file__).resolve().parent.parent / "docs"
PLOTS: Final = DOCS / "detection"
HEADS: Final = {"auc_roc": "AUC", "average_precision": "AP", "card_precision_at_100": "CP@100"}
SHIPPED: Final = "first"
WORLD: Final = shlex.split("--users 4000 --terminals 1500 --days 90 --fraud-rate 0.006 --seed 5")
DRIFT: Final = ("--drift", "card_testing:75:appears", "--drift", "amount_spike:75:changes")
COMPROMISED_DAYS: Final = 28
"""A terminal stays compromised that long, by the rules of the handbook's simulator."""
ALL: Final = ",".join(PARTS)

Figures = dict[str, Any]


class Commands:
    """Runs commands of `fraudstream` and tells how they were called, without folders."""

    def __init__(self, threads: int) -> None:
        """threads: that each fitting may use."""
        self._threads = ("--threads", str(threads))

    def evaluate(self, data: Path, *arguments: str) -> tuple[str, Figures]:
        """Its command line and figures; plots land in docs/detection."""
        with tempfile.TemporaryDirectory() as folder:
            result = Path(folder) / "result.json"
            files = ("--data", str(data), "--json", str(result), "--out", str(PLOTS))
            self._run("evaluate", *arguments, *files, *self._threads)
            figures: Figures = json.loads(result.read_text())
        told = shlex.join(["fraudstream", "evaluate", *arguments, "--data", data.name])
        print(told, figures["seconds"], "s", flush=True)
        return told, figures

    def train(self, data: Path, layout: str) -> str:
        """A line on what training costs."""
        with tempfile.TemporaryDirectory() as folder:
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            out = Path(folder) / "model"
            self._run("train", str(data), "--format", layout, "--out", str(out), *self._threads)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return (
            f"`fraudstream train {data.name} --format {layout} --out DIR`, with features, fit, export and "
            f"measurement: {cpu:.0f} s of CPU, and no command here took more than "
            f"{after.ru_maxrss / 2**20:.1f} GiB of memory."
        )

    def simulate(self, folder: Path, name: str, *arguments: str) -> tuple[str, Path]:
        """The command line and the parquet file it wrote."""
        file = folder / f"{name}.parquet"
        self._run("simulate", *WORLD, *arguments, "--out", str(file))
        return shlex.join(["fraudstream", "simulate", *WORLD, *arguments, "--out", file.name]), file

    def _run(self, *arguments: str) -> None:
        subprocess.run([sys.executable, "-m", "cli.main", *arguments], check=True, stdout=subprocess.DEVNULL)


def in_columns_of(layout: str, frame: pd.DataFrame) -> pd.DataFrame:
    """Transactions with wire names, n rows, as a table with the columns and values of another data set.

    What the data set has no column for is lost. Of transactions without a terminal or receiver there are
    none in the others; they are left out.
    """
    spec = FORMATS[layout]
    columns = {names[0]: frame[wire] for wire, names in spec.columns.items() if wire in frame}
    table = pd.DataFrame(columns)
    if layout == "sparkov":
        category = frame["merchant_category"].fillna("misc").str.replace(r"\W", "_", regex=True)
        table["category"] = category + np.where(frame["card_present"].ne(False), "_pos", "_net")
        table["trans_date_trans_time"] = pd.to_datetime(frame["event_time"], unit="ms").dt.strftime(
            "%Y-%m-%d %H:%M:%S"
        )
        table["merch_lat"], table["merch_long"] = frame["latitude"], frame["longitude"]
    if layout == "paysim":
        hours = (frame["event_time"] - frame["event_time"].min()) // 3_600_000
        upper = {of: name for name, of in spec.transaction_types.items() if "-" not in name}
        table["step"] = hours + 1
        table["type"] = frame["transaction_type"].map(upper).fillna("PAYMENT")
        table["nameDest"] = frame["receiver_id"].fillna(frame["terminal_id"])
        table = table.fillna({"oldbalanceOrg": 0.0, "newbalanceOrig": 0.0})
    return table.dropna()


def row(name: str, figures: Figures) -> str:
    """A line of a table."""
    cells = (f"{figures[k]:.3f}" if k in figures else "" for k in HEADS)
    return f"| {name} | " + " | ".join(cells) + " |"


def section(title: str, told: str, figures: Figures) -> Iterator[str]:
    """Mean, deviations, every fold, and each part alone and left out."""
    yield from (f"## {title}", "", f"`{told}`, {figures['seconds']:.0f} s", "")
    yield from ("| | " + " | ".join(HEADS.values()) + " |", "|---|---|---|---|")
    yield row("**ensemble, mean**", figures["mean"])
    if len(figures["seeds"]) > 1:
        yield row(f"deviation over {len(figures['seeds'])} seeds", figures["std"])
    if len({fold["fold"] for fold in figures["folds"]}) > 1:
        for fold in figures["folds"]:
            yield row(f"{fold['fold']}, seed {fold['seed']}", fold)
    for name, part in figures["parts"].items():
        yield row(f"{name} alone (weight {part['weight']:.2f})", part)
        if part["without"]:
            yield row(f"without {name}", part["without"])
    yield ""


def by_budget(figures: Figures) -> Iterator[str]:
    """Precision and recall at alert budgets, and recall by fraud pattern."""
    mean = figures["mean"]
    budgets = [k.split("_")[2] for k in mean if k.startswith("precision_at_") and k.endswith("_a_day")]
    patterns = sorted({k.split("_at_")[0] for k in mean if k.startswith("recall_of_")})
    titles = [p.replace("recall_of_", "recall of ") for p in patterns]
    yield "| alerts a day | precision | recall | " + " | ".join(titles) + " |"
    yield "|---|---|---|" + "---|" * len(titles)
    for budget in budgets:
        values = [mean[f"{what}_at_{budget}_a_day"] for what in ("precision", "recall", *patterns)]
        yield f"| {budget} | " + " | ".join(f"{v:.3f}" for v in values) + " |"
    yield ""


def by_delay(delays: list[int], means: list[Figures]) -> Iterator[str]:
    """What the delay of the labels costs, as a table and a plot."""
    names = {
        "average_precision": "AP",
        "precision_at_100": "precision@100",
        "daily_card_precision_at_100": "card precision@100",
        "recall_of_2_at_120_a_day": "recall of scenario 2 at 120 a day",
    }
    title = "What the delay of the labels costs"
    with plot(PLOTS / "delay.png", title, "days until a fraud is known") as axes:
        axes.set(ylim=(0, 1))
        for key, name in names.items():
            axes.plot(delays, [mean[key] for mean in means], marker="o", label=name)
        axes.legend(fontsize=8)
    yield from (f"## {title}", "")
    yield from ("`--label-delay` of the command above, with the trees alone.", "")
    yield "| days until known | " + " | ".join(names.values()) + " |"
    yield "|---|" + "---|" * len(names)
    for delay, mean in zip(delays, means, strict=True):
        yield f"| {delay} | " + " | ".join(f"{mean[key]:.3f}" for key in names) + " |"
    yield from ("", "![Recall by delay](detection/delay.png)", "")


def oracle(data: Path, delay_days: int) -> Iterator[str]:
    """The most that can be reached: what is known of terminals, and no error in all else."""
    past = history(read(data, "handbook", ""), delay_days, round(time.time() * 1000))
    at_terminal = past.is_fraud & (past.scenario == "2")
    rows = np.flatnonzero(past.time >= pd.Timestamp("2018-07-08").value // 10**6)
    known = _known(past, rows, at_terminal, delay_days)
    fraud, when, user = past.is_fraud[rows], past.time[rows], past.user[rows]
    seen = np.where(at_terminal[rows], known, fraud)
    score = seen + np.random.default_rng(1).random(len(rows)) / 2
    of_transactions, of_users = daily_precision(score, fraud, when, user, 100)
    recall = alerted(score, when, 120)[at_terminal[rows]].mean()
    yield from ("### What could be reached", "")
    yield (
        "An oracle that recognises every fraud of scenarios 1 and 3, and those of scenario 2 whose terminal "
        f"had one at least {delay_days} and less than {COMPROMISED_DAYS} days before, which are "
        f"{known[at_terminal[rows]].mean():.3f} of them; the others are ranked at random."
    )
    yield ""
    yield "| AUC | AP | precision@100 | card precision@100 | recall of 2 at 120 a day |"
    yield "|---|---|---|---|---|"
    auc, precision = roc_auc_score(fraud, score), average_precision_score(fraud, score)
    figures = (auc, precision, of_transactions, of_users, recall)
    yield from ("| " + " | ".join(f"{value:.3f}" for value in figures) + " |", "")


def _known(
    past: History, rows: NDArray[np.int64], fraud: NDArray[np.bool_], delay_days: int
) -> NDArray[np.bool_]:
    """Whether the terminal of each row had a fraud early enough to be known, and late enough to go on."""
    when: dict[int, NDArray[np.int64]] = {
        int(terminal): past.time[fraud & (past.terminal == terminal)]
        for terminal in np.unique(past.terminal[fraud])
    }
    nothing = np.empty(0, np.int64)
    latest, earliest = delay_days * DAY_MS, COMPROMISED_DAYS * DAY_MS
    ages = (past.time[row] - when.get(int(past.terminal[row]), nothing) for row in rows)
    return np.array([((age >= latest) & (age < earliest)).any() for age in ages])


def handbook(run: Commands, data: Path, seeds: str, delays: list[int]) -> Iterator[str]:
    """The three protocols on the public benchmark."""
    layout = ("--format", "handbook")
    every = (*layout, "--parts", ALL, "--seeds", seeds)
    yield from section("Four folds, a week of training", *run.evaluate(data, "folds", *every))
    yield from section(
        "The fold of 2018-07-11", *run.evaluate(data, "folds", "--starts", "2018-07-11", *every)
    )
    whole = (*layout, "--history", "open", "--parts", "gbt", "--seeds", seeds)
    yield from section("Four folds, all days before", *run.evaluate(data, "folds", *whole))
    days = ("--fit-end", "2018-07-01", "--score-start", "2018-07-08")
    told, figures = run.evaluate(data, "stream", *days, *layout, "--parts", ALL)
    yield from section("Day after day", told, figures)
    yield from by_budget(figures)
    yield from oracle(data, 7)
    for name, title in (("reliability", "Calibration"), ("precision_recall", "Precision and recall")):
        yield from (f"![{title}](detection/stream_{name}.png)", "")
    trees = (*days, *layout, "--parts", "gbt")
    late = (run.evaluate(data, "stream", *trees, "--label-delay", str(delay)) for delay in delays)
    yield from by_delay(delays, [figures["mean"] for _, figures in late])
    yield from ("## Training", "", run.train(data, "handbook"), "")


def simulated(run: Commands) -> Iterator[str]:
    """Our own simulator's traffic, without and with drift, and in the columns of other data sets."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for title, options in (("Simulated traffic", ()), ("Simulated traffic that changes", DRIFT)):
            made, file = run.simulate(folder, "traffic" if not options else "drifting", *options)
            told, figures = run.evaluate(file, "temporal", "--parts", ALL)
            yield from section(title, f"{made}; {told}", figures)
        frame = pd.read_parquet(folder / "traffic.parquet")
        for layout in ("sparkov", "paysim"):
            table = folder / f"{layout}.csv"
            in_columns_of(layout, frame).to_csv(table, index=False)
            told, figures = run.evaluate(table, "temporal", "--format", layout, "--parts", ALL)
            yield from section(f"The same traffic in the columns of {layout}", told, figures)


def main(
    data: Annotated[Path, typer.Argument(help="CSV or parquet file of the card-fraud handbook.")],
    seeds: Annotated[str, typer.Option(help="Of the folds.")] = "1,2,3",
    delays: Annotated[str, typer.Option(help="Days until a fraud is known.")] = "0,1,3,7",
    threads: Annotated[int, typer.Option(min=1, help="Of each fitting.")] = 1,
) -> None:
    """Evaluate by every protocol; write docs/detection.md with its plots, and docs/model-card.md."""
    PLOTS.mkdir(parents=True, exist_ok=True)
    run = Commands(threads)
    report = [
        "# How well fraud is found",
        "",
        f"`python -m benchmarks.detection {data.name}` on {machine()}",
        "",
        "What limits these figures, and which parts are on by default, says [ADR 5](adr/0005-parts.md).",
        "",
        *simulated(run),
        *handbook(run, data, seeds, [int(delay) for delay in delays.split(",")]),
    ]
    (DOCS / "detection.md").write_text("\n".join(report) + "\n")
    shipped = entry(ARTEFACTS / SHIPPED, Keyring.read(TRUSTED_KEYS)).manifest
    assert shipped is not None
    (DOCS / "model-card.md").write_text(card(shipped))


if __name__ == "__main__":
    typer.run(main)
