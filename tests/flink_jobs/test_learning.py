"""The learning job on a real Flink and a real Kafka."""

import collections
import functools
import os
import random
import signal
import time
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
import pytest

from benchmarks import loop
from events import avro
from events.control import ModelUpdate, OnlineCommand
from events.decision import Decision, decision_id
from events.example import Example
from events.feedback import Feedback, Label
from online_learning.trainer import Trainer, TrainerSettings
from stack.cluster import LEARNING, Cluster
from tests.online_learning.bad_feedback import BAD_FEEDBACK, SHARED
from tests.online_learning.feedback import NOW_MS, decision, features, verdict

pytestmark = pytest.mark.stack

FEEDBACK_SCHEMA = 4


def submit(cluster: Cluster, prefix: str, *options: str, **how: object) -> str:
    keep_all = ("--keep-floor", "0", "--presume-sample", "0")
    return cluster.submit(prefix, *keep_all, *options, script=LEARNING, **how)  # type: ignore[arg-type]


def decide(cluster: Cluster, prefix: str, decisions: Iterable[Decision]) -> None:
    cluster.produce(f"{prefix}decisions", ((d.user_id.encode(), msgspec.json.encode(d)) for d in decisions))


def tell(cluster: Cluster, prefix: str, feedback: Iterable[Feedback]) -> None:
    cluster.produce(
        f"{prefix}feedback",
        ((str(f.transaction_id or f.anomaly_id).encode(), msgspec.json.encode(f)) for f in feedback),
    )


def labels(cluster: Cluster, prefix: str, enough: int) -> list[Label]:
    return cluster.read(f"{prefix}labels", Label, enough)


def examples(cluster: Cluster, prefix: str, enough: int) -> list[Example]:
    return cluster.read(f"{prefix}examples", Example, enough)


def no_exceptions(cluster: Cluster, job: str) -> bool:
    return bool(cluster.rest(f"/jobs/{job}/exceptions")["exceptionHistory"]["entries"] == [])


@pytest.mark.parametrize(
    "options",
    [
        (),
        pytest.param(
            ("--width", "2", "--shards", "4", "--batch-ms", "20", "--state-backend", "rocksdb"),
            marks=pytest.mark.slow,
        ),
        ("--bounded",),
        pytest.param(("--execution", "process"), marks=pytest.mark.slow),
    ],
    ids=["live", "two wide on rocksdb", "bounded", "process"],
)
def test_feedback_meets_its_decision_whatever_it_names(
    cluster: Cluster, prefix: str, options: tuple[str, ...]
) -> None:
    made = [decision(f"t-{n}", f"u-{n}", features=features(n), decision="block") for n in range(60)]
    topic = f"{prefix}feedback"
    tell(cluster, prefix, [verdict(f"t-{n}") for n in range(10)])
    decide(cluster, prefix, made + made[:30])
    tell(cluster, prefix, [verdict(None, anomaly_id=d.decision_id) for d in made[10:20]])
    as_avro = [avro.to_confluent(verdict(f"t-{n}"), FEEDBACK_SCHEMA) for n in range(20, 30)]
    cluster.produce(topic, [(b"t-%d" % n, value) for n, value in enumerate(as_avro, 20)])
    for key in (None, b"wrong"):
        cluster.produce(topic, [(key, msgspec.json.encode(verdict(f"t-{n}"))) for n in range(30, 40)])
    tell(cluster, prefix, [verdict(f"none-{n}") for n in range(5)])

    job = submit(cluster, prefix, "--waiting-hours", "0.002", *options, wait="--bounded" not in options)
    learnt = examples(cluster, prefix, 40)
    assert sorted(int(x.transaction_id[2:]) for x in learnt) == list(range(40))
    assert all(x.features == made[int(x.transaction_id[2:])].features for x in learnt)
    assert {x.example_id.partition("-")[0] for x in learnt} == {d.decision_id for d in made[:40]}
    said = labels(cluster, prefix, 40)
    assert sorted(x.transaction_id for x in said) == sorted(x.transaction_id for x in learnt)
    assert all(x.is_fraud and x.terminal_id == "terminal-1" and x.amount == 12.5 for x in said)
    letters = cluster.dead_letters(prefix, 5)
    assert {(x.reason, x.key) for x in letters} == {("unknown_transaction", b"none-%d" % n) for n in range(5)}
    assert len(letters) == 5
    for key, value in cluster.raw(f"{prefix}labels", 40):
        assert key == msgspec.json.decode(value, type=Label).user_id.encode()
    if "--bounded" in options:
        cluster.until(lambda: cluster.state(job) == "FINISHED", 60, "the bounded job ends by itself")
    assert no_exceptions(cluster, job)
    cluster.cancel(job)


