"""Decisions as they are made, as Server-Sent Events (WHATWG HTML, 9.2)."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Final

import msgspec
from fastapi import APIRouter, Depends, Header, Query, Response
from pydantic import BaseModel, ConfigDict
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from serving.gateway import identities, openapi
from serving.gateway.access import permitted
from serving.gateway.services import Services, services_of
from serving.security.permissions import Principal
from serving.stored import LiveDecision

STALLED_S: Final = 10.0
"""How long a client may take nothing of what is sent."""
FEED_ID: Final = r"^[0-9]{1,19}-[0-9]{1,19}$"

router = APIRouter(tags=["cases"])


class LiveQuery(BaseModel):
    """alerting: only decisions in which an alert rule found something."""

    model_config = ConfigDict(extra="forbid")
    alerting: bool = False


class EventStream(Response):
    """Sends until the client leaves, takes nothing for STALLED_S, or the time for one stream is over."""

    media_type = "text/event-stream"

    def __init__(self, chunks: AsyncIterator[bytes], longest_s: float) -> None:
        super().__init__(headers={"X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._chunks, self._longest_s = chunks, longest_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's
        sending = asyncio.create_task(self._send(send))
        leaving = asyncio.create_task(_left(receive))
        try:
            await asyncio.wait(
                (sending, leaving), timeout=self._longest_s, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            leaving.cancel()
            sending.cancel()
            await asyncio.wait((sending, leaving))
        if not sending.cancelled() and sending.exception() is not None:
            raise ClientDisconnect from sending.exception()
        if not leaving.cancelled():
            raise ClientDisconnect
        await asyncio.wait_for(send({"type": "http.response.body", "body": b""}), STALLED_S)

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for chunk in self._chunks:
            message = {"type": "http.response.body", "body": chunk, "more_body": True}
            await asyncio.wait_for(send(message), STALLED_S)


async def _listening(
    principal: Annotated[Principal, Depends(permitted("cases:read"))],
    services: Annotated[Services, Depends(services_of)],
) -> AsyncIterator[Principal]:
    """The principal, counted as one who listens for as long as the answer takes."""
    async with services.live.listening(principal.subject):
        yield principal


@router.get("/live", **openapi.LIVE)
async def live(
    principal: Annotated[Principal, Depends(_listening)],
    services: Annotated[Services, Depends(services_of)],
    query: Annotated[LiveQuery, Query()],
    last_event_id: Annotated[str | None, Header(pattern=FEED_ID)] = None,
) -> Response:
    """Decisions as they are stored, as Server-Sent Events; a comment where none comes for a while.

    `Last-Event-ID` goes on after that event, as long as the feed holds it: some 10,000 decisions. A stream
    ends after 5 minutes, and where a reader is too slow; come again with the last id.
    """

    async def chunks() -> AsyncIterator[bytes]:
        yield b": welcome\n\n"
        async for part in services.live.after(last_event_id):
            told = [one for one in part if one.findings or not query.alerting]
            events = [_event(identities.shown(services, principal, one)) for one in told]
            yield b"".join(events) or b": nothing new\n\n"

    return EventStream(chunks(), services.settings.gateway_live_s)


def _event(decision: LiveDecision) -> bytes:
    # JSON has no line feed of its own, so nothing in it can end the event.
    return b"id: %b\nevent: decision\ndata: %b\n\n" % (
        decision.feed_id.encode(),
        msgspec.json.encode(decision),
    )


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
