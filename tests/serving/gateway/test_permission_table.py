"""Every route against every role: what the table does not allow is refused."""

import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from serving import broker
from serving.gateway.app import create_app
from serving.security.permissions import PERMISSIONS, ROLES, Permission
from tests.serving.gateway.running import Gateway, assert_problem

PUBLIC = {("GET", "/health"), ("GET", "/ready")}
PARAMETERS = {
    "rule_id": "r1", "switch": "enable", "version": "v1", "prediction_id": "d1", "case_id": "case-d1",
    "user_id": "u1",
}  # fmt: skip
DOCUMENT = Path(__file__).parents[3] / "docs" / "gateway.md"


def routes(app: FastAPI) -> dict[tuple[str, str], Permission | None]:
    """The permission that guards each route."""
    return {
        (method, route.path): _permission(route.dependant)
        for route in _api_routes(app)
        for method in route.methods or ()
    }


def _api_routes(app: FastAPI) -> list[APIRoute]:
    return [route for route in _walk(app.routes) if isinstance(route, APIRoute)]


def _walk(found: Any) -> Any:
    for route in found:
        inner = getattr(route, "original_router", None)
        if inner is None:
            yield route
        else:
            yield from _walk(inner.routes)


def _permission(dependant: Dependant) -> Permission | None:
    own: Permission | None = getattr(dependant.call, "permission", None)
    return own or next(filter(None, map(_permission, dependant.dependencies)), None)


@pytest.fixture
def guarded(tmp_path: Path) -> dict[tuple[str, str], Permission | None]:
    app = create_app(Gateway(tmp_path / "table").settings)
    app.state.services.audit.close()
    return routes(app)


def test_every_route_is_guarded_and_every_permission_guards_one(
    guarded: dict[tuple[str, str], Permission | None],
) -> None:
    assert {route for route, permission in guarded.items() if permission is None} == PUBLIC
    # Whether a principal may read identities is not a route's matter but an answer's.
    assert set(guarded.values()) == {None, *PERMISSIONS} - {"identities:read"}


def test_no_role_goes_beyond_the_table(
    guarded: dict[tuple[str, str], Permission | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker, "TIMEOUT_S", 0.05)
    gateway = Gateway(tmp_path, gateway_ack_s=0.05, gateway_score_ms=1, gateway_query_s=0.05)

    async def send(client: httpx.AsyncClient, _app: FastAPI) -> None:
        for (method, path), permission in guarded.items():
            if permission is None:
                continue
            target = re.sub(r"{(\w+)}", lambda found: PARAMETERS[found[1]], path)
            assert_problem(await client.request(method, target), 401)
            for role in ROLES:
                answer = await client.request(method, target, headers=gateway.keys.token(role), json={})
                if role in PERMISSIONS[permission]:
                    assert answer.status_code not in (401, 403), (role, method, path)
                else:
                    assert_problem(answer, 403, "forbidden")

    gateway.run(send)
    refused = [entry for entry in gateway.audit() if entry["outcome"] == "refused"]
    forbidden = sum(
        role not in PERMISSIONS[permission]
        for permission in guarded.values() if permission is not None for role in ROLES
    )  # fmt: skip
    assert sum(entry["action"] in PERMISSIONS for entry in refused) == forbidden


def test_the_document_shows_the_table(guarded: dict[tuple[str, str], Permission | None]) -> None:
    rows = [f"| permission | routes | {' | '.join(ROLES)} |", f"|---|---|{'---|' * len(ROLES)}"]
    for permission, roles in PERMISSIONS.items():
        its = ", ".join(f"`{method} {path}`" for (method, path), p in guarded.items() if p == permission)
        marks = " | ".join("yes" if role in roles else "" for role in ROLES)
        rows.append(f"| `{permission}` | {its} | {marks} |")
    assert "\n".join(rows) in DOCUMENT.read_text()
