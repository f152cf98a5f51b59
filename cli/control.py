"""`fraudstream rule`, and the check of whatever running jobs are told.

Everything is checked here as the job checks it; what the job refuses nevertheless becomes a dead letter with
the reason control_refused.
"""

import sys
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
import typer

from cli import kafka
from cli.terminal import UserError, out
from events.codec import Decoder, Invalid
from events.control import ModelUpdate, Rule
from models.rules import RuleRefusedError, Ruleset

Control = TypeVar("Control", ModelUpdate, Rule)

app = typer.Typer(no_args_is_help=True)


@app.callback()
def rule() -> None:
    """Analysts' rules of running jobs."""


@app.command()
def send(
    file: Annotated[
        Path | None,
        typer.Argument(help="A rule as JSON, - for standard input.", show_default=False),
    ] = None,
    remove: Annotated[
        str | None, typer.Option(help="Remove this rule.", metavar="RULE_ID", show_default=False)
    ] = None,
    bootstrap: kafka.Bootstrap = kafka.LOCAL_BROKER,
    topic_prefix: kafka.TopicPrefix = "",
    kafka_set: kafka.ClientSettings = None,
) -> None:
    """Set a rule, or a newer version of it, in all running jobs."""
    if (file is None) == (remove is None):
        raise UserError("give either FILE or --remove RULE_ID")
    config, topic = kafka.client_config(bootstrap, kafka_set), f"{topic_prefix}rules"
    if remove is not None:
        out.print(f"rule {remove} removed: {kafka.send(config, topic, remove, None)}", highlight=False)
        return
    new = checked(_read(Path(str(file))), Rule)
    _check_evaluable(new)
    sent = kafka.send(config, topic, new.rule_id, msgspec.json.encode(new))
    out.print(f"rule {new.rule_id}, version {new.version}: {sent}", highlight=False)


def _read(file: Path) -> bytes:
    if str(file) == "-":
        return sys.stdin.buffer.read()
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from error


def checked(payload: bytes, record_type: type[Control]) -> Control:
    """The record in a payload, read as the job reads it. Raises UserError where the job would refuse it."""
    (record,) = Decoder(record_type).decode([payload])
    if isinstance(record, Invalid):
        field = f"{record.field}: " if record.field else ""
        raise UserError(f"{field}{record.detail} ({record.reason})")
    return record


def _check_evaluable(new: Rule) -> None:
    try:
        Ruleset().apply(new)
    except RuleRefusedError as error:
        raise UserError(str(error)) from error
