"""The description of the HTTP interface: schemas from the wire contract, examples that are tested."""

from typing import Any, Final

import msgspec
from fastapi import FastAPI

from events.feedback import Feedback
from events.topics import TOPICS
from events.transaction import Transaction
from serving.security.signatures import SCHEME

_EXAMPLES: Final = {topic.name: msgspec.to_builtins(topic.example) for topic in TOPICS}
TRANSACTION: Final = {name: value for name, value in _EXAMPLES["transactions"].items() if value is not None}
VERDICT_BODY: Final = {"transaction_id": "tx-000000000042", "label": "fraud", "notes": "Not the cardholder."}
REPORT_BODY: Final = {"transaction_id": "tx-000000000042", "label": "fraud", "source": "chargeback"}
RULE_BODY: Final = {
    "all": [
        {"feature": "night", "operator": "==", "value": 1.0},
        {"feature": "amount", "operator": ">=", "value": 1000.0},
    ],
    "verdict": "review",
    "shadow": True,
}
RECEIPT: Final = {
    "accepted": 1,
    "refused": 1,
    "ids": [{"transaction_id": "tx-000000000042", "prediction_id": "0f0c8f0d8b9a4f6f8f5c1a2e7b3d4f60"}],
    "errors": [{"reason": "out_of_range", "detail": "Expected `float` >= 0.0", "field": "amount", "line": 2}],
}
PREDICTION_BODY: Final = {
    "prediction_id": "0f0c8f0d8b9a4f6f8f5c1a2e7b3d4f60",
    "transaction_id": "tx-000000000042",
    "user_id": "user-0000123",
    "decision": "review",
    "score": 0.83,
    "model_version": "gbt-1",
    "event_time": 1_764_000_000_000,
    "decided_at": 1_764_000_000_021,
    "provisional": False,
    "recorded": True,
    "degraded": False,
    "late": False,
    "parts": {"gbt": 0.83},
    "rules": ["night-electronics"],
    "correlation_id": "7d1c0b",
}
RULE_SHOWN: Final = {"rule_id": "night", "state": "shadow", "refused": None, "version": 1, **RULE_BODY}

