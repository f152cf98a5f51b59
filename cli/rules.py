"""`fraudstream rules`: analysts' rules of running jobs, and what they would have done."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
import yaml
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from cli import kafka
from cli.rule_files import drafts
from cli.terminal import UserError, out, printable
from events.control import Condition, Rule
from events.types import epoch_ms
from models.rules import Ruleset
from serving import control
from serving.control import Held, Sent, Topics
from state.contract import DAY_MS

SHOWN_VALUES = 3
STYLES = {"live": "bold green", "shadow": "cyan", "disabled": "dim", "expired": "dim", "refused": "bold red"}

app = typer.Typer(no_args_is_help=True)

File = Annotated[
    Path,
    typer.Argument(
        help="A rule or a list of rules as YAML or JSON, - for standard input.", show_default=False
    ),
]
RuleId = Annotated[str, typer.Argument(metavar="ID", help="Of the rule.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="As JSON, for programs.")]


@app.callback()
def rules() -> None:
    """Analysts' rules: put, look, switch, delete, and test on recorded transactions."""


@app.command()
def put(
    file: File,
    days: Annotated[
        int | None, typer.Option(min=1, help="Let the rules expire after so many days.", show_default=False)
    ] = None,
    bootstrap: kafka.Bootstrap = kafka.LOCAL_BROKER,
    topic_prefix: kafka.TopicPrefix = "",
    kafka_set: kafka.ClientSettings = None,
) -> None:
    """Set rules, or newer versions of them, in all running jobs.

    Where the file gives no version, the next one is taken. Nothing is sent where one of them is no good.
    """
    ends = {} if days is None else {"expires_at": control.now_ms() + days * DAY_MS}
    found = [draft._replace(members=draft.members | ends) for draft in drafts(file)]
    for draft in found:  # what is wrong in the file is told without a broker
        control.rule_record(Ruleset(), draft.rule(1), control.now_ms())
    topics = _topics(bootstrap, topic_prefix, kafka_set)
    held = control.held_rules(topics)
    ruleset = control.ruleset_of(held)
    new = []
    for draft in found:
        known = held.get(str(draft.members.get("rule_id")), Held(None, None)).rule
        rule = draft.rule(known.version + 1 if known else 1)
        if known and rule == msgspec.structs.replace(known, version=rule.version):
            out.print(f"rule {rule.rule_id}, version {known.version}: unchanged", highlight=False)
            continue
        new.append((rule, control.rule_record(ruleset, rule, control.now_ms())))
    for rule, payload in new:
        _tell(control.send_rule(topics, rule, payload))


@app.command("list")
def list_rules(
    json: Json = False,
    bootstrap: kafka.Bootstrap = kafka.LOCAL_BROKER,
    topic_prefix: kafka.TopicPrefix = "",
    kafka_set: kafka.ClientSettings = None,
) -> None:
    """List the rules that the topic holds."""
    held = control.held_rules(_topics(bootstrap, topic_prefix, kafka_set))
    if json:
        _print_json([_described(rule_id, one) for rule_id, one in sorted(held.items())])
        return
    if not held:
        out.print("there are no rules")
        return
    table = Table(box=SIMPLE_HEAD)
    for heading in ("rule", "version", "owner", "verdict", "state", "expires (UTC)", "hits where"):
        table.add_column(heading, justify="right" if heading == "version" else "left", overflow="fold")
    for rule_id, one in sorted(held.items()):
        state = Text(one.state, STYLES[one.state])
        if one.rule is None:
            table.add_row(Text(printable(rule_id)), "", "", "", state, "", Text(printable(str(one.refused))))
            continue
        table.add_row(
            rule_id, str(one.rule.version), one.rule.owner, _verdict(one.rule), state, _ends(one.rule),
            Text(" and ".join(map(_told, one.rule.conditions))),
        )  # fmt: skip
    out.print(table)


@app.command()
def show(
    rule_id: RuleId,
    json: Json = False,
    bootstrap: kafka.Bootstrap = kafka.LOCAL_BROKER,
    topic_prefix: kafka.TopicPrefix = "",
    kafka_set: kafka.ClientSettings = None,
) -> None:
    """Show a rule whole, as YAML that `put` takes."""
    held = control.held_rules(_topics(bootstrap, topic_prefix, kafka_set))
    one = control.one_rule(held, rule_id)
    if json:
        _print_json(_described(rule_id, one))
        return
    rule = control.sound_rule(held, rule_id)
    typer.echo(f"# {', '.join(filter(None, (one.state, _verdict(rule), _ends(rule))))}")
    document = msgspec.to_builtins(rule)
    typer.echo(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100), nl=False)


@app.command()
def enable(
    rule_id: RuleId,
    live: Annotated[
        bool | None,
        typer.Option("--live/--shadow", help="Let it decide, or only report; by default as before."),
    ] = None,
    bootstrap: kafka.Bootstrap = kafka.LOCAL_BROKER,
    topic_prefix: kafka.TopicPrefix = "",
    kafka_set: kafka.ClientSettings = None,
) -> None:
    """Switch a rule on, live or in shadow mode, by a newer version."""
    shadow = {} if live is None else {"shadow": not live}
    topics = _topics(bootstrap, topic_prefix, kafka_set)
    _tell(control.switch_rule(topics, rule_id, enabled=True, **shadow))


