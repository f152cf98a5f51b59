"""Who may do what: the one table, and nothing beside it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, get_args

Role = Literal["producer", "analyst", "data_scientist", "admin"]
Permission = Literal[
    "transactions:ingest",
    "predictions:score",
    "predictions:read",
    "identities:read",
    "identities:reveal",
    "cases:read",
    "users:read",
    "stats:read",
    "feedback:report",
    "feedback:judge",
    "rules:read",
    "rules:write",
    "models:read",
    "models:change",
    "learner:command",
    "safe-mode:switch",
    "tokens:revoke",
    "audit:verify",
]

ROLES: Final[tuple[Role, ...]] = get_args(Role)

PERMISSIONS: Final[Mapping[Permission, frozenset[Role]]] = MappingProxyType(
    {
        "transactions:ingest": frozenset({"producer"}),
        "predictions:score": frozenset({"producer"}),
        "predictions:read": frozenset({"producer", "analyst", "data_scientist", "admin"}),
        "identities:read": frozenset({"producer", "analyst"}),
        "identities:reveal": frozenset({"analyst"}),
        "cases:read": frozenset({"analyst", "data_scientist", "admin"}),
        "users:read": frozenset({"analyst", "data_scientist", "admin"}),
        "stats:read": frozenset({"analyst", "data_scientist", "admin"}),
        "feedback:report": frozenset({"producer"}),
        "feedback:judge": frozenset({"analyst"}),
        "rules:read": frozenset({"analyst", "data_scientist", "admin"}),
        "rules:write": frozenset({"admin"}),
        "models:read": frozenset({"data_scientist", "admin"}),
        "models:change": frozenset({"admin"}),
        "learner:command": frozenset({"data_scientist", "admin"}),
        "safe-mode:switch": frozenset({"admin"}),
        "tokens:revoke": frozenset({"admin"}),
        "audit:verify": frozenset({"admin"}),
    }
)
"""Roles that hold each permission. An admin runs the system and reads no cardholder's identity."""


class Principal(NamedTuple):
    """Who asks, once that is proved. token_id: of the token that proved it; None for a signed request."""

    subject: str
    role: Role
    token_id: str | None = None

    def may(self, permission: Permission) -> bool:
        return self.role in PERMISSIONS[permission]