_FINDING: Final = {"kind": "score", "severity": "high", "text": "score 0.83"}
_STORED: Final = {
    "decision_id": PREDICTION_BODY["prediction_id"],
    "transaction_id": "tx-000000000042",
    "user_id": "user-0000123",
    "sealed_user_id": None,
    "event_time": 1_764_000_000_000,
    "decided_at": 1_764_000_000_021,
    "amount": 129.9,
    "decision": "review",
    "score": 0.83,
    "model_version": "gbt-1",
    "terminal_id": "terminal-0000017",
    "currency": "EUR",
    "country": "FR",
    "channel": "online",
    "degraded": False,
    "late": False,
    "explored": False,
    "parts": {"gbt": 0.83},
    "rules": ["night-electronics"],
    "review_threshold": None,
    "correlation_id": "7d1c0b",
    "findings": [_FINDING],
    "case_id": "case-0f0c8f0d8b9a4f6f8f5c1a2e7b3d4f60",
    "explanation": None,
    "not_explained": "the decision was made by gbt-1, which is not at hand",
}
_CASE: Final = {
    "case_id": "case-0f0c8f0d8b9a4f6f8f5c1a2e7b3d4f60",
    "user_id": "user-0000123",
    "sealed_user_id": None,
    "status": "open",
    "severity": "high",
    "opened_at": 1_764_000_000_000,
    "updated_at": 1_764_000_000_000,
    "closed_at": None,
    "alerts": 1,
    "amount": 129.9,
    "highest_score": 0.83,
    "kinds": {"score": 1},
    "latest": "score 0.83",
    "revision": 1,
}
_EXPLAINED: Final = {
    "prediction_id": PREDICTION_BODY["prediction_id"],
    "decision": "review",
    "score": 0.83,
    "model_version": "gbt-1",
    "degraded": False,
    "rules": ["night-electronics"],
    "findings": [_FINDING],
    "explanation": {
        "sentence": "Reviewed at score 0.83, raised by the amount (9.3 times the user's mean).",
        "reasons": [
            {"code": "AMOUNT", "title": "Amount", "log_odds": 2.1, "text": "9.3 times the user's mean",
             "values": {"amount": 129.9}}
        ],
        "base": -4.0,
        "calibration": 0.0,
        "parts": {"gbt": 0.1},
        "log_odds": 1.6,
        "online": None,
    },
    "not_explained": None,
}  # fmt: skip
_HABITS: Final = {"user_amount_mean": 14.0, "user_count_24h": 2.0, "user_frauds": None}
_RISK: Final = {
    "risk": {
        "user_id": "user-0000123",
        "sealed_user_id": None,
        "risk": 0.83,
        "at": 1_764_000_000_000,
        "decisions": 41,
        "flagged": 1,
        "habits": _HABITS,
        "latest": PREDICTION_BODY["prediction_id"],
        "case_id": "case-0f0c8f0d8b9a4f6f8f5c1a2e7b3d4f60",
        "case_status": "open",
        "severity": "high",
        "source": "redis",
    },
    "history": [
        {"user_id": "user-0000123", "day": 20_416, "at": 1_763_990_000_000, "risk": 0.02, "decisions": 39,
         "flagged": 0, "habits": _HABITS}
    ],
}  # fmt: skip
_COUNTS: Final = {
    "at": 1_764_000_000_000,
    "decisions": 300,
    "review": 4,
    "block": 2,
    "labelled_fraud": 1,
    "labelled_legitimate": 3,
    "flagged_rate": 0.02,
    "fraud_rate": 0.25,
}
_STATS: Final = {
    "since": 1_764_000_000_000,
    "until": 1_764_000_060_000,
    "step": "minute",
    "total": _COUNTS,
    "series": [_COUNTS],
    "countries": [{"name": "FR", "decisions": 280, "flagged": 5}],
    "channels": [{"name": "online", "decisions": 300, "flagged": 6}],
}
_EVENT: Final = (
    "id: 1764000000021-0\nevent: decision\n"
    'data: {"feed_id":"1764000000021-0","decision_id":"0f0c8f0d8b9a4f6f8f5c1a2e7b3d4f60",'
    '"decision":"review","score":0.83}\n\n'
)

_TYPES: Final = (Transaction, Feedback)
_, _SCHEMAS = msgspec.json.schema_components(_TYPES, ref_template="#/components/schemas/{name}")

_PROBLEM: Final = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "instance"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "errors": {"type": "array", "items": {"type": "object"}},
    },
    "example": {
        "type": "urn:fraudstream:problem:invalid",
        "title": "Unprocessable Content",
        "status": 422,
        "detail": "the transaction is not valid",
        "instance": "urn:fraudstream:request:7d1c0b",
        "errors": [{"reason": "missing_field", "detail": "the field is required", "field": "amount"}],
    },
}
_PROBLEM_ANSWER: Final = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
_WHY: Final = {
    400: "A header is malformed",
    401: "Neither a good token nor a good signature",
    403: "The role does not hold the permission",
    404: "There is no such thing",
    405: "Not this method",
    408: "The body came too slowly",
    409: "The first request with this Idempotency-Key is under way",
    413: "The body is too large",
    415: "Not this media type",
    422: "What was sent is not valid, or would be refused by the jobs",
    429: "The limit of requests is reached",
    503: "Something that is needed is away",
}


def _route(
    answer: Any,
    body: dict[str, Any] | None = None,
    *further: int,
    status: int = 200,
) -> dict[str, Any]:
    """Arguments of a route: an example of its answer, its request body, and the errors beside the usual."""
    problems = {401, 403, 404, 429, 503, *further} | ({408, 413, 415, 422} if body else set())
    responses: dict[int, Any] = {
        status: {"description": "Good", "content": {"application/json": {"schema": {}, "example": answer}}},
        **{code: {"description": _WHY[code], "content": _PROBLEM_ANSWER} for code in sorted(problems)},
    }
    extra: dict[str, Any] = {"security": [{"token": []}, {"signature": []}]}
    if body is not None:
        extra["requestBody"] = {"required": True, "content": body}
    return {"responses": responses, "openapi_extra": extra}


def _body(example: Any, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"application/json": {"schema": schema or {"type": "object"}, "example": example}}


