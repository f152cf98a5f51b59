"""What the gateway needs before its first start: keys, and two people who may sign in."""

import subprocess
import sys

from stack.errors import StackError
from stack.settings import CHECKOUT, Settings

PEOPLE = (("admin", "admin"), ("analyst", "analyst"))
"""Name and role."""


def ensure_keys(settings: Settings) -> None:
    """Make the keys that are missing. Raises StackError where that is not possible."""
    _command(settings, "keys", "init")


def ensure_people(settings: Settings) -> list[str]:
    """Make an administrator and an analyst where there is nobody; lines with their passwords.

    Nothing keeps the passwords but hashes, so they are shown this once.
    """
    if any((settings.gateway_keys / "users").glob("*")):
        return []
    told = [_command(settings, "users", "add", name, "--role", role, "--generate") for name, role in PEOPLE]
    return [" ".join(lines.split()) for lines in told]


def _command(settings: Settings, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments, "--keys", str(settings.gateway_keys)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
        umask=0o077,
    )
    if done.returncode != 0:
        raise StackError(f"fraudstream {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout
