"""`python -m benchmarks`: every measurement in one run, printed and written to docs/benchmarks.md.

Sections can be named to run only those: engine parts rules online live drain per-event memory
join loop loop-cost serving gateway at-rest.
"""

import itertools
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import psutil

from benchmarks import at_rest, engine, gateway, join, loop, online, parts, rules, serving
from benchmarks.traffic import encoded, measure, summary
from events.control import OnlineCommand
from events.decision import decision_id
from stack.cluster import LEARNING, SERVING, Cluster, isolated_stack

HERE = Path(__file__).resolve().parent
REPORT = HERE.parent / "docs" / "benchmarks.md"
PACKAGES = ("apache-flink", "numpy", "numba", "msgspec", "onnxruntime", "confluent-kafka", "river")
BACKLOG = 1_500_000
JOIN_BACKLOG = 600_000
LOOP_RATE = 2_000
LOOP_TURNS = 3
SERVING_BACKLOG = 15_000
SCORING = HERE.parent / "flink_jobs" / "scoring.py"
PER_EVENT = HERE / "per_event_job.py"
Lines = Iterator[str]


def bare_engine() -> Lines:
    """Engine alone."""
    yield "| what | batch | events/s |"
    yield "|---|---|---|"
    for rate in engine.measure():
        yield f"| {rate.what} | {rate.batch} | {rate.per_second:,.0f} |"


def ensemble_parts() -> Lines:
    """Each part of the ensemble by itself."""
    yield f"| part | fitted on {parts.ROWS:,} rows in | file | one row | a row among {parts.BATCH} | rows/s |"
    yield "|---|---|---|---|---|---|"
    for cost in parts.measure():
        yield (
            f"| {cost.name} | {cost.fit_s:.1f} s | {cost.bytes / 1000:.0f} kB | {cost.single_us:.0f} us "
            f"| {cost.batch_us:.1f} us | {1e6 / cost.batch_us:,.0f} |"
        )


def live() -> Lines:
    """Kafka to Kafka, both stages, all features, the first model."""
    with isolated_stack(taskmanagers=2) as cluster:
        cluster.topics("")
        job = cluster.submit("", *JOB_OPTIONS)
        run = itertools.count()
        measure(cluster.bootstrap, 9_000, 5, 95, next(run))  # the JIT compilers need their time
        yield "```"
        for rate, seconds in ((10_000, 30), (20_000, 20), (30_000, 60)):
            measured = measure(cluster.bootstrap, rate, seconds, 5, next(run))
            yield summary(rate, measured)
        for rate in range(15_000 if measured.lag_s > 1 else 35_000, 70_000, 5_000):
            measured = measure(cluster.bootstrap, rate, 20, 5, next(run))
            yield summary(rate, measured)
            if measured.lag_s > 1 or measured.sent < 0.98 * rate * 25:
                break
        yield "```"
        cluster.cancel(job)


class Drained(NamedTuple):
    """Events a second and CPU microseconds per event of the TaskManagers, from a third of a backlog on."""

    per_second: float
    cpu_us: float