def test_bad_feedback_becomes_a_dead_letter_and_teaches_nothing(cluster: Cluster, prefix: str) -> None:
    decide(cluster, prefix, [decision("t-1"), decision(SHARED), decision(SHARED, "u-2")])
    cluster.produce(
        f"{prefix}feedback", [(bad.key.encode() if bad.key else None, bad.value) for bad in BAD_FEEDBACK]
    )
    job = submit(cluster, prefix, "--waiting-hours", "0.001")
    letters = cluster.dead_letters(prefix, len(BAD_FEEDBACK))
    expected = collections.Counter((bad.value or b"", bad.reason, bad.field) for bad in BAD_FEEDBACK)
    assert collections.Counter((x.payload, x.reason, x.field) for x in letters) == expected
    assert len({(x.partition, x.offset) for x in letters}) == len(letters)
    assert cluster.count(f"{prefix}examples") == cluster.count(f"{prefix}labels") == 0

    tell(cluster, prefix, [verdict("t-1")])
    assert [x.transaction_id for x in examples(cluster, prefix, 1)] == ["t-1"]
    assert no_exceptions(cluster, job)
    cluster.cancel(job)


def test_labels_raise_the_scores_of_a_pattern_never_seen(cluster: Cluster, prefix: str) -> None:
    """Frauds are labelled, profiles learn of it, weights are promoted, scores rise, while both jobs run."""
    traced = loop.trace(cluster, prefix)
    print("\n".join(loop.lines(traced)))

    assert traced.by_ensemble > 0
    assert traced.promotions
    assert all(p.label_ms <= p.update_ms for p in traced.promotions)
    used = [p for p in traced.promotions if p.decision_ms is not None]
    assert used
    assert all(p.update_ms <= p.decision_ms for p in used if p.decision_ms is not None)
    before, after = traced.probes[: traced.by_ensemble], traced.probes[-50:]
    assert np.median(after) > 5 * np.median(before)
    assert np.median(after) > np.quantile(traced.ordinary, 0.99)
    assert traced.known_frauds > 0


def test_what_is_known_survives_savepoints_rescales_and_another_backend(
    cluster: Cluster, prefix: str
) -> None:
    made = [decision(f"t-{n}", f"u-{n}", features=features(n)) for n in range(300)]
    savepoint = None
    for width, backend, start in ((1, "hashmap", 0), (2, "rocksdb", 100), (1, "hashmap", 200)):
        options = ("--shards", "4", "--width", str(width), "--state-backend", backend)
        job = submit(cluster, prefix, *options, savepoint=savepoint)
        decide(cluster, prefix, made[start : start + 50])
        # Feedback on what was decided before the savepoint, and on what will be after the next one.
        tell(cluster, prefix, [verdict(f"t-{n}") for n in range(start - 50, start + 50) if n >= 0])
        examples(cluster, prefix, start + 50)
        decide(cluster, prefix, made[start + 50 : start + 100])
        cluster.until(functools.partial(_remembered, cluster, job, 100), 60, "all decisions are known")
        savepoint = cluster.stop_with_savepoint(job)
    learnt = examples(cluster, prefix, 250)
    assert sorted(int(x.transaction_id[2:]) for x in learnt) == list(range(250))
    assert all(x.features == made[int(x.transaction_id[2:])].features for x in learnt)


def _remembered(cluster: Cluster, job: str, enough: int) -> bool:
    return cluster.metric(job, "feedback join", "join_kept_total") >= enough


