"""Command line of the local stack."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stack import programs, services
from stack.errors import StackError
from stack.jobs import submit_missing
from stack.people import ensure_keys, ensure_people
from stack.settings import Settings

app = typer.Typer(
    help="The local stack without Docker: Kafka, Flink, Redis, a MongoDB-protocol server, gateway and jobs.",
    no_args_is_help=True,
    add_completion=False,
)
console = Console()

JOBS = "jobs"
"""Named like a service, but it is no process of its own: the jobs run within Flink."""


@app.command()
def up(
    only: Annotated[
        str,
        typer.Option(help="Services to start, separated by commas.", metavar="NAMES"),
    ] = ",".join((*programs.SERVICES, JOBS)),
) -> None:
    """Start what does not run yet, wait until it is healthy and print where it is.

    `jobs` among the services submits the three jobs where they do not run.
    """
    with _errors_explained():
        settings = Settings()
        chosen = [name.strip() for name in only.split(",") if name.strip()]
        names = [name for name in chosen if name != JOBS]
        statuses = services.status() if chosen == [JOBS] else services.up(settings, names, console=console)
        if JOBS in chosen:
            ensure_keys(settings)
            submit_missing(settings, console)
        addresses = {
            "kafka": settings.kafka_bootstrap,
            "flink": settings.flink_url,
            "redis": settings.redis_url,
            "mongo": settings.mongo_url,
            "gateway": f"{settings.gateway_url}/openapi.json",
            "notify": f"metrics on 127.0.0.1:{settings.notify_metrics_port}",
        }
        running = dict.fromkeys(status.program.service for status in statuses)
        for service in running:
            console.print(f"{service:8} {addresses[service]}", highlight=False)
        console.print(f"logs     {settings.home / 'logs'}", highlight=False, soft_wrap=True)
        if "gateway" in running:
            for line in ensure_people(settings):
                console.print(f"{line}  (shown this once)", highlight=False, markup=False, soft_wrap=True)
            console.print(f"\n[bold]{settings.gateway_url}/console[/]", highlight=False, soft_wrap=True)


@app.command()
def status() -> None:
    """Show every program of the stack; the exit code is 1 when anything is down."""
    with _errors_explained():
        statuses = services.status()
        if not statuses:
            console.print("the stack is down")
            raise typer.Exit(1)
        table = Table("service", "program", "state", "pid", "port", "health")
        for entry in statuses:
            table.add_row(
                entry.program.service,
                entry.program.name,
                entry.process.state,
                str(entry.process.pid or ""),
                str(entry.program.ports[0].number) if entry.program.ports else "",
                f"[{'green' if entry.ok else 'red'}]{escape(entry.health.detail)}[/]",
            )
        console.print(table)
        if not all(entry.ok for entry in statuses):
            raise typer.Exit(1)


@app.command()
def down(
    wipe: Annotated[bool, typer.Option("--wipe", help="Also delete the data.")] = False,
) -> None:
    """End what was started here, and nothing else."""
    with _errors_explained(), console.status("ending the stack"):
        ran = services.down(wipe=wipe)
        console.print("the stack is down" if ran else "the stack was not running")
        if wipe:
            console.print("its data is deleted")


@app.command()
def env() -> None:
    """Print shell variables for Flink's own commands and for these: eval "$(python -m stack env)"."""
    with _errors_explained():
        settings = Settings()
        variables = programs.flink_environment(settings) | programs.client_environment(settings)
        for name, value in variables.items():
            print(f"export {name}={shlex.quote(value)}")
        print(f"export PATH={shlex.quote(str(programs.pyflink_root() / 'bin'))}:$PATH")


@contextmanager
def _errors_explained() -> Iterator[None]:
    try:
        yield
    except StackError as error:
        Console(stderr=True).print(f"[red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
    except ValidationError as error:
        for problem in error.errors():
            variable = f"FRAUDSTREAM_{'_'.join(map(str, problem['loc']))}".upper()
            Console(stderr=True).print(
                f"[red]error:[/] {escape(variable)}: {escape(problem['msg'])}",
                highlight=False,
                soft_wrap=True,
            )
        raise typer.Exit(2) from None
