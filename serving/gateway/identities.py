"""Users as each principal may see them: the stores know pseudonyms, and ids that are sealed."""

import re
from typing import Final, Protocol, TypeVar

import msgspec

from serving.gateway.problems import FieldError, Problem
from serving.gateway.services import Services
from serving.security.permissions import Principal
from serving.security.personal import USER, SealError

_PSEUDONYM: Final = re.compile(f"{USER}~[0-9a-f]{{32}}")


class _OfUser(Protocol):
    @property
    def user_id(self) -> str: ...
    @property
    def sealed_user_id(self) -> str | None: ...


T = TypeVar("T", bound=_OfUser)


def asked(services: Services, principal: Principal, user_id: str) -> str:
    """The pseudonym of a user that somebody asks for, by either name.

    Raises Problem for an id from who may read none: trying ids out would tell whose pseudonym is whose.
    """
    if _PSEUDONYM.fullmatch(user_id):
        return user_id
    if principal.may("identities:read"):
        return services.pseudonyms.of(USER, user_id)
    error = FieldError("identity", f"the role {principal.role} asks by pseudonyms alone", "user_id")
    raise Problem(422, "invalid", "the request is not valid", errors=[error])


def shown(services: Services, principal: Principal, found: T) -> T:
    """What was found, with the user's id for who may read it."""
    if found.sealed_user_id is None or not principal.may("identities:read"):
        return found
    try:
        user_id = services.seals.open(USER, found.sealed_user_id)
    except SealError:  # under a key that is gone: the pseudonym is all there is
        return found
    return msgspec.structs.replace(found, user_id=user_id, sealed_user_id=None)  # type: ignore[type-var]
