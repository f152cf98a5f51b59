"""The command itself: simulate, score, show."""

import shutil
import signal
import sys
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from cli import trust
from cli.demo import picture, report
from cli.demo.job import Job
from cli.demo.outcome import outcome
from cli.demo.traffic import write_traffic
from cli.terminal import UserError, out
from events.control import Thresholds
from flink_jobs.settings import FIRST_MODEL
from models import heuristic
from models.artefact import ModelRefusedError, load_model
from models.signing import TRUSTED_KEYS, Keyring
from simulator.config import SimulationConfig
from stack.settings import Settings

MARK = ".fraudstream-demo"
START = date(2026, 1, 1)

app = typer.Typer(add_completion=False)


@app.command()
def demo(  # noqa: PLR0913, PLR0917 - each is an option of the command
    users: Annotated[int, typer.Option(help="Simulated users.")] = 5_000,
    terminals: Annotated[int, typer.Option(help="Simulated terminals.")] = 2_500,
    days: Annotated[int, typer.Option(min=2, help="Simulated days.")] = 21,
    seed: Annotated[
        int, typer.Option(help="Of the simulation; another than the model was trained with.")
    ] = 7,
    warm_up: Annotated[
        int, typer.Option(min=0, help="Days whose fraud is not counted: users have no history yet.")
    ] = 7,
    alerts_per_day: Annotated[
        int, typer.Option(min=1, help="The budget: alerts that people can work off.")
    ] = 100,
    model: Annotated[str, typer.Option(help="Artefact to score with; '' for the heuristic.")] = str(
        FIRST_MODEL
    ),
    trusted_keys: trust.TrustedKeys = TRUSTED_KEYS,
    allow_unsigned: trust.AllowUnsigned = False,
    folder: Annotated[
        Path | None,
        typer.Option(help="Where everything is written; its content is replaced.", show_default=".run/demo"),
    ] = None,
) -> None:
    """Score simulated traffic with the real job on an embedded Flink, and show how it went.

    Nothing needs to run beforehand. The exit code is 1 when lines in and answers out do not agree.
    """
    began = time.monotonic()
    # So that the job ends with this process, however it is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if warm_up >= days:
        raise UserError(f"--warm-up: {warm_up} days leave nothing of {days} to measure")
    thresholds = _thresholds(model, trust.keyring(trusted_keys, allow_unsigned))
    config = _config(users, terminals, days, seed)
    home = Settings().home
    folder = _emptied(folder or home / "demo")
    with _progress() as progress:
        simulating = progress.add_task("simulating", total=days, unit="days")
        traffic = write_traffic(config, folder / "transactions.jsonl", lambda: progress.advance(simulating))
        expected = len(traffic.truth)
        scoring = progress.add_task("starting Flink", total=None, unit="decisions")

        def decided(number: int) -> None:
            if number:
                progress.update(scoring, description="scoring", completed=number, total=expected)

        job = Job(
            folder / "transactions.jsonl",
            folder,
            model,
            trusted_keys,
            allow_unsigned,
            log=folder / "job.log",
            cache=home / "numba",
        )
        run = job.run(decided)
        summing_up = progress.add_task("summing up", total=None, unit="")
        found = outcome(traffic, folder, run, warm_up, alerts_per_day)
        picture.draw(found, thresholds, folder / "demo.png")
        progress.update(summing_up, total=1, completed=1)
    report.show(found, out)
    out.print(f"\npicture    {folder / 'demo.png'}", highlight=False, soft_wrap=True)
    out.print(
        f"decisions  fraudstream decisions show {folder / 'decisions'}", highlight=False, soft_wrap=True
    )
    out.print(f"in all     {time.monotonic() - began:.0f} s", highlight=False)
    if not found.reconciliation.holds:
        raise typer.Exit(1)


def _config(users: int, terminals: int, days: int, seed: int) -> SimulationConfig:
    try:
        config = SimulationConfig(users=users, terminals=terminals, days=days, seed=seed, start=START)
    except ValidationError as error:
        reasons = (f"--{'-'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise UserError("; ".join(reasons)) from error
    # The job refuses transactions from the future.
    if START + timedelta(days=days) > date.today():
        raise UserError(f"--days: {days} days from {START} on reach into the future")
    return config


def _thresholds(model: str, keyring: Keyring) -> Thresholds:
    """The limits that the job will decide by. Raises UserError for an artefact that does not load."""
    if not model:
        return heuristic.THRESHOLDS
    try:
        return load_model(Path(model), keyring).thresholds
    except ModelRefusedError as error:
        raise UserError(f"--model: {error}") from error


def _emptied(folder: Path) -> Path:
    """An empty folder, marked as ours. Raises UserError rather than delete a folder without the mark."""
    if folder.exists():
        if not (folder / MARK).exists() and any(folder.iterdir()):
            raise UserError(f"--folder: {folder} holds something else than an earlier demo")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / MARK).touch()
    return folder


def _progress() -> Progress:
    return Progress(
        SpinnerColumn(finished_text="[green]✓[/]"),
        TextColumn("{task.description:16}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeElapsedColumn(),
        console=out,
        refresh_per_second=5,
    )
