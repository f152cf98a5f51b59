"""Up, status and down of the local stack."""

import fcntl
import json
import shutil
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from stack import provision
from stack.errors import StackError
from stack.health import Health
from stack.ports import describe_owner, is_free, owner
from stack.programs import SERVICES, Program, all_programs
from stack.settings import Settings
from stack.supervise import (
    ProcessState,
    Supervisor,
    configuration,
    end_marked_processes,
    marked_processes,
)
from stack.topics import ensure_topics

_HEALTHY_WITHIN_SECONDS = 180.0
_LOG_TAIL_BYTES = 20_000


@dataclass(frozen=True)
class ProgramStatus:
    """A program that should run, as supervisord and the program itself report it."""

    program: Program
    process: ProcessState
    health: Health

    @property
    def ok(self) -> bool:
        return self.process.state == "RUNNING" and self.health.ok


@dataclass(frozen=True)
class _Record:
    """What was last asked to run, with the settings it was asked for; kept in the run directory."""

    settings: Settings
    services: tuple[str, ...]

    @staticmethod
    def read(home: Path) -> "_Record | None":
        path = _record_path(home)
        if not path.exists():
            return None
        content = json.loads(path.read_text())
        return _Record(Settings(**content["settings"]), tuple(content["services"]))

    def write(self) -> None:
        content = {"settings": self.settings.model_dump(mode="json"), "services": self.services}
        path = _record_path(self.settings.home)
        unfinished = path.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(content, indent=2))
        unfinished.rename(path)


def up(
    settings: Settings | None = None,
    services: Collection[str] = tuple(SERVICES),
    *,
    console: Console | None = None,
) -> list[ProgramStatus]:
    """Start the services that do not run yet and return when all of them are healthy.

    Services started by an earlier call keep running, and are started again where the settings of
    this call change their configuration. Raises StackError when a service is unknown, a port is
    taken, something needed is missing, or a program does not become healthy.
    """
    settings = settings or Settings()
    console = console or Console(quiet=True)
    _require_known(services)
    home = settings.home
    home.mkdir(parents=True, exist_ok=True)
    with _lock(home):
        supervisor = Supervisor(home)
        alive = supervisor.is_alive
        if not alive and (left := end_marked_processes(home)):
            console.print(f"ended what an interrupted stack had left: {', '.join(left)}", highlight=False)
        record = _Record.read(home) if alive else None
        wanted = tuple(name for name in SERVICES if name in {*services, *(record.services if record else ())})
        programs = [program for program in all_programs(settings) if program.service in wanted]

        _require_free_ports(programs, home)
        _provision(settings, wanted, console)
        # Fetching and building take minutes the first time: long enough to lose a port.
        _require_free_ports(programs, home)
        _write_files(programs, settings)
        # Before the first program starts: a start that fails half-way must still be seen by status.
        _Record(settings, wanted).write()

        conf = home / "conf" / "supervisord.conf"
        conf.write_text(configuration(all_programs(settings), home))
        if alive:
            supervisor.reload()
        else:
            supervisor.launch(conf)
        started = supervisor.start([program.name for program in programs])
        if not started:
            console.print("already up")
        statuses = _wait_until_healthy(supervisor, programs, home, console)
        if "kafka" in wanted and (
            created := ensure_topics(settings.kafka_bootstrap, partitions=settings.partitions)
        ):
            console.print(f"created topics {', '.join(created)}", highlight=False, soft_wrap=True)
    return statuses


def status(home: Path | None = None) -> list[ProgramStatus]:
    """The programs that should run in this run directory; empty when nothing was started there."""
    record = _Record.read((home or Settings().home).resolve())
    if record is None:
        return []
    supervisor = Supervisor(record.settings.home)
    states = supervisor.states() if supervisor.is_alive else {}
    return _statuses(
        [program for program in all_programs(record.settings) if program.service in record.services], states
    )


def down(home: Path | None = None, *, wipe: bool = False) -> bool:
    """End everything that ``up`` started in this run directory, and nothing else.

    Returns whether anything ran. ``wipe`` also deletes the data: topics, Flink's checkpoints and
    savepoints, Redis and MongoDB. Raises StackError when a process does not end.
    """
    home = (home or Settings().home).resolve()
    if not home.exists():
        return False
    with _lock(home):
        supervisor = Supervisor(home)
        ran = supervisor.is_alive
        if ran:
            supervisor.shutdown()
        ran = bool(end_marked_processes(home)) or ran
        if left := list(marked_processes(home)):
            raise StackError(f"still running: {', '.join(f'{p.name()} (pid {p.pid})' for p in left)}")
        _record_path(home).unlink(missing_ok=True)
        if wipe:
            shutil.rmtree(home / "data", ignore_errors=True)
    return ran


