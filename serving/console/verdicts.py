"""Verdicts given in the console: taken back for some seconds, then sent as the gateway sends them.

A verdict belongs to the process and not to the page it was given on: it is sent also where the page is left.
"""

import asyncio
import time
from collections import OrderedDict
from typing import Final, Literal, NamedTuple
from uuid import uuid4

import msgspec
import structlog

from serving.errors import NotFoundError
from serving.gateway import feedback
from serving.gateway.problems import Problem
from serving.gateway.services import Services
from serving.security.audit import AuditError
from serving.security.sessions import Session

Verdict = Literal["fraud", "legitimate"]
OTHER: Final[dict[Verdict, Verdict]] = {"fraud": "legitimate", "legitimate": "fraud"}
REMEMBERED: Final = 2_000

log = structlog.get_logger()


class About(NamedTuple):
    """Whose verdict, and on which transaction."""

    subject: str
    transaction_id: str


class Given(msgspec.Struct, frozen=True):
    """A verdict and how far it is. due: by the monotonic clock, when it is sent; why: it could not be."""

    verdict: Verdict
    state: Literal["waiting", "sending", "sent", "failed"]
    due: float
    notes: str | None = None
    sent_ms: int | None = None
    why: str | None = None


class Verdicts:
    """The verdicts of this process, those given last."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._given: OrderedDict[About, Given] = OrderedDict()
        self._waiting: dict[About, asyncio.Task[None]] = {}

    def of(self, session: Session, transaction_id: str) -> Given | None:
        """What this person said of a transaction."""
        return self._given.get(About(session.subject, transaction_id))

    def give(self, session: Session, transaction_id: str, verdict: Verdict, notes: str | None = None) -> str:
        """Have a verdict sent in some seconds; another one on the same takes its place. What is said of it.

        Raises Problem for who may not judge.
        """
        if not session.may("feedback:judge"):
            raise Problem(403, "forbidden", f"the role {session.role} does not hold feedback:judge")
        about = About(session.subject, transaction_id)
        self._stop(about)
        wait_s = self._services.settings.console_undo_s
        self._note(about, Given(verdict, "waiting", time.monotonic() + wait_s, notes or None))
        task = asyncio.create_task(self._send(session, about, wait_s))
        self._waiting[about] = task
        task.add_done_callback(lambda _: self._waiting.get(about) is task and self._waiting.pop(about))
        return f"{verdict}, sent in {wait_s:g} s; u takes it back"

    def undo(self, session: Session, transaction_id: str) -> str:
        """Take a verdict back, or correct it by the other one where it was sent. What is said of it.

        Raises NotFoundError where there is none.
        """
        about = About(session.subject, transaction_id)
        given = self._given.get(about)
        if given is None:
            raise NotFoundError("there is no verdict of yours to take back")
        if given.state != "waiting":
            return "was sent already; corrected: " + self.give(session, transaction_id, OTHER[given.verdict])
        self._stop(about)
        del self._given[about]
        return "verdict taken back, nothing was sent"

    async def close(self) -> None:
        """Send at once what waits."""
        waiting = dict(self._waiting)
        for about in waiting:
            given = self._given.get(about)
            if given is not None and given.state == "waiting":
                self._note(about, msgspec.structs.replace(given, due=0.0))
        await asyncio.gather(*waiting.values(), return_exceptions=True)

    async def _send(self, session: Session, about: About, wait_s: float) -> None:
        ends = time.monotonic() + wait_s
        while (given := self._given[about]).due > 0 and time.monotonic() < ends:
            await asyncio.sleep(min(0.1, max(0.0, ends - time.monotonic())))
        self._note(about, given := msgspec.structs.replace(given, state="sending"))
        members = {
            "transaction_id": about.transaction_id,
            "label": given.verdict,
            "source": "analyst",
            "analyst_id": session.subject,
        } | ({"notes": given.notes} if given.notes else {})
        try:
            await feedback.send(self._services, session.principal, members, ("analyst",), uuid4().hex)
        except (Problem, AuditError) as error:
            why = error.detail if isinstance(error, Problem) else "the audit trail cannot be written"
            if isinstance(error, Problem) and (errors := error.members.get("errors")):
                why = f"{errors[0].field}: {errors[0].detail}"
            log.warning("verdict.not_sent", why=why)
            came = msgspec.structs.replace(given, state="failed", why=why)
        else:
            came = msgspec.structs.replace(given, state="sent", sent_ms=round(time.time() * 1000))
        if self._given.get(about) is given:  # else another verdict took its place meanwhile
            self._note(about, came)

    def _note(self, about: About, given: Given) -> None:
        self._given[about] = given
        self._given.move_to_end(about)
        for old in list(self._given)[: max(0, len(self._given) - REMEMBERED)]:
            if old not in self._waiting:
                del self._given[old]

    def _stop(self, about: About) -> None:
        """End the sending of a verdict that still waits; one on its way to Kafka goes on."""
        given, task = self._given.get(about), self._waiting.get(about)
        if task is not None and given is not None and given.state == "waiting":
            task.cancel()
            self._waiting.pop(about, None)
