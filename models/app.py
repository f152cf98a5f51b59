"""Command line of the models."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from models.artefact import MODEL_FILE, write_artefact
from models.history import HistoryError, history
from models.training import Trained, TrainingError, TrainingOptions, manifest
from models.training import train as train_model

app = typer.Typer(help="Train models.", no_args_is_help=True)
console = Console()


@app.command()
def train(  # noqa: PLR0913, PLR0917 - each is an option of the command
    out: Annotated[Path, typer.Option(help="Folder of the artefact; it must not exist.")],
    data: Annotated[
        Path | None,
        typer.Argument(help="CSV or parquet file with is_fraud; without one traffic is simulated."),
    ] = None,
    format: Annotated[  # noqa: A002 - the name of the option
        str, typer.Option(help="Of the file: fraudstream, handbook, paysim, sparkov.")
    ] = "fraudstream",
    columns: Annotated[
        str,
        typer.Option(
            help="Columns of the file, where its format does not know them.", metavar="WIRE=SOURCE,..."
        ),
    ] = "",
    users: Annotated[int, typer.Option(help="Simulated users.")] = 5_000,
    terminals: Annotated[int, typer.Option(help="Simulated terminals.")] = 2_500,
    days: Annotated[int, typer.Option(help="Simulated days.")] = 90,
    fraud_rate: Annotated[float, typer.Option(help="Simulated share of fraud.")] = 0.005,
    seed: Annotated[int, typer.Option(min=0, help="Of the simulation and the training.")] = 1,
    label_delay_days: Annotated[
        float,
        typer.Option(
            min=0, max=30, help="Until a fraud is known; must be the risk delay of the scoring job."
        ),
    ] = 7.0,
    rounds: Annotated[int, typer.Option(min=1, max=2000, help="Trees.")] = TrainingOptions().rounds,
    leaves: Annotated[int, typer.Option(min=2, max=255, help="Leaves of a tree.")] = TrainingOptions().leaves,
    threads: Annotated[int, typer.Option(min=1)] = 2,
    review_fpr: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the legitimate transactions that may be reviewed.")
    ] = TrainingOptions().review_fpr,
    alerts_per_day: Annotated[
        float | None, typer.Option(min=0, help="Review this many a day instead.")
    ] = None,
    block_precision: Annotated[
        float, typer.Option(min=0, max=1, help="Share of frauds among what is blocked.")
    ] = TrainingOptions().block_precision,
    version: Annotated[str | None, typer.Option(help="Of the model; by default from its content.")] = None,
) -> None:
    """Train the gradient-boosted trees and write them as an artefact."""
    options = TrainingOptions(
        seed=seed,
        label_delay_days=label_delay_days,
        rounds=rounds,
        leaves=leaves,
        threads=threads,
        review_fpr=review_fpr,
        alerts_per_day=alerts_per_day,
        block_precision=block_precision,
    )
    began = time.monotonic()
    try:
        if out.exists():
            raise FileExistsError(f"{out} exists; an artefact is never overwritten")
        with console.status("reading") as status:
            if data is None:
                source = f"simulator: {users} users, {terminals} terminals, {days} days"
                frame = _simulated(
                    users=users,
                    terminals=terminals,
                    days=days,
                    fraud_rate=fraud_rate,
                    seed=seed,
                    label_delay_days=label_delay_days,
                )
            else:
                source = data.name
                frame = _read(data, format, columns)
            past = history(frame, label_delay_days, round(datetime.now(UTC).timestamp() * 1000))
            del frame
            trained = train_model(past, options, status.update)
        told = manifest(trained, version, source, options)
        write_artefact(out, told, {MODEL_FILE: trained.onnx})
    except (HistoryError, TrainingError, OSError) as error:
        console.print(f"[red]not trained:[/] {escape(str(error))}", highlight=False)
        raise typer.Exit(1) from error
    _report(trained, told.model_version)
    console.print(
        f"{out}: {len(trained.onnx) / 1024:.0f} KiB, {time.monotonic() - began:.0f} s", highlight=False
    )


def _simulated(**world: float) -> pd.DataFrame:
    """Simulated transactions, each with the time at which its label becomes known.

    world: fields of SimulationConfig. Raises HistoryError where one is out of range.
    """
    from simulator.config import SimulationConfig  # noqa: PLC0415 - nothing else here needs a simulator
    from simulator.simulation import simulate  # noqa: PLC0415

    try:
        config = SimulationConfig.model_validate(world)
    except ValueError as error:
        raise HistoryError(str(error)) from error
    simulation = simulate(config)
    known = simulation.labels.set_index("transaction_id")["labelled_at"]
    return simulation.transactions.assign(labelled_at=simulation.transactions["transaction_id"].map(known))


def _read(path: Path, layout: str, columns: str) -> pd.DataFrame:
    """The transactions of a file. Raises HistoryError where it has none or cannot be read."""
    from simulator.datasets import DatasetError, read_transactions  # noqa: PLC0415

    pairs = [pair.partition("=") for pair in columns.split(",") if pair]
    wrong = ["".join(pair) for pair in pairs if not all(pair)]
    if wrong:
        raise HistoryError(f"columns: {wrong[0]!r} is not WIRE=SOURCE")
    try:
        mapping = {wire: source for wire, _, source in pairs}
        chunks = list(read_transactions(path, layout, mapping))
    except DatasetError as error:
        raise HistoryError(str(error)) from error
    if not chunks:
        raise HistoryError(f"{path}: there are no transactions")
    frame: pd.DataFrame = pd.concat(chunks, ignore_index=True)
    return frame


def _report(trained: Trained, version: str) -> None:
    console.print(
        f"{version}: trained on {trained.rows:,} transactions with {trained.frauds:,} frauds; "
        f"ONNX within {trained.onnx_difference:.1e} of LightGBM",
        highlight=False,
    )
    if trained.constant:
        console.print(f"[yellow]never vary, and so count for nothing:[/] {', '.join(trained.constant)}")
    measured = {k: v for k, v in trained.metrics.items() if k != "test_at_thresholds"}
    table = Table("metric", *(name.replace("_", " ") for name in measured))
    for metric in trained.metrics["test"]:
        table.add_row(metric, *(f"{m[metric]:.4f}" if metric in m else "" for m in measured.values()))
    console.print(table)

    limits = trained.thresholds
    table = Table(f"review from {limits.review:g}, block from {limits.block:g}", "")
    for name, value in trained.metrics["test_at_thresholds"].items():
        table.add_row(name, f"{value:.4f}")
    console.print(table)

    table = Table("score from", "transactions", "mean score", "observed frauds")
    for decile in trained.deciles:
        table.add_row(
            f"{decile.low:.1f}", f"{decile.rows:,}", f"{decile.score:.3f}", f"{decile.observed:.3f}"
        )
    console.print(table)
