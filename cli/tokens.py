"""`fraudstream tokens`: who may come to the gateway as whom, and for how long."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from cli.keys import Folder
from cli.terminal import UserError, err, out, printable
from models.signing import KeyFileError, read_private_key
from serving.gateway.folders import KEYS, tokens_folder
from serving.security import tokens as access
from serving.security.permissions import Role
from serving.security.tokens import MAX_LIFETIME_S, TokenError, TokenVerifier

app = typer.Typer(no_args_is_help=True)


@app.callback()
def tokens() -> None:
    """Access tokens of the gateway: issue, verify, revoke."""


@app.command()
def issue(
    subject: Annotated[str, typer.Argument(help="Who it is for, an identifier.", show_default=False)],
    role: Annotated[Role, typer.Option(help="What it may do.", show_default=False)],
    minutes: Annotated[int, typer.Option(min=1, max=MAX_LIFETIME_S // 60, help="How long it lives.")] = 60,
    key: Annotated[
        Path | None,
        typer.Option(help="Private key, as `keys init` writes it.", show_default="the newest in --keys"),
    ] = None,
    keys: Folder = KEYS,
) -> None:
    """Print a new token; what it is goes to standard error, so that a script can take the one alone."""
    try:
        token, claims = access.issue(read_private_key(key or _newest(keys)), subject, role, minutes * 60)
    except (KeyFileError, ValueError) as error:
        raise UserError(printable(str(error))) from error
    ends = datetime.fromtimestamp(claims.exp, UTC).strftime("%Y-%m-%d %H:%M:%S")
    err.print(f"{subject}, {role}, id {claims.jti}, until {ends} UTC", highlight=False, soft_wrap=True)
    typer.echo(token)


@app.command()
def verify(
    keys: Folder = KEYS,
) -> None:
    """Say whose token comes on standard input; the exit code is 1 where it proves nothing."""
    # An argument would stand in the list of processes.
    given = typer.get_text_stream("stdin").read().strip()
    try:
        principal = TokenVerifier(tokens_folder(keys)).verify(given)
    except (KeyFileError, TokenError) as error:
        raise UserError(printable(str(error))) from error
    out.print(
        f"{principal.subject}, {principal.role}, id {principal.token_id}", highlight=False, markup=False
    )


@app.command()
def revoke(
    token_id: Annotated[str, typer.Argument(metavar="ID", help="Of the token.", show_default=False)],
    keys: Folder = KEYS,
) -> None:
    """Let a token prove nothing from now on, at every gateway that reads this folder."""
    try:
        access.revoke(tokens_folder(keys), token_id)
    except (OSError, ValueError) as error:
        raise UserError(printable(str(error))) from error
    out.print(f"token {token_id} revoked", highlight=False, markup=False)


def _newest(keys: Path) -> Path:
    found = sorted(tokens_folder(keys).glob("*.key"), key=lambda path: path.stat().st_mtime_ns)
    if not found:
        raise UserError(f"{keys}: there is no private key; `fraudstream keys init` makes one")
    return found[-1]
