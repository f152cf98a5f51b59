"""Errors as problem details (RFC 9457), all of them and nothing else."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from events.invalid import Invalid
from serving.errors import BrokerError, ControlError, NotFoundError, QueryError, StoreAway
from serving.security.audit import AuditError

MEDIA_TYPE = "application/problem+json"
URN = "urn:fraudstream:problem:"


class FieldError(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is wrong with one record: `line` counts from 1, lines of NDJSON or elements of an array."""

    reason: str
    detail: str
    field: str | None = None
    line: int | None = None

    @classmethod
    def of(cls, invalid: Invalid, line: int | None = None) -> "FieldError":
        return cls(invalid.reason, invalid.detail, invalid.field, line)


class Problem(Exception):  # noqa: N818 - the standard's word
    """An answer that says what is wrong. kind: ends the URN that is its type."""

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        """members: further ones of the body."""
        super().__init__(detail)
        self.status, self.kind, self.detail = status, kind, detail
        self.headers, self.members = dict(headers or {}), members

    def response(self, correlation_id: str | None) -> Response:
        """The body names the request, so that whoever asks for help can."""
        body = {
            "type": URN + self.kind,
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "instance": f"urn:fraudstream:request:{correlation_id}",
            **self.members,
        }
        return Response(msgspec.json.encode(body), self.status, self.headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Have the app answer every error as a problem."""

    @app.exception_handler(Problem)
    async def _problem(request: Request, problem: Problem) -> Response:
        return _answer(request, problem)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        kind = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
        return _answer(request, Problem(error.status_code, kind, str(error.detail), error.headers))

    @app.exception_handler(RequestValidationError)
    async def _validation(request: Request, error: RequestValidationError) -> Response:
        errors = [
            FieldError(fault["type"], fault["msg"], ".".join(map(str, fault["loc"])))
            for fault in error.errors()
        ]
        return _answer(request, Problem(422, "invalid", "the request is not valid", errors=errors))

    @app.exception_handler(NotFoundError)
    async def _not_found(request: Request, error: NotFoundError) -> Response:
        return _answer(request, Problem(404, "not-found", str(error)))

    @app.exception_handler(ControlError)
    async def _control(request: Request, error: ControlError) -> Response:
        return _answer(request, Problem(422, "refused", str(error)))

    @app.exception_handler(BrokerError)
    async def _broker(request: Request, error: BrokerError) -> Response:  # noqa: ARG001 - names hosts
        return _answer(request, unavailable("kafka-away", "Kafka does not answer", 5))

    @app.exception_handler(StoreAway)
    async def _store(request: Request, error: StoreAway) -> Response:
        return _answer(request, unavailable("store-away", str(error), 5))

    @app.exception_handler(QueryError)
    async def _query(request: Request, error: QueryError) -> Response:
        errors = [FieldError("bad_value", error.reason, error.field)]
        return _answer(request, Problem(422, "invalid", "the request is not valid", errors=errors))

    @app.exception_handler(AuditError)
    async def _audit(request: Request, error: AuditError) -> Response:  # noqa: ARG001 - names paths
        return _answer(request, unavailable("audit-away", "the audit trail cannot be written", 30))


def unavailable(kind: str, detail: str, retry_s: int) -> Problem:
    """What the caller may try again after so many seconds."""
    return Problem(503, kind, detail, {"Retry-After": str(retry_s)})


def _answer(request: Request, problem: Problem) -> Response:
    return problem.response(request.scope.get("correlation_id"))
