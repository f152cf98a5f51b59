"""Analysts' rules in the scoring job, put and deleted by the command line, on a real Flink and Kafka."""

import json
import re
import time
import urllib.request
from pathlib import Path

import msgspec
import pytest

from events.decision import Decision
from events.transaction import Transaction
from stack.cluster import Cluster
from tests.cli.commands import fraudstream

pytestmark = pytest.mark.stack

BLOCK_LIST = b"""
rule_id: blocked-users
owner: analyst-7
verdict: block
all: [{field: user_id, operator: in, values: [mallory]}]
"""
ALLOW_LIST = b"""
rule_id: allowed-users
owner: analyst-7
verdict: approve
allow: true
all: [{field: user_id, operator: in, values: [mallory, carol]}]
"""
EVERY_AMOUNT = b"""
- {rule_id: any-amount, owner: analyst-7, verdict: block, all: [{feature: amount, operator: ">=", value: 0}]}
- {rule_id: watched, owner: analyst-7, verdict: block, shadow: true,
   all: [{feature: user_count_24h, operator: ">=", value: 1}]}
"""


class Job:
    """A scoring job, its topics, and what it was told and asked so far."""

    def __init__(self, cluster: Cluster, prefix: str, execution: str) -> None:
        self.cluster, self._prefix, self._execution = cluster, prefix, execution
        self.id = cluster.submit(prefix, "--execution", execution)
        self._applied = self._sent = 0

    def tell(self, *arguments: str, stdin: bytes | None = None, records: int = 1) -> None:
        """A `rules` command, and wait until the job has applied its records."""
        said = fraudstream(
            "rules", *arguments, "--bootstrap", self.cluster.bootstrap, "--topic-prefix", self._prefix,
            stdin=stdin,
        )  # fmt: skip
        assert said.status == 0, said.text
        self._applied += records
        self.cluster.until(
            lambda: self.counted("control_applied_total") >= self._applied, 60, "the job has applied it"
        )

    def counted(self, metric: str) -> int:
        return self.cluster.metric(self.id, "terminal stage", metric)

    def decide(self, user_id: str) -> Decision:
        self._sent += 1
        sent = Transaction(f"{user_id}-{self._sent}", user_id, int(time.time() * 1000), 12.5)
        self.cluster.produce(f"{self._prefix}transactions", [(user_id.encode(), msgspec.json.encode(sent))])
        found = {d.transaction_id: d for d in self.cluster.decisions(self._prefix, self._sent)}
        return found[sent.transaction_id]

    def restart(self) -> None:
        savepoint = self.cluster.stop_with_savepoint(self.id)
        self.id = self.cluster.submit(self._prefix, "--execution", self._execution, savepoint=savepoint)
        self._applied = 0


def assert_blocked_and_counted(job: Job) -> None:
    assert job.decide("mallory").decision == "approve"
    job.tell("put", "-", stdin=BLOCK_LIST)
    blocked = job.decide("mallory")
    assert (blocked.decision, blocked.rules) == ("block", ["blocked-users"])
    job.cluster.until(
        lambda: job.counted("rule.blocked_users.version.1.hits_total") == 1, 30, "the hit is counted"
    )


def test_rules_take_effect_while_the_job_runs(cluster: Cluster, prefix: str) -> None:
    job = Job(cluster, prefix, "thread")
    assert_blocked_and_counted(job)

    job.tell("put", "-", stdin=EVERY_AMOUNT, records=2)
    job.tell("put", "-", "--days", "30", stdin=ALLOW_LIST)
    carol = job.decide("carol")
    assert (carol.decision, sorted(carol.rules)) == (
        "approve", ["allowed-users", "any-amount", "watched (shadow)"],
    )  # fmt: skip

    job.restart()
    assert job.decide("mallory").decision == "block", "a block list stands over an allow list"
    cluster.until(
        lambda: job.counted("rule.watched.version.1.shadow_hits_total") == 1, 30, "shadow hits are counted"
    )
    assert_labels(cluster)

    job.tell("delete", "blocked-users")
    released = job.decide("mallory")
    assert (released.decision, sorted(released.rules)) == (
        "approve", ["allowed-users", "any-amount", "watched (shadow)"],
    )  # fmt: skip
    cluster.cancel(job.id)


@pytest.mark.slow
def test_rules_in_process_mode(cluster: Cluster, prefix: str) -> None:
    job = Job(cluster, prefix, "process")
    assert_blocked_and_counted(job)
    job.tell("delete", "blocked-users")
    assert job.decide("mallory").decision == "approve"
    cluster.cancel(job.id)


def assert_labels(cluster: Cluster) -> None:
    """Prometheus gets rule and version as labels, under the name that docs/rules.md gives."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "rules.md").read_text()
    name = re.search(r"\w+_hits_total(?=\[5m\])", page)
    assert name is not None
    settings = cluster.settings
    exposed = ""
    for port in range(settings.flink_metrics_port, settings.flink_metrics_port + settings.taskmanagers + 1):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            exposed += answer.read().decode()
    found = re.findall(rf"^{name[0]}\{{(.*)\}} (\S+)$", exposed, re.MULTILINE)
    labels = [json.loads("{" + re.sub(r'(\w+)="', r'"\1":"', text.rstrip(",")) + "}") for text, _ in found]
    assert {label["rule"] for label in labels} >= {"allowed_users"}
    assert {label["version"] for label in labels} == {"1"}
