"""`fraudstream online`: what the online learner did, and what it is told."""

import getpass
from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from cli import kafka
from cli.control import By
from cli.records import newest_in_topic
from cli.terminal import out, printable
from events.audit import AuditEvent
from events.types import epoch_ms
from serving import control
from serving.control import Topics

SLOT = "online"
FREEZING = ("frozen", "unfrozen")

Command = Literal["promote", "rollback", "freeze", "unfreeze"]
Reason = Annotated[str | None, typer.Option(help="Why, for the audit.", show_default=False)]

app = typer.Typer(no_args_is_help=True)


class Status(msgspec.Struct, frozen=True):
    """live: version of the online part that scores, None where the ensemble stands alone."""

    live: str | None
    share: float | None
    since: int | None
    frozen: bool
    steps: list[AuditEvent]


@app.callback()
def online() -> None:
    """The online learner: what it did, and what it is told."""


@app.command()
def status(
    limit: Annotated[int, typer.Option(min=1, help="Show this many steps, the newest.")] = 10,
    json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
    bootstrap: kafka.Bootstrap = kafka.LOCAL_BROKER,
    topic_prefix: kafka.TopicPrefix = "",
    kafka_set: kafka.ClientSettings = None,
) -> None:
    """Show which online part scores, whether promotions are frozen, and the newest steps of the audit."""
    found = _status(kafka.client_config(bootstrap, kafka_set), topic_prefix, limit)
    if json:
        typer.echo(msgspec.json.format(msgspec.json.encode(found)).decode())
        return
    if found.live is None or found.since is None:
        out.print("live      the ensemble alone")
    else:
        live = f"live      {found.live}, share {found.share:g}, since {_time(found.since)}"
        out.print(Text(printable(live)))
    out.print(f"promotion {'frozen' if found.frozen else 'by the gate'}")
    table = Table(box=SIMPLE_HEAD)
    for heading in ("at (UTC)", "step", "actor", "live after it", "detail"):
        table.add_column(heading, overflow="fold")
    for event in found.steps:
        cells = (_time(event.at), event.step, event.actor, event.version or "", event.detail)
        table.add_row(*(Text(printable(cell)) for cell in cells))
    out.print(table)


def _command(command: Command, told: str) -> None:
    """A command that tells the learner something; `told` is its help."""

    @app.command(command, help=told)
    def tell(
        reason: Reason = None,
        by: By = None,
        bootstrap: kafka.Bootstrap = kafka.LOCAL_BROKER,
        topic_prefix: kafka.TopicPrefix = "",
        kafka_set: kafka.ClientSettings = None,
    ) -> None:
        topics = Topics(kafka.client_config(bootstrap, kafka_set), topic_prefix)
        sent = control.command_learner(topics, command, by or getpass.getuser(), reason)
        out.print(f"{command}: {sent.place}; see `fraudstream online status`", highlight=False)


_command("promote", "Let score what has been learnt, whatever the gate says of it.")
_command("rollback", "Go back to what scored before, in the end to the ensemble alone.")
_command("freeze", "Let the gate promote nothing until `unfreeze`; learning goes on.")
_command("unfreeze", "Let the gate promote again.")


def _status(config: dict[str, str], prefix: str, limit: int) -> Status:
    audit = f"{prefix}audit"
    freezing = newest_in_topic(config, audit, AuditEvent, 1, lambda event: event.step in FREEZING)
    frozen = [event.step for event in freezing] == ["frozen"]
    newest = newest_in_topic(config, audit, AuditEvent, limit, None)
    steps = list({event.event_id: event for event in newest}.values())
    update = control.in_force(Topics(config, prefix), SLOT)
    if update is None or update.online is None:
        return Status(None, None, None, frozen, steps)
    return Status(update.online.version, update.online.share, epoch_ms(update.issued_at), frozen, steps)


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
