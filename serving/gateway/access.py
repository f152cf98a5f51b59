"""Who asks: proved by a token or a signature, within the limit of requests, and allowed to."""

import math
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final

import structlog
from fastapi import Depends, Request

from models.signing import KeyFileError
from serving.gateway.problems import Problem, unavailable
from serving.gateway.services import Services, services_of
from serving.security import signatures
from serving.security.audit import Act
from serving.security.clients import Limit
from serving.security.permissions import Permission, Principal
from serving.security.shared import Grant, SharedStateAwayError
from serving.security.signatures import SignatureError
from serving.security.tokens import TokenError

CHALLENGE: Final = f"Bearer, {signatures.SCHEME}"
FAILURES: Final = Limit()
"""Of failed attempts from one address."""

log = structlog.get_logger()


def permitted(permission: Permission) -> Callable[..., Awaitable[Principal]]:
    """A dependency: the principal, where it holds the permission. Raises Problem for any other."""

    async def check(request: Request, services: Annotated[Services, Depends(services_of)]) -> Principal:
        principal, grant = await _authenticate(request, services)
        request.scope["principal"] = services.pseudonyms.of("principal", principal.subject)
        _check(grant)
        if principal.may(permission):
            return principal
        act = Act(principal.subject, principal.role, permission, None, request.scope["correlation_id"])
        await services.record(act, "refused")
        raise Problem(403, "forbidden", f"the role {principal.role} does not hold {permission}")

    # What the tests and the documentation of a route read.
    check.permission = permission  # type: ignore[attr-defined]
    return check


async def _authenticate(request: Request, services: Services) -> tuple[Principal, Grant]:
    """Who asks, and whether the limit of requests lets them."""
    given = request.headers.getlist("authorization")
    try:
        # Two headers are as good as none: who forwarded the request may have looked at the other.
        scheme, _, rest = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        if scheme.lower() == "bearer":
            principal = services.tokens.verify(rest)
            limit = services.limit(principal.subject)
            return principal, await services.shared.take(f"client:{principal.subject}", limit)
        return await _signed(request, services, given[0] if scheme else "")
    except (TokenError, SignatureError) as error:
        address = services.pseudonyms.of("address", request.client.host if request.client else "unknown")
        log.warning("authentication.failed", why=str(error), address=address)
        _check(await services.shared.take(f"failures:{address}", FAILURES))
        raise Problem(
            401, "unauthenticated", "a good token or signature is needed", {"WWW-Authenticate": CHALLENGE}
        ) from error
    except KeyFileError as error:
        log.exception("keys.unreadable")
        raise unavailable("keys-away", "tokens cannot be verified", 30) from error
    except SharedStateAwayError as error:
        raise unavailable(
            "replay-protection-away", "signed requests are not taken while repeats cannot be told", 5
        ) from error


async def _signed(request: Request, services: Services, header: str) -> tuple[Principal, Grant]:
    authorization = signatures.parse(header)
    client = services.clients.get(authorization.client)
    if client is None or client.secret is None:
        raise SignatureError("there is no such client")
    query = request.scope["query_string"]
    target = request.scope["raw_path"] + (b"?" + query if query else b"")
    signed = signatures.Request(request.method, target, await request.body())
    signatures.verify(signed, authorization, client.secret, round(time.time() * 1000))
    limit = services.limit(client.client_id)
    grant = await services.shared.admit(f"client:{client.client_id}", authorization.nonce, limit)
    if grant is None:
        raise SignatureError("the nonce was used before")
    return Principal(client.client_id, client.role), grant


def _check(grant: Grant) -> None:
    if grant.wait_s > 0:
        headers: dict[str, Any] = {"Retry-After": str(math.ceil(grant.wait_s))}
        raise Problem(429, "too-many-requests", "the limit of requests is reached", headers)
