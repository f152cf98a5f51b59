"""`fraudstream rules`: analysts' rules of running jobs, and what they would have done.

What is sent was checked by the job's own code, against the rules that the topic holds. A job checks again;
what it refuses nevertheless becomes a dead letter with the reason control_refused.
"""

import time
from contextlib import suppress
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
import typer
import yaml
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from cli import kafka
from cli.control import checked
from cli.rule_files import drafts
from cli.terminal import UserError, out, printable
from events.control import Condition, Rule
from events.types import epoch_ms
from models.rules import RuleRefusedError, Ruleset
from state.contract import DAY_MS

MAX_BYTES = 1_000_000
"""Of a rule as JSON: what Kafka takes by default."""
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


class Held(NamedTuple):
    """What the topic holds of a rule: the rule, or why no job takes it."""

    rule: Rule | None
    refused: str | None

    @property
    def state(self) -> str:
        """One of the keys of STYLES."""
        if self.rule is None:
            return "refused"
        if not self.rule.enabled:
            return "disabled"
        if self.rule.expires_at is not None and epoch_ms(self.rule.expires_at) <= _now():
            return "expired"
        return "shadow" if self.rule.shadow else "live"


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
    ends = {} if days is None else {"expires_at": _now() + days * DAY_MS}
    found = [draft._replace(members=draft.members | ends) for draft in drafts(file)]
    for draft in found:  # what is wrong in the file is told without a broker
        _check(Ruleset(), draft.rule(1), _now())
    config, topic = kafka.client_config(bootstrap, kafka_set), f"{topic_prefix}rules"
    held = _held(config, topic)
    ruleset = _ruleset(held)
    new = []
    for draft in found:
        known = held.get(str(draft.members.get("rule_id")), Held(None, None)).rule
        rule = draft.rule(known.version + 1 if known else 1)
        if known and rule == msgspec.structs.replace(known, version=rule.version):
            out.print(f"rule {rule.rule_id}, version {known.version}: unchanged", highlight=False)
            continue
        new.append((rule, _check(ruleset, rule, _now())))
    for rule, payload in new:
        _send(config, topic, rule, payload)


@app.command("list")
def list_rules(
    json: Json = False,
    bootstrap: kafka.Bootstrap = kafka.LOCAL_BROKER,
    topic_prefix: kafka.TopicPrefix = "",
    kafka_set: kafka.ClientSettings = None,
) -> None:
    """List the rules that the topic holds."""
    held = _held(kafka.client_config(bootstrap, kafka_set), f"{topic_prefix}rules")
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
            table.add_row(Text(printable(rule_id)), "", "", "", state, "", Text(str(one.refused)))
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
    one = _one(_held(kafka.client_config(bootstrap, kafka_set), f"{topic_prefix}rules"), rule_id)
    if json:
        _print_json(_described(rule_id, one))
    elif one.rule is None:
        raise UserError(f"{printable(rule_id)}: refused by the jobs: {one.refused}")
    else:
        typer.echo(f"# {', '.join(filter(None, (one.state, _verdict(one.rule), _ends(one.rule))))}")
        document = msgspec.to_builtins(one.rule)
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
    _switch(
        kafka.client_config(bootstrap, kafka_set), f"{topic_prefix}rules", rule_id, enabled=True, **shadow
    )


@app.command()
def disable(
    rule_id: RuleId,
    bootstrap: kafka.Bootstrap = kafka.LOCAL_BROKER,
    topic_prefix: kafka.TopicPrefix = "",
    kafka_set: kafka.ClientSettings = None,
) -> None:
    """Switch a rule off, by a newer version; `enable` switches it on again."""
    _switch(kafka.client_config(bootstrap, kafka_set), f"{topic_prefix}rules", rule_id, enabled=False)


@app.command()
def delete(
    rule_id: RuleId,
    bootstrap: kafka.Bootstrap = kafka.LOCAL_BROKER,
    topic_prefix: kafka.TopicPrefix = "",
    kafka_set: kafka.ClientSettings = None,
) -> None:
    """Delete a rule from the topic and all running jobs, also one that they refused."""
    config, topic = kafka.client_config(bootstrap, kafka_set), f"{topic_prefix}rules"
    _one(_held(config, topic), rule_id)
    place = kafka.send(config, topic, rule_id, None)
    out.print(f"rule {printable(rule_id)} deleted: {place}", highlight=False, markup=False)


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
        _check(Ruleset(), rule, None)
    try:
        trial = try_rules(new, read(data, format, columns), label_delay, _now())
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


def _held(config: dict[str, str], topic: str) -> dict[str, Held]:
    """What the topic holds, by key."""
    return {key: _read(key, value) for key, value in kafka.latest(config, topic).items()}


def _read(key: str, value: bytes) -> Held:
    try:
        rule = checked(value, Rule)
        Ruleset().apply(rule, None)
    except (UserError, RuleRefusedError) as error:
        return Held(None, printable(str(error)))
    if rule.rule_id != key:
        return Held(None, f"it is rule {rule.rule_id} under another key")
    return Held(rule, None)


def _ruleset(held: dict[str, Held]) -> Ruleset:
    """The rules of the topic that a job would have taken."""
    ruleset = Ruleset()
    for one in held.values():
        with suppress(RuleRefusedError):
            if one.rule is not None:
                ruleset.apply(one.rule, None)
    return ruleset


def _check(ruleset: Ruleset, rule: Rule, now_ms: int | None) -> bytes:
    """The record of a rule that goes with a set of others. Raises UserError where it does not."""
    payload = msgspec.json.encode(rule)
    if len(payload) > MAX_BYTES:
        raise UserError(f"rule {rule.rule_id}: {len(payload):,} bytes as JSON, the most are {MAX_BYTES:,}")
    try:
        ruleset.apply(rule, now_ms)
    except RuleRefusedError as error:
        raise UserError(printable(str(error))) from error
    return payload


def _one(held: dict[str, Held], rule_id: str) -> Held:
    if rule_id in held:
        return held[rule_id]
    near = ", ".join(map(printable, get_close_matches(rule_id, held)))
    raise UserError(f"there is no rule {printable(rule_id)}" + (f"; near are {near}" if near else ""))


def _switch(config: dict[str, str], topic: str, rule_id: str, **members: bool) -> None:
    held = _held(config, topic)
    one = _one(held, rule_id)
    if one.rule is None:
        raise UserError(f"{printable(rule_id)}: refused by the jobs: {one.refused}")
    rule = msgspec.structs.replace(one.rule, version=one.rule.version + 1, **members)
    _send(config, topic, rule, _check(_ruleset(held), rule, _now()))


def _send(config: dict[str, str], topic: str, rule: Rule, payload: bytes) -> None:
    place = kafka.send(config, topic, rule.rule_id, payload)
    state = Held(rule, None).state
    out.print(f"rule {rule.rule_id}, version {rule.version}, {state}: {place}", highlight=False)


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


def _now() -> int:
    return round(time.time() * 1000)


def _print_json(document: Any) -> None:
    typer.echo(msgspec.json.format(msgspec.json.encode(document)).decode())