_ONE: Final = {"$ref": "#/components/schemas/Transaction"}

INGEST: Final = _route(
    RECEIPT,
    {
        "application/json": {
            "schema": {"oneOf": [_ONE, {"type": "array", "items": _ONE, "maxItems": 10_000}]},
            "examples": {"one": {"value": TRANSACTION}, "several": {"value": [TRANSACTION]}},
        },
        "application/x-ndjson": {
            "schema": {"type": "string"},
            "example": msgspec.json.encode(TRANSACTION).decode() + "\n",
        },
    },
    400,
    409,
    status=202,
)
INGEST["openapi_extra"]["parameters"] = [
    {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "schema": {"type": "string", "maxLength": 128},
        "description": "The same answer for the same request under this key, for 24 hours",
    }
]
SCORE: Final = _route(PREDICTION_BODY, _body(TRANSACTION, _ONE))
PREDICTION: Final = _route(PREDICTION_BODY, None, 422)
CASES: Final = _route({"items": [_CASE], "next": None}, None, 422)
CASE: Final = _route({"case": _CASE, "decisions": {"items": [_STORED], "next": None}}, None, 422)
ALERTS: Final = _route({"items": [_STORED], "next": None}, None, 422)
EXPLAIN: Final = _route(_EXPLAINED, None, 422)
TOP_RISK: Final = _route([{"user_id": "user-0000123", "risk": 0.83, "sealed_user_id": None}], None, 422)
RISK_PROFILE: Final = _route(_RISK, None, 422)
STATS: Final = _route(_STATS, None, 422)
LIVE: Final = _route(None, None, 422)
LIVE["responses"][200]["content"] = {"text/event-stream": {"schema": {"type": "string"}, "example": _EVENT}}
VERDICT: Final = _route({"accepted": 1, "about": "tx-000000000042"}, _body(VERDICT_BODY), status=202)
REPORT: Final = _route({"accepted": 1, "about": "tx-000000000042"}, _body(REPORT_BODY), status=202)
RULES: Final = _route([RULE_SHOWN])
RULE: Final = _route(RULE_SHOWN, None, 422)
_SENT: Final = {"told": "rule night, version 2, live", "place": "rules[0]@7"}
TOLD: Final = _route(_SENT, None, 422)
PUT_RULE: Final = _route(_SENT, _body(RULE_BODY))
MODELS: Final = _route(
    [{"version": "gbt-1", "created_at": "2026-01-01T00:00:00Z", "signed_by": "fraudstream", "problem": None,
      "promoted": True}]
)  # fmt: skip
LEARNER: Final = _route(
    {"told": "freeze", "place": "online-commands[0]@3"},
    _body({"command": "freeze", "reason": "Alerts doubled."}),
)
SAFE_MODE_BODY: Final = {"reason": "Scores have been 0.99 for everybody since noon."}
SAFE_MODE: Final = _route(
    {"on": True, "issued_by": "admin-1", "issued_at": 1_764_000_000_000, **SAFE_MODE_BODY}
)
_SWITCHED: Final = {"told": "safe mode on", "place": "model-updates[0]@7"}
BEGIN_SAFE_MODE: Final = _route(_SWITCHED, _body(SAFE_MODE_BODY))
END_SAFE_MODE: Final = _route({**_SWITCHED, "told": "safe mode off"})
OPEN: Final = _route({"user_id": "user-0000123"}, _body({"sealed": "sealed.1f0c8f0d.AAAA"}))
REVOKE: Final = _route({"revoked": "5f1c9a2e7b3d4f60"}, _body({"token_id": "5f1c9a2e7b3d4f60"}))
AUDIT: Final = _route({"intact": True, "problem": None, "number": 12, "hash": "0" * 64}, None, 422)


def install(app: FastAPI) -> None:
    """Have the app describe itself with these schemas."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema:
            return app.openapi_schema
        document = plain()
        components = document.setdefault("components", {})
        schemas = components.setdefault("schemas", {})
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        schemas.update(_SCHEMAS, Problem=_PROBLEM)
        components["securitySchemes"] = {
            "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
            "signature": {"type": "http", "scheme": SCHEME},
        }
        app.openapi_schema = document
        return document

    app.openapi = described  # type: ignore[method-assign]
