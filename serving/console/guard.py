"""What everything of the console passes first: a session, the right origin, headers that bind the browser.

Nothing of NiceGUI is reached without a session, so that nobody unknown can fill the memory with pages.
"""

import re
import secrets
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final
from urllib.parse import urlsplit

from nicegui import Client
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.signing import KeyFileError
from serving.gateway.services import Services
from serving.security.sessions import Session, SessionError, Sessions

MOUNT: Final = "/console"
COOKIE: Final = "fraudstream_session"
SIGN_IN: Final = "/sign-in"
SIGN_OUT: Final = "/sign-out"
PUBLIC: Final = frozenset({SIGN_IN, "/static/console.css", "/static/mark.svg"})
SOCKET: Final = "/_nicegui_ws/"

BARE_POLICY: Final = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
"""Of the sign-in page, which needs no script."""
PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self' 'nonce-{nonce}' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
"""Vue compiles its templates in the browser and sets styles: both need what is called unsafe here. Scripts
run from this host, or under the nonce of the page, and from nowhere else."""

_SCRIPT: Final = re.compile(rb"<script(?=[ >])")


class Guard:
    """Lets through who is signed in; puts the `Session` into `scope["session"]`."""

    def __init__(self, app: ASGIApp, services: Services, sessions: Sessions) -> None:
        self._app, self._services, self._sessions = app, services, sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request or WebSocket."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        connection = HTTPConnection(scope)
        session = await self._session(connection)
        scope["session"] = session
        if scope["type"] == "websocket":
            if session is None or not own_origin(connection.headers) or not _own_page(connection, session):
                # Closed before it is accepted: the answer is 403.
                await send({"type": "websocket.close", "code": 1008})
                return
            await self._app(scope, receive, send)
            return
        await self._http(path, session, scope, receive, send)

    async def _http(
        self, path: str, session: Session | None, scope: Scope, receive: Receive, send: Send
    ) -> None:
        headers = Headers(scope=scope)
        if scope["method"] == "POST" and path in (SIGN_IN, SIGN_OUT):
            if not own_origin(headers):
                await PlainTextResponse("this comes from another site", 403)(scope, receive, send)
                return
        elif scope["method"] not in ("GET", "HEAD") or path.startswith(SOCKET):
            # Whatever changes something goes over the WebSocket, whose origin is known.
            await PlainTextResponse("not here", 405)(scope, receive, send)
            return
        if session is None and path not in PUBLIC:
            if "text/html" in headers.get("accept", ""):
                await RedirectResponse(MOUNT + SIGN_IN, 303)(scope, receive, send)
            else:
                await PlainTextResponse("not signed in", 401)(scope, receive, send)
            return
        await self._app(scope, receive, _Bound(send, bare=path in PUBLIC))

    async def _session(self, connection: HTTPConnection) -> Session | None:
        cookie = _cookie(connection.headers)
        if cookie is None:
            return None
        try:
            session = self._sessions.read(cookie)
        except (SessionError, KeyFileError):
            return None
        if await self._sessions.ended_elsewhere(session, self._services.shared):
            return None
        return session


class _Bound:
    """`send` that adds the policy to pages, and its nonce to their scripts."""

    def __init__(self, send: Send, bare: bool) -> None:
        self._send, self._bare = send, bare
        self._start: Message | None = None
        self._parts: list[bytes] = []

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            if not headers.get("content-type", "").startswith("text/html"):
                await self._send(message)
                return
            # With `no-referrer` a browser would not tell the origin of a form either.
            headers["referrer-policy"] = "same-origin"
            if self._bare:
                headers["content-security-policy"] = BARE_POLICY
                await self._send(message)
            else:
                self._start = message
            return
        if self._start is None:
            await self._send(message)
            return
        self._parts.append(message.get("body", b""))
        if message.get("more_body", False):
            return
        nonce = secrets.token_urlsafe(16)
        # Whatever comes from outside is escaped in these pages: each `<script` is NiceGUI's own.
        body = _SCRIPT.sub(b'<script nonce="%s"' % nonce.encode(), b"".join(self._parts))
        headers = MutableHeaders(scope=self._start)
        headers["content-length"] = str(len(body))
        headers["content-security-policy"] = PAGE_POLICY.format(nonce=nonce)
        await self._send(self._start)
        await self._send({"type": "http.response.body", "body": body})


def own_origin(headers: Headers) -> bool:
    """Whether a browser says that a page of this very host sends this."""
    given, host = headers.getlist("origin"), headers.get("host", "")
    if len(given) != 1 or not host:
        return False
    try:
        origin = urlsplit(given[0])
    except ValueError:
        return False
    # The scheme may differ behind a proxy that ends TLS.
    return origin.scheme in ("http", "https") and origin.netloc.lower() == host.lower()


def _own_page(connection: HTTPConnection, session: Session) -> bool:
    """Whether the page that a WebSocket is for was made for this session."""
    client = Client.instances.get(connection.query_params.get("client_id", ""))
    if client is None:
        return True  # NiceGUI has the browser load the page again
    mine: Any = client.request.scope.get("session")
    return isinstance(mine, Session) and mine.session_id == session.session_id


def _cookie(headers: Headers) -> str | None:
    """The session's cookie; None for none, or for two, of which one is not ours."""
    found = []
    for header in headers.getlist("cookie"):
        for part in header.split(";"):
            try:
                parsed = SimpleCookie(part.strip())
            except CookieError:
                continue
            found += [morsel.value for name, morsel in parsed.items() if name == COOKIE]
    return found[0] if len(found) == 1 else None
