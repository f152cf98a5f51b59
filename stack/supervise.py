"""supervisord, which starts the programs of a stack and starts again whichever ends."""

import configparser
import io
import os
import shlex
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from supervisor.xmlrpc import SupervisorTransport

from stack.errors import StackError
from stack.programs import Program

# Every process of a stack inherits this variable with the run directory as its value. It tells
# whether a process is ours even when supervisord, the parent, is gone.
MARK = "FRAUDSTREAM_STACK"

_STOPPED = {"STOPPED", "EXITED", "FATAL"}


@dataclass(frozen=True)
class ProcessState:
    """What supervisord knows of a program; ``pid`` is 0 while it does not run."""

    name: str
    state: str
    pid: int
    description: str


def configuration(programs: Iterable[Program], home: Path) -> str:
    """The text of supervisord.conf. No program starts by itself: ``start`` chooses them."""
    parser = configparser.RawConfigParser()
    parser["supervisord"] = {
        "logfile": _literal(home / "logs" / "supervisord.log"),
        "logfile_maxbytes": "5MB",
        "logfile_backups": "1",
        "pidfile": _literal(home / "supervisord.pid"),
        "childlogdir": _literal(home / "logs"),
    }
    parser["unix_http_server"] = {"file": _literal(_socket(home)), "chmod": "0700"}
    parser["rpcinterface:supervisor"] = {
        "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
    }
    for program in programs:
        environment = {**program.environment, "FRAUDSTREAM_CONFIGURATION": program.configuration_digest}
        parser[f"program:{program.name}"] = {
            "command": _literal(shlex.join(program.command)),
            "directory": _literal(program.working_directory),
            "environment": ",".join(f'{name}="{_literal(value)}"' for name, value in environment.items()),
            "autostart": "false",
            "autorestart": "true",
            "startsecs": "1",
            "startretries": "10",
            # Signals go to the whole process group: a Python worker must not outlive its TaskManager.
            "stopasgroup": "true",
            "killasgroup": "true",
            "stopwaitsecs": str(program.stop_seconds),
            "redirect_stderr": "true",
            "stdout_logfile": _literal(home / "logs" / f"{program.name}.log"),
            "stdout_logfile_maxbytes": "10MB",
            "stdout_logfile_backups": "1",
        }
    text = io.StringIO()
    parser.write(text)
    return text.getvalue()


class Supervisor:
    """The supervisord of one run directory, spoken to through its control socket."""

    def __init__(self, home: Path) -> None:
        self._home = home

    @property
    def _rpc(self) -> Any:
        # New for every call: after a refused connection the transport cannot be used again.
        transport = SupervisorTransport(None, None, f"unix://{_socket(self._home)}")
        return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport).supervisor

    @property
    def is_alive(self) -> bool:
        try:
            self._rpc.getState()
        except (OSError, xmlrpc.client.Error):
            return False
        return True

    def launch(self, conf: Path, timeout: float = 15.0) -> None:
        """Start supervisord as a daemon. Raises StackError when it does not answer in time."""
        # An interpreter embedded in the JVM finds its packages through the first python3 on the
        # PATH, whatever Flink's python.executable says: it has to be this environment's.
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        result = subprocess.run(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(conf)],
            env=os.environ | {MARK: str(self._home), "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        deadline = time.monotonic() + timeout
        while not self.is_alive:
            if result.returncode != 0 or time.monotonic() > deadline:
                raise StackError(
                    f"supervisord did not start: {result.stderr.strip() or result.stdout.strip()}"
                )
            time.sleep(0.1)

    def reload(self) -> list[str]:
        """Apply a changed supervisord.conf and return the programs that it stopped or removed."""
        [[added, changed, removed]] = self._rpc.reloadConfig()
        for name in [*changed, *removed]:
            self._rpc.stopProcessGroup(name)
            self._rpc.removeProcessGroup(name)
        for name in [*added, *changed]:
            self._rpc.addProcessGroup(name)
        return [*changed, *removed]

    def states(self) -> Mapping[str, ProcessState]:
        return {
            info["name"]: ProcessState(info["name"], info["statename"], info["pid"], info["description"])
            for info in self._rpc.getAllProcessInfo()
        }

    def start(self, names: Iterable[str]) -> list[str]:
        """Start those of the programs that are stopped, without waiting, and return their names."""
        states = self.states()
        stopped = [name for name in names if states[name].state in _STOPPED]
        for name in stopped:
            self._rpc.startProcess(name, False)
        return stopped

    def shutdown(self, timeout: float = 60.0) -> None:
        """End every program, then supervisord itself, and wait until it is gone (at most ``timeout`` s)."""
        daemon = psutil.Process(self._rpc.getPID())
        # All at once; left to itself, supervisord ends one after the other.
        self._rpc.stopAllProcesses(False)
        self._rpc.shutdown()
        psutil.wait_procs([daemon], timeout=timeout)


def marked_processes(home: Path) -> Iterator[psutil.Process]:
    """The living processes that were started by the stack of this run directory."""
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(home) and process.status() != psutil.STATUS_ZOMBIE:
                yield process
        except psutil.Error:
            continue


def end_marked_processes(home: Path, timeout: float = 20.0) -> list[str]:
    """End what a vanished supervisord left behind and return what it was; SIGKILL after ``timeout`` s."""
    left = list(marked_processes(home))
    described = []
    for process in left:
        try:
            described.append(f"{process.name()} (pid {process.pid})")
            process.terminate()
        except psutil.NoSuchProcess:
            continue
    _, stubborn = psutil.wait_procs(left, timeout=timeout)
    for process in stubborn:
        process.kill()
    psutil.wait_procs(stubborn, timeout=5.0)
    return described


def _socket(home: Path) -> Path:
    return home / "supervisor.sock"


def _literal(value: object) -> str:
    # supervisord expands %(name)s in every value.
    return str(value).replace("%", "%%")
