"""Whatever the description allows, and what it forbids, is answered as described and never by a fault."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from serving.gateway.app import create_app
from serving.security.permissions import PERMISSIONS
from stack.cluster import Cluster
from stack.ports import free_ports
from tests.serving.gateway.running import Gateway
from tests.serving.gateway.test_permission_table import routes
from tests.serving.servers import Server

schemathesis = pytest.importorskip("schemathesis")
from hypothesis import HealthCheck, given, settings  # noqa: E402 - whose version schemathesis chose
from hypothesis.errors import Unsatisfiable  # noqa: E402
from schemathesis.checks import not_a_server_error  # noqa: E402
from schemathesis.specs.openapi.checks import (  # noqa: E402
    content_type_conformance,
    status_code_conformance,
)

pytestmark = [pytest.mark.stack, pytest.mark.slow]

PREFIX = "fuzz."


@pytest.fixture(scope="module")
def headers() -> dict[tuple[str, str], dict[str, str]]:
    """For every route a token of a role that may use it."""
    return {}


@pytest.fixture(scope="module")
def api(
    kafka: Cluster,
    redis_session: Server,
    restartable_mongo: Server,
    headers: dict[tuple[str, str], dict[str, str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Any]:
    kafka.topics(PREFIX)
    gateway = Gateway(
        Path(tmp_path_factory.mktemp("gateway")), kafka.bootstrap, redis_session.url,
        topic_prefix=PREFIX, gateway_score_ms=20, mongo_url=restartable_mongo.url, gateway_live_s=0.2,
    )  # fmt: skip
    app = create_app(gateway.settings)
    for route, permission in routes(app).items():
        if permission is not None:
            headers[route] = gateway.keys.token(min(PERMISSIONS[permission]))
    (port,) = free_ports(1)
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    Cluster.until(lambda: server.started, 60, "the gateway listens")
    yield schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")
    server.should_exit = True
    thread.join()


@pytest.mark.parametrize("mode", ["POSITIVE", "NEGATIVE"])
def test_no_request_makes_the_gateway_fail(
    mode: str, api: Any, headers: dict[tuple[str, str], dict[str, str]]
) -> None:
    checks = [not_a_server_error, status_code_conformance, content_type_conformance]
    asked = []
    for found in api.get_all_operations():
        operation = found.ok()
        token = headers.get((operation.method.upper(), operation.path), {})
        cases = operation.as_strategy(generation_mode=schemathesis.GenerationMode[mode])

        def answered(case: Any) -> None:
            asked.append(case.path)
            case.call_and_validate(headers=token, checks=checks)  # noqa: B023 - called in its own turn

        bounded = settings(
            max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), database=None
        )
        # What has no parameter has nothing that could be wrong.
        with contextlib.suppress(Unsatisfiable):
            bounded(given(case=cases)(answered))()
    assert len(asked) > 300
