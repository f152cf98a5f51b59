"""`fraudstream users`: who may sign in to the analyst console, and as what."""

import sys
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from cli.keys import Folder
from cli.terminal import UserError, out, printable
from models.signing import KeyFileError
from serving.gateway.folders import KEYS, users_folder
from serving.security.accounts import Accounts, PasswordError, PersonRole, new_password
from serving.security.sessions import new_session_secret

app = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="An identifier.", show_default=False)]
Generate = Annotated[bool, typer.Option("--generate", help="Make a password and print it once.")]


@app.callback()
def users() -> None:
    """People who sign in to the analyst console: add, list, remove, change a password."""


@app.command()
def add(
    name: Name,
    role: Annotated[PersonRole, typer.Option(help="What the person may do.", show_default=False)],
    generate: Generate = False,
    keys: Folder = KEYS,
) -> None:
    """Add a person; a running gateway knows them at once. Without --generate the password is asked for."""
    accounts = Accounts(users_folder(keys))
    try:
        if accounts.get(name) is not None:
            raise UserError(f"there is a user {name} already")
        password = _password(generate)
        new_session_secret(keys)
        accounts.add(name, role, password)
    except (KeyFileError, PasswordError, OSError, ValueError) as error:
        raise UserError(printable(str(error))) from error
    _told(f"user {name}, {role}", password if generate else None)


@app.command("list")
def list_users(keys: Folder = KEYS) -> None:
    """List people with their roles."""
    try:
        accounts = Accounts(users_folder(keys)).all()
    except KeyFileError as error:
        raise UserError(printable(str(error))) from error
    table = Table("user", "role", box=SIMPLE_HEAD)
    for account in accounts:
        table.add_row(account.subject, account.role)
    if not accounts:
        out.print("there is nobody yet; `fraudstream users add` adds somebody", highlight=False)
        return
    out.print(table)


@app.command()
def remove(name: Name, keys: Folder = KEYS) -> None:
    """Remove a person, which ends their sessions within seconds."""
    try:
        Accounts(users_folder(keys)).remove(name)
    except FileNotFoundError as error:
        raise UserError(f"there is no user {printable(name)}") from error
    except OSError as error:
        raise UserError(printable(str(error))) from error
    _told(f"user {name} removed")


@app.command()
def passwd(name: Name, generate: Generate = False, keys: Folder = KEYS) -> None:
    """Give a person another password, which ends their sessions within seconds."""
    accounts = Accounts(users_folder(keys))
    try:
        account = accounts.get(name)
        if account is None:
            raise UserError(f"there is no user {printable(name)}")
        password = _password(generate)
        accounts.change(account, password)
    except (KeyFileError, PasswordError, OSError) as error:
        raise UserError(printable(str(error))) from error
    _told(f"user {name}: password changed", password if generate else None)


def _password(generate: bool) -> str:
    if generate:
        return new_password()
    # An argument would stand in the list of processes.
    if not sys.stdin.isatty():
        return typer.get_text_stream("stdin").readline().rstrip("\n")
    given: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    return given


def _told(what: str, password: str | None = None) -> None:
    out.print(what, highlight=False, markup=False, soft_wrap=True)
    if password is not None:
        out.print(f"password  {password}", highlight=False, markup=False, soft_wrap=True)
