"""A real stack on free ports, beside whatever else runs on the machine."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import redis
from rich.console import Console

from stack import services
from stack.cluster import isolated_stack
from stack.errors import StackError
from stack.jobs import newest_checkpoint, scripts, submit_missing
from stack.people import ensure_keys
from stack.ports import free_ports, is_free
from stack.programs import flink_directories
from stack.settings import Settings
from stack.supervise import Supervisor, marked_processes
from stack.topics import ensure_topics

pytestmark = pytest.mark.stack


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    kafka, controller, flink, rpc, cache, mongo, gateway, *metrics = free_ports(7 + 3)
    settings = Settings(
        home=tmp_path / "run",
        downloads=Settings().downloads,
        taskmanagers=2,
        kafka_port=kafka,
        kafka_controller_port=controller,
        flink_port=flink,
        flink_rpc_port=rpc,
        flink_metrics_port=metrics[0],
        redis_port=cache,
        mongo_port=mongo,
        gateway_port=gateway,
    )
    yield settings
    services.down(settings.home)


def _eventually(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def _pids(statuses: list[services.ProgramStatus]) -> dict[str, int]:
    return {status.program.name: status.process.pid for status in statuses}


def test_life_of_a_stack(settings: Settings) -> None:
    first = services.up(settings, ["kafka", "flink", "redis"])
    assert [status.program.name for status in first] == [
        *("kafka", "jobmanager", "taskmanager-0", "taskmanager-1", "redis")
    ]
    assert all(status.ok for status in first)
    assert ensure_topics(settings.kafka_bootstrap) == [], "up has created every topic"

    second = services.up(settings, ["kafka"])
    assert _pids(second) == _pids(services.status(settings.home)) == _pids(first), "nothing was started again"

    killed = _pids(first)["taskmanager-1"]
    os.kill(killed, signal.SIGKILL)
    assert _eventually(lambda: not _healthy(settings, "taskmanager-1"), 15), "the loss is seen"
    assert _eventually(lambda: _healthy(settings, "taskmanager-1"), 60), "it registers again without help"
    after = _pids(services.status(settings.home))
    assert after.pop("taskmanager-1") != killed
    assert after.items() <= _pids(first).items(), "the others went on"

    assert services.down(settings.home)
    assert services.status(settings.home) == []
    assert list(marked_processes(settings.home)) == []
    ports = [port for status in first for port in status.program.ports]
    assert len(ports) == 8
    assert all(is_free(port.number) for port in ports)
    assert not services.down(settings.home), "a second time is harmless"


def _healthy(settings: Settings, name: str) -> bool:
    return next(status.ok for status in services.status(settings.home) if status.program.name == name)


def test_a_killed_supervisord_is_replaced_and_data_stays(settings: Settings) -> None:
    services.up(settings, ["redis"])
    client = redis.Redis(port=settings.redis_port)
    client.set("kept", "yes")
    daemon = next(
        process for process in marked_processes(settings.home) if "supervisor" in " ".join(process.cmdline())
    )
    daemon.kill()
    assert _eventually(lambda: not psutil.pid_exists(daemon.pid), 10)

    [orphan] = services.status(settings.home)
    assert not orphan.ok
    assert orphan.process.state == "NOT SUPERVISED"

    [again] = services.up(settings, ["redis"])
    assert again.ok
    assert client.get("kept") == b"yes"
    assert sum(process.name() == "redis-server" for process in marked_processes(settings.home)) == 1


def test_changed_settings_start_a_program_again(settings: Settings) -> None:
    [before] = services.up(settings, ["redis"])
    [spare] = free_ports(1)
    moved = settings.model_copy(update={"redis_port": spare})

    [after] = services.up(moved, ["redis"])

    assert after.process.pid != before.process.pid
    assert redis.Redis(port=spare).ping()
    assert is_free(settings.redis_port)


def test_wipe_deletes_the_data_and_keeps_the_downloads(settings: Settings) -> None:
    services.up(settings, ["redis"])
    redis.Redis(port=settings.redis_port).set("forgotten", "yes")

    services.down(settings.home, wipe=True)
    assert not (settings.home / "data").exists()
    assert not Supervisor(settings.home).is_alive

    services.up(settings, ["redis"])
    assert redis.Redis(port=settings.redis_port).get("forgotten") is None


def test_an_answer_of_another_server_on_the_port_is_not_health(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    services.up(settings, ["redis"])
    other = settings.model_copy(update={"home": settings.home.with_name("other")})
    # The port was free when it was looked at and lost before the start.
    monkeypatch.setattr(services, "_require_free_ports", lambda *_: None)
    monkeypatch.setattr(services, "_HEALTHY_WITHIN_SECONDS", 5.0)
    try:
        with pytest.raises(StackError, match=f"port {settings.redis_port} is taken by pid"):
            services.up(other, ["redis"])
    finally:
        services.down(other.home)

    [first] = services.status(settings.home)
    assert first.ok, "the other stack's end did not touch this one"


@pytest.mark.slow
def test_a_killed_gateway_comes_back(settings: Settings) -> None:
    first = services.up(settings, ["kafka", "redis", "gateway"])
    assert all(status.ok for status in first)
    killed = _pids(first)["gateway"]
    os.kill(killed, signal.SIGKILL)

    assert _eventually(lambda: _healthy(settings, "gateway"), 60), "it answers again without help"
    after = _pids(services.status(settings.home))
    assert after.pop("gateway") != killed
    assert after.items() <= _pids(first).items(), "the others went on"


@pytest.mark.slow
def test_jobs_are_submitted_once_and_go_on_from_their_checkpoints() -> None:
    with isolated_stack(5, 1536, ("kafka", "flink", "redis", "mongo")) as cluster:
        names = list(scripts(cluster.settings))
        ensure_keys(cluster.settings)
        quiet = Console(quiet=True)
        assert submit_missing(cluster.settings, quiet) == names
        assert submit_missing(cluster.settings, quiet) == [], "they run"
        running = {job["name"]: job["jid"] for job in cluster.rest("/jobs/overview")["jobs"]}
        assert set(running) == set(names)
        checkpoints = flink_directories(cluster.settings)["checkpoints"]
        assert _eventually(
            lambda: all(newest_checkpoint(checkpoints, [job]) for job in running.values()), 120
        ), "each has a checkpoint"

        services.down(cluster.settings.home)
        services.up(cluster.settings, ["kafka", "flink", "redis", "mongo"])
        assert submit_missing(cluster.settings, quiet) == names, "a session cluster forgets its jobs"
        for job in cluster.rest("/jobs/overview")["jobs"]:
            restored = cluster.rest(f"/jobs/{job['jid']}/checkpoints")["latest"]["restored"]
            assert running[job["name"]] in restored["external_path"]