@app.command()
def disable(
    rule_id: RuleId,
    bootstrap: kafka.Bootstrap = kafka.LOCAL_BROKER,
    topic_prefix: kafka.TopicPrefix = "",
    kafka_set: kafka.ClientSettings = None,
) -> None:
    """Switch a rule off, by a newer version; `enable` switches it on again."""
    _tell(control.switch_rule(_topics(bootstrap, topic_prefix, kafka_set), rule_id, enabled=False))


@app.command()
def delete(
    rule_id: RuleId,
    bootstrap: kafka.Bootstrap = kafka.LOCAL_BROKER,
    topic_prefix: kafka.TopicPrefix = "",
    kafka_set: kafka.ClientSettings = None,
) -> None:
    """Delete a rule from the topic and all running jobs, also one that they refused."""
    _tell(control.delete_rule(_topics(bootstrap, topic_prefix, kafka_set), rule_id))


@app.command("test")
def try_out(  # noqa: PLR0913, PLR0917 - each is an option of the command
    file: File,
    data: Annotated[Path, typer.Option(help="CSV or parquet file of transactions, with is_fraud or not.")],
    format: Annotated[  # noqa: A002 - the name of the option
        str, typer.Option(help="Of the data: fraudstream, handbook, paysim, sparkov.")
    ] = "fraudstream",
    columns: Annotated[
        str,
        typer.Option(
            help="Columns of the data, where its format does not know them.", metavar="WIRE=SOURCE,..."
        ),
    ] = "",
    label_delay: Annotated[
        float, typer.Option("--label-delay", min=0, max=30, help="Days until a fraud is known.")
    ] = 7.0,
    json: Json = False,
) -> None:
    """Show what rules would have hit among recorded transactions, each as if it were live."""
    from models.history import HistoryError  # noqa: PLC0415 - pandas takes a second
    from models.rule_trial import try_rules  # noqa: PLC0415
    from models.sources import read  # noqa: PLC0415

    new = [draft.rule(1) for draft in drafts(file)]
    for rule in new:
        control.rule_record(Ruleset(), rule, None)
    try:
        trial = try_rules(new, read(data, format, columns), label_delay, control.now_ms())
    except HistoryError as error:
        raise UserError(printable(str(error))) from error
    if json:
        _print_json(trial)
        return
    table = Table(box=SIMPLE_HEAD)
    for heading in ("rule", "verdict", "hits", "a day", "users", "frauds", "precision", "recall"):
        table.add_column(heading, justify="left" if heading in ("rule", "verdict") else "right")
    for rule, outcome in zip(new, trial.outcomes, strict=True):
        table.add_row(
            rule.rule_id, _verdict(rule), f"{outcome.hits:,}", f"{outcome.hits_per_day:,.1f}",
            f"{outcome.users:,}", "" if outcome.frauds is None else f"{outcome.frauds:,}",
            *("" if share is None else f"{share:.1%}" for share in (outcome.precision, outcome.recall)),
        )  # fmt: skip
    out.print(table)
    frauds = "not known which are fraud" if trial.frauds is None else f"{trial.frauds:,} frauds"
    out.print(f"{trial.transactions:,} transactions of {trial.days:,.1f} days, {frauds}", highlight=False)


def _topics(bootstrap: str, prefix: str, settings: list[str] | None) -> Topics:
    return Topics(kafka.client_config(bootstrap, settings), prefix)


def _tell(sent: Sent) -> None:
    out.print(f"{printable(sent.what)}: {sent.place}", highlight=False, markup=False)


def _verdict(rule: Rule) -> str:
    if rule.allow:
        return "approve (allow list)"
    return f"{rule.verdict} (block list)" if rule.verdict == "block" and rule.names_some else rule.verdict


def _ends(rule: Rule) -> str:
    if rule.expires_at is None:
        return ""
    return datetime.fromtimestamp(epoch_ms(rule.expires_at) / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def _told(condition: Condition) -> str:
    """A condition on one line."""
    if condition.field is None:
        return f"{condition.feature} {condition.operator} {condition.value:g}"
    values = ", ".join(condition.values[:SHOWN_VALUES])
    more = len(condition.values) - SHOWN_VALUES
    return f"{condition.field} {condition.operator} [{values}{f', {more:,} more' if more > 0 else ''}]"


def _described(rule_id: str, one: Held) -> dict[str, Any]:
    rule = {} if one.rule is None else msgspec.to_builtins(one.rule)
    return {"rule_id": rule_id, "state": one.state, "refused": one.refused} | rule


def _print_json(document: Any) -> None:
    typer.echo(msgspec.json.format(msgspec.json.encode(document)).decode())
