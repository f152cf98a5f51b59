"""Plots of an evaluation: precision and recall, calibration, what each part adds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
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
    with plt.style.context("seaborn-v0_8-whitegrid"):
        for name, figure in (
            ("precision_recall", _precision_recall(history, runs)),
            ("reliability", _reliability(history, runs)),
            ("parts", _parts(figures)),
        ):
            figure.tight_layout()
            figure.savefig(folder / f"{figures['protocol']}_{name}.png", dpi=DPI)
            plt.close(figure)


def _axes(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    figure, axes = plt.subplots(figsize=SIZE)
    axes.set(title=title, xlabel=x, ylabel=y)
    return figure, axes


def _precision_recall(history: History, runs: Sequence[Evaluated]) -> Figure:
    figure, axes = _axes("Precision against recall", "recall", "precision")
    for run in runs:
        precision, recall, _ = precision_recall_curve(history.is_fraud[run.rows], run.score)
        axes.plot(recall, precision, label=f"{run.fold}, seed {run.seed}", linewidth=1.2)
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(fontsize=8)
    return figure


def _reliability(history: History, runs: Sequence[Evaluated]) -> Figure:
    figure, axes = _axes("Calibration, in tenths of the score", "mean score", "observed share of frauds")
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
    return figure


def _parts(figures: dict[str, Any]) -> Figure:
    figure, axes = _axes("Average precision of each part alone", "", "average precision")
    names = [*figures["parts"], "ensemble"]
    values = [part["average_precision"] for part in figures["parts"].values()]
    bars = axes.bar(
        names, [*values, figures["mean"]["average_precision"]], color=["C0"] * len(values) + ["C1"]
    )
    axes.bar_label(bars, fmt="%.3f", fontsize=8)
    return figure
