"""`fraudstream contract`."""

from typing import Annotated

import msgspec
import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from cli.terminal import out
from models.reasons import CATALOGUE
from state.contract import CONTRACT_VERSION, FEATURES, N_USER

app = typer.Typer(no_args_is_help=True)


@app.callback()
def contract() -> None:
    """The feature contract between engine and models, and the reason codes over it."""


@app.command()
def features(
    json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
) -> None:
    """Show every feature in order, with its unit and definition."""
    rows = [
        {"position": i, "stage": "user" if i < N_USER else "terminal", **feature._asdict()}
        for i, feature in enumerate(FEATURES)
    ]
    if json:
        document = {"contract_version": CONTRACT_VERSION, "features": rows}
        typer.echo(msgspec.json.format(msgspec.json.encode(document)).decode())
        return
    table = Table(title=f"feature contract {CONTRACT_VERSION}", box=SIMPLE_HEAD)
    for heading in ("", "feature", "unit", "definition", "stage"):
        table.add_column(heading)
    table.columns[0].justify = "right"
    table.columns[1].no_wrap = True
    for row in rows:
        table.add_row(*(str(row[name]) for name in ("position", "name", "unit", "definition", "stage")))
    out.print(table)


@app.command()
def reasons(
    json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
) -> None:
    """Show every reason code of explanations, with the features it groups."""
    rows = [{"code": code.code, "title": code.title, "features": list(code.phrases)} for code in CATALOGUE]
    if json:
        document = {"contract_version": CONTRACT_VERSION, "reasons": rows}
        typer.echo(msgspec.json.format(msgspec.json.encode(document)).decode())
        return
    table = Table("code", "title", "features", title="reason codes", box=SIMPLE_HEAD)
    for code in CATALOGUE:
        table.add_row(code.code, code.title, ", ".join(code.phrases))
    out.print(table)
