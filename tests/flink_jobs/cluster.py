"""A real Kafka and a real Flink for the tests of the jobs, and what one does with them."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import psutil
from confluent_kafka import Consumer, Producer, TopicPartition

from events.decision import DeadLetter, Decision
from stack.programs import flink_environment
from stack.settings import Settings
from stack.topics import ensure_topics

JOB = Path(__file__).resolve().parents[2] / "flink_jobs" / "scoring.py"
Record = TypeVar("Record", bound=msgspec.Struct)


class Cluster:
    """One stack, shared by the tests; each test has topics of its own by a prefix."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.bootstrap = settings.kafka_bootstrap

    def topics(self, prefix: str, partitions: int = 4) -> None:
        ensure_topics(self.bootstrap, partitions=partitions, prefix=prefix)

    def flink(self, *arguments: str, timeout: float = 180) -> str:
        """What `flink ARGUMENTS` prints; AssertionError with all of it where it fails."""
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
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def submit(self, prefix: str, *options: str, savepoint: str | None = None, wait: bool = True) -> str:
        """Submit the scoring job; the id of the job, running."""
        resume = ("-s", savepoint) if savepoint is not None else ()
        printed = self.flink(
            "run", "-d", *resume, "-py", str(JOB),
            "--bootstrap", self.bootstrap, "--topic-prefix", prefix, "--group", f"{prefix}group",
            "--max-future-s", "3000000000", *options,
        )  # fmt: skip
        found = re.search(r"JobID ([0-9a-f]{32})", printed)
        assert found is not None, printed
        if wait:
            self.until(lambda: self.running(found[1]), 90, "the job runs")
        return found[1]

    def rest(self, path: str, method: str = "GET") -> Any:
        request = urllib.request.Request(f"{self.settings.flink_url}{path}", method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
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
        assert found is not None, printed
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
        assert producer.flush(60) == 0
        return sent

    def read(self, topic: str, record_type: type[Record], enough: int, timeout: float = 120) -> list[Record]:
        """All records of a topic from its beginning, once at least `enough` are there and no more come."""
        return [msgspec.json.decode(value, type=record_type) for _, value in self.raw(topic, enough, timeout)]

    def raw(self, topic: str, enough: int, timeout: float = 120) -> list[tuple[bytes | None, bytes]]:
        """Keys and values, see `read`."""
        consumer = Consumer(
            {"bootstrap.servers": self.bootstrap, "group.id": "tests", "enable.auto.commit": False}
        )
        partitions = consumer.list_topics(topic).topics[topic].partitions
        consumer.assign([TopicPartition(topic, p, 0) for p in partitions])
        found: list[tuple[bytes | None, bytes]] = []
        deadline, quiet = time.monotonic() + timeout, 2.0
        last = time.monotonic()
        while time.monotonic() < deadline and not (len(found) >= enough and time.monotonic() - last > quiet):
            for message in consumer.consume(10_000, timeout=0.5):
                assert message.error() is None, message.error()
                found.append((message.key(), message.value() or b""))
                last = time.monotonic()
        consumer.close()
        assert len(found) >= enough, f"{topic}: {len(found)} of {enough} records after {timeout} s"
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
            assert time.monotonic() - start < seconds, f"not within {seconds} s: {what}"
            time.sleep(0.2)
        return time.monotonic() - start


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
