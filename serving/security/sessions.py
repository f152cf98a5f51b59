"""Sessions of the console: a signed cookie, good until it expires, is ended, or the account changes.

The cookie says who it is for and proves it by HMAC-SHA256 under `session.secret`. Sessions that were ended
are remembered until they would have expired, by this process and, for the others, in Redis.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import jwt
import msgspec

from models.signing import KeyFileError
from serving.security.accounts import Account, Accounts, PersonRole
from serving.security.permissions import Permission, Principal
from serving.security.personal import read_secret, write_secret
from serving.security.shared import SharedState, SharedStateAwayError

SESSION_FILE: Final = "session.secret"
_MAX_BYTES: Final = 2_000
_REQUIRED: Final = ["sub", "role", "jti", "iat", "exp", "stamp"]


class SessionError(Exception):
    """The cookie proves nothing; the message says why."""


class Session(msgspec.Struct, frozen=True):
    """Who is signed in. ends_s: seconds since the epoch; stamp: as of the account when it began."""

    subject: str
    role: PersonRole
    session_id: str
    ends_s: int
    stamp: str

    @property
    def principal(self) -> Principal:
        return Principal(self.subject, self.role)

    def may(self, permission: Permission) -> bool:
        return self.principal.may(permission)


class Sessions:
    """Begins, reads and ends sessions."""

    def __init__(
        self, secret: bytes, accounts: Accounts, life_s: int, clock: Callable[[], float] = time.time
    ) -> None:
        """clock: seconds since the epoch."""
        self._secret, self._accounts, self._life_s, self._clock = secret, accounts, life_s, clock
        self._ended: dict[str, int] = {}

    def begin(self, account: Account) -> tuple[Session, str]:
        """A new session and the cookie that proves it."""
        now = int(self._clock())
        session = Session(account.subject, account.role, uuid4().hex, now + self._life_s, account.stamp)
        members = {
            "sub": session.subject,
            "role": session.role,
            "jti": session.session_id,
            "iat": now,
            "exp": session.ends_s,
            "stamp": session.stamp,
        }
        return session, jwt.encode(members, self._secret, algorithm="HS256", headers={"typ": "session+jwt"})

    def read(self, cookie: str) -> Session:
        """The session that a cookie proves. Raises SessionError, KeyFileError."""
        if len(cookie) > _MAX_BYTES:
            raise SessionError("too long")
        try:
            if jwt.get_unverified_header(cookie).get("typ") != "session+jwt":
                raise SessionError("no session")
            # Expiry is held against the clock of this object, in `check`.
            members: dict[str, Any] = jwt.decode(
                cookie,
                self._secret,
                algorithms=["HS256"],
                options={"require": _REQUIRED, "verify_exp": False, "verify_iat": False},
            )
            session = Session(
                members["sub"], members["role"], members["jti"], int(members["exp"]), members["stamp"]
            )
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise SessionError(str(error)) from error
        self.check(session)
        return session

    def check(self, session: Session) -> None:
        """Raises SessionError where the session is over, KeyFileError where its account cannot be read."""
        if session.ends_s <= self._clock():
            raise SessionError("expired")
        if session.session_id in self._ended:
            raise SessionError("ended")
        account = self._accounts.get(session.subject)
        if account is None or account.stamp != session.stamp:
            raise SessionError("the account was changed")

    def good(self, session: Session) -> bool:
        """Whether it goes on."""
        try:
            self.check(session)
        except (SessionError, KeyFileError):
            return False
        return True

    async def ended_elsewhere(self, session: Session, shared: SharedState) -> bool:
        """Whether another gateway ended it; no while Redis cannot say."""
        try:
            if await shared.get(_key(session)) is None:
                return False
        except SharedStateAwayError:
            return False
        self._remember(session)
        return True

    async def end(self, session: Session, shared: SharedState) -> None:
        """Have the cookie prove nothing from now on, here and, where Redis answers, at other gateways."""
        self._remember(session)
        left_ms = max(1, round((session.ends_s - self._clock()) * 1000))
        try:
            await shared.put(_key(session), b"1", left_ms)
        except SharedStateAwayError:
            return

    def _remember(self, session: Session) -> None:
        now = self._clock()
        self._ended = {known: ends for known, ends in self._ended.items() if ends > now}
        self._ended[session.session_id] = session.ends_s


def new_session_secret(keys: Path) -> bool:
    """Write the secret where there is none; whether it was made now."""
    if (keys / SESSION_FILE).exists():
        return False
    keys.mkdir(parents=True, exist_ok=True)
    write_secret(keys / SESSION_FILE)
    return True


def read_session_secret(keys: Path) -> bytes:
    """Raises KeyFileError where there is none."""
    return read_secret(keys / SESSION_FILE)


def _key(session: Session) -> str:
    return f"fs:ended:{session.session_id}"
