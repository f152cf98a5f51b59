"""A taken port is reported with its holder and the variable that moves it."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack import ports, services
from stack.errors import StackError
from stack.settings import Settings


@pytest.fixture
def listening_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_listening_port_is_not_free(listening_port: int) -> None:
    assert not ports.is_free(listening_port)


def test_a_closed_port_is_free_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client, server.accept()[0]:
            assert client.getpeername()[1] == port
    assert ports.is_free(port)


def test_the_owner_is_this_process(listening_port: int) -> None:
    process = ports.owner(listening_port)

    assert process is not None
    assert process.pid == os.getpid()
    assert f"pid {os.getpid()} (" in ports.describe_owner(listening_port)


def test_up_names_the_port_its_holder_and_the_variable(listening_port: int, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "run", redis_port=listening_port)

    with pytest.raises(StackError) as raised:
        services.up(settings, ["redis"])

    message = str(raised.value)
    assert f"port {listening_port} of redis is taken by pid {os.getpid()}" in message
    assert "FRAUDSTREAM_REDIS_PORT" in message
    assert services.status(settings.home) == [], "nothing was started"


def test_every_taken_port_is_named_at_once(listening_port: int, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        settings = Settings(
            home=tmp_path / "run",
            kafka_port=listening_port,
            kafka_controller_port=other.getsockname()[1],
        )
        with pytest.raises(StackError, match=r"KAFKA_PORT.*\n.*KAFKA_CONTROLLER_PORT"):
            services.up(settings, ["kafka"])
