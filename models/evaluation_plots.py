"""Plots of an evaluation: precision and recall, calibration, what each part adds."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from sklearn.metrics import precision_recall_curve

from models.evaluation import Evaluated
from models.history import History
from models.metrics import deciles

mpl.use("Agg")
SIZE = (6.4, 4.2)
DPI = 110


def draw(folder: Path, history: History, runs: Sequence[Evaluated], figures: dict[str, Any]) -> None:
    """Write the plots of all runs as PNG into a folder, which is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    protocol = figures["protocol"]
    titles = ("Precision against recall", "recall", "precision")
    with plot(folder / f"{protocol}_precision_recall.png", *titles) as axes:
        _precision_recall(axes, history, runs)
    titles = ("Calibration, in tenths of the score", "mean score", "observed share of frauds")
    with plot(folder / f"{protocol}_reliability.png", *titles) as axes:
        _reliability(axes, history, runs)
    titles = ("Average precision of each part alone", "", "average precision")
    with plot(folder / f"{protocol}_parts.png", *titles) as axes:
        _parts(axes, figures)


@contextmanager
def plot(path: Path, title: str, x: str, y: str = "") -> Iterator[Axes]:
    """Axes to draw on, titled and labelled; at the end they are written as PNG."""
    with plt.style.context("seaborn-v0_8-whitegrid"):
        figure, axes = plt.subplots(figsize=SIZE)
        axes.set(title=title, xlabel=x, ylabel=y)
        yield axes
        figure.tight_layout()
        figure.savefig(path, dpi=DPI)
        plt.close(figure)


def _precision_recall(axes: Axes, history: History, runs: Sequence[Evaluated]) -> None:
    for run in runs:
        precision, recall, _ = precision_recall_curve(history.is_fraud[run.rows], run.score)
        axes.plot(recall, precision, label=f"{run.fold}, seed {run.seed}", linewidth=1.2)
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(fontsize=8)


def _reliability(axes: Axes, history: History, runs: Sequence[Evaluated]) -> None:
    score = np.concatenate([run.score for run in runs])
    fraud = np.concatenate([history.is_fraud[run.rows] for run in runs])
    bands = deciles(score, fraud)
    axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1)
    axes.plot([b.score for b in bands], [b.observed for b in bands], marker="o")
    for band in bands:
        axes.annotate(
            f"{band.rows:,}",
            (band.score, band.observed),
            fontsize=7,
            xytext=(4, -9),
            textcoords="offset points",
        )
    axes.set(xlim=(0, 1), ylim=(0, 1.02))


def _parts(axes: Axes, figures: dict[str, Any]) -> None:
    names = [*figures["parts"], "ensemble"]
    values = [part["average_precision"] for part in figures["parts"].values()]
    bars = axes.bar(
        names, [*values, figures["mean"]["average_precision"]], color=["C0"] * len(values) + ["C1"]
    )
    axes.bar_label(bars, fmt="%.3f", fontsize=8)
