"""What every request passes first and every answer last: plain ASGI, for it is paid for by each of them."""

import asyncio
import re
import time
from collections.abc import Sequence
from typing import Final, NamedTuple
from uuid import uuid4

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from events.types import IDENTIFIER_PATTERN
from serving.gateway.problems import Problem
from serving.security.signatures import SCHEME

CORRELATION_HEADER: Final = "x-correlation-id"
NDJSON: Final = b"application/x-ndjson"
SIGNED: Final = SCHEME.encode()

SECURITY_HEADERS: Final = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "strict-transport-security": "max-age=31536000; includeSubDomains",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}

_SECURITY: Final = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]

CLIENT_GONE: Final = 499
"""In the log alone: nobody is there to be answered."""

_IDENTIFIER: Final = re.compile(IDENTIFIER_PATTERN)
_LONGEST_ID: Final = 128

log = structlog.get_logger()


class BodyLimits(NamedTuple):
    """Bytes of a body held whole, and of NDJSON that is not; seconds for the next part, and for all."""

    whole: int
    stream: int
    idle_s: float
    total_s: float


class Edge:
    """Gives a request its correlation id, bounds its body, and turns what nobody foresaw into a problem."""

    def __init__(self, app: ASGIApp, limits: BodyLimits, hosts: Sequence[str]) -> None:
        """hosts: Host headers that are taken; empty takes all."""
        self._app, self._limits, self._hosts = app, limits, frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), 0
        scope["correlation_id"] = correlation_id = _correlation_id(scope)
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(correlation_id=correlation_id)

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = {name for name, _ in message["headers"]}
                marks = [(CORRELATION_HEADER.encode(), correlation_id.encode()), *_SECURITY]
                message["headers"] = [*message["headers"], *(mark for mark in marks if mark[0] not in given)]
            await send(message)

        try:
            self._check_host(scope)
            await self._app(scope, self._bounded(scope, receive), send_marked)
        except Problem as problem:
            await problem.response(correlation_id)(scope, receive, send_marked)
        except ClientDisconnect:
            status = CLIENT_GONE
        except Exception:
            log.exception("request.failed")
            if status:
                raise  # half an answer is out: closing the connection is all that is left
            failed = Problem(500, "internal", "the gateway failed; its log has the fault under this request")
            await failed.response(correlation_id)(scope, receive, send_marked)
        finally:
            route = scope.get("route")
            log.info(
                "request",
                method=scope["method"],
                route=getattr(route, "path", None),  # never the path: it may hold what is personal
                status=status,
                ms=round((time.monotonic() - began) * 1000, 1),
                principal=scope.get("principal"),
            )

    def _check_host(self, scope: Scope) -> None:
        if not self._hosts:
            return
        given = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        if len(given) != 1 or given[0].rsplit(":", 1)[0].lower() not in self._hosts:
            raise Problem(421, "unknown-host", "this host is not served here")

    def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        """`receive`, raising Problem for a body that is too long or too slow."""
        headers = dict(scope["headers"])
        lines = headers.get(b"content-type", b"").split(b";")[0].strip().lower() == NDJSON
        # A signature is verified over the whole body: what nobody has proved yet must not fill the memory.
        held = b"idempotency-key" in headers or headers.get(b"authorization", b"").startswith(SIGNED)
        limit = self._limits.stream if lines and not held else self._limits.whole
        too_large = Problem(413, "too-large", f"a body of this kind has at most {limit:,} bytes")
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or len(length) > 15 or int(length) > limit:
            raise too_large
        got, ends, complete = 0, time.monotonic() + self._limits.total_s, False

        async def bounded() -> Message:
            nonlocal got, complete
            if complete:
                return await receive()  # what follows is news of the connection
            patience = min(self._limits.idle_s, ends - time.monotonic())
            try:
                async with asyncio.timeout(max(0.0, patience)):
                    message = await receive()
            except TimeoutError:
                raise Problem(408, "too-slow", "the body took too long", {"Connection": "close"}) from None
            if message["type"] == "http.request":
                got += len(message.get("body", b""))
                complete = not message.get("more_body", False)
                if got > limit:
                    raise too_large
            return message

        return bounded


def _correlation_id(scope: Scope) -> str:
    """The one that the request brings, where it is an identifier; else a new one."""
    given = [value for name, value in scope["headers"] if name == CORRELATION_HEADER.encode()]
    if len(given) == 1 and len(given[0]) <= _LONGEST_ID:
        text: str = given[0].decode("latin-1")
        if _IDENTIFIER.fullmatch(text):
            return text
    return uuid4().hex
