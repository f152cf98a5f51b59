"""The scoring job on a real Flink and a real Kafka."""

import collections
import functools
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from bad_inputs import BAD_INPUTS

from events.decision import Anomaly, Decision
from events.transaction import Transaction
from simulator.columns import encode_transactions
from simulator.config import SimulationConfig
from simulator.simulation import simulate
from stack.cluster import Cluster
from state.columns import field_values, transaction_array
from state.contract import FEATURE_NAMES, N_USER
from state.replay import replay

pytestmark = pytest.mark.stack
FIRST = Path(__file__).resolve().parents[2] / "models" / "artefacts" / "first"


def history(
    days: int = 6, users: int = 400, seed: int = 3
) -> tuple[list[tuple[bytes, bytes]], list[Transaction]]:
    """Simulated records (key, JSON) in order of time, and the transactions in them."""
    frame = simulate(SimulationConfig(users=users, terminals=200, days=days, seed=seed)).transactions
    values = encode_transactions(frame)
    decoded = [msgspec.json.decode(value, type=Transaction) for value in values]
    return [(t.user_id.encode(), value) for t, value in zip(decoded, values, strict=True)], decoded


def offline(transactions: list[Transaction]) -> dict[str, bytes]:
    """User features of each transaction, by the offline engine."""
    array = transaction_array([field_values(t) for t in transactions])
    _, user = np.unique([t.user_id for t in transactions], return_inverse=True)
    features = replay(array, user.astype(np.int64), np.full(len(transactions), -1, np.int64)).features
    return {t.transaction_id: row[:N_USER].tobytes() for t, row in zip(transactions, features, strict=True)}


def user_features(decision: Decision) -> bytes:
    return decision.features[: 4 * N_USER]


def assert_equal_offline(decisions: list[Decision], transactions: list[Transaction]) -> None:
    assert len(decisions) == len(transactions), "one decision per transaction"
    expected = offline(transactions)
    assert {d.transaction_id for d in decisions} == set(expected)
    wrong = [d.transaction_id for d in decisions if user_features(d) != expected[d.transaction_id]]
    assert not wrong, f"{len(wrong)} of {len(expected)} differ, first {wrong[0]}"


@pytest.mark.parametrize(
    "options",
    [
        ("--batch-ms", "5"),
        ("--batch-ms", "50", "--width", "2", "--shards", "4"),
        ("--batch-ms", "20", "--bounded"),
    ],
    ids=["live", "two wide", "bounded"],
)
def test_one_decision_each_with_the_features_of_the_offline_engine(
    cluster: Cluster, prefix: str, options: tuple[str, ...]
) -> None:
    records, transactions = history()
    cluster.produce(f"{prefix}transactions", records)
    job = cluster.submit(prefix, *options, wait="--bounded" not in options)
    decisions = cluster.decisions(prefix, len(records))
    assert_equal_offline(decisions, transactions)
    assert {d.model_version for d in decisions} == {
        json.loads((FIRST / "manifest.json").read_text())["model_version"]
    }
    if "--bounded" in options:
        cluster.until(lambda: cluster.state(job) == "FINISHED", 60, "the bounded job ends by itself")
    cluster.cancel(job)
    for key, value in cluster.raw(f"{prefix}decisions", len(records)):
        assert key == msgspec.json.decode(value, type=Decision).user_id.encode()


def test_features_survive_a_savepoint_and_a_rescale(cluster: Cluster, prefix: str) -> None:
    records, transactions = history(seed=4)
    third = len(records) // 3
    savepoint = None
    done = 0
    for width, batch_ms in ((1, 10), (2, 5), (1, 50)):
        job = cluster.submit(
            prefix, "--shards", "4", "--width", str(width), "--batch-ms", str(batch_ms), savepoint=savepoint
        )
        end = len(records) if done == 2 * third else done + third
        cluster.produce(f"{prefix}transactions", records[done:end])
        done = end
        cluster.decisions(prefix, done)
        savepoint = cluster.stop_with_savepoint(job)
    assert_equal_offline(cluster.decisions(prefix, len(records)), transactions)


