"""`fraudstream events`."""

import typer

from cli.terminal import UserError, out
from events.__main__ import FOLDER, main, stale

app = typer.Typer(no_args_is_help=True)


@app.callback()
def events() -> None:
    """The AsyncAPI document and the Avro schemas, which are generated from the structs of `events/`."""


@app.command()
def check() -> None:
    """Name the generated files that are stale; the exit code is 1 when there are any."""
    names = stale(FOLDER)
    if names:
        raise UserError(f"stale, `fraudstream events generate` writes them anew: {', '.join(names)}")
    out.print("the generated files are up to date")


@app.command()
def generate() -> None:
    """Write the generated files anew."""
    main(["generate"])
    out.print(f"written to {FOLDER}", highlight=False, soft_wrap=True)
