"""Fetches and builds what the services need. Everything here is done once and then skipped."""

import base64
import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from stack.errors import StackError
from stack.people import ensure_keys
from stack.programs import (
    FLINK_CONF,
    connector_jars,
    ferretdb_binary,
    flink_lib_dir,
    kafka_jars,
    pyflink_root,
)
from stack.settings import Settings

_GO_MODULE = Path(__file__).parent / "mongo"


def kafka(settings: Settings) -> None:
    """The broker's jars."""
    _require("java", "a Java 17 runtime (Debian: openjdk-17-jre-headless)")
    _copy_jars(FLINK_CONF / "kafka-pom.xml", kafka_jars(settings))


def flink(settings: Settings) -> None:
    """The Kafka connector, and a lib folder of links: the distribution's jars, Python and connector."""
    _require("java", "a Java 17 runtime (Debian: openjdk-17-jre-headless)")
    _copy_jars(FLINK_CONF / "pom.xml", connector_jars(settings))
    root = pyflink_root()
    jars = [
        *(root / "lib").glob("*.jar"),
        *(root / "opt").glob("flink-python-*.jar"),
        *connector_jars(settings).glob("*.jar"),
    ]
    lib = flink_lib_dir(settings)
    lib.mkdir(parents=True, exist_ok=True)
    wanted = {lib / jar.name: jar for jar in jars}
    for link in lib.iterdir():
        if link not in wanted or link.readlink() != wanted[link]:
            link.unlink()
    for link, jar in wanted.items():
        if not link.is_symlink():
            link.symlink_to(jar)


def mongo(settings: Settings) -> None:
    """Where mongod is not installed, FerretDB with SQLite, which speaks the same protocol."""
    if shutil.which("mongod"):
        return
    binary = ferretdb_binary(settings)
    if binary.exists():
        return
    _require("go", "Go 1.24 or newer to build FerretDB, or mongod instead of it")
    with _appearing_whole(binary.parent) as unfinished:
        _run(
            [
                # Without the backend that is not used there is less to compile.
                *("go", "build", "-trimpath", "-ldflags=-s -w", "-tags=ferretdb_no_postgresql"),
                *("-o", str(unfinished / binary.name), "."),
            ],
            "building FerretDB",
            cwd=_GO_MODULE,
        )


def redis(_settings: Settings) -> None:
    """Debian's redis-server."""
    if shutil.which("redis-server"):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise StackError(
            "redis-server is not installed: install the package redis-server "
            "(Debian, Ubuntu: sudo apt-get install redis-server)"
        )
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", "redis-server"]
    try:
        _run(install, "installing redis-server", env=environment)
    except StackError:
        # The package lists may be missing or older than the mirror.
        _run(["apt-get", "update", "-q"], "updating the package lists", env=environment)
        _run(install, "installing redis-server", env=environment)
    # The package starts a server of its own, now and after every boot. It was not there before.
    for command in (["service", "redis-server", "stop"], ["update-rc.d", "redis-server", "disable"]):
        if shutil.which(command[0]):
            subprocess.run(command, capture_output=True, check=False)


STEPS: dict[str, Callable[[Settings], None]] = {
    "kafka": kafka,
    "flink": flink,
    "redis": redis,
    "mongo": mongo,
    "gateway": ensure_keys,
    "notify": ensure_keys,
}


def format_kafka_storage(settings: Settings, properties: Path) -> None:
    """Give the broker's data directory its identity; a directory that has one is left alone."""
    if (settings.home / "data" / "kafka" / "meta.properties").exists():
        return
    cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    _run(
        [
            *("java", "-cp", f"{kafka_jars(settings)}/*", "kafka.tools.StorageTool", "format"),
            # One argument, because an identifier may begin with a hyphen.
            *(f"--cluster-id={cluster_id}", "--config", str(properties)),
        ],
        "formatting Kafka's storage",
    )


def _copy_jars(pom: Path, target: Path) -> None:
    if target.exists():
        return
    _require("mvn", "Maven (Debian: maven)")
    with _appearing_whole(target) as unfinished:
        _run(
            [
                *("mvn", "--quiet", "--batch-mode", "--file", str(pom)),
                *("dependency:copy-dependencies", f"-DoutputDirectory={unfinished}"),
            ],
            f"fetching the jars of {pom.name}",
        )


@contextmanager
def _appearing_whole(target: Path) -> Iterator[Path]:
    """A directory to fill that takes its name only when it is complete."""
    unfinished = target.with_name(f"{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    yield unfinished
    unfinished.rename(target)


def _require(command: str, what: str) -> None:
    if not shutil.which(command):
        raise StackError(f"{command} is not on the PATH: install {what}")


def _run(
    command: list[str], purpose: str, *, cwd: Path | None = None, env: dict[str, str] | None = None
) -> None:
    result = subprocess.run(
        command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", check=False,
    )  # fmt: skip
    if result.returncode != 0:
        last_lines = "\n".join(result.stdout.strip().splitlines()[-15:])
        raise StackError(f"{purpose} failed ({command[0]} exited with {result.returncode}):\n{last_lines}")
