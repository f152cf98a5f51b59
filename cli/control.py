"""`fraudstream model` and `fraudstream rule`: what running jobs are told.

Everything is checked here as the job checks it; what the job refuses nevertheless becomes a dead letter with
the reason control_refused.
"""

import getpass
import sys
import time
from pathlib import Path
from typing import Annotated, TypeVar, get_args

import msgspec
import typer

from cli import kafka
from cli.terminal import UserError, out
from events.codec import Decoder, Invalid
from events.control import ModelUpdate, Rule, Thresholds
from models.artefact import ModelRefusedError, load_model
from models.rules import RuleRefusedError, Ruleset

Control = TypeVar("Control", ModelUpdate, Rule)

app = typer.Typer()
model = typer.Typer(no_args_is_help=True, help="The model and the thresholds of running jobs.")
rule = typer.Typer(no_args_is_help=True, help="Analysts' rules of running jobs.")
app.add_typer(model, name="model")
app.add_typer(rule, name="rule")

SLOTS: tuple[str, ...] = get_args(ModelUpdate.__annotations__["slot"])


# A group of one command; without a callback typer would make the command itself of it.
model.callback()(lambda: None)
rule.callback()(lambda: None)


@model.command("send")
def send_model(  # noqa: PLR0913, PLR0917 - each is an option of the command
    artefact: Annotated[
        Path | None,
        typer.Argument(
            help="Folder of an artefact; every TaskManager must find it under this path.", show_default=False
        ),
    ] = None,
    thresholds: Annotated[
        str | None,
        typer.Option(
            help="Scores from which to review and to block, over those of any model.",
            metavar="REVIEW,BLOCK",
            show_default=False,
        ),
    ] = None,
    remove: Annotated[
        str | None,
        typer.Option(
            help="Empty a slot: after `thresholds` those of the model hold again.",
            metavar="|".join(SLOTS),
            show_default=False,
        ),
    ] = None,
    by: Annotated[
        str | None, typer.Option(help="Who issues it; by default the login name.", show_default=False)
    ] = None,
    bootstrap: kafka.Bootstrap = kafka.LOCAL_BROKER,
    topic_prefix: kafka.TopicPrefix = "",
    kafka_set: kafka.ClientSettings = None,
) -> None:
    """Load another model, or set other thresholds, in all running jobs."""
    if sum(choice is not None for choice in (artefact, thresholds, remove)) != 1:
        raise UserError("give one of ARTEFACT, --thresholds REVIEW,BLOCK or --remove SLOT")
    config, topic = kafka.client_config(bootstrap, kafka_set), f"{topic_prefix}model-updates"
    if remove is not None:
        if remove not in SLOTS:
            raise UserError(f"--remove: {remove!r} is not one of {', '.join(SLOTS)}")
        out.print(f"{remove} emptied: {kafka.send(config, topic, remove, None)}", highlight=False)
        return
    issued_at, issued_by = round(time.time() * 1000), by or getpass.getuser()
    if artefact is not None:
        version = _loaded(artefact)
        update = ModelUpdate(
            slot="model", artefact=str(artefact.resolve()), issued_at=issued_at, issued_by=issued_by
        )
        what = f"model {version}"
    else:
        limits = _parsed(str(thresholds))
        update = ModelUpdate(slot="thresholds", thresholds=limits, issued_at=issued_at, issued_by=issued_by)
        what = f"review from {limits.review:g}, block from {limits.block:g}"
    payload = msgspec.json.encode(update)
    _checked(payload, ModelUpdate)
    out.print(f"{what}: {kafka.send(config, topic, update.slot, payload)}", highlight=False, soft_wrap=True)


@rule.command("send")
def send_rule(
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
    checked = _evaluable(_checked(_read(Path(str(file))), Rule))
    sent = kafka.send(config, topic, checked.rule_id, msgspec.json.encode(checked))
    out.print(f"rule {checked.rule_id}, version {checked.version}: {sent}", highlight=False)


def _loaded(artefact: Path) -> str:
    """Version of the model in an artefact that loads. Raises UserError for any other."""
    try:
        return load_model(artefact).version
    except ModelRefusedError as error:
        raise UserError(f"{artefact}: {error}") from error


def _parsed(text: str) -> Thresholds:
    try:
        review, block = map(float, text.split(","))
    except ValueError:
        raise UserError(f"--thresholds: {text!r} is not REVIEW,BLOCK") from None
    try:
        return msgspec.convert({"review": review, "block": block}, Thresholds)
    except msgspec.ValidationError as error:
        raise UserError(f"--thresholds: {error}") from error


def _read(file: Path) -> bytes:
    if str(file) == "-":
        return sys.stdin.buffer.read()
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from error


def _checked(payload: bytes, record_type: type[Control]) -> Control:
    """The record in a payload, read as the job reads it. Raises UserError where the job would refuse it."""
    (record,) = Decoder(record_type).decode([payload])
    if isinstance(record, Invalid):
        field = f"{record.field}: " if record.field else ""
        raise UserError(f"{field}{record.detail} ({record.reason})")
    return record


def _evaluable(checked: Rule) -> Rule:
    try:
        Ruleset().apply(checked)
    except RuleRefusedError as error:
        raise UserError(str(error)) from error
    return checked
