"""One server of the local stack that a test can stop and start."""

import time
from contextlib import ExitStack
from pathlib import Path

import psutil

from stack import provision
from stack.ports import free_ports
from stack.programs import SERVICES
from stack.settings import Settings


class Server:
    """A server on a port of its own; its data outlives a stop."""

    def __init__(self, home: Path, service: str) -> None:
        (port,) = free_ports(1)
        self.settings = Settings(home=home, downloads=Settings().downloads, redis_port=port, mongo_port=port)
        home.mkdir(parents=True, exist_ok=True)
        provision.STEPS[service](self.settings)
        (self._program,) = SERVICES[service](self.settings)
        for path, text in self._program.files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        for directory in self._program.directories:
            directory.mkdir(parents=True, exist_ok=True)
        self._log = home / f"{service}.log"
        self._process: psutil.Popen | None = None
        self.url = f"redis://127.0.0.1:{port}/0" if service == "redis" else f"mongodb://127.0.0.1:{port}/"

    def start(self) -> None:
        """Start it and wait until it answers."""
        with ExitStack() as files:
            log = files.enter_context(self._log.open("ab"))
            self._process = psutil.Popen(self._program.command, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while not self._program.check().ok:
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(self._log.read_text()[-2000:])
            time.sleep(0.05)

    def kill(self) -> None:
        """End it at once, in the middle of whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def freeze(self) -> None:
        """Let it answer nothing, with its connections open."""
        if self._process is not None:
            self._process.suspend()

    def thaw(self) -> None:
        """Let it go on."""
        if self._process is not None:
            self._process.resume()
