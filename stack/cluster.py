"""What one does with the jobs and topics of a running stack: tests and measurements drive it by this."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import psutil
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from rich.console import Console

from events.decision import DeadLetter, Decision
from stack import services
from stack.errors import StackError
from stack.ports import free_ports
from stack.programs import flink_environment
from stack.settings import Settings
from stack.topics import ensure_topics

JOBS = Path(__file__).resolve().parent.parent / "flink_jobs"
SCORING, LEARNING, SERVING = (JOBS / f"{name}.py" for name in ("scoring", "learning", "serving"))
Record = TypeVar("Record", bound=msgspec.Struct)


class Cluster:
    """One stack, shared by the tests; each test has topics of its own by a prefix."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.bootstrap = settings.kafka_bootstrap

    def topics(self, prefix: str, partitions: int = 4) -> None:
        ensure_topics(self.bootstrap, partitions=partitions, prefix=prefix, timeout=60)

    def flink(self, *arguments: str, timeout: float = 180) -> str:
        """What `flink ARGUMENTS` prints; StackError with all of it where it fails."""
        environment = {
            **os.environ,
            **flink_environment(self.settings),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        flink = Path(environment["FLINK_HOME"]) / "bin" / "flink"
        done = subprocess.run(
            [str(flink), *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode != 0:
            raise StackError(done.stdout + done.stderr)
        return done.stdout

    def submit(
        self,
        prefix: str,
        *options: str,
        savepoint: str | None = None,
        wait: bool = True,
        script: Path = SCORING,
        configuration: Mapping[str, str] | None = None,
    ) -> str:
        """Submit the scoring job, or another script with its options; the id of the job, running."""
        resume = ("-s", savepoint) if savepoint is not None else ()
        flink_options = (f"-D{name}={value}" for name, value in (configuration or {}).items())
        printed = self.flink(
            "run", "-d", *resume, *flink_options, "-py", str(script),
            "--bootstrap", self.bootstrap, "--topic-prefix", prefix, *options,
        )  # fmt: skip
        found = re.search(r"JobID ([0-9a-f]{32})", printed)
        if found is None:
            raise StackError(printed)
        if wait:
            self.until(lambda: self.running(found[1]), 90, "the job runs")
        return found[1]

    def rest(self, path: str, method: str = "GET") -> Any:
        request = urllib.request.Request(f"{self.settings.flink_url}{path}", method=method)  # noqa: S310
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - http, by the settings
            return json.loads(answer.read() or b"{}")

    def state(self, job: str) -> str:
        return str(self.rest(f"/jobs/{job}")["state"])

    def running(self, job: str) -> bool:
        """All tasks of the job run."""
        detail = self.rest(f"/jobs/{job}")
        return detail["state"] == "RUNNING" and all(v["status"] == "RUNNING" for v in detail["vertices"])

    def cancel(self, job: str) -> None:
        if self.state(job) in ("FINISHED", "CANCELED", "FAILED"):
            return
        self.rest(f"/jobs/{job}?mode=cancel", "PATCH")
        self.until(lambda: self.state(job) == "CANCELED", 60, "the job ends")

    def stop_with_savepoint(self, job: str) -> str:
        """Stop the job; the path of its savepoint."""
        printed = self.flink("stop", job)
        found = re.search(r"Savepoint completed. Path: (\S+)", printed)
        if found is None:
            raise StackError(printed)
        return found[1]

    def metric(self, job: str, vertex_name: str, metric: str) -> int:
        """A counter of ours, summed over the subtasks of the vertex whose name contains `vertex_name`."""
        total = 0
        for vertex in self.rest(f"/jobs/{job}")["vertices"]:
            if vertex_name in vertex["name"]:
                path = f"/jobs/{job}/vertices/{vertex['id']}/subtasks/metrics"
                names = [m["id"] for m in self.rest(path) if m["id"].endswith(metric)]
                for name in names:
                    total += sum(int(m["sum"]) for m in self.rest(f"{path}?get={name}&agg=sum"))
        return total

    def taskmanagers_of(self, job: str) -> set[int]:
        """Process ids of the TaskManagers that run the job's tasks."""
        busy = set()
        for vertex in self.rest(f"/jobs/{job}")["vertices"]:
            for task in self.rest(f"/jobs/{job}/vertices/{vertex['id']}")["subtasks"]:
                busy.add(task["taskmanager-id"])
        return {
            process.pid
            for process in psutil.process_iter(["cmdline"])
            for name in busy
            if f"-Dtaskmanager.resource-id={name}" in " ".join(process.info["cmdline"] or [])
            and str(self.settings.home) in " ".join(process.info["cmdline"] or [])
        }

    def produce(self, topic: str, records: Iterable[tuple[bytes | None, bytes | None]]) -> int:
        """Send records (key, value) in order; how many."""
        producer = Producer(
            {"bootstrap.servers": self.bootstrap, "linger.ms": 5, "message.max.bytes": 4 << 20}
        )
        sent = 0
        for key, value in records:
            while True:
                try:
                    producer.produce(topic, value, key)
                    break
                except BufferError:
                    producer.poll(0.1)
            sent += 1
        if producer.flush(60):
            raise StackError(f"{topic}: records not delivered within 60 s")
        return sent

    def read(self, topic: str, record_type: type[Record], enough: int, timeout: float = 120) -> list[Record]:
        """All records of a topic from its beginning, once at least `enough` are there and no more come."""
        return [msgspec.json.decode(value, type=record_type) for _, value in self.raw(topic, enough, timeout)]

    def count(self, topic: str) -> int:
        """How many records a topic has."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "count"})
        partitions = consumer.list_topics(topic).topics[topic].partitions
        ends = [consumer.get_watermark_offsets(TopicPartition(topic, p))[1] for p in partitions]
        consumer.close()
        return sum(ends)

    def raw(self, topic: str, enough: int, timeout: float = 120) -> list[tuple[bytes | None, bytes]]:
        """Keys and values, see `read`."""
        return [(message.key(), message.value() or b"") for message in self.messages(topic, enough, timeout)]

    def messages(self, topic: str, enough: int, timeout: float = 120) -> list[Message]:
        """The records as Kafka gives them, see `read`."""
        consumer = Consumer(
            {"bootstrap.servers": self.bootstrap, "group.id": "tests", "enable.auto.commit": False}
        )
        partitions = consumer.list_topics(topic).topics[topic].partitions
        consumer.assign([TopicPartition(topic, p, 0) for p in partitions])
        found: list[Message] = []
        deadline, quiet = time.monotonic() + timeout, 2.0
        last = time.monotonic()
        while time.monotonic() < deadline and not (len(found) >= enough and time.monotonic() - last > quiet):
            for message in consumer.consume(10_000, timeout=0.5):
                if message.error() is not None:
                    raise StackError(f"{topic}: {message.error()}")
                found.append(message)
                last = time.monotonic()
        consumer.close()
        if len(found) < enough:
            raise StackError(f"{topic}: {len(found)} of {enough} records after {timeout} s")
        return found

    def decisions(self, prefix: str, enough: int, timeout: float = 120) -> list[Decision]:
        return self.read(f"{prefix}decisions", Decision, enough, timeout)

    def dead_letters(self, prefix: str, enough: int, timeout: float = 60) -> list[DeadLetter]:
        return self.read(f"{prefix}dead-letter", DeadLetter, enough, timeout)

    @staticmethod
    def until(condition: Callable[[], bool], seconds: float, what: str) -> float:
        """Wait for a condition; how many seconds it took."""
        start = time.monotonic()
        while not condition():
            if time.monotonic() - start > seconds:
                raise StackError(f"not within {seconds} s: {what}")
            time.sleep(0.2)
        return time.monotonic() - start


@contextmanager
def isolated_stack(
    taskmanagers: int = 1, memory_mb: int = 1792, names: Sequence[str] = ("kafka", "flink")
) -> Iterator[Cluster]:
    """Services on free ports with a run directory of their own, ended and wiped at the end."""
    with tempfile.TemporaryDirectory(prefix="fs-") as home:
        # The JobManager and each TaskManager have a metrics port.
        kafka, controller, flink, rpc, redis, mongo, gateway, *metrics = free_ports(8 + taskmanagers)
        settings = Settings(
            home=Path(home),
            downloads=Settings().downloads,
            taskmanagers=taskmanagers,
            taskmanager_memory_mb=memory_mb,
            kafka_port=kafka,
            kafka_controller_port=controller,
            flink_port=flink,
            flink_rpc_port=rpc,
            flink_metrics_port=metrics[0],
            redis_port=redis,
            mongo_port=mongo,
            gateway_port=gateway,
        )
        try:
            services.up(settings, list(names), console=Console(quiet=True))
            yield Cluster(settings)
        finally:
            services.down(settings.home, wipe=True)
