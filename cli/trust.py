"""Whose artefacts the commands take: their shared options."""

from pathlib import Path
from typing import Annotated

import typer

from cli.terminal import UserError
from models.signing import KeyFileError, Keyring

TrustedKeys = Annotated[
    Path,
    typer.Option(
        envvar="FRAUDSTREAM_TRUSTED_KEYS",
        help="Folder of the public keys, *.pub, whose artefacts are taken.",
        show_default="models/keys",
    ),
]
AllowUnsigned = Annotated[
    bool,
    typer.Option(
        "--allow-unsigned",
        envvar="FRAUDSTREAM_ALLOW_UNSIGNED",
        help="Take artefacts without a signature too; for development only.",
    ),
]


def keyring(folder: Path, allow_unsigned: bool) -> Keyring:
    """The trusted keys. Raises UserError where the folder holds none, or something else."""
    try:
        return Keyring.read(folder, allow_unsigned)
    except KeyFileError as error:
        raise UserError(f"--trusted-keys: {error}") from error
