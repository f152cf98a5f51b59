"""`python -m benchmarks`: every measurement in one run, printed and written to docs/benchmarks.md.

Sections can be named to run only those: engine parts rules live drain per-event memory.
"""

import itertools
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks import engine, parts, rules
from benchmarks.traffic import encoded, measure, summary
from stack.cluster import Cluster, isolated_stack

HERE = Path(__file__).resolve().parent
REPORT = HERE.parent / "docs" / "benchmarks.md"
PACKAGES = ("apache-flink", "numpy", "numba", "msgspec", "onnxruntime", "confluent-kafka")
BACKLOG = 1_500_000
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
        spent = 0.0
        for pid in cluster.taskmanagers_of(job):
            manager = psutil.Process(pid)
            for process in (manager, *manager.children(recursive=True)):  # with its Python workers
                times = process.cpu_times()
                spent += times.user + times.system
        return time.monotonic(), done(), spent

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
            stage = next(
                v["id"] for v in cluster.rest(f"/jobs/{job}")["vertices"] if v["name"] == "user stage"
            )
            time.sleep(25)  # a checkpoint that holds them all
            done = cluster.rest(f"/jobs/{job}/checkpoints")["latest"]["completed"]
            size = cluster.rest(f"/jobs/{job}/checkpoints/details/{done['id']}/subtasks/{stage}")[
                "state_size"
            ]
            yield f"| {users:,} | {size / 1e6:,.1f} MB | {size / users:,.0f} |"
            cluster.cancel(job)


JOB_OPTIONS = ("--start", "latest", "--shards", "1", "--batch-ms", "5")
SECTIONS: dict[str, tuple[str, Callable[[], Lines]]] = {
    "engine": ("Bare engine, one core", bare_engine),
    "parts": ("Parts of the ensemble, one core", ensemble_parts),
    "rules": ("Analysts' rules, one core", rules.measure),
    "live": (f"Live, Kafka to Kafka ({' '.join(JOB_OPTIONS)})", live),
    "drain": ("Draining a backlog", drain),
    "per-event": ("Against one element per event", per_event),
    "memory": ("State per user", memory),
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
    main(sys.argv[1:])
