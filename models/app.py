"""Command line of the models."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from models.artefact import write_artefact
from models.history import HistoryError, history
from models.parts.trees import TreeOptions
from models.recipe import DEFAULT_PARTS, UnknownPartError
from models.signing import KeyFileError, read_private_key
from models.sources import read, simulated
from models.tracking import TrackingError, load_mlflow, log_training
from models.training import Trained, TrainingError, TrainingOptions, artefact_files, manifest
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
    parts: Annotated[str, typer.Option(help="Of the ensemble.")] = ",".join(DEFAULT_PARTS),
    rounds: Annotated[int, typer.Option(min=1, max=2000, help="Trees.")] = TreeOptions().rounds,
    leaves: Annotated[int, typer.Option(min=2, max=255, help="Leaves of a tree.")] = TreeOptions().leaves,
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
    key: Annotated[
        Path | None, typer.Option(help="Private key to sign the artefact with; see `fraudstream models`.")
    ] = None,
    mlflow: Annotated[
        str | None, typer.Option(help="Log the training to this MLflow tracking URI.", metavar="URI")
    ] = None,
) -> None:
    """Train an ensemble and write it as an artefact."""
    options = TrainingOptions(
        seed=seed,
        label_delay_days=label_delay_days,
        parts=tuple(name for name in parts.split(",") if name),
        trees=TreeOptions()._replace(rounds=rounds, leaves=leaves),
        threads=threads,
        review_fpr=review_fpr,
        alerts_per_day=alerts_per_day,
        block_precision=block_precision,
    )
    began = time.monotonic()
    try:
        if out.exists():
            raise FileExistsError(f"{out} exists; an artefact is never overwritten")
        signing_key = read_private_key(key) if key is not None else None
        if mlflow is not None:
            load_mlflow()
        with console.status("reading") as status:
            if data is None:
                source = f"simulator: {users} users, {terminals} terminals, {days} days"
                frame = simulated(
                    users=users,
                    terminals=terminals,
                    days=days,
                    fraud_rate=fraud_rate,
                    seed=seed,
                    label_delay_days=label_delay_days,
                )
            else:
                source = data.name
                frame = read(data, format, columns)
            past = history(frame, label_delay_days, round(datetime.now(UTC).timestamp() * 1000))
            del frame
            trained = train_model(past, options, status.update)
        files = artefact_files(trained)
        told = manifest(trained, version, source, options)
        write_artefact(out, told, files, signing_key)
    except (HistoryError, KeyFileError, TrackingError, TrainingError, UnknownPartError, OSError) as error:
        console.print(f"[red]not trained:[/] {escape(str(error))}", highlight=False)
        raise typer.Exit(1) from error
    _report(trained, told.model_version)
    console.print(
        f"{out}: {sum(map(len, files.values())) / 1024:.0f} KiB, {time.monotonic() - began:.0f} s",
        highlight=False,
    )
    if key is None:
        console.print(
            f"not signed, so no job will load it: fraudstream models sign {out} --key FILE",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    if mlflow is None:
        return
    try:
        log_training(mlflow, options._asdict(), told, out)
    except TrackingError as error:
        console.print(f"[red]{escape(str(error))}[/]", highlight=False)
        raise typer.Exit(1) from error
    console.print("logged to MLflow")


def _report(trained: Trained, version: str) -> None:
    console.print(
        f"{version}: trained on {trained.rows:,} transactions with {trained.frauds:,} frauds; "
        f"ONNX within {max(trained.onnx_difference.values()):.1e} of the libraries",
        highlight=False,
    )
    shares = ", ".join(f"{name} {weight:.2f}" for name, weight in trained.ensemble.weights.items())
    console.print(f"weights: {shares}", highlight=False)
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
