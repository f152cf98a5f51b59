"""`fraudstream models`: the registry, the signatures, and what running jobs are told to load."""

import getpass
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from cli import kafka, safe_mode
from cli.artefacts import Listing, Verification, print_listing, print_manifest, shown, signature
from cli.control import By, tell
from cli.terminal import UserError, out, printable
from cli.trust import AllowUnsigned, TrustedKeys, keyring
from events.control import ModelUpdate, Thresholds
from models import registry as artefacts
from models.artefact import ModelRefusedError, sign_artefact
from models.card import card
from models.registry import ARTEFACTS, RegistryError
from models.signing import TRUSTED_KEYS, KeyFileError, Keyring, generate_keys, read_private_key
from serving import broker, control
from serving.control import MODEL_UPDATES, Sent, Topics
from serving.errors import BrokerError

app = typer.Typer(no_args_is_help=True)
app.add_typer(safe_mode.app, name="safe-mode")

GLANCE_S = 3.0
"""How long `list` waits for a broker: it has much to show without one."""

Registry = Annotated[
    Path,
    typer.Option(
        "--registry",
        envvar="FRAUDSTREAM_REGISTRY",
        help="Folder of the artefacts.",
        show_default="models/artefacts",
    ),
]
Artefact = Annotated[
    str,
    typer.Argument(
        metavar="VERSION|DIR",
        help="A version in the registry, or the folder of an artefact.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="As JSON, for programs.")]


@app.callback()
def models() -> None:
    """The registry of models: look, verify, sign, promote, roll back."""


@app.command("list")
def list_artefacts(  # noqa: PLR0913, PLR0917 - each is an option of the command
    registry: Registry = ARTEFACTS,
    json: Json = False,
    trusted_keys: TrustedKeys = TRUSTED_KEYS,
    allow_unsigned: AllowUnsigned = False,
    bootstrap: kafka.Bootstrap = kafka.LOCAL_BROKER,
    topic_prefix: kafka.TopicPrefix = "",
    kafka_set: kafka.ClientSettings = None,
) -> None:
    """List the artefacts, and which of them is promoted."""
    topics = Topics(kafka.client_config(bootstrap, kafka_set), topic_prefix)
    try:
        found = artefacts.entries(registry, keyring(trusted_keys, allow_unsigned))
    except RegistryError as error:
        raise UserError(str(error)) from error
    current, unknown = None, None
    try:
        current = control.in_force(topics, "model", GLANCE_S)
    except BrokerError as error:
        unknown = str(error)
    promoted = current.artefact if current is not None else None
    listing = Listing(str(registry), promoted, unknown, list(map(shown, found)))
    if json:
        _print_json(listing)
    else:
        print_listing(listing)


@app.command()
def show(
    artefact: Artefact,
    registry: Registry = ARTEFACTS,
    json: Json = False,
    trusted_keys: TrustedKeys = TRUSTED_KEYS,
    allow_unsigned: AllowUnsigned = False,
) -> None:
    """Show what the manifest of an artefact says, and who signed it."""
    trusted = keyring(trusted_keys, allow_unsigned)
    found = shown(artefacts.entry(_find(registry, artefact, trusted), trusted))
    if found.manifest is None:
        raise UserError(printable(f"{found.folder}: {found.problem}"))
    if json:
        _print_json(found)
    else:
        print_manifest(found, found.manifest)


@app.command("card")
def model_card(
    artefact: Artefact,
    registry: Registry = ARTEFACTS,
    trusted_keys: TrustedKeys = TRUSTED_KEYS,
    allow_unsigned: AllowUnsigned = False,
) -> None:
    """Print the model card of an artefact, in Markdown."""
    trusted = keyring(trusted_keys, allow_unsigned)
    found = artefacts.entry(_find(registry, artefact, trusted), trusted)
    if found.manifest is None:
        raise UserError(printable(f"{found.folder}: {found.problem}"))
    for line in card(found.manifest).split("\n"):
        typer.echo(printable(line))


@app.command()
def verify(
    artefact: Artefact,
    registry: Registry = ARTEFACTS,
    json: Json = False,
    trusted_keys: TrustedKeys = TRUSTED_KEYS,
    allow_unsigned: AllowUnsigned = False,
) -> None:
    """Make every check that a job makes before it loads an artefact; the exit code is 1 where one fails."""
    trusted = keyring(trusted_keys, allow_unsigned)
    folder = _find(registry, artefact, trusted)
    try:
        manifest, signed_by = artefacts.verify(folder, trusted)
    except ModelRefusedError as error:
        if not json:
            raise UserError(printable(f"{folder}: {error}")) from error
        _print_json(Verification(str(folder), False, str(error)))
        raise typer.Exit(1) from error
    if json:
        _print_json(Verification(str(folder), True, None, manifest.model_version, signed_by))
        return
    out.print(f"{manifest.model_version}: good, {signature(signed_by)}", highlight=False, markup=False)


@app.command()
def promote(  # noqa: PLR0913, PLR0917 - each is an option of the command
    artefact: Artefact,
    registry: Registry = ARTEFACTS,
    by: By = None,
    trusted_keys: TrustedKeys = TRUSTED_KEYS,
    allow_unsigned: AllowUnsigned = False,
    bootstrap: kafka.Bootstrap = kafka.LOCAL_BROKER,
    topic_prefix: kafka.TopicPrefix = "",
    kafka_set: kafka.ClientSettings = None,
) -> None:
    """Load an artefact in all running jobs; every TaskManager must find its folder under the same path."""
    trusted = keyring(trusted_keys, allow_unsigned)
    folder = _find(registry, artefact, trusted)
    topics = Topics(kafka.client_config(bootstrap, kafka_set), topic_prefix)
    tell(control.promote(topics, folder, trusted, by or getpass.getuser()))


@app.command()
def rollback(  # noqa: PLR0913, PLR0917 - each is an option of the command
    by: By = None,
    trusted_keys: TrustedKeys = TRUSTED_KEYS,
    allow_unsigned: AllowUnsigned = False,
    bootstrap: kafka.Bootstrap = kafka.LOCAL_BROKER,
    topic_prefix: kafka.TopicPrefix = "",
    kafka_set: kafka.ClientSettings = None,
) -> None:
    """Load in all running jobs what was promoted before; once more goes a step further back."""
    trusted = keyring(trusted_keys, allow_unsigned)
    topics = Topics(kafka.client_config(bootstrap, kafka_set), topic_prefix)
    tell(control.roll_back(topics, trusted, by or getpass.getuser()))


@app.command()
def thresholds(  # noqa: PLR0913, PLR0917 - each is an option of the command
    limits: Annotated[
        str | None,
        typer.Argument(
            metavar="REVIEW,BLOCK", help="Scores from which to review and to block.", show_default=False
        ),
    ] = None,
    remove: Annotated[
        bool, typer.Option("--remove", help="Let the thresholds of the model hold again.")
    ] = False,
    by: By = None,
    bootstrap: kafka.Bootstrap = kafka.LOCAL_BROKER,
    topic_prefix: kafka.TopicPrefix = "",
    kafka_set: kafka.ClientSettings = None,
) -> None:
    """Set thresholds in all running jobs, over those of any model."""
    if (limits is None) != remove:
        raise UserError("give either REVIEW,BLOCK or --remove")
    topics = Topics(kafka.client_config(bootstrap, kafka_set), topic_prefix)
    if limits is None:
        place = broker.send(topics.config, topics.name(MODEL_UPDATES), "thresholds", None)
        tell(Sent("thresholds removed", place))
        return
    parsed = _parsed(limits)
    update = ModelUpdate(
        slot="thresholds", thresholds=parsed, issued_at=control.now_ms(), issued_by=by or getpass.getuser()
    )
    what = f"review from {parsed.review:g}, block from {parsed.block:g}"
    tell(control.send_update(topics, update, what))


@app.command()
def sign(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of the artefact.", show_default=False)
    ],
    key: Annotated[Path, typer.Option(help="Private key, as `keygen` writes it.")],
) -> None:
    """Sign an artefact, once it has passed every other check."""
    try:
        manifest = sign_artefact(folder, read_private_key(key))
    except (KeyFileError, ModelRefusedError) as error:
        raise UserError(printable(f"not signed: {error}")) from error
    except OSError as error:
        raise UserError(f"not signed: {error}") from error
    out.print(f"{manifest.model_version}: signed", highlight=False, markup=False)


@app.command()
def keygen(
    folder: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the two files are written.")],
) -> None:
    """Make a key pair: a private key to sign with, and a public key for the folders of those who trust it."""
    try:
        private, public = generate_keys(folder)
    except OSError as error:
        raise UserError(f"--out: {error}") from error
    out.print(f"private key  {private}  (keep it to yourself)", highlight=False, markup=False, soft_wrap=True)
    out.print(f"public key   {public}", highlight=False, markup=False, soft_wrap=True)


def _find(registry: Path, name: str, trusted: Keyring) -> Path:
    try:
        return artefacts.find(registry, name, trusted)
    except RegistryError as error:
        raise UserError(printable(str(error))) from error


def _parsed(text: str) -> Thresholds:
    try:
        review, block = map(float, text.split(","))
    except ValueError:
        raise UserError(f"{text!r} is not REVIEW,BLOCK") from None
    try:
        return msgspec.convert({"review": review, "block": block}, Thresholds)
    except msgspec.ValidationError as error:
        raise UserError(f"REVIEW,BLOCK: {error}") from error


def _print_json(document: msgspec.Struct) -> None:
    typer.echo(msgspec.json.format(msgspec.json.encode(document)).decode())
