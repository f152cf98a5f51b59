"""A gateway in this process, its keys, and requests as clients send them."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx
import msgspec
from fastapi import FastAPI

from models.signing import generate_keys, read_private_key
from serving.gateway.app import create_app
from serving.gateway.settings import GatewaySettings
from serving.security import signatures
from serving.security.clients import Limit, new_client
from serving.security.permissions import ROLES, Role
from serving.security.personal import new_secrets
from serving.security.sessions import new_session_secret
from serving.security.tokens import issue

NOBODY = "127.0.0.1:1"
MANY = Limit(burst=1_000_000, per_minute=1e6)
T = TypeVar("T")


class Keys:
    """A folder of keys: a client of every role, by token or signature, with hardly any limit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        private, _ = generate_keys(folder / "tokens")
        self.key = read_private_key(private)
        new_secrets(folder)
        new_session_secret(folder)
        self.clients = {role: new_client(folder / "clients", role, role, MANY)[1] for role in ROLES}
        # Nothing flows back while a test runs, however slow the machine is.
        new_client(folder / "clients", "limited", "producer", Limit(burst=100, per_minute=0.01))

    def token(self, role: Role, subject: str | None = None) -> dict[str, str]:
        token, _ = issue(self.key, subject or role, role)
        return {"Authorization": f"Bearer {token}"}

    def signed(self, role: Role, method: str, target: str, body: bytes = b"") -> dict[str, str]:
        request = signatures.Request(method, target.encode(), body)
        secret = self.clients[role].secret
        assert secret is not None
        now, nonce = round(time.time() * 1000), secrets.token_urlsafe(16)
        return {"Authorization": signatures.sign(request, role, secret, now, nonce)}


class Gateway:
    """The app with its settings; every call of `run` starts and ends it."""

    def __init__(self, folder: Path, bootstrap: str = NOBODY, redis: str = "redis://127.0.0.1:1/0",
                 **settings: Any) -> None:  # fmt: skip
        self.keys = Keys(folder / "keys")
        self.settings = GatewaySettings(
            bootstrap=bootstrap,
            redis_url=redis,
            gateway_keys=folder / "keys",
            gateway_audit=folder / "audit.jsonl",
            **{"gateway_ack_s": 2.0, "allow_unsigned": True, "mongo_url": f"mongodb://{NOBODY}", **settings},
        )

    def run(self, what: Callable[[httpx.AsyncClient, FastAPI], Awaitable[T]]) -> T:
        async def started() -> T:
            app = create_app(self.settings)
            async with app.router.lifespan_context(app):
                transport = httpx.ASGITransport(app, raise_app_exceptions=False)
                async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
                    return await what(client, app)

        return asyncio.run(started())

    def ask(self, *requests: tuple[str, str, dict[str, Any]]) -> list[httpx.Response]:
        """The answers to requests (method, path, arguments of httpx), in order, of one started app."""

        async def send(client: httpx.AsyncClient, _app: FastAPI) -> list[httpx.Response]:
            return [await client.request(method, path, **how) for method, path, how in requests]

        return self.run(send)

    def audit(self) -> list[dict[str, Any]]:
        lines = self.settings.gateway_audit.read_bytes().splitlines()
        return [msgspec.json.decode(line) for line in lines]


def assert_problem(response: httpx.Response, status: int, kind: str | None = None) -> dict[str, Any]:
    """The body of an answer that keeps to RFC 9457 and names its request."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["status"] == status
    assert body["instance"].endswith(response.headers["x-correlation-id"])
    assert {"type", "title", "detail"} <= set(body)
    assert kind is None or body["type"] == f"urn:fraudstream:problem:{kind}"
    return body
