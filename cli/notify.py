"""`fraudstream notify`: alerts to people."""

import os
import signal
from pathlib import Path
from typing import Annotated

import typer
from confluent_kafka import KafkaException
from prometheus_client import start_http_server

from cli.kafka import LOCAL_BROKER, Bootstrap, ClientSettings, TopicPrefix, client_config
from cli.keys import Folder
from cli.terminal import UserError, out, printable
from models.signing import KeyFileError
from serving.gateway.app import log_as_json
from serving.gateway.folders import KEYS
from serving.notifications.notifier import Notifier
from serving.notifications.outbox import OutboxError
from serving.notifications.routes import RoutesError, Routing, connect, read_routes, shown
from serving.security.personal import read_secrets

app = typer.Typer(no_args_is_help=False)

Routes = Annotated[
    Path, typer.Option(envvar="FRAUDSTREAM_NOTIFY_ROUTES", help="TOML file of targets and routes.")
]
ROUTES = Path(".run/routes.toml")


@app.callback(invoke_without_command=True)
def notify(  # noqa: PLR0913, PLR0917 - each is an option of the command
    context: typer.Context,
    routes: Routes = ROUTES,
    state: Annotated[
        Path,
        typer.Option(
            envvar="FRAUDSTREAM_NOTIFY_STATE", help="Folder of what is still to be sent; of one process."
        ),
    ] = Path(".run/notify"),
    keys: Folder = KEYS,
    group: Annotated[
        str, typer.Option(envvar="FRAUDSTREAM_NOTIFY_GROUP", help="Kafka consumer group.")
    ] = "fraudstream-notify",
    metrics_port: Annotated[
        int | None,
        typer.Option(
            envvar="FRAUDSTREAM_NOTIFY_METRICS_PORT",
            min=1,
            max=65535,
            help="For Prometheus; none by default.",
        ),
    ] = None,
    bootstrap: Bootstrap = LOCAL_BROKER,
    topic_prefix: TopicPrefix = "",
    kafka_set: ClientSettings = None,
) -> None:
    """Send alerts to chat, mail and webhooks until SIGTERM; `check` says whether it could."""
    if context.invoked_subcommand is not None:
        return
    routing = _routing(routes)
    try:
        senders = connect(routing, os.environ)
        pseudonyms, _ = read_secrets(keys)
        notifier = Notifier(routing, senders, pseudonyms, state)
    except (RoutesError, KeyFileError, OutboxError) as error:
        raise UserError(printable(str(error))) from error
    log_as_json(pseudonyms)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: notifier.stop())
    if metrics_port is not None:
        start_http_server(metrics_port, "127.0.0.1", notifier.office.metrics.registry)
    try:
        notifier.run(client_config(bootstrap, kafka_set), f"{topic_prefix}alerts", group)
    except KafkaException as error:
        raise UserError(f"Kafka: {printable(str(error.args[0]))}") from error


@app.command()
def check(routes: Routes = ROUTES) -> None:
    """Say whether the routes are good and every target's variable is set; nothing is sent."""
    routing = _routing(routes)
    try:
        senders = connect(routing, os.environ)
    except RoutesError as error:
        raise UserError(printable(str(error))) from error
    for name, sender in senders.items():
        out.print(f"target {name}: {printable(shown(sender))}", highlight=False, markup=False, soft_wrap=True)
    for route in routing.routes:
        digest = route.digest
        gathered = "" if digest is None else f", below {digest.below} every {digest.minutes:g} min"
        kinds = ", ".join(route.kinds) or "all kinds"
        out.print(
            f"route {route.name}: from {route.min_severity}, {kinds}, "
            f"to {', '.join(route.targets)}{gathered}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


def _routing(file: Path) -> Routing:
    try:
        return read_routes(file)
    except RoutesError as error:
        raise UserError(printable(str(error))) from error