def _drain(
    cluster: Cluster, job: str, done: Callable[[], int], enough: int, patience: float = 120
) -> Drained:
    def sample() -> tuple[float, int, float]:
        return time.monotonic(), done(), _cpu_s(cluster, job)

    cluster.until(lambda: done() > enough // 3, patience, "a third of the backlog")
    start = sample()
    end = start
    while end[1] < enough and end[0] - start[0] < patience:
        time.sleep(0.5)
        now = sample()
        if now[1] == end[1] and now[1] >= enough:
            break
        end = now
    events = end[1] - start[1]
    return Drained(events / (end[0] - start[0]), (end[2] - start[2]) / events * 1e6)


def _cpu_s(cluster: Cluster, job: str) -> float:
    """CPU time that the job's TaskManagers have used, with their Python workers."""
    spent = 0.0
    for pid in cluster.taskmanagers_of(job):
        manager = psutil.Process(pid)
        for process in (manager, *manager.children(recursive=True)):
            times = process.cpu_times()
            spent += times.user + times.system
    return spent


def _backlog(cluster: Cluster, prefix: str, count: int) -> None:
    cluster.topics(prefix)
    cluster.produce(f"{prefix}transactions", encoded(20_000, count))


def drain() -> Lines:
    """A backlog through the user stage alone, and through the whole job."""
    with isolated_stack(taskmanagers=2) as cluster:
        _backlog(cluster, "d.", BACKLOG)
        yield "| draining a backlog | events/s | CPU us per event, JVM and Python |"
        yield "|---|---|---|"
        options = ("--start", "earliest", "--batch-ms", "20")
        job = cluster.submit("d.", *options, script=HERE / "one_stage_job.py")
        result = _drain(cluster, job, lambda: cluster.metric(job, "user stage", "events_in_total"), BACKLOG)
        yield f"| one stage (user) | {result.per_second:,.0f} | {result.cpu_us:.1f} |"
        cluster.cancel(job)
        job = cluster.submit("d.", *options)
        result = _drain(cluster, job, lambda: cluster.count("d.decisions"), BACKLOG)
        yield f"| both stages, model, decisions | {result.per_second:,.0f} | {result.cpu_us:.1f} |"
        cluster.cancel(job)


def per_event() -> Lines:
    """The usual job, one element per event, against this one: same features, model, backlog and cluster."""
    rates: dict[str, Drained] = {}
    for name, count, script, options in (
        ("micro-batches, thread mode", 1_000_000, SCORING, ("--start", "earliest", "--batch-ms", "20")),
        ("per event, thread mode", 400_000, PER_EVENT, ("--start", "earliest", "--execution", "thread")),
        ("per event, process mode", 30_000, PER_EVENT, ("--execution", "process")),
    ):
        with isolated_stack(taskmanagers=2) as cluster:
            _backlog(cluster, "p.", count)
            job = cluster.submit("p.", *options, script=script)
            rates[name] = _drain(cluster, job, partial(cluster.count, "p.decisions"), count)
            cluster.cancel(job)
    ours = rates["micro-batches, thread mode"].per_second
    yield "| job | events/s | CPU us per event | micro-batches are faster by |"
    yield "|---|---|---|---|"
    for name, result in rates.items():
        yield f"| {name} | {result.per_second:,.0f} | {result.cpu_us:.0f} | {ours / result.per_second:.1f} |"


def _reached(count: Callable[[], int], enough: int) -> bool:
    return count() >= enough


def memory() -> Lines:
    """State per user, from the sizes of checkpoints."""
    yield "| users | checkpointed state of the user stage | bytes per user |"
    yield "|---|---|---|"
    with isolated_stack(taskmanagers=2, memory_mb=7168) as cluster:
        for users in (10_000, 100_000, 1_000_000):
            prefix = f"m{users}."
            cluster.topics(prefix)
            now = int(time.time() * 1000)
            cluster.produce(
                f"{prefix}transactions",
                (
                    (
                        b"user-%d" % n,
                        b'{"transaction_id":"%d","user_id":"user-%d","event_time":%d,"amount":5}'
                        % (n, n, now),
                    )
                    for n in range(users)
                ),
            )
            job = cluster.submit(prefix, "--start", "earliest", "--batch-ms", "20")
            decided = partial(cluster.count, f"{prefix}decisions")
            cluster.until(partial(_reached, decided, users), 300, "all decided")
            size = _checkpointed(cluster, job, "user stage")
            yield f"| {users:,} | {size / 1e6:,.1f} MB | {size / users:,.0f} |"
            cluster.cancel(job)


def feedback_join() -> Lines:
    """The join alone, and the state and the speed of its job."""
    yield "| the join alone, batches of 500 | decisions/s | labels/s | kept whole | bytes per decision |"
    yield "|---|---|---|---|---|"
    for m in join.measure():
        yield f"| {m.what} | {m.decisions:,.0f} | {m.labels:,.0f} | {m.kept:,} | {m.bytes:,.0f} |"
    yield ""
    yield "| the job, draining a backlog | decisions/s | CPU us per decision | bytes in a checkpoint |"
    yield "|---|---|---|---|"
    with isolated_stack(taskmanagers=2) as cluster:
        cluster.topics("")
        cluster.produce("decisions", _many_decisions(JOIN_BACKLOG))
        for what, options in (
            ("kept by default", ()),
            ("all kept whole", ("--keep-floor", "0")),
            ("all kept whole, RocksDB", ("--keep-floor", "0", "--state-backend", "rocksdb")),
        ):
            job = cluster.submit("", "--start", "earliest", *options, script=LEARNING)
            result = _drain(cluster, job, partial(_remembered, cluster, job), JOIN_BACKLOG)
            size = _checkpointed(cluster, job, "feedback join") / JOIN_BACKLOG
            yield f"| {what} | {result.per_second:,.0f} | {result.cpu_us:.0f} | {size:,.0f} |"
            cluster.cancel(job)


def _many_decisions(count: int) -> Iterator[tuple[bytes, bytes]]:
    """Decisions as of the first model, repeated under new transaction ids."""
    for n, d in enumerate(itertools.islice(itertools.cycle(list(join.decisions())), count)):
        name = f"tx-{n:012d}"
        renamed = msgspec.structs.replace(d, transaction_id=name, decision_id=decision_id(d.user_id, name))
        yield d.user_id.encode(), msgspec.json.encode(renamed)


def _remembered(cluster: Cluster, job: str) -> int:
    return sum(cluster.metric(job, "feedback join", f"join_{name}_total") for name in ("kept", "remembered"))


def _checkpointed(cluster: Cluster, job: str, vertex_name: str) -> int:
    """Bytes of a stage's state in the second checkpoint from now, which holds all that there is."""
    path = f"/jobs/{job}/checkpoints"
    before = cluster.rest(path)["counts"]["completed"]
    cluster.until(lambda: cluster.rest(path)["counts"]["completed"] > before + 1, 60, "two checkpoints")
    done = cluster.rest(path)["latest"]["completed"]["id"]
    vertices = cluster.rest(f"/jobs/{job}")["vertices"]
    stage = next(v["id"] for v in vertices if v["name"].startswith(vertex_name))
    return int(cluster.rest(f"{path}/details/{done}/subtasks/{stage}")["state_size"])


def learning_loop() -> Lines:
    """From labels to scores."""
    with isolated_stack(taskmanagers=5) as cluster:
        cluster.topics("t.")
        yield from loop.lines(loop.trace(cluster, "t."))


def loop_cost() -> Lines:
    """The scoring job without and with the learning job and its weights beside it, in turns."""
    yield "| loop | p50 | p99 | rate | scoring, CPU us per event | learning, CPU us per event |"
    yield "|---|---|---|---|---|---|"
    seen: dict[bool, list[Beside]] = {False: [], True: []}
    with isolated_stack(taskmanagers=5) as cluster:
        cluster.topics("")
        learning = partial(cluster.submit, "", "--start", "latest", script=LEARNING)
        jobs = [cluster.submit("", *JOB_OPTIONS), learning()]
        run = itertools.count()
        measure(cluster.bootstrap, LOOP_RATE, 5, 145, next(run))  # the JIT compilers need their time
        cluster.cancel(jobs.pop())
        for _ in range(LOOP_TURNS):
            for is_on in (False, True):
                if is_on:
                    jobs.append(learning())
                    measure(cluster.bootstrap, LOOP_RATE, 5, 25, next(run))
                    _promote(cluster)
                seen[is_on].append(_beside(cluster, jobs, next(run)))
                yield seen[is_on][-1].row("on" if is_on else "off")
            cluster.cancel(jobs.pop())
            cluster.produce("model-updates", [(b"online", None)])
        cluster.cancel(jobs.pop())
    off, on = (np.median(seen[is_on], axis=0) for is_on in (False, True))
    p50, p99, rate, scoring, _ = (on / off - 1).tolist()
    yield ""
    yield (
        f"Medians, on against off: p50 {p50:+.1%}, p99 {p99:+.1%}, rate {rate:+.1%}, CPU of the scoring job "
        f"{scoring:+.1%}."
    )


class Beside(NamedTuple):
    """p50_ms, p99_ms: latency; rate: decisions a second; scoring_us, learning_us: CPU time per transaction of
    the TaskManagers of either job, microseconds, NaN where it does not run."""

    p50_ms: float
    p99_ms: float
    rate: float
    scoring_us: float
    learning_us: float

    def row(self, loop: str) -> str:
        """As a row of the table."""
        learning = "" if np.isnan(self.learning_us) else f"{self.learning_us:.1f}"
        return (
            f"| {loop} | {self.p50_ms:.1f} ms | {self.p99_ms:.1f} ms | {self.rate:,.0f}/s "
            f"| {self.scoring_us:.1f} | {learning} |"
        )


def _promote(cluster: Cluster) -> None:
    """Have what was learnt score, whatever the gate says."""
    known = cluster.count("model-updates")
    command = OnlineCommand(
        command_id=f"command-{known}", command="promote", issued_at=round(time.time() * 1000),
        issued_by="benchmark",
    )  # fmt: skip
    cluster.produce("online-commands", [(None, msgspec.json.encode(command))])
    cluster.until(lambda: cluster.count("model-updates") > known, 30, "an update")


def _beside(cluster: Cluster, jobs: Sequence[str], run: int) -> Beside:
    """What the first of the jobs does, and what they cost."""
    before = [_cpu_s(cluster, job) for job in jobs]
    measured = measure(cluster.bootstrap, LOOP_RATE, 25, 10, run)
    spent = [
        (_cpu_s(cluster, job) - start) / measured.sent * 1e6 for job, start in zip(jobs, before, strict=True)
    ]
    p50, p99 = np.percentile(measured.latency_ms, [50, 99]).tolist()
    rate = measured.received / (measured.seconds + 10 + measured.lag_s)
    return Beside(p50, p99, rate, spent[0], spent[1] if len(spent) > 1 else np.nan)


def serving_job() -> Lines:
    """What a decision costs the serving job, and how many of a backlog it takes in."""
    made = list(serving.records(serving.ALONE))
    with isolated_stack(taskmanagers=2, names=("kafka", "flink", "redis", "mongo")) as cluster:
        yield "| the engine alone, us per decision | all | waits for MongoDB | for Redis | own CPU |"
        yield "|---|---|---|---|---|"
        for batch in serving.BATCHES:
            spent = serving.alone(cluster, batch, made)
            yield (
                f"| batches of {batch} | {spent.all:,.0f} | {spent.mongo:,.0f} | {spent.redis:,.0f} "
                f"| {spent.cpu:,.0f} |"
            )
        yield ""
        yield "| MongoDB's protocol alone, unordered inserts by one client | documents/s |"
        yield "|---|---|"
        for indexed, batch in itertools.product((True, False), serving.BATCHES):
            rate = serving.inserted(cluster, made, indexed, batch)
            yield f"| batches of {batch}, {'all indexes' if indexed else 'no index'} | {rate:,.0f} |"
        for stored in (1_000, 5_000):
            rate = serving.replaced(cluster, stored)
            yield f"| replaced one by one among {stored:,} | {rate:,.0f} |"
        yield ""
        yield "| the job, draining a backlog | decisions/s | CPU us per decision | Redis | MongoDB |"
        yield "|---|---|---|---|---|"
        cluster.topics("")
        backlog = ((d.user_id.encode(), msgspec.json.encode(d)) for d in serving.records(SERVING_BACKLOG))
        cluster.produce("decisions", backlog)
        with serving.secrets() as keys:
            for execution in ("thread", "process"):
                yield _served(cluster, execution, keys)


def _served(cluster: Cluster, execution: str, keys: Path) -> str:
    """The serving job over the whole backlog into empty stores, as a row."""
    serving.empty(cluster)
    job = cluster.submit(
        "", "--start", "earliest", "--group", f"bench-{execution}", "--execution", execution,
        "--gateway-keys", str(keys), "--mongo-url", cluster.settings.mongo_url,
        "--mongo-database", execution, "--redis-url", cluster.settings.redis_url, script=SERVING,
    )  # fmt: skip
    before = serving.store_cpu_s(cluster)
    taken = partial(cluster.metric, job, "serving stage", "serving_decisions_in_total")
    result = _drain(cluster, job, taken, SERVING_BACKLOG)
    stores = {name: (spent - before[name]) / SERVING_BACKLOG * 1e6
              for name, spent in serving.store_cpu_s(cluster).items()}  # fmt: skip
    cluster.cancel(job)
    return (
        f"| {execution} mode | {result.per_second:,.0f} | {result.cpu_us:,.0f} | {stores['Redis']:,.0f} "
        f"| {stores['MongoDB']:,.0f} |"
    )


JOB_OPTIONS = ("--start", "latest", "--shards", "1", "--batch-ms", "5")
SECTIONS: dict[str, tuple[str, Callable[[], Lines]]] = {
    "engine": ("Bare engine, one core", bare_engine),
    "parts": ("Parts of the ensemble, one core", ensemble_parts),
    "rules": ("Analysts' rules, one core", rules.measure),
    "online": ("Online learner, one core", online.measure),
    "live": (f"Live, Kafka to Kafka ({' '.join(JOB_OPTIONS)})", live),
    "drain": ("Draining a backlog", drain),
    "per-event": ("Against one element per event", per_event),
    "memory": ("State per user", memory),
    "join": ("Feedback join", feedback_join),
    "loop": ("From labels to scores", learning_loop),
    "serving": ("Serving: decisions into MongoDB and Redis", serving_job),
    "gateway": ("Gateway, one worker", gateway.lines),
    "at-rest": (f"Queries over {at_rest.DECIDED:,} stored decisions", at_rest.lines),
    "loop-cost": (f"Learning beside {LOOP_RATE:,} transactions/s ({' '.join(JOB_OPTIONS)})", loop_cost),
}


def machine() -> str:
    """What it ran on."""
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} x {model}, "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB, Python {platform.python_version()}, {packages}; "
        f"load average before: {os.getloadavg()[0]:.1f}"
    )


def main(chosen: list[str]) -> None:
    """Run the chosen sections, or all, and rewrite their parts of the report."""
    names = chosen or list(SECTIONS)
    for name in names:
        title, section = SECTIONS[name]
        lines = [f"## {title}", "", f"`python -m benchmarks {name}` on {machine()}", ""]
        print(f"\n{title}\n", flush=True)
        for line in section():
            print(line, flush=True)
            lines.append(line)
        (REPORT.parent / "benchmarks").mkdir(exist_ok=True)
        (REPORT.parent / "benchmarks" / f"{name}.md").write_text("\n".join(lines) + "\n")
    sections = [REPORT.parent / "benchmarks" / f"{name}.md" for name in SECTIONS]
    text = "\n".join(section.read_text() for section in sections if section.exists())
    REPORT.write_text("# Measured\n\nOne command: `make bench`. The machine is shared and noisy.\n\n" + text)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # its stack with it
    main(sys.argv[1:])