def test_bad_input_becomes_a_dead_letter_and_the_job_goes_on(cluster: Cluster, prefix: str) -> None:
    job = cluster.submit(prefix)
    topic = f"{prefix}transactions"
    cluster.produce(topic, [(bad.key, bad.value) for bad in BAD_INPUTS])
    good = Transaction("good-1", "user-good", int(time.time() * 1000), 12.5)
    cluster.produce(topic, [(b"user-good", msgspec.json.encode(good))])
    (decision,) = cluster.decisions(prefix, 1)
    assert decision.transaction_id == "good-1"

    letters = cluster.dead_letters(prefix, len(BAD_INPUTS))
    assert len(letters) == len(BAD_INPUTS) >= 60
    expected = collections.Counter((bad.value or b"", bad.reason, bad.field) for bad in BAD_INPUTS)
    assert collections.Counter((x.payload, x.reason, x.field) for x in letters) == expected
    assert {x.topic for x in letters} == {topic}
    assert len({(x.partition, x.offset) for x in letters}) == len(letters)
    assert cluster.state(job) == "RUNNING"
    assert cluster.rest(f"/jobs/{job}/exceptions")["exceptionHistory"]["entries"] == []
    cluster.cancel(job)


def test_repeats_are_answered_once_and_conflicts_refused(cluster: Cluster, prefix: str) -> None:
    now = int(time.time() * 1000)
    first = Transaction("r-1", "user-r", now, 10.0)
    changed = Transaction("r-1", "user-r", now, 99.0)
    last = Transaction("r-2", "user-r", now + 1000, 11.0)
    cluster.produce(
        f"{prefix}transactions",
        [(b"user-r", msgspec.json.encode(t)) for t in (first, first, changed, first, last)],
    )
    job = cluster.submit(prefix)
    decisions = cluster.decisions(prefix, 2)
    assert [d.transaction_id for d in decisions] == ["r-1", "r-2"]
    count = np.frombuffer(decisions[1].features, "<f4")[FEATURE_NAMES.index("user_count_24h")]
    assert count == 2
    (letter,) = cluster.dead_letters(prefix, 1)
    assert (letter.reason, letter.field) == ("conflicting_repeat", "transaction_id")
    cluster.cancel(job)