def test_killed_taskmanagers_lose_no_label(cluster: Cluster, prefix: str) -> None:
    job = submit(cluster, prefix, "--checkpoint-s", "3")
    count = 6_000
    made = [decision(f"t-{n}", f"u-{n}", features=features(n % 7), decision="block") for n in range(count)]
    shuffled = random.Random(4)
    said = [
        verdict(f"t-{n}") if n % 3 else verdict(None, anomaly_id=made[n].decision_id) for n in range(count)
    ]
    said += [verdict(f"t-{n}", source="chargeback", label="legitimate") for n in range(0, count, 5)]
    said += [verdict(f"t-{n}", source="customer") for n in range(0, count, 7)]
    shuffled.shuffle(said)
    steps = 12
    for step in range(steps):
        decide(cluster, prefix, made[step * count // steps : (step + 1) * count // steps])
        tell(cluster, prefix, said[step * len(said) // steps : (step + 1) * len(said) // steps])
        if step in (3, 7):
            for pid in sorted(cluster.taskmanagers_of(job)):
                os.kill(pid, signal.SIGKILL)
            cluster.until(lambda: not cluster.running(job), 30, "the failure is noticed")
            cluster.until(lambda: cluster.running(job), 90, "the job runs again")
        else:
            time.sleep(1.5)

    def last_labels() -> dict[str, bool]:
        return {x.transaction_id: x.is_fraud for x in labels(cluster, prefix, count)}

    expected = {f"t-{n}": n % 5 != 0 for n in range(count)}
    cluster.until(lambda: last_labels() == expected, 180, "every transaction has its last label")
    learnt = examples(cluster, prefix, count)
    again = collections.defaultdict(set)
    for x in learnt:
        # What is said on one transaction may lie in several partitions, whose order to one another a
        # restart does not keep: it may then correct what came after it before.
        again[x.example_id].add(msgspec.json.encode(msgspec.structs.replace(x, corrects=False)))
    assert {x.transaction_id for x in learnt} == set(expected)
    assert all(len(same) == 1 for same in again.values()), "a repeat is the same again"
    assert cluster.dead_letters(prefix, 0, timeout=5) == []

    trainer = Trainer(TrainerSettings())
    trainer.learn(learnt, NOW_MS)
    uninterrupted = promoted(trainer.command(promote(0), NOW_MS))

    def live_weights() -> tuple[list[float], ...]:
        number = cluster.count(f"{prefix}online-commands")
        cluster.produce(f"{prefix}online-commands", [(None, msgspec.json.encode(promote(number)))])
        time.sleep(1)
        values = [value for _, value in cluster.raw(f"{prefix}model-updates", 1)]
        return promoted([msgspec.json.decode(value, type=ModelUpdate) for value in values if value])

    cluster.until(lambda: live_weights() == uninterrupted, 60, "the weights of an uninterrupted run are live")
    cluster.cancel(job)


def promote(number: int) -> OnlineCommand:
    return OnlineCommand(
        command_id=f"command-{number}", command="promote", issued_at=NOW_MS, issued_by="tester"
    )


def promoted(outcomes: Sequence[object]) -> tuple[list[float], ...]:
    """The numbers of the last weights that went out."""
    updates = [update.online for update in outcomes if isinstance(update, ModelUpdate) and update.online]
    if not updates:
        return ()
    last = updates[-1]
    return last.weight, last.centre, last.scale, [last.offline, last.bias, last.share]


@pytest.mark.slow
def test_state_may_be_larger_than_its_memory(cluster: Cluster, prefix: str) -> None:
    memory, count = 8 << 20, 150_000
    configuration = {"state.backend.rocksdb.memory.fixed-per-slot": f"{memory}b"}
    options = ("--state-backend", "rocksdb", "--checkpoint-s", "5")
    job = submit(cluster, prefix, *options, configuration=configuration)
    made = decision()
    vectors = [features(n) for n in range(50)]

    def of(n: int) -> Decision:
        return msgspec.structs.replace(
            made, transaction_id=f"t-{n}", decision_id=decision_id("u-1", f"t-{n}"), features=vectors[n % 50]
        )

    decide(cluster, prefix, map(of, range(count)))
    cluster.until(functools.partial(_remembered, cluster, job, count), 300, "all decisions are known")
    savepoint = cluster.stop_with_savepoint(job)
    job = submit(cluster, prefix, *options, savepoint=savepoint, configuration=configuration)
    asked = random.Random(5).sample(range(count), 2_000)
    tell(cluster, prefix, [verdict(f"t-{n}") for n in asked])
    learnt = examples(cluster, prefix, len(asked))
    assert sorted(int(x.transaction_id[2:]) for x in learnt) == sorted(asked)
    assert all(x.features == vectors[int(x.transaction_id[2:]) % 50] for x in learnt)
    size = state_size(cluster, job, "feedback join")
    print(f"{size >> 20} MiB of state beside {memory >> 20} MiB of memory")
    assert size > 4 * memory
    cluster.cancel(job)


def state_size(cluster: Cluster, job: str, vertex: str) -> int:
    """Bytes of a stage's state in the next whole checkpoint."""
    before = cluster.rest(f"/jobs/{job}/checkpoints")["counts"]["completed"]
    cluster.until(
        lambda: cluster.rest(f"/jobs/{job}/checkpoints")["counts"]["completed"] > before, 60, "a checkpoint"
    )
    done = cluster.rest(f"/jobs/{job}/checkpoints")["latest"]["completed"]["id"]
    stage = next(v["id"] for v in cluster.rest(f"/jobs/{job}")["vertices"] if v["name"].startswith(vertex))
    return int(cluster.rest(f"/jobs/{job}/checkpoints/details/{done}/subtasks/{stage}")["state_size"])
