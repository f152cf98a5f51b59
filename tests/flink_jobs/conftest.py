import itertools
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from stack import services
from stack.settings import Settings
from tests.flink_jobs.cluster import Cluster

_prefixes = (f"t{n}." for n in itertools.count())


def _free_ports(count: int) -> list[int]:
    """Ports free right now, one after the other so that ranges do not overlap."""
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [int(s.getsockname()[1]) for s in sockets]
    for s in sockets:
        s.close()
    return ports


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    kafka, controller, flink, rpc = _free_ports(4)
    with tempfile.TemporaryDirectory(prefix="fs-") as home:
        settings = Settings(
            home=Path(home), downloads=Settings().downloads, taskmanagers=5, kafka_port=kafka,
            kafka_controller_port=controller, flink_port=flink, flink_rpc_port=rpc, flink_metrics_port=19249,
        )  # fmt: skip
        try:
            services.up(settings, ["kafka", "flink"], console=Console(quiet=True))
            yield Cluster(settings)
        finally:
            services.down(settings.home, wipe=True)


@pytest.fixture
def prefix(cluster: Cluster) -> str:
    name = next(_prefixes)
    cluster.topics(name)
    return name
