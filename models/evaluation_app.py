"""The command `fraudstream evaluate`."""

import json
import time
from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from models.evaluation import (
    Evaluated,
    Measure,
    evaluate,
    fold_figures,
    stream_figures,
    summary,
    temporal_figures,
)
from models.history import History, HistoryError, history
from models.metrics import MAX_TOP
from models.parts.fitted import FitOptions
from models.parts.trees import TreeOptions
from models.protocols import FOLD_DAYS, Fold, ProtocolError, folds, stream, temporal
from models.recipe import DEFAULT_PARTS, UnknownPartError, recipe
from models.sources import read
from state.contract import DAY_MS
from state.replay import replay

FOLDS = 4
FIT_SHARE = 0.58
"""Of the days, that the protocol `stream` fits on."""
SHOWN = ("auc_roc", "average_precision", f"card_precision_at_{MAX_TOP}")

app = typer.Typer(help="Evaluate models.")
console = Console()


class Protocol(StrEnum):
    """How training and test rows are chosen."""

    FOLDS = "folds"
    STREAM = "stream"
    TEMPORAL = "temporal"


class Mode(StrEnum):
    """Whether a fold is trained on its own week or on everything up to its end."""

    STRICT = "strict"
    OPEN = "open"


@app.command("evaluate")
def command(  # noqa: PLR0913, PLR0917 - each is an option of the command
    protocol: Annotated[Protocol, typer.Argument(help="How training and test are chosen.")],
    data: Annotated[Path, typer.Option(help="CSV or parquet file with is_fraud.")],
    format: Annotated[  # noqa: A002 - the name of the option
        str, typer.Option(help="Of the file: fraudstream, handbook, paysim, sparkov.")
    ] = "fraudstream",
    columns: Annotated[
        str,
        typer.Option(
            help="Columns of the file, where its format does not know them.", metavar="WIRE=SOURCE,..."
        ),
    ] = "",
    parts: Annotated[str, typer.Option(help="Of the ensemble.")] = ",".join(DEFAULT_PARTS),
    seeds: Annotated[str, typer.Option(help="One evaluation for each.")] = "1",
    label_delay: Annotated[
        float, typer.Option("--label-delay", min=0, max=30, help="Days until a fraud is known.")
    ] = 7.0,
    history_mode: Annotated[
        Mode, typer.Option("--history", help="folds: train on one week, or on all days up to its end.")
    ] = Mode.STRICT,
    starts: Annotated[
        str, typer.Option(help="folds: first days of the training weeks; by default the last four.")
    ] = "",
    fit_end: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="stream: first day not fitted on.")
    ] = None,
    score_start: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="stream: first day scored.")
    ] = None,
    train_share: Annotated[
        float, typer.Option(min=0.05, max=0.95, help="temporal: first share of the time, trained on.")
    ] = 0.6,
    test_share: Annotated[
        float, typer.Option(min=0.01, max=0.9, help="temporal: last share of the time, tested on.")
    ] = 0.2,
    budgets: Annotated[str, typer.Option(help="stream: alerts a day.")] = "50,100,120,200",
    top: Annotated[int, typer.Option(min=1, help="Of daily precision and card precision.")] = MAX_TOP,
    cost_fp: Annotated[float, typer.Option(min=0, help="temporal: cost of a false alarm.")] = 5.0,
    rounds: Annotated[int, typer.Option(min=1, max=2000, help="Trees.")] = TreeOptions().rounds,
    leaves: Annotated[int, typer.Option(min=2, max=255, help="Leaves of a tree.")] = TreeOptions().leaves,
    threads: Annotated[int, typer.Option(min=1)] = 2,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures there.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for plots.")] = None,
) -> None:
    """Measure an ensemble on recorded transactions, with the features that the job would compute."""
    began = time.monotonic()
    delay_ms = round(label_delay * DAY_MS)
    try:
        fits = recipe(
            [name for name in parts.split(",") if name],
            TreeOptions()._replace(rounds=rounds, leaves=leaves),
        )
        numbers = _integers("seeds", seeds)
        with console.status("reading") as status:
            past = history(read(data, format, columns), label_delay, round(time.time() * 1000))
            status.update("features")
            result = replay(past.transactions, past.user, past.terminal, past.known_labels(), delay_ms)
            match protocol:
                case Protocol.FOLDS:
                    chosen = list(folds(past, _starts(past, starts), _mode(history_mode)))
                    measure: Measure = fold_figures(past, top)
                case Protocol.STREAM:
                    chosen = [_stream(past, fit_end, score_start, delay_ms)]
                    measure = stream_figures(past, _integers("budgets", budgets), top)
                case Protocol.TEMPORAL:
                    chosen = [temporal(past, train_share, test_share, delay_ms)]
                    measure = temporal_figures(past, top, cost_fp)
            chosen = [_scored(fold, result.status) for fold in chosen]
            runs = []
            for seed in numbers:
                for fold in chosen:
                    name = f"{fold.name}, seed {seed}"
                    runs.append(
                        evaluate(
                            past,
                            result.features,
                            fold,
                            fits,
                            FitOptions(seed, threads),
                            measure,
                            lambda step, name=name: status.update(f"{name}: {step}"),  # type: ignore[misc]
                        )
                    )
    except (HistoryError, ProtocolError, UnknownPartError, ValueError) as error:
        console.print(f"[red]not evaluated:[/] {escape(str(error))}", highlight=False)
        raise typer.Exit(1) from error
    figures = {
        "protocol": protocol.value,
        "data": data.name,
        "transactions": len(past.time),
        "label_delay_days": label_delay,
        "seeds": numbers,
        **({"history": history_mode.value} if protocol is Protocol.FOLDS else {}),
        **summary(runs),
        "seconds": round(time.monotonic() - began, 1),
    }
    _report(figures, runs)
    if json_file is not None:
        json_file.write_text(json.dumps(figures, indent=1) + "\n")
    if out is not None:
        from models.evaluation_plots import draw  # noqa: PLC0415 - matplotlib takes a second

        draw(out, past, runs, figures)
        console.print(f"plots: {out}", highlight=False)


