"""`fraudstream models safe-mode`: let running jobs decide without their models, and with them again."""

import getpass
from datetime import UTC, datetime
from typing import Annotated

import msgspec
import typer

from cli import kafka
from cli.control import By, tell
from cli.terminal import out, printable
from events.types import epoch_ms
from serving import control
from serving.control import Topics

app = typer.Typer(no_args_is_help=True)


class State(msgspec.Struct, frozen=True):
    """since: milliseconds since the epoch; all None while it is off."""

    on: bool
    reason: str | None = None
    since: int | None = None
    by: str | None = None


@app.callback()
def safe_mode() -> None:
    """Safe mode: the heuristic and the rules decide, and no score blocks."""


@app.command()
def on(
    reason: Annotated[str, typer.Option(help="Why, for whoever finds it on.", show_default=False)],
    by: By = None,
    bootstrap: kafka.Bootstrap = kafka.LOCAL_BROKER,
    topic_prefix: kafka.TopicPrefix = "",
    kafka_set: kafka.ClientSettings = None,
) -> None:
    """Let no model decide in any running job, until `off`."""
    topics = Topics(kafka.client_config(bootstrap, kafka_set), topic_prefix)
    tell(control.begin_safe_mode(topics, reason, by or getpass.getuser()))


@app.command()
def off(
    bootstrap: kafka.Bootstrap = kafka.LOCAL_BROKER,
    topic_prefix: kafka.TopicPrefix = "",
    kafka_set: kafka.ClientSettings = None,
) -> None:
    """Let the models decide again."""
    tell(control.end_safe_mode(Topics(kafka.client_config(bootstrap, kafka_set), topic_prefix)))


@app.command()
def status(
    json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
    bootstrap: kafka.Bootstrap = kafka.LOCAL_BROKER,
    topic_prefix: kafka.TopicPrefix = "",
    kafka_set: kafka.ClientSettings = None,
) -> None:
    """Show whether safe mode is on; why, since when and by whom."""
    update = control.safe_mode(Topics(kafka.client_config(bootstrap, kafka_set), topic_prefix))
    found = State(False)
    if update is not None:
        found = State(True, update.reason, epoch_ms(update.issued_at), update.issued_by)
    if json:
        typer.echo(msgspec.json.format(msgspec.json.encode(found)).decode())
        return
    if found.since is None:
        out.print("off")
        return
    since = datetime.fromtimestamp(found.since / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    told = f"on since {since} UTC, by {found.by}: {found.reason}"
    out.print(printable(told), highlight=False, markup=False, soft_wrap=True)
