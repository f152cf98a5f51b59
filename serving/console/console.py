"""What the pages share: one for the process."""

import asyncio
import math
from collections.abc import Callable
from typing import NamedTuple
from uuid import uuid4

from serving.console.snapshots import Snapshots
from serving.console.verdicts import Verdicts
from serving.control import Sent
from serving.gateway.admin import audited
from serving.gateway.identities import shown
from serving.gateway.problems import Problem
from serving.gateway.services import Services
from serving.queries import Queries
from serving.security.audit import Act
from serving.security.permissions import Permission
from serving.security.sessions import Session, SessionError, Sessions
from serving.stored import StoredCase


class Deed(NamedTuple):
    """What is done to what, as the audit trail names it."""

    action: str
    target: str | None = None


class Console:
    """Reads through `queries`, kept in `snapshots`; acts through the gateway's services."""

    def __init__(self, services: Services, sessions: Sessions) -> None:
        self.services, self.sessions = services, sessions
        self.snapshots = Snapshots()
        self.verdicts = Verdicts(services)

    @property
    def queries(self) -> Queries:
        """Opened when the services start."""
        return self.services.queries

    def user(self, session: Session, case: StoredCase) -> str:
        """How the user of a case is called for this session: by id for who may read it, else by pseudonym."""
        return shown(self.services, session.principal, case).user_id

    async def do(
        self,
        session: Session,
        permission: Permission,
        deed: Deed,
        what: Callable[[], Sent],
    ) -> str:
        """Steer the jobs as the gateway's routes do, audited; what was told.

        Raises Problem for who may not, and what `what` raises.
        """
        act = Act(session.subject, session.role, deed.action, deed.target, uuid4().hex)
        try:
            self.sessions.check(session)
        except SessionError as error:
            raise Problem(401, "unauthenticated", "the session is over; sign in again") from error
        limit = self.services.limit(session.subject)
        grant = await self.services.shared.take(f"client:{session.subject}", limit)
        if grant.wait_s > 0:
            raise Problem(
                429, "too-many-requests", f"too many requests; again in {math.ceil(grant.wait_s)} s"
            )
        if not session.may(permission):
            await self.services.record(act, "refused")
            raise Problem(403, "forbidden", f"the role {session.role} does not hold {permission}")

        def done() -> Sent:
            with audited(self.services.audit, act):
                return what()

        sent = await asyncio.to_thread(done)
        return f"{sent.what}: told, {sent.place}"
