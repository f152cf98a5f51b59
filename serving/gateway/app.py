"""The application: its routes, and what is opened before the first request."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import structlog
from fastapi import FastAPI, Request, Response
from starlette.middleware.cors import CORSMiddleware

from events.transaction import Transaction
from serving.gateway import admin, feedback, ingest, live, openapi, predictions, problems, reading
from serving.gateway.degraded import degraded_decision
from serving.gateway.edge import CORRELATION_HEADER, BodyLimits, Edge
from serving.gateway.services import Services
from serving.gateway.settings import GatewaySettings
from serving.security.personal import Masking, Pseudonyms

_EXAMPLE = msgspec.convert(openapi.TRANSACTION, Transaction)


def create_app(settings: GatewaySettings) -> FastAPI:
    """The gateway. Raises KeyFileError and AuditError where keys or audit trail are no good."""
    services = Services(settings)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await services.start()
        # Compiles its kernels, which takes seconds the first time: not while somebody waits 100 ms.
        await asyncio.to_thread(degraded_decision, _EXAMPLE)
        try:
            yield
        finally:
            await services.close()

    app = FastAPI(
        title="fraudstream",
        version="1",
        description="Transactions in, decisions out, and what steers the jobs between. Errors are RFC 9457.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.services = services
    problems.install(app)
    for router in (
        ingest.router,
        predictions.router,
        feedback.router,
        reading.router,
        live.router,
        admin.router,
    ):
        app.include_router(router)
    app.add_api_route("/health", health, tags=["operation"])
    app.add_api_route("/ready", ready, tags=["operation"], responses={503: {"description": "Kafka is away"}})
    openapi.install(app)
    if settings.gateway_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.gateway_origins,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=[
                "Authorization",
                "Content-Type",
                "Idempotency-Key",
                "Last-Event-ID",
                CORRELATION_HEADER,
            ],
        )
    limits = BodyLimits(
        settings.gateway_max_body,
        settings.gateway_max_stream,
        settings.gateway_body_idle_s,
        settings.gateway_body_s,
    )
    app.add_middleware(Edge, limits=limits, hosts=settings.gateway_hosts)
    return app


async def health() -> dict[str, str]:
    """Whether the process answers; whether it can do its work, `ready` tells."""
    return {"status": "ok"}


async def ready(request: Request) -> Response:
    """503 while Kafka is away. Without Redis no signed request is taken; without MongoDB no past is known."""
    services: Services = request.app.state.services
    state: dict[str, Any] = {
        "kafka": services.kafka_answers,
        "redis": services.redis_answers,
        "mongo": services.mongo_answers,
        "decisions": services.decisions.listening.is_set(),
    }
    if services.kafka_answers:
        return Response(msgspec.json.encode({"status": "ready", **state}), media_type="application/json")
    problem = problems.unavailable("not-ready", "Kafka does not answer", 5)
    problem.members = state
    raise problem


def log_as_json(pseudonyms: Pseudonyms) -> None:
    """Write logs as JSON lines to standard output, masked; those of libraries from warnings on."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        Masking(pseudonyms),
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer(serializer=_json)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(serializer=_json),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


def _json(event: Any, **_: Any) -> str:
    return msgspec.json.encode(event, enc_hook=repr).decode()
