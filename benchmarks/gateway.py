"""The gateway under load: one worker, with broker, Redis, scoring job and generators on the same two cores.

The generators are processes of their own, without anything of the gateway in them but the signature.
"""

import asyncio
import multiprocessing
import os
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import psutil

from models.signing import generate_keys, read_private_key
from serving.security import signatures
from serving.security.clients import Limit, new_client
from serving.security.personal import new_secrets
from serving.security.tokens import issue
from stack.cluster import isolated_stack
from stack.ports import free_ports

INGEST_BAR, SIGNED_BAR, SCORE_RATE = 15_000, 1_500, 300
LINES = 5_000
"""Transactions of one NDJSON body."""
SECONDS = 15.0
SIGNERS, STREAMS, SCORERS = 64, 2, 64
CLIENT = "load"


class Target(NamedTuple):
    """Where load goes, and what proves who sends it."""

    host: str
    port: int
    token: str
    secret: bytes


class Load(NamedTuple):
    """What a generator saw: transactions accepted, seconds, milliseconds of each request, other answers."""

    accepted: int
    seconds: float
    latency_ms: list[float]
    failures: int
    provisional: int


class Connection:
    """One kept alive, with one request at a time."""

    def __init__(self, target: Target) -> None:
        self._target = target

    async def open(self) -> "Connection":
        self._reader, self._writer = await asyncio.open_connection(self._target.host, self._target.port)
        return self

    async def post(self, path: str, kind: str, authorization: str, body: bytes) -> tuple[int, bytes]:
        """Status and body of the answer."""
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self._target.host}\r\nContent-Type: application/{kind}\r\n"
            f"Authorization: {authorization}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        await self._writer.drain()
        answer = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(answer.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return int(answer[9:12]), await self._reader.readexactly(length)

    def close(self) -> None:
        self._writer.close()


def transaction(number: int, run: str) -> bytes:
    """One of 20,000 users' transactions, now."""
    user = number * 7919 % 20_000
    return (
        b'{"transaction_id":"%s-%d","user_id":"user-%07d","event_time":%d,"amount":%d.5,'
        b'"terminal_id":"terminal-%05d","currency":"EUR","country":"FR","channel":"online",'
        b'"card_present":false}'
        % (run.encode(), number, user, round(time.time() * 1000), number % 90 + 1, number * 31 % 5_000)
    )


async def _streaming(target: Target, seconds: float, run: str) -> Load:
    """NDJSON bodies, one after the other on each connection."""
    bodies = [b"\n".join(transaction(k * LINES + n, run) for n in range(LINES)) for k in range(STREAMS * 4)]
    return await _sustained(
        target, seconds, STREAMS,
        lambda connection, number: connection.post(
            "/transactions/ingest", "x-ndjson", f"Bearer {target.token}", bodies[number % len(bodies)]
        ),
        LINES,
    )  # fmt: skip


async def _signing(target: Target, seconds: float, run: str) -> Load:
    """One transaction a request, each signed."""

    async def send(connection: Connection, number: int) -> tuple[int, bytes]:
        path, body = "/transactions/ingest", transaction(number, run)
        request = signatures.Request("POST", path.encode(), body)
        now, nonce = round(time.time() * 1000), secrets.token_urlsafe(16)
        signed = signatures.sign(request, CLIENT, target.secret, now, nonce)
        return await connection.post(path, "json", signed, body)

    return await _sustained(target, seconds, SIGNERS, send, 1)


async def _sustained(
    target: Target, seconds: float, connections: int,
    send: Callable[[Connection, int], Any], each: int,
) -> Load:  # fmt: skip
    """As fast as answers come, on some connections at once."""
    numbers, ends = iter(range(1 << 60)), time.monotonic() + seconds
    latency: list[float] = []
    accepted = failures = 0

    async def one() -> None:
        nonlocal accepted, failures
        connection = await Connection(target).open()
        while (began := time.monotonic()) < ends:
            status, _ = await send(connection, next(numbers))
            latency.append((time.monotonic() - began) * 1000)
            accepted += each * (status == 202)
            failures += status != 202
        connection.close()

    began = time.monotonic()
    await asyncio.gather(*(one() for _ in range(connections)))
    return Load(accepted, time.monotonic() - began, latency, failures, 0)


async def _scoring(target: Target, seconds: float, run: str) -> Load:
    """SCORE_RATE requests a second at their times, whatever the answers do."""
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for _ in range(SCORERS):
        free.put_nowait(await Connection(target).open())
    latency: list[float] = []
    failures = provisional = 0
    began = time.monotonic()

    async def one(number: int, due: float) -> None:
        nonlocal failures, provisional
        connection = await free.get()
        body, bearer = transaction(number, run), f"Bearer {target.token}"
        status, answer = await connection.post("/predictions/score", "json", bearer, body)
        latency.append((time.monotonic() - due) * 1000)
        failures += status != 200
        provisional += b'"provisional":true' in answer
        free.put_nowait(connection)

    async with asyncio.TaskGroup() as group:
        for number in range(round(seconds * SCORE_RATE)):
            due = began + number / SCORE_RATE
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            group.create_task(one(number, due))
    return Load(len(latency), time.monotonic() - began, latency, failures, provisional)


GENERATORS: dict[str, Callable[[Target, float, str], Any]] = {
    "lines": _streaming,
    "signed": _signing,
    "score": _scoring,
}


def _generate(kind: str, target: Target, seconds: float, pipe: Any) -> None:
    import uvloop  # noqa: PLC0415 - the process of the generator alone

    pipe.send(uvloop.run(GENERATORS[kind](target, seconds, secrets.token_hex(4))))


def load(kind: str, target: Target, seconds: float = SECONDS, processes: int = 1) -> Load:
    """What generators of one kind saw together."""
    context = multiprocessing.get_context("spawn")
    pipes = []
    for _ in range(processes):
        ours, theirs = context.Pipe()
        context.Process(target=_generate, args=(kind, target, seconds, theirs), daemon=True).start()
        pipes.append(ours)
    seen = [pipe.recv() for pipe in pipes]
    return Load(
        sum(one.accepted for one in seen),
        max(one.seconds for one in seen),
        [ms for one in seen for ms in one.latency_ms],
        sum(one.failures for one in seen),
        sum(one.provisional for one in seen),
    )


@contextmanager
def running(bootstrap: str, redis_url: str, **settings: str) -> Iterator[tuple[Target, psutil.Popen, Path]]:
    """A gateway in a process of its own, as `fraudstream gateway` starts it; its process and its folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        private, _ = generate_keys(folder / "keys" / "tokens")
        new_secrets(folder / "keys")
        limit = Limit(burst=10_000_000, per_minute=1e9)
        _, client = new_client(folder / "keys" / "clients", CLIENT, "producer", limit)
        token, _ = issue(read_private_key(private), CLIENT, "producer")
        (port,) = free_ports(1)
        environment = {
            **os.environ,
            "FRAUDSTREAM_BOOTSTRAP": bootstrap,
            "FRAUDSTREAM_REDIS_URL": redis_url,
            "FRAUDSTREAM_GATEWAY_KEYS": str(folder / "keys"),
            "FRAUDSTREAM_GATEWAY_AUDIT": str(folder / "audit.jsonl"),
            **{f"FRAUDSTREAM_{name.upper()}": value for name, value in settings.items()},
        }
        command = [sys.executable, "-m", "cli.main", "gateway", "--port", str(port)]
        assert client.secret is not None
        with (folder / "log").open("wb") as log:
            process = psutil.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
            try:
                _wait(port, process)
                yield Target("127.0.0.1", port, token, client.secret), process, folder
            finally:
                process.terminate()
                process.wait(60)


def _wait(port: int, process: psutil.Popen) -> None:
    ends = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as answer:
                if msgspec.json.decode(answer.read())["decisions"]:
                    return
        except OSError:
            pass
        assert process.poll() is None
        assert time.monotonic() < ends
        time.sleep(0.2)


class Measured(NamedTuple):
    """A load, and what the gateway spent on it."""

    load: Load
    cpu_s: float


def measured(kind: str, target: Target, process: psutil.Popen, seconds: float = SECONDS) -> Measured:
    """One turn, after a short one that warms up."""
    load(kind, target, 3.0)
    before = process.cpu_times()
    seen = load(kind, target, seconds)
    after = process.cpu_times()
    return Measured(seen, after.user + after.system - before.user - before.system)


def lines() -> Iterator[str]:
    """NDJSON, signed requests, and scores through the job."""
    with isolated_stack(taskmanagers=2, names=("kafka", "redis", "flink")) as cluster:
        cluster.topics("")
        with running(cluster.bootstrap, cluster.settings.redis_url, gateway_score_ms="1000") as (
            target, process, _,
        ):  # fmt: skip
            yield "| what | bar | reached | p50 | p99 | other answers | gateway CPU us each | load average |"
            yield "|---|---|---|---|---|---|---|---|"
            yield _row("NDJSON ingest, transactions", INGEST_BAR, measured("lines", target, process))
            yield _row("signed ingest, requests", SIGNED_BAR, measured("signed", target, process))
            job = cluster.submit("", "--start", "latest", "--shards", "1", "--batch-ms", "5")
            load("score", target, 60.0)  # the JIT compilers need their time
            seen = measured("score", target, process, 30.0)
            yield _row("synchronous scores, requests", SCORE_RATE, seen)
            yield ""
            yield f"{seen.load.provisional} scores were provisional: the job did not answer within 1 s."
            cluster.cancel(job)


def _row(what: str, bar: int, seen: Measured) -> str:
    one = seen.load
    p50, p99 = np.percentile(one.latency_ms, [50, 99])
    return (
        f"| {what} | {bar:,}/s | {one.accepted / one.seconds:,.0f}/s | {p50:.1f} ms | {p99:.1f} ms "
        f"| {one.failures} | {seen.cpu_s / max(1, one.accepted) * 1e6:.0f} | {os.getloadavg()[0]:.1f} |"
    )