def test_control_records_take_effect_while_running_and_bad_ones_are_refused(
    cluster: Cluster, prefix: str, tmp_path: Path
) -> None:
    job = cluster.submit(prefix, "--model", "")
    records, _ = history(days=1)

    def decide(number: int, count: int) -> list[Decision]:
        chosen = records[number : number + count]
        cluster.produce(f"{prefix}transactions", chosen)
        ids = {json.loads(value)["transaction_id"] for _, value in chosen}
        return [d for d in cluster.decisions(prefix, number + count) if d.transaction_id in ids]

    def control(topic: str, key: str, **fields: object) -> None:
        cluster.produce(f"{prefix}{topic}", [(key.encode(), json.dumps(fields).encode())])

    def counted(metric: str, enough: int) -> None:
        cluster.until(
            lambda: cluster.metric(job, "terminal stage", metric) >= enough, 60, f"{metric} reaches {enough}"
        )

    assert all(d.degraded and d.model_version.startswith("heuristic") for d in decide(0, 20))

    update = {"issued_at": int(time.time() * 1000), "issued_by": "tester"}
    control("model-updates", "model", slot="model", artefact=str(FIRST), **update)
    counted("control_applied_total", 1)
    assert not any(d.degraded or d.model_version.startswith("heuristic") for d in decide(20, 20))

    broken = tmp_path / "broken"
    broken.mkdir()
    for file in FIRST.iterdir():
        data = file.read_bytes()
        (broken / file.name).write_bytes(data[: len(data) // 2] if file.suffix == ".onnx" else data)
    control("model-updates", "model", slot="model", artefact=str(broken), **update)
    control("rules", "r-1", rule_id="r-1", version=1, owner="o", feature="no_such", operator=">", value=1,
            verdict="block")  # fmt: skip
    counted("control_refused_total", 2)
    assert not any(d.degraded for d in decide(40, 20))
    refusals = [x for x in cluster.dead_letters(prefix, 2) if x.reason == "control_refused"]
    assert {x.topic for x in refusals} == {f"{prefix}model-updates", f"{prefix}rules"}

    control("model-updates", "thresholds", slot="thresholds", thresholds={"review": 0, "block": 0}, **update)
    counted("control_applied_total", 2)
    assert {d.decision for d in decide(60, 20)} == {"block"}
    anomalies = cluster.read(f"{prefix}anomalies", Anomaly, 20)
    assert {a.transaction.transaction_id for a in anomalies} >= {
        json.loads(v)["transaction_id"] for _, v in records[60:80]
    }

    cluster.produce(f"{prefix}model-updates", [(b"thresholds", None)])
    counted("control_applied_total", 3)
    control("rules", "r-2", rule_id="r-2", version=1, owner="o", feature="amount", operator=">=", value=0,
            verdict="review")  # fmt: skip
    counted("control_applied_total", 4)
    assert all(d.decision != "approve" and d.rules == ["r-2"] for d in decide(80, 20))
    cluster.cancel(job)


def test_killed_taskmanagers_lose_nothing_and_repeats_agree(cluster: Cluster, prefix: str) -> None:
    job = cluster.submit(prefix, "--checkpoint-s", "5")
    records, _ = history(days=30, users=5000, seed=6)
    rate = 5000
    records = records[: 40 * rate]
    assert len(records) == 40 * rate
    sent = threading.Thread(target=_paced, args=(cluster, f"{prefix}transactions", records, rate))
    sent.start()
    answered = functools.partial(cluster.count, f"{prefix}decisions")
    for pick in (max, min, max):
        cluster.until(functools.partial(_grown, answered, answered() + 2 * rate), 60, "it answers again")
        os.kill(pick(cluster.taskmanagers_of(job)), signal.SIGKILL)
        killed = time.monotonic()
        cluster.until(lambda: not cluster.running(job), 30, "the failure is noticed")
        cluster.until(lambda: cluster.running(job), 60, "the job runs again")
        print(f"running again {time.monotonic() - killed:.1f} s after the kill")
    sent.join()
    decisions = cluster.decisions(prefix, len(records))
    answers: dict[str, set[tuple[str, float, bytes]]] = collections.defaultdict(set)
    for d in decisions:
        answers[d.transaction_id].add((d.decision_id, d.score, d.features))
    assert len(answers) == len(records), "every transaction has its decision"
    assert len(decisions) > len(records), "the kills made the job answer some twice"
    contradicted = sum(len(given) > 1 for given in answers.values())
    assert not contradicted, f"{contradicted} of {len(answers)} transactions have two answers"
    cluster.cancel(job)


def _grown(count: Callable[[], int], enough: int) -> bool:
    return count() > enough


def _paced(cluster: Cluster, topic: str, records: list[tuple[bytes, bytes]], rate: int) -> None:
    start = time.monotonic()
    step = rate // 10
    for n in range(0, len(records), step):
        cluster.produce(topic, records[n : n + step])
        time.sleep(max(0.0, start + (n + step) / rate - time.monotonic()))


def test_process_mode(cluster: Cluster, prefix: str) -> None:
    records, transactions = history(days=2, users=150)
    cluster.produce(f"{prefix}transactions", records)
    job = cluster.submit(prefix, "--execution", "process")
    cluster.produce(f"{prefix}transactions", [(b"user-1", b"rubbish")])
    assert_equal_offline(cluster.decisions(prefix, len(records), timeout=180), transactions)
    assert len(cluster.dead_letters(prefix, 1)) == 1
    cluster.cancel(job)
