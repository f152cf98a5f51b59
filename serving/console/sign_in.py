"""The sign-in page: a form without scripts, limited attempts, a cookie."""

import asyncio
import html
import math
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs

import structlog
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from models.signing import KeyFileError
from serving.console.guard import COOKIE, MOUNT, SIGN_IN
from serving.gateway.services import Services
from serving.security.accounts import NOBODY, Account, Accounts
from serving.security.audit import Act, AuditError
from serving.security.clients import Limit
from serving.security.sessions import Session, Sessions

BY_ADDRESS: Final = Limit(burst=10, per_minute=5)
BY_NAME: Final = Limit(burst=20, per_minute=6)
"""Refills faster than one address may try, so that nobody is locked out from one address."""
_MOST_BYTES: Final = 8_192
_PAGE: Final = (Path(__file__).parent / "static" / "sign_in.html").read_text()

log = structlog.get_logger()


class SignIn:
    """The routes that begin and end sessions."""

    def __init__(self, services: Services, accounts: Accounts, sessions: Sessions) -> None:
        self._services, self._accounts, self._sessions = services, accounts, sessions
        self._hashing = asyncio.Semaphore(2)
        """A hash takes 32 MiB for a tenth of a second."""

    async def show(self, request: Request) -> Response:
        """The form, or the console for who is signed in."""
        if request.scope["session"] is not None:
            return RedirectResponse(f"{MOUNT}/", 303)
        return _form("", 200)

    async def sign_in(self, request: Request) -> Response:
        """Begin a session for who knows the password."""
        form = await _form_of(request)
        subject, password = form.get("name", ""), form.get("password", "")
        wait_s = await self._wait(request, subject)
        if wait_s > 0:
            refused = _form(f"Too many attempts. Try again in {math.ceil(wait_s)} s.", 429)
            refused.headers["retry-after"] = str(math.ceil(wait_s))
            return refused
        try:
            account = await self._proved(subject, password)
            if account is None:
                log.warning("sign_in.failed", principal=self._services.pseudonyms.of("principal", subject))
                return _form("Name or password is wrong.", 401)
            session, cookie = self._sessions.begin(account)
            await self._services.record(_act(request, session, "session.begin"), "done")
        except KeyFileError:
            log.exception("accounts.unreadable")
            return _form("Accounts cannot be read.", 503)
        except AuditError:
            log.exception("audit.away")
            return _form("The audit trail cannot be written.", 503)
        answer = RedirectResponse(f"{MOUNT}/", 303)
        answer.set_cookie(
            COOKIE,
            cookie,
            max_age=self._services.settings.console_session_s,
            path=MOUNT,
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return answer

    async def sign_out(self, request: Request) -> Response:
        """End the session."""
        session: Session | None = request.scope["session"]
        if session is not None:
            await self._sessions.end(session, self._services.shared)
            await self._services.record(_act(request, session, "session.end"), "done")
        answer = RedirectResponse(MOUNT + SIGN_IN, 303)
        answer.delete_cookie(COOKIE, path=MOUNT, httponly=True, samesite="strict")
        return answer

    async def _proved(self, subject: str, password: str) -> Account | None:
        account = self._accounts.get(subject)
        async with self._hashing:
            proved = await asyncio.to_thread((account or NOBODY).proved_by, password)
        return account if proved else None

    async def _wait(self, request: Request, subject: str) -> float:
        """Seconds until another attempt is taken from this address and in this name."""
        pseudonyms, shared = self._services.pseudonyms, self._services.shared
        address = pseudonyms.of("address", request.client.host if request.client else "unknown")
        by_address = await shared.take(f"sign-in:{address}", BY_ADDRESS)
        if by_address.wait_s > 0:
            return by_address.wait_s
        return (await shared.take(f"sign-in:{pseudonyms.of('principal', subject)}", BY_NAME)).wait_s


def _act(request: Request, session: Session, action: str) -> Act:
    return Act(session.subject, session.role, action, None, request.scope["correlation_id"])


async def _form_of(request: Request) -> dict[str, str]:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _MOST_BYTES:
            return {}
    members = parse_qs(body.decode(errors="replace"), keep_blank_values=True)
    return {name: given[0] for name, given in members.items() if len(given) == 1}


def _form(said: str, status: int) -> HTMLResponse:
    alert = f'<p class="said" role="alert">{html.escape(said)}</p>' if said else ""
    return HTMLResponse(_PAGE.replace("<!-- said -->", alert), status)
