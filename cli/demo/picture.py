"""The outcome of a run in one picture."""

from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator, PercentFormatter
from sklearn.metrics import average_precision_score, precision_recall_curve

from cli.demo.outcome import Caught, Outcome
from events.control import Thresholds

INK, FAINT, GRID = "#1f2a37", "#6b7280", "#e5e7eb"
BLOCK, REVIEW, APPROVE = "#c2410c", "#f2a541", "#cbd5e1"
FRAUD, ORDINARY = "#9f1239", "#3b6ea5"
SCORE_LIMIT = 1e-4
BAR = 0.46  # thickness, of 1
DPI = 110


def draw(outcome: Outcome, thresholds: Thresholds, path: Path) -> None:
    """Write a PNG of four panels."""
    figure = Figure(figsize=(14, 9.2), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 2, left=0.065, right=0.975, top=0.85, bottom=0.075, hspace=0.42, wspace=0.2)
    _days(figure.add_subplot(grid[0, 0]), outcome)
    _scores(figure.add_subplot(grid[0, 1]), outcome, thresholds)
    _patterns(figure.add_subplot(grid[1, 0]), outcome)
    _trade_off(figure.add_subplot(grid[1, 1]), outcome)
    speed = outcome.speed
    figure.text(0.024, 0.955, "Scoring simulated card traffic", size=21, weight="bold", color=INK)
    figure.text(
        0.024,
        0.918,
        f"{speed.decisions:,} transactions at {speed.rate:,.0f}/s on an embedded Flink · model "
        f"{outcome.model_version} · {outcome.frauds:,} frauds after {outcome.warm_up} days of warm-up",
        size=12.5,
        color=FAINT,
    )
    figure.savefig(path)


def _days(axes: Axes, outcome: Outcome) -> None:
    scored, days = outcome.scored, np.arange(outcome.days)
    blocked, reviewed, frauds = (
        np.bincount(scored["day"][rows], minlength=outcome.days)
        for rows in (scored["decision"] == "block", scored["decision"] == "review", scored["is_fraud"] == 1)
    )
    axes.bar(days + 1, blocked, width=0.72, color=BLOCK, label="blocked")
    axes.bar(days + 1, reviewed, width=0.72, bottom=blocked, color=REVIEW, label="reviewed")
    axes.plot(days + 1, frauds, color=INK, lw=1.6, marker="o", ms=4, label="frauds there were")
    if outcome.warm_up:
        axes.axvspan(0.4, outcome.warm_up + 0.5, color=GRID, alpha=0.5, lw=0)
        axes.annotate(
            "warm-up", (0.6, 0.965), xycoords=("data", "axes fraction"), va="top", size=9.5, color=FAINT
        )
    axes.set(xlim=(0.4, outcome.days + 0.6), xlabel="day")
    axes.set_ylim(0, 1.28 * max((blocked + reviewed).max(), frauds.max(), 1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _style(axes, "Alerts and frauds per day")
    _legend(axes, "upper right", columns=3)


def _scores(axes: Axes, outcome: Outcome, thresholds: Thresholds) -> None:
    measured = outcome.measured
    score = np.log10(measured["score"].to_numpy().clip(SCORE_LIMIT, 1))
    fraud = measured["is_fraud"].to_numpy(bool)
    bins = np.linspace(np.log10(SCORE_LIMIT), 0, 45)
    for rows, colour, name in ((~fraud, ORDINARY, "legitimate"), (fraud, FRAUD, "fraud")):
        share = np.full(rows.sum(), 1 / max(rows.sum(), 1))
        axes.hist(score[rows], bins, weights=share, color=colour, alpha=0.28, histtype="stepfilled")
        axes.hist(score[rows], bins, weights=share, color=colour, lw=1.6, histtype="step", label=name)
    axes.set_yscale("log")
    axes.set_ylim(2e-5, 4)
    for limit, colour, name in ((thresholds.review, REVIEW, "review"), (thresholds.block, BLOCK, "block")):
        place = float(np.log10(max(limit, SCORE_LIMIT)))
        axes.axvline(place, color=colour, lw=1.6, ls=(0, (4, 3)))
        axes.annotate(
            f"{name} ≥ {limit:.3g}",
            (place, 2.4),
            xytext=(-5, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            size=9.5,
            color=INK,
        )
    axes.set(xlim=(np.log10(SCORE_LIMIT), 0), xlabel="calibrated probability of fraud")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda exponent, _: f"{10**exponent:g}"))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}%"))
    axes.yaxis.set_minor_locator(NullLocator())
    _style(axes, "Scores: share of each class")
    _legend(axes, "upper left", columns=1)


