"""The three jobs on a running stack: submitted where they do not run, from where they last were."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from rich.console import Console

from stack.cluster import LEARNING, SCORING, SERVING, Cluster
from stack.errors import StackError
from stack.programs import flink_directories
from stack.settings import Settings

ENDED: Final = frozenset({"FINISHED", "CANCELED", "FAILED"})


def scripts(settings: Settings) -> Mapping[str, tuple[Path, tuple[str, ...]]]:
    """Script and options of each job, by the job's name."""
    stores = ("--mongo-url", settings.mongo_url, "--redis-url", settings.redis_url)
    return {
        "fraudstream-scoring": (SCORING, ()),
        "fraudstream-learning": (LEARNING, ()),
        "fraudstream-serving": (SERVING, (*stores, "--gateway-keys", str(settings.gateway_keys))),
    }


def submit_missing(settings: Settings, console: Console) -> list[str]:
    """Submit the jobs that do not run, each from its newest checkpoint, and wait until they run.

    Returns their names. Raises StackError where one does not start.
    """
    cluster = Cluster(settings)
    present = {job["name"] for job in cluster.rest("/jobs/overview")["jobs"] if job["state"] not in ENDED}
    record = settings.home / "data" / "flink" / "jobs.json"
    ids: dict[str, list[str]] = json.loads(record.read_text()) if record.exists() else {}
    submitted = []
    for name, (script, options) in scripts(settings).items():
        if name in present:
            continue
        checkpoint = newest_checkpoint(flink_directories(settings)["checkpoints"], ids.get(name, []))
        with console.status(f"submitting {name}"):
            try:
                job = cluster.submit(
                    "", *options, "--job-name", name, script=script, wait=False,
                    savepoint=None if checkpoint is None else checkpoint.as_uri(),
                )  # fmt: skip
                ids.setdefault(name, []).append(job)
                _write(record, ids)
                cluster.until(lambda job=job: cluster.running(job), 120, "it runs")  # type: ignore[misc]
            except StackError as error:
                known = "" if checkpoint is None else f"; it began from {checkpoint}"
                raise StackError(
                    f"{name} does not start{known}: {error}; see {settings.flink_url}"
                ) from error
        how = "" if checkpoint is None else ", from its last checkpoint"
        console.print(f"[green]✓[/] {name}: submitted{how}", highlight=False, soft_wrap=True)
        submitted.append(name)
    return submitted


def newest_checkpoint(folder: Path, ids: list[str]) -> Path | None:
    """The newest complete checkpoint of the jobs with these ids; None where there is none."""
    found = [path for job in ids for path in (folder / job).glob("chk-*/_metadata")]
    return max(found, key=lambda path: path.stat().st_mtime_ns).parent if found else None


def _write(record: Path, ids: Mapping[str, list[str]]) -> None:
    unfinished = record.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(ids, indent=2))
    unfinished.rename(record)
