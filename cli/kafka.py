"""Kafka for the commands: their shared options."""

from typing import Annotated

import typer

from cli.terminal import UserError

Bootstrap = Annotated[
    str, typer.Option(envvar="FRAUDSTREAM_BOOTSTRAP", help="Kafka bootstrap servers, HOST:PORT,HOST:PORT.")
]
TopicPrefix = Annotated[
    str, typer.Option(envvar="FRAUDSTREAM_TOPIC_PREFIX", help="Put before every topic name.")
]
ClientSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--kafka-set", help="A librdkafka setting NAME=VALUE, such as security.protocol=SSL; repeatable."
    ),
]

LOCAL_BROKER = "127.0.0.1:9092"


def client_config(bootstrap: str, settings: list[str] | None) -> dict[str, str]:
    """Configuration of a librdkafka client. Raises UserError for a setting that is not NAME=VALUE."""
    config = {"bootstrap.servers": bootstrap, "log_level": "0"}
    for setting in settings or ():
        name, equals, value = setting.partition("=")
        if not (name and equals):
            raise UserError(f"--kafka-set: {setting!r} is not NAME=VALUE")
        config[name.strip()] = value.strip()
    return config