def _require_known(services: Collection[str]) -> None:
    if unknown := sorted(set(services) - set(SERVICES)):
        raise StackError(f"unknown service {', '.join(unknown)}: choose from {', '.join(SERVICES)}")
    if not services:
        raise StackError(f"no service was named: choose from {', '.join(SERVICES)}")


def _require_free_ports(programs: list[Program], home: Path) -> None:
    ours = {process.pid for process in marked_processes(home)}
    problems = [
        f"port {port.number} of {program.name} is taken by {describe_owner(port.number)}; "
        f"end it or set {port.variable} to another port"
        for program in programs
        for port in program.ports
        if not is_free(port.number) and ((holder := owner(port.number)) is None or holder.pid not in ours)
    ]
    if problems:
        raise StackError("\n".join(problems))


def _provision(settings: Settings, services: Collection[str], console: Console) -> None:
    """Fetch and build side by side, because each waits for something else: network, compiler, dpkg."""
    # Maven's local repository does not bear two writers.
    jars = [provision.STEPS[name] for name in ("kafka", "flink") if name in services]
    others = {provision.STEPS[name] for name in services} - set(jars)

    def fetch_jars() -> None:
        for step in jars:
            step(settings)

    begun = time.monotonic()
    with console.status("preparing " + ", ".join(services)), ThreadPoolExecutor() as pool:
        futures = [pool.submit(fetch_jars), *(pool.submit(step, settings) for step in others)]
        for future in as_completed(futures):
            future.result()
    if (took := time.monotonic() - begun) > 1.0:
        console.print(f"prepared in {took:.0f} s", highlight=False)


def _write_files(programs: list[Program], settings: Settings) -> None:
    (settings.home / "logs").mkdir(exist_ok=True)
    (settings.home / "conf").mkdir(exist_ok=True)
    for program in programs:
        for directory in program.directories:
            directory.mkdir(parents=True, exist_ok=True)
        for path, text in program.files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        if program.service == "kafka":
            provision.format_kafka_storage(settings, *program.files)


def _wait_until_healthy(
    supervisor: Supervisor, programs: list[Program], home: Path, console: Console
) -> list[ProgramStatus]:
    begun = time.monotonic()
    healthy: dict[str, ProgramStatus] = {}
    with console.status("") as line:
        while waiting := [program for program in programs if program.name not in healthy]:
            line.update("waiting for " + ", ".join(program.name for program in waiting))
            elapsed = time.monotonic() - begun
            for current in _statuses(waiting, supervisor.states()):
                if current.ok:
                    healthy[current.program.name] = current
                    console.print(
                        f"[green]✓[/] {current.program.name}: {escape(current.health.detail)} "
                        f"[dim]({elapsed:.1f} s)[/]",
                        highlight=False,
                        soft_wrap=True,
                    )
                elif current.process.state == "FATAL":
                    raise StackError(_failure(current, "does not start", home))
                elif elapsed > _HEALTHY_WITHIN_SECONDS:
                    raise StackError(_failure(current, f"is not healthy after {elapsed:.0f} s", home))
            time.sleep(0.2)
    return [healthy[program.name] for program in programs]


def _failure(failed: ProgramStatus, what: str, home: Path) -> str:
    """What failed, with the end of its newest log."""
    logs = [path for path in (home / "logs").glob(f"*{failed.program.name}*") if path.stat().st_size]
    message = f"{failed.program.name} {what}: {failed.health.detail} ({failed.process.description})"
    if not logs:
        return message
    newest = max(logs, key=lambda path: path.stat().st_mtime)
    with newest.open("rb") as file:
        file.seek(max(0, newest.stat().st_size - _LOG_TAIL_BYTES))
        lines = file.read().decode(errors="replace").splitlines()[-10:]
    return "\n".join([message, f"the end of {newest}:", *lines])


def _statuses(programs: Sequence[Program], states: Mapping[str, ProcessState]) -> list[ProgramStatus]:
    """Ask all programs at the same time, so that those that do not answer cost one timeout together."""

    def ask(program: Program) -> ProgramStatus:
        gone = ProcessState(program.name, "NOT SUPERVISED", 0, "supervisord is gone")
        process = states.get(program.name, gone)
        return ProgramStatus(program, process, _stranger(program, process) or program.check())

    with ThreadPoolExecutor(max_workers=len(programs) or 1) as pool:
        return list(pool.map(ask, programs))


def _stranger(program: Program, process: ProcessState) -> Health | None:
    """Why an answer would not be this program's: another process listens on its first port."""
    if not program.ports:
        return None
    port = program.ports[0]
    holder = owner(port.number)
    if holder is None or holder.pid == process.pid:
        return None
    return Health(False, f"port {port.number} is taken by {describe_owner(port.number)}")


@contextmanager
def _lock(home: Path) -> Iterator[None]:
    """One ``up`` or ``down`` at a time in a run directory."""
    with (home / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackError(f"another command is starting or ending the stack in {home}") from None
        yield


def _record_path(home: Path) -> Path:
    return home / "stack.json"
