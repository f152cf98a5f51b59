"""Runs the command line as a person does."""

from pathlib import Path
from typing import NamedTuple

import msgspec
from typer.testing import CliRunner

from cli.main import app

NOBODY = "127.0.0.1:1"
"""No broker listens here."""


class Said(NamedTuple):
    """Exit status and everything printed, with runs of white space made one blank."""

    status: int
    text: str


def fraudstream(*arguments: str | Path, stdin: bytes | None = None) -> Said:
    result = CliRunner(env={"FRAUDSTREAM_BOOTSTRAP": NOBODY}).invoke(
        app, [str(a) for a in arguments], input=stdin
    )
    # Anything but an exit would be a traceback for the user.
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return Said(result.exit_code, " ".join(result.output.split()))


def write_lines(path: Path, *records: msgspec.Struct) -> Path:
    path.write_bytes(b"".join(msgspec.json.encode(record) + b"\n" for record in records))
    return path
