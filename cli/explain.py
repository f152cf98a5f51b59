"""`fraudstream explain`."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from pydantic import ValidationError
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from cli import kafka
from cli.decisions import STYLES
from cli.records import FileOrTopic, Limit, newest_in_file, newest_in_topic
from cli.terminal import UserError, err, out, printable
from cli.trust import AllowUnsigned, TrustedKeys, keyring
from events.decision import Decision
from flink_jobs.settings import FIRST_MODEL
from models import heuristic
from models.explained import Explained, explain_decisions
from models.explanation import Explainer, ExplanationError, load_explainer
from models.online import of_ensemble
from models.reasons import Reason
from models.signing import TRUSTED_KEYS, Keyring
from models.wording import LanguageModel, LanguageModelSettings

app = typer.Typer()

SHOWN_VALUES = 3
"""Features of a reason in the table; with --json there are all."""


@app.command()
def explain(  # noqa: PLR0913, PLR0917 - each is an option of the command
    file: FileOrTopic = None,
    decision: Annotated[
        str | None, typer.Option(help="Only the decision with this id.", show_default=False)
    ] = None,
    transaction: Annotated[
        str | None, typer.Option(help="Only on this transaction.", show_default=False)
    ] = None,
    verdict: Annotated[
        str | None, typer.Option(help="Only approve, review or block.", show_default=False)
    ] = None,
    limit: Limit = 1,
    model: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of an artefact that decided; repeatable. By default the one shipped.",
            show_default=False,
        ),
    ] = None,
    trusted_keys: TrustedKeys = TRUSTED_KEYS,
    allow_unsigned: AllowUnsigned = False,
    json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
    language_model: Annotated[
        bool,
        typer.Option("--language-model", help="In the words of the model that FRAUDSTREAM_LLM_* names."),
    ] = False,
    bootstrap: kafka.Bootstrap = kafka.LOCAL_BROKER,
    topic_prefix: kafka.TopicPrefix = "",
    kafka_set: kafka.ClientSettings = None,
) -> None:
    """Explain the newest decisions of a file, or of the topic decisions."""
    if verdict is not None and verdict not in STYLES:
        raise UserError(f"--verdict: {verdict!r} is not one of {', '.join(STYLES)}")

    def wanted(found: Decision) -> bool:
        return (
            decision in (None, found.decision_id)
            and transaction in (None, found.transaction_id)
            and verdict in (None, found.decision)
        )

    words = _language_model() if language_model else None
    if file is not None:
        chosen, _ = newest_in_file(file, Decision, limit, wanted)
    else:
        config = kafka.client_config(bootstrap, kafka_set)
        filtered = wanted if decision or transaction or verdict else None
        chosen = newest_in_topic(config, f"{topic_prefix}decisions", Decision, limit, filtered)
    if not chosen:
        raise UserError("no such decision")
    explainers = {}
    if any(of_ensemble(d.model_version) != heuristic.VERSION for d in chosen):
        explainers = _explainers(model or [FIRST_MODEL], keyring(trusted_keys, allow_unsigned))
    try:
        explained = explain_decisions(chosen, explainers, words)
    except ExplanationError as error:
        raise UserError(printable(str(error))) from error
    if json:
        typer.echo(msgspec.json.format(msgspec.json.encode(explained)).decode())
        return
    for one in explained:
        out.print(_shown(one))
        if one.not_worded is not None:
            err.print(f"the language model was not used: {one.not_worded}", highlight=False, markup=False)


def _explainers(folders: list[Path], trusted: Keyring) -> dict[str, Explainer]:
    """By version of the model. Raises UserError for a folder that does not do."""
    explainers = {}
    for folder in folders:
        try:
            explainer = load_explainer(folder, trusted)
        except ExplanationError as error:
            raise UserError(f"{folder}: {error}") from error
        explainers[explainer.version] = explainer
    return explainers


def _language_model() -> LanguageModel:
    try:
        return LanguageModel(LanguageModelSettings.model_validate({}))
    except ValidationError as error:
        fields = ", ".join(f"FRAUDSTREAM_LLM_{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors())
        raise UserError(f"--language-model: {fields}") from error


def _shown(one: Explained) -> Group:
    heading = Text.assemble(
        (f"\n{printable(one.transaction_id)}", "bold"),
        "  ",
        (one.verdict, STYLES[one.verdict]),
        f"  score {one.score:.4f}  {printable(one.model_version)}",
        "" if one.review_threshold is None else f"  reviewed from {one.review_threshold:.4f}",
    )
    table = Table(box=SIMPLE_HEAD)
    table.add_column("reason", no_wrap=True)
    table.add_column("log-odds", justify="right", no_wrap=True)
    table.add_column("fact", overflow="fold")
    table.add_column("features", overflow="fold")
    for reason in one.reasons:
        table.add_row(reason.code, f"{reason.log_odds:+.3f}", Text(printable(reason.text)), _values(reason))
    for name, added in one.parts.items():
        table.add_row(printable(name), f"{added:+.3f}", "another part of the model")
    table.add_row("calibration", f"{one.calibration:+.3f}", "of the trees")
    table.add_row("base", f"{one.base:+.3f}", "mean of the trees")
    table.add_row("sum", f"{one.log_odds:+.3f}", "before the calibration of the score")
    if one.online is not None:
        table.add_row("online", f"{one.online:+.3f}", "learnt from labels since; after the calibration")
    return Group(heading, Text(printable(one.sentence)), table)


def _values(reason: Reason) -> str:
    shown = list(reason.values.items())[:SHOWN_VALUES]
    return ", ".join(f"{name} {'missing' if value is None else f'{value:,.6g}'}" for name, value in shown)
