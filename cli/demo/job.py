"""The scoring job as a process of its own, on the Flink that it embeds."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cli.terminal import UserError

POLL_S = 0.2
LOG_LINES = 15


class Run(NamedTuple):
    """Wall-clock times of a finished run, in seconds since the epoch."""

    started: float
    ended: float


@dataclass(frozen=True)
class Job:
    """What the job is started with; `cache` keeps numba's compiled kernels from one run to the next."""

    source: Path
    results: Path
    model: str
    trusted_keys: Path
    allow_unsigned: bool
    log: Path
    cache: Path

    def run(self, progress: Callable[[int], None]) -> Run:
        """Run the job and return when it has ended; `progress` is told how many decisions there are.

        Raises UserError with the end of its log where it fails. However this method is left, the job ends
        with it.
        """
        if not shutil.which("java") and not os.environ.get("JAVA_HOME"):
            raise UserError("java is not on the PATH: install Java 17 (Debian: openjdk-17-jre-headless)")
        counter = LineCounter(self.results / "decisions")
        started = time.time()
        with self.log.open("wb") as output:
            job = subprocess.Popen(
                self._command(),
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            try:
                while job.poll() is None:
                    time.sleep(POLL_S)
                    progress(counter.count())
            finally:
                _end(job)
        if job.returncode != 0:
            said = self.log.read_text(errors="replace").strip().splitlines()[-LOG_LINES:]
            raise UserError("\n".join([f"the scoring job failed; the end of {self.log}:", *said]))
        progress(counter.count())
        return Run(started, time.time())

    def _command(self) -> list[str]:
        options = {
            "--input": self.source,
            "--output": self.results,
            "--model": self.model,
            "--trusted-keys": self.trusted_keys,
        }
        unsigned = ["--allow-unsigned"] if self.allow_unsigned else []
        return [
            sys.executable,
            str(_script()),
            *(str(part) for pair in options.items() for part in pair),
            *unsigned,
        ]

    def _environment(self) -> dict[str, str]:
        # Options of another job in the environment are not meant for this one.
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("FRAUDSTREAM_")}
        # One thread each: the stages share the cores already.
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
        return inherited | threads | {"NUMBA_CACHE_DIR": str(self.cache)}


class LineCounter:
    """Counts the lines of a folder of growing files, reading each byte once.

    Flink's file sink writes hidden files and renames them when they are complete.
    """

    def __init__(self, folder: Path) -> None:
        """The folder need not exist yet."""
        self._folder = folder
        self._read: dict[int, int] = {}
        self._lines = 0

    def count(self) -> int:
        """Lines that are complete by now."""
        if not self._folder.is_dir():
            return 0
        for path in self._folder.iterdir():
            try:
                with path.open("rb") as file:
                    self._lines += self._new_lines(file.fileno())
            except FileNotFoundError:
                continue  # renamed a moment ago: found under its new name the next time
        return self._lines

    def _new_lines(self, descriptor: int) -> int:
        status = os.fstat(descriptor)
        start = self._read.get(status.st_ino, 0)
        grown = os.pread(descriptor, status.st_size - start, start)
        self._read[status.st_ino] = start + len(grown)
        return grown.count(b"\n")


def _script() -> Path:
    spec = importlib.util.find_spec("flink_jobs")
    if spec is None or spec.origin is None:
        raise UserError("the package flink_jobs is not installed")
    return Path(spec.origin).parent / "scoring.py"


def _end(job: subprocess.Popen[bytes]) -> None:
    """End the job's whole session: Python started a JVM, and the JVM may have started Python."""
    try:
        os.killpg(job.pid, signal.SIGTERM)
    except ProcessLookupError:
        return
    try:
        job.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(job.pid, signal.SIGKILL)
        job.wait()