def _mode(mode: Mode) -> Literal["strict", "open"]:
    return "strict" if mode is Mode.STRICT else "open"


def _integers(option: str, text: str) -> list[int]:
    try:
        found = [int(number) for number in text.split(",") if number.strip()]
    except ValueError as error:
        raise ValueError(f"{option}: {text!r} is no list of whole numbers") from error
    if not found or min(found) < 0:
        raise ValueError(f"{option}: {text!r} is no list of whole numbers from 0 on")
    return found


def _starts(past: History, text: str) -> list[int]:
    """First days of the folds in ms, by default of the last ones that the history has room for."""
    if not text:
        last = past.time[-1] // DAY_MS - 3 * FOLD_DAYS + 1
        first = past.time[0] // DAY_MS
        days = [last - FOLD_DAYS * k for k in reversed(range(FOLDS)) if last - FOLD_DAYS * k >= first]
        if not days:
            raise ProtocolError(f"event_time: too few days, a fold needs {3 * FOLD_DAYS}")
        return [int(day) * DAY_MS for day in days]
    try:
        dates = [date.fromisoformat(day.strip()) for day in text.split(",")]
    except ValueError as error:
        raise ValueError(f"starts: {text!r} is no list of dates like 2018-07-25") from error
    return [round(datetime(d.year, d.month, d.day, tzinfo=UTC).timestamp() * 1000) for d in dates]


def _stream(past: History, fit_end: datetime | None, score_start: datetime | None, delay_ms: int) -> Fold:
    first, last = past.time[0] // DAY_MS, past.time[-1] // DAY_MS
    end = (first + round((last + 1 - first) * FIT_SHARE)) * DAY_MS if fit_end is None else _ms(fit_end)
    start = -(-(end + delay_ms) // DAY_MS) * DAY_MS if score_start is None else _ms(score_start)
    if start < end:
        raise ProtocolError("score-start: lies before fit-end")
    return stream(past, int(end), int(start))


def _ms(day: datetime) -> int:
    return round(day.replace(tzinfo=UTC).timestamp() * 1000)


def _scored(fold: Fold, status: np.ndarray[Any, np.dtype[np.uint8]]) -> Fold:
    """Without what the job would not score: repeats."""
    return fold._replace(train=fold.train[status[fold.train] <= 1], test=fold.test[status[fold.test] <= 1])


def _report(figures: dict[str, Any], runs: list[Evaluated]) -> None:
    table = Table("", "transactions", *(name.replace("_", " ") for name in SHOWN if name in figures["mean"]))
    shown = [name for name in SHOWN if name in figures["mean"]]
    for run in runs:
        table.add_row(
            f"{run.fold}, seed {run.seed}",
            f"{len(run.rows):,}",
            *(f"{run.whole[name]:.3f}" for name in shown),
        )
    table.add_section()
    table.add_row("mean", "", *(f"{figures['mean'][name]:.3f}" for name in shown), style="bold")
    table.add_row("std over seeds", "", *(f"{figures['std'][name]:.3f}" for name in shown))
    table.add_row("std over folds", "", *(f"{figures['std_over_folds'][name]:.3f}" for name in shown))
    console.print(table)

    table = Table("part", "weight", *(f"{n.replace('_', ' ')} alone" for n in shown), "AP lost without it")
    whole = figures["mean"]["average_precision"]
    for name, part in figures["parts"].items():
        without = part["without"].get("average_precision")
        table.add_row(
            name,
            f"{part['weight']:.3f}",
            *(f"{part[n]:.3f}" for n in shown),
            f"{whole - without:+.4f}" if without is not None else "",
        )
    console.print(table)

    rest = Table("metric", "mean", "std over seeds")
    for name, value in figures["mean"].items():
        if name not in shown:
            rest.add_row(name.replace("_", " "), f"{value:,.4f}", f"{figures['std'][name]:.4f}")
    console.print(rest)
    console.print(f"{figures['seconds']:g} s", highlight=False)
