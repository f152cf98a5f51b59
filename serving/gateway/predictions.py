"""Decisions out: asked for together with the transaction, or by id afterwards."""

import asyncio
import time
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Path, Request, Response

from events.decision import Decision, decision_id
from events.invalid import Invalid
from events.types import IDENTIFIER_PATTERN, Verdict
from serving.control import now_ms
from serving.gateway import identities, openapi
from serving.gateway.access import permitted
from serving.gateway.degraded import degraded_decision
from serving.gateway.ingest import JSON, correlated, is_avro, media_type
from serving.gateway.problems import FieldError, Problem
from serving.gateway.publisher import Delivery
from serving.gateway.services import Services, services_of
from serving.security.permissions import Principal
from serving.stored import StoredDecision

router = APIRouter(tags=["predictions"])
_DECISIONS = msgspec.json.Decoder(Decision)


class Prediction(msgspec.Struct, frozen=True, omit_defaults=True):
    """A decision as the gateway tells it.

    `provisional`: the scoring job did not answer in time; its own decision will stand under the same id, once
    it has the transaction. `recorded`: whether Kafka is known to have the transaction. `user_id` is a
    pseudonym for roles that may not read identities, and `sealed_user_id` what others can open.
    """

    prediction_id: str
    transaction_id: str
    user_id: str
    decision: Verdict
    score: float
    model_version: str
    event_time: int
    decided_at: int
    provisional: bool
    recorded: bool
    degraded: bool
    late: bool
    parts: dict[str, float]
    rules: list[str]
    sealed_user_id: str | None = None
    correlation_id: str | None = None
    """Of the request that the transaction came with."""


@router.post("/predictions/score", **openapi.SCORE)
async def score(
    request: Request,
    principal: Annotated[Principal, Depends(permitted("predictions:score"))],
    services: Annotated[Services, Depends(services_of)],
) -> Response:
    """Send one transaction and wait for its decision, within a budget of 100 ms where nothing else is set.

    After that the answer is that of the heuristic, which knows neither history nor rules, and says so by
    `degraded` and `provisional`. Where `recorded` is false as well, send the transaction again.
    """
    media_type(request, JSON)
    body = await request.body()
    ends = time.monotonic() + services.settings.gateway_score_ms / 1000
    latest = now_ms() + services.settings.max_future_s * 1000
    (record,) = services.transactions.decode([b"" if is_avro(body) else body], latest)
    if isinstance(record, Invalid):
        raise Problem(422, "invalid", "the transaction is not valid", errors=[FieldError.of(record)])
    identity = decision_id(record.user_id, record.transaction_id)
    waiting = services.decisions.wait(identity)
    if record.correlation_id is None:
        body = correlated(body, request.scope["correlation_id"])
    delivery = Delivery(request.scope["correlation_id"])
    recorded = False
    try:
        if not waiting.done():
            topic = services.topics.name("transactions")
            await services.publisher.send(topic, record.user_id, body, delivery, ends - time.monotonic())
        value = await asyncio.wait_for(asyncio.shield(waiting), max(0.0, ends - time.monotonic()))
        return _answer(services, principal, _DECISIONS.decode(value))
    except TimeoutError:
        recorded = await delivery.complete(0.001) and not delivery.refused
    except Problem:
        pass  # Kafka takes nothing: an answer is due all the same
    finally:
        services.decisions.forget(identity, waiting)
        waiting.cancel()
    return _answer(services, principal, degraded_decision(record), provisional=True, recorded=recorded)


@router.get("/predictions/{prediction_id}", **openapi.PREDICTION)
async def prediction(
    prediction_id: Annotated[str, Path(pattern=IDENTIFIER_PATTERN, max_length=128)],
    principal: Annotated[Principal, Depends(permitted("predictions:read"))],
    services: Annotated[Services, Depends(services_of)],
) -> Response:
    """The decision of the scoring job: of the newest that this gateway remembers, else from MongoDB."""
    value = services.decisions.get(prediction_id)
    if value is not None:
        return _answer(services, principal, _DECISIONS.decode(value))
    found = await services.queries.decision(prediction_id)
    if found is None:
        raise Problem(404, "not-found", "there is no such decision; a new one may still be made")
    found = identities.shown(services, principal, found)
    return _json(_told(found, found.user_id, found.sealed_user_id))


def _answer(
    services: Services,
    principal: Principal,
    decision: Decision,
    *,
    provisional: bool = False,
    recorded: bool = True,
) -> Response:
    user, sealed = decision.user_id, None
    if not principal.may("identities:read"):
        user, sealed = services.persons.of(user)
    return _json(_told(decision, user, sealed, provisional=provisional, recorded=recorded))


def _told(
    decision: Decision | StoredDecision,
    user: str,
    sealed: str | None,
    *,
    provisional: bool = False,
    recorded: bool = True,
) -> Prediction:
    return Prediction(
        prediction_id=decision.decision_id,
        transaction_id=decision.transaction_id,
        user_id=user,
        decision=decision.decision,
        score=decision.score,
        model_version=decision.model_version,
        event_time=decision.event_time,
        decided_at=decision.decided_at,
        provisional=provisional,
        recorded=recorded,
        degraded=decision.degraded,
        late=decision.late,
        parts=decision.parts,
        rules=decision.rules,
        sealed_user_id=sealed,
        correlation_id=decision.correlation_id,
    )


def _json(prediction: Prediction) -> Response:
    return Response(msgspec.json.encode(prediction), media_type=JSON)
