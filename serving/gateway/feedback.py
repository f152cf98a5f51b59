"""What is known of decisions: verdicts of analysts, chargebacks, words of customers."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Request, Response

from events.feedback import Feedback
from events.invalid import Invalid
from events.strict_json import parse
from serving.control import now_ms
from serving.gateway import openapi
from serving.gateway.access import permitted
from serving.gateway.ingest import JSON, media_type
from serving.gateway.problems import FieldError, Problem, unavailable
from serving.gateway.publisher import Delivery
from serving.gateway.services import Services, services_of
from serving.security.audit import Act
from serving.security.permissions import Principal

router = APIRouter(tags=["feedback"])


@router.post("/feedback", status_code=202, **openapi.VERDICT)
async def judge(
    request: Request,
    principal: Annotated[Principal, Depends(permitted("feedback:judge"))],
    services: Annotated[Services, Depends(services_of)],
) -> Response:
    """An analyst's verdict; who judges is taken from the token, and nobody judges in another's name."""
    own = {"source": "analyst", "analyst_id": principal.subject}
    return await _send(request, services, principal, own, ("analyst",))


@router.post("/feedback/reports", status_code=202, **openapi.REPORT)
async def report(
    request: Request,
    principal: Annotated[Principal, Depends(permitted("feedback:report"))],
    services: Annotated[Services, Depends(services_of)],
) -> Response:
    """A chargeback or a customer's word, from the payment system."""
    return await _send(request, services, principal, {}, ("chargeback", "customer"))


async def _send(
    request: Request, services: Services, principal: Principal, own: dict[str, str], sources: tuple[str, ...]
) -> Response:
    """Send the feedback of the body. own: members that are the principal's and not the body's to set."""
    media_type(request, JSON)
    members = _members(await request.body())
    for name, value in own.items():
        if members.setdefault(name, value) != value:
            raise _invalid("inconsistent", f"is {value} and cannot be set", name)
    about = await send(services, principal, members, sources, request.scope["correlation_id"])
    return Response(msgspec.json.encode({"accepted": 1, "about": about}), 202, media_type=JSON)


async def send(
    services: Services,
    principal: Principal,
    members: dict[str, Any],
    sources: tuple[str, ...],
    correlation_id: str,
) -> str:
    """Send feedback to Kafka, audited; the id that it is about. Raises Problem and AuditError.

    sources: that this principal may give; the analyst's own id stands in an analyst's feedback alone.
    """
    members.setdefault("labelled_at", now_ms())
    payload = msgspec.json.encode(members)
    (record,) = services.feedback.decode([payload], now_ms() + services.settings.max_future_s * 1000)
    if isinstance(record, Invalid):
        raise Problem(422, "invalid", "the feedback is not valid", errors=[FieldError.of(record)])
    if record.source not in sources or (record.analyst_id is not None and "analyst" not in sources):
        raise _invalid(
            "inconsistent", f"this route takes {' and '.join(sources)}, of no other person", "source"
        )
    about = str(record.transaction_id or record.anomaly_id)
    act = Act(principal.subject, principal.role, f"feedback.{record.label}", about, correlation_id)
    await services.record(act, "requested")
    delivery, patience = Delivery(correlation_id), services.settings.gateway_ack_s
    topic = services.topics.name("feedback")
    await services.publisher.send(topic, about, msgspec.json.encode(record), delivery, patience)
    if not await delivery.complete(patience) or delivery.refused:
        await services.record(act, "failed")
        raise unavailable("kafka-away", "Kafka did not acknowledge in time; send the same again", 5)
    await services.record(act, "done")
    return about


def _members(body: bytes) -> dict[str, Any]:
    tree = parse(body)
    if isinstance(tree, Invalid):
        raise Problem(422, "invalid", "the feedback is not valid", errors=[FieldError.of(tree)])
    try:
        members: dict[str, Any] = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise _invalid("malformed_json", str(error), None) from error
    unknown = sorted(set(members) - set(Feedback.__struct_fields__))
    if unknown:
        raise _invalid("unknown_field", "there is no such field", unknown[0][:100])
    return members


def _invalid(reason: str, detail: str, field: str | None) -> Problem:
    return Problem(422, "invalid", "the feedback is not valid", errors=[FieldError(reason, detail, field)])