def _patterns(axes: Axes, outcome: Outcome) -> None:
    patterns = outcome.patterns[::-1]
    left = np.zeros(len(patterns))
    counts = np.array([p.frauds for p in patterns])
    for name, colour, number in (
        ("blocked", BLOCK, [p.blocked for p in patterns]),
        ("reviewed", REVIEW, [p.reviewed for p in patterns]),
        ("approved", APPROVE, [p.frauds - p.blocked - p.reviewed for p in patterns]),
    ):
        share = np.array(number) / counts
        axes.barh(range(len(patterns)), share, BAR, left, color=colour, label=name)
        left += share
    for i, pattern in enumerate(patterns):
        found = (pattern.blocked + pattern.reviewed) / pattern.frauds
        axes.annotate(
            f"{found:.0%} of {pattern.frauds}",
            (1.0, i),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            size=10,
            color=INK,
        )
        # Above its bar: names on the axis would push the panel out of line with the one above.
        axes.annotate(
            pattern.name.replace("_", " "),
            (0, i + BAR / 2),
            xytext=(1, 3),
            textcoords="offset points",
            size=10,
            color=INK,
        )
    axes.set_yticks([])
    axes.set(xlim=(0, 1.19), ylim=(-0.5, len(patterns) + 0.25))
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    _style(axes, "Fraud caught by pattern, without labels", grid="x")
    _legend(axes, "upper right", columns=3)


def _trade_off(axes: Axes, outcome: Outcome) -> None:
    measured = outcome.measured
    fraud, score = measured["is_fraud"].to_numpy(bool), measured["score"].to_numpy()
    if fraud.any():
        precision, recall, _ = precision_recall_curve(fraud, score)
        area = average_precision_score(fraud, score)
        axes.plot(recall, precision, color=ORDINARY, lw=2)
        axes.fill_between(recall, precision, color=ORDINARY, alpha=0.09, lw=0)
        axes.annotate(f"average precision {area:.2f}", (0.03, 0.06), size=10.5, color=FAINT)
    points: tuple[tuple[str, Caught, str, str], ...] = (
        ("block", outcome.blocked, BLOCK, "o"),
        ("block or review", outcome.alerted, REVIEW, "o"),
        (f"{outcome.alerts_per_day} highest scores a day", outcome.budget, FRAUD, "D"),
    )
    for name, caught, colour, marker in points:
        axes.plot(
            caught.recall, caught.precision, marker, color=colour, ms=10, mec="white", mew=1.4, zorder=3,
            label=f"{name}: {caught.recall:.0%} of fraud, {caught.precision:.0%} right",
        )  # fmt: skip
    axes.set(xlim=(0, 1), ylim=(0, 1.06), xlabel="recall: share of fraud found")
    axes.set_ylabel("precision", color=FAINT)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    _style(axes, "Precision against recall")
    _legend(axes, "upper right", columns=1)


def _style(axes: Axes, title: str, grid: Literal["x", "y"] = "y") -> None:
    axes.set_title(title, loc="left", size=13.5, weight="bold", color=INK, pad=10)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    axes.tick_params(colors=FAINT, labelsize=9.5, length=0)
    axes.xaxis.label.set_color(FAINT)
    axes.set_axisbelow(True)
    axes.grid(axis=grid, color=GRID)


def _legend(axes: Axes, place: Literal["upper right", "upper left"], columns: int) -> None:
    legend = axes.legend(
        loc=place,
        ncols=columns,
        fontsize=10,
        facecolor="white",
        edgecolor="none",
        framealpha=0.85,
        handlelength=1.4,
        columnspacing=1.4,
        labelcolor=INK,
        borderaxespad=0.2,
    )
    legend.set_zorder(4)
