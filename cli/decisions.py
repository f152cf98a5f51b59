"""`fraudstream decisions`."""

import math
from datetime import UTC, datetime
from itertools import chain, zip_longest
from typing import Annotated

import numpy as np
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Group, JustifyMethod
from rich.table import Table
from rich.text import Text

from cli import kafka
from cli.records import FileOrTopic, Limit, newest_in_file, newest_in_topic
from cli.terminal import UserError, out, printable
from events.decision import Decision
from events.types import Verdict
from state.contract import CONTRACT_VERSION, FEATURES, N_FEATURES

app = typer.Typer(no_args_is_help=True)

STYLES: dict[Verdict, str] = {"approve": "green", "review": "yellow", "block": "bold red"}

NARROW = 110  # columns of the terminal


@app.callback()
def decisions() -> None:
    """Decisions of the scoring job."""


@app.command()
def show(  # noqa: PLR0913, PLR0917 - each is an option of the command
    file: FileOrTopic = None,
    limit: Limit = 20,
    features: Annotated[
        bool, typer.Option("--features", help="Also the features, by name and unit.")
    ] = False,
    user: Annotated[str | None, typer.Option(help="Only of this user.", show_default=False)] = None,
    transaction: Annotated[
        str | None, typer.Option(help="Only on this transaction.", show_default=False)
    ] = None,
    verdict: Annotated[
        str | None, typer.Option(help="Only approve, review or block.", show_default=False)
    ] = None,
    bootstrap: kafka.Bootstrap = kafka.LOCAL_BROKER,
    topic_prefix: kafka.TopicPrefix = "",
    kafka_set: kafka.ClientSettings = None,
) -> None:
    """Show the newest decisions of a file, or of the topic decisions."""
    if verdict is not None and verdict not in STYLES:
        raise UserError(f"--verdict: {verdict!r} is not one of {', '.join(STYLES)}")

    def wanted(decision: Decision) -> bool:
        return (
            user in (None, decision.user_id)
            and transaction in (None, decision.transaction_id)
            and verdict in (None, decision.decision)
        )

    total = None
    if file is not None:
        chosen, total = newest_in_file(file, Decision, limit, wanted)
    else:
        config = kafka.client_config(bootstrap, kafka_set)
        filtered = wanted if user or transaction or verdict else None
        chosen = newest_in_topic(config, f"{topic_prefix}decisions", Decision, limit, filtered)
    if not chosen:
        raise UserError("no such decision" if user or transaction or verdict else "there are no decisions")
    out.print(_overview(chosen))
    if total is not None:
        out.print(f"{len(chosen):,} of {total:,} decisions", highlight=False)
    if features:
        for decision in chosen:
            out.print(_features(decision))


def _overview(chosen: list[Decision]) -> Table:
    table = Table(box=SIMPLE_HEAD)
    for heading in (
        "event time (UTC)",
        "transaction",
        "user",
        "amount",
        "decision",
        "score",
        "model",
        "notes",
    ):
        justify: JustifyMethod = "right" if heading in ("amount", "score") else "left"
        table.add_column(heading, justify=justify, overflow="fold")
    for d in chosen:
        flags = [name for name, on in (("degraded", d.degraded), ("late", d.late)) if on]
        table.add_row(
            _time(d.event_time),
            _safe(d.transaction_id),
            _safe(d.user_id),
            f"{d.amount:,.2f} {printable(d.currency or '')}".rstrip(),
            Text(d.decision, STYLES[d.decision]),
            f"{d.score:.4f}",
            _safe(d.model_version),
            _safe(", ".join(flags + d.rules)),
        )
    return table


def _features(decision: Decision) -> Group:
    """The feature vector with names and units. Raises UserError where it is of another contract."""
    name = printable(decision.transaction_id)
    if decision.contract_version != CONTRACT_VERSION:
        raise UserError(
            f"{name}: features of contract {decision.contract_version}; this program knows {CONTRACT_VERSION}"
        )
    if len(decision.features) != 4 * N_FEATURES:
        raise UserError(f"{name}: {len(decision.features)} bytes are not {N_FEATURES} features of float32")
    values = np.frombuffer(decision.features, "<f4").tolist()
    rows = [
        (feature.name, "missing" if math.isnan(value) else f"{value:,.6g}", feature.unit)
        for feature, value in zip(FEATURES, values, strict=True)
    ]
    side_by_side = 1 if out.width < NARROW else 2
    table = Table(box=SIMPLE_HEAD)
    for _ in range(side_by_side):
        table.add_column("feature", no_wrap=True)
        table.add_column("value", justify="right", no_wrap=True)
        table.add_column("unit", no_wrap=True)
    height = -(-len(rows) // side_by_side)
    for row in zip_longest(*(rows[i : i + height] for i in range(0, len(rows), height)), fillvalue=("",) * 3):
        table.add_row(*chain(*row))
    return Group(Text(f"\n{name}", "bold"), table)


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _safe(text: str) -> Text:
    return Text(printable(text))
