"""How well fraud is found: `python -m benchmarks.detection FILE` writes docs/detection.md with its plots.

FILE is a table of the card-fraud handbook's simulator (Le Borgne et al., Reproducible Machine Learning for
Credit Card Fraud Detection), or with `--format` and `--starts` any other. Every figure comes from
`fraudstream evaluate`, whose command stands beside it.
"""

import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.__main__ import machine

DOCS = Path(__file__).resolve().parent.parent / "docs"
KEY = ("auc_roc", "average_precision", "card_precision_at_100")
HEADS = ("AUC", "AP", "CP@100")

Figures = dict[str, Any]


def evaluated(data: Path, layout: str, *arguments: str) -> tuple[str, Figures]:
    """The command line of an evaluation, without folders, and its figures; plots land in docs/detection."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, "-m", "cli.main", "evaluate", *arguments, "--format", layout]
        files = ["--data", str(data), "--json", str(result), "--out", str(DOCS / "detection")]
        subprocess.run([*command, *files], check=True, stdout=subprocess.DEVNULL)
        figures: Figures = json.loads(result.read_text())
    told = shlex.join(["fraudstream", *command[3:], "--data", data.name])
    print(told, figures["seconds"], "s", flush=True)
    return told, figures


def row(name: str, figures: Figures) -> str:
    """A line of a table."""
    return f"| {name} | " + " | ".join(f"{figures[k]:.3f}" for k in KEY) + " |"


def section(title: str, told: str, figures: Figures) -> Iterator[str]:
    """Mean, deviations, every fold, and each part alone and left out."""
    yield from (f"## {title}", "", f"`{told}`, {figures['seconds']:.0f} s", "")
    yield from ("| | " + " | ".join(HEADS) + " |", "|---|---|---|---|")
    yield row("**ensemble, mean**", figures["mean"])
    if len(figures["seeds"]) > 1:
        yield row(f"deviation over {len(figures['seeds'])} seeds", figures["std"])
    for fold in figures["folds"]:
        if len(figures["folds"]) > 1:
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
    titles = [p.replace("recall_of_", "recall of scenario ") for p in patterns]
    yield "| alerts a day | precision | recall | " + " | ".join(titles) + " |"
    yield "|---|---|---|" + "---|" * len(titles)
    for budget in budgets:
        values = [mean[f"{what}_at_{budget}_a_day"] for what in ("precision", "recall", *patterns)]
        yield f"| {budget} | " + " | ".join(f"{v:.3f}" for v in values) + " |"
    yield ""


def report(data: Path, layout: str, seeds: str, delays: list[int]) -> Iterator[str]:
    """The whole page."""
    yield from (
        "# How well fraud is found",
        "",
        f"`python -m benchmarks.detection {data.name}` on {machine()}",
        "",
    )
    for mode in ("strict", "open"):
        told, figures = evaluated(data, layout, "folds", "--history", mode, "--seeds", seeds)
        yield from section(f"Four folds, history {mode}", told, figures)
    told, figures = evaluated(data, layout, "folds", "--starts", "2018-07-11", "--seeds", seeds)
    yield from section("The fold of 2018-07-11", told, figures)
    recalls = []
    for delay in delays:
        told, figures = evaluated(data, layout, "stream", "--label-delay", str(delay))
        mean = figures["mean"]
        recalls.append(
            f"| {delay} | {mean['average_precision']:.3f} | {mean['precision_at_100']:.3f} | "
            f"{mean['daily_card_precision_at_100']:.3f} | {mean.get('recall_of_2_at_120_a_day', 0):.3f} |"
        )
        if delay == delays[-1]:
            yield from section("Day after day", told, figures)
            yield from by_budget(figures)
    yield from ("## What the delay of the labels costs", "", "`--label-delay` of the command above.", "")
    yield "| days until known | AP | precision@100 | card precision@100 | recall of scenario 2 at 120 |"
    yield from ("|---|---|---|---|---|", *recalls, "")
    yield "![Calibration](detection/stream_reliability.png)"


def main(
    data: Annotated[Path, typer.Argument(help="CSV or parquet file with is_fraud.")],
    format: Annotated[str, typer.Option(help="Of the file.")] = "handbook",  # noqa: A002
    seeds: Annotated[str, typer.Option(help="Of the folds.")] = "1,2,3",
    delays: Annotated[
        str, typer.Option(help="Days until a fraud is known; the last one in full.")
    ] = "0,1,3,7",
) -> None:
    """Evaluate by every protocol and write docs/detection.md."""
    text = "\n".join(report(data, format, seeds, [int(delay) for delay in delays.split(",")]))
    (DOCS / "detection.md").write_text(text + "\n")


if __name__ == "__main__":
    typer.run(main)
