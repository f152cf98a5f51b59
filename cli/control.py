"""What the commands share that tell running jobs something."""

from typing import Annotated

import typer

from cli.terminal import out, printable
from serving.control import Sent

By = Annotated[str | None, typer.Option(help="Who issues it; by default the login name.", show_default=False)]


def tell(sent: Sent) -> None:
    """Print what was told, and where it lies."""
    out.print(f"{printable(sent.what)}: {sent.place}", highlight=False, markup=False, soft_wrap=True)
