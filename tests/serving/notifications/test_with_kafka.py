"""`fraudstream notify` as a process, with a real broker: ended at any moment, it loses no alert."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from events.alert import Alert
from serving.security.personal import new_secrets
from stack.cluster import Cluster, isolated_stack
from stack.ports import free_ports
from tests.serving.notifications.receivers import HttpReceiver, eventually
from tests.serving.notifications.samples import alert, encoded

pytestmark = pytest.mark.stack

ROUTES = """
[targets.desk]
url_env = "DESK_URL"
per_minute = 6000
longest_wait_s = 0.2

[[routes]]
name = "all"
targets = ["desk"]
suppress_minutes = 0
"""


@pytest.fixture(scope="module")
def kafka() -> Iterator[Cluster]:
    with isolated_stack(names=("kafka",)) as running:
        yield running


class Process:
    """The command, started again and again in one folder."""

    def __init__(self, folder: Path, bootstrap: str, prefix: str, url: str) -> None:
        (self.metrics_port,) = free_ports(1)
        self.log = folder / "notify.log"
        (folder / "routes.toml").write_text(ROUTES)
        new_secrets(folder / "keys")
        self._arguments = [
            *(sys.executable, "-m", "cli.main", "notify", "--routes", str(folder / "routes.toml")),
            *("--state", str(folder / "state"), "--keys", str(folder / "keys")),
            *("--bootstrap", bootstrap, "--topic-prefix", prefix),
            *("--metrics-port", str(self.metrics_port)),
        ]
        self._environment = os.environ | {"DESK_URL": url}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._arguments, stdout=log, stderr=log, env=self._environment)

    def end(self, how: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(how)
        return self._process.wait(60)


def committed(kafka: Cluster, topic: str) -> int:
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "fraudstream-notify"})
    places = consumer.committed([TopicPartition(topic, n) for n in range(4)], timeout=30)
    consumer.close()
    return sum(max(place.offset, 0) for place in places)


def send(kafka: Cluster, topic: str, alerts: list[Alert]) -> None:
    kafka.produce(
        topic, ((one.user_id.encode(), value) for one, value in zip(alerts, encoded(*alerts), strict=True))
    )


def ids(receiver: HttpReceiver) -> list[str]:
    lines = (line for post in receiver.posts for line in post.body["message"].splitlines())
    return [line.removeprefix("Alert: ") for line in lines if line.startswith("Alert: ")]


def test_no_alert_is_lost_however_the_process_ends(kafka: Cluster, tmp_path: Path) -> None:
    kafka.topics("n1.")
    receiver = HttpReceiver()
    receiver.start()
    process = Process(tmp_path, kafka.bootstrap, "n1.", f"json://127.0.0.1:{receiver.port}")

    send(kafka, "n1.alerts", [alert(n) for n in range(300)])
    process.start()
    eventually(lambda: len(receiver.posts) >= 20, "it sends")
    process.end(signal.SIGKILL)
    receiver.stop()
    send(kafka, "n1.alerts", [alert(n) for n in range(300, 400)])
    process.start()
    eventually(lambda: committed(kafka, "n1.alerts") == 400, "all is taken in while the target is down")
    assert process.end(signal.SIGTERM) == 0

    receiver.start()
    process.start()
    # The serving job tells of an alert again after a failure of its own.
    send(kafka, "n1.alerts", [alert(n) for n in range(350, 360)])
    eventually(lambda: len(set(ids(receiver))) == 400, "all arrive")
    eventually(lambda: committed(kafka, "n1.alerts") == 410, "and those that were known are done with")
    assert process.end(signal.SIGTERM) == 0
    receiver.stop()

    found = ids(receiver)
    assert set(found) == {f"alert-{n}" for n in range(400)}
    assert len(found) <= 401, "killed once in the middle of a message, it sends that one again"
    assert b"user-7" not in process.log.read_bytes()
    assert b"Traceback" not in process.log.read_bytes()


def test_a_command_that_cannot_work_says_why(tmp_path: Path) -> None:
    process = Process(tmp_path, "127.0.0.1:1", "", "telegram://s3cret")
    process.start()

    assert process.end(signal.SIGCONT) == 1
    assert "targets.desk.url_env: DESK_URL begins with none of" in process.log.read_text()
    assert "s3cret" not in process.log.read_text()
