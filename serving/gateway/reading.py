"""What is stored: cases, alerts, explanations, users' risk and counts, by `serving.queries` alone."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from events.types import EARLIEST_MS, IDENTIFIER_PATTERN, LATEST_MS, Verdict
from serving.alerts import Severity
from serving.cases import Status
from serving.control import now_ms
from serving.errors import StoreAway
from serving.gateway import identities, openapi
from serving.gateway.access import permitted
from serving.gateway.ingest import JSON
from serving.gateway.problems import Problem
from serving.gateway.services import Services, services_of
from serving.queries import MAX_PAGE, Stepping
from serving.security.permissions import Principal
from serving.stored import (
    CaseDetail,
    CaseFilter,
    DecisionFilter,
    KindName,
    Page,
    StoredExplanation,
    StoredFinding,
    StoredProfile,
    UserRisk,
)
from state.contract import HOUR_MS

router = APIRouter()

Name = Annotated[str, Path(pattern=IDENTIFIER_PATTERN, max_length=133)]
# A pseudonym has a tilde, which no id has.
UserName = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@/+=~-]*$", max_length=128)]
UserId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@/+=~-]*$", max_length=128)]
Time = Annotated[int, Field(ge=EARLIEST_MS, le=LATEST_MS)]
Services_ = Annotated[Services, Depends(services_of)]
OfCases = Annotated[Principal, Depends(permitted("cases:read"))]
OfUsers = Annotated[Principal, Depends(permitted("users:read"))]
OfStats = Annotated[Principal, Depends(permitted("stats:read"))]


class _Asked(BaseModel):
    """Parameters of a query; one that has no meaning here is refused, or a filter misspelt would be none."""

    model_config = ConfigDict(extra="forbid")


class _Paged(_Asked):
    """limit: of a page; after: the `next` of the page before."""

    limit: int = Field(50, ge=1, le=MAX_PAGE)
    after: Annotated[str, Field(max_length=1000)] | None = None


class _InWindow(_Paged):
    """Milliseconds since the epoch; until is excluded."""

    since: Time | None = None
    until: Time | None = None


class CaseQuery(_InWindow):
    """As `CaseFilter`."""

    status: Status | None = None
    severity: Severity | None = None
    user_id: UserId | None = None
    kind: KindName | None = None


class AlertQuery(_InWindow):
    """As `DecisionFilter`."""

    severity: Severity | None = None
    user_id: UserId | None = None
    kind: KindName | None = None
    verdict: Verdict | None = None


class StatsQuery(_Asked):
    """Without a window, the last hour."""

    since: Time | None = None
    until: Time | None = None
    step: Stepping = "minute"


class TopQuery(_Asked):
    """How many users."""

    limit: int = Field(50, ge=1, le=MAX_PAGE)


class RiskProfile(msgspec.Struct, frozen=True):
    """A user now, and day by day; history is None while MongoDB is away."""

    risk: UserRisk
    history: list[StoredProfile] | None


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    """Why a decision is as it is.

    `explanation` is made where an alert rule found something; `not_explained` says why there is none all the
    same.
    """

    prediction_id: str
    decision: Verdict
    score: float
    model_version: str
    degraded: bool
    rules: list[str]
    findings: list[StoredFinding]
    explanation: StoredExplanation | None
    not_explained: str | None


@router.get("/cases", tags=["cases"], **openapi.CASES)
async def list_cases(
    principal: OfCases, services: Services_, query: Annotated[CaseQuery, Query()]
) -> Response:
    """Cases, those opened last first; `since` and `until` are of the opening."""
    wanted = _wanted(CaseFilter, query, services, principal)
    page = await services.queries.cases(wanted, limit=query.limit, after=query.after)
    return _json(_shown(services, principal, page))


@router.get("/cases/{case_id}", tags=["cases"], **openapi.CASE)
async def show_case(
    case_id: Name, principal: OfCases, services: Services_, query: Annotated[_Paged, Query()]
) -> Response:
    """One case with its decisions, the newest first, in pages."""
    found = await services.queries.case(case_id, limit=query.limit, after=query.after)
    if found is None:
        raise Problem(404, "not-found", "there is no such case")
    case = identities.shown(services, principal, found.case)
    return _json(CaseDetail(case, _shown(services, principal, found.decisions)))


@router.get("/alerts", tags=["cases"], **openapi.ALERTS)
async def list_alerts(
    principal: OfCases, services: Services_, query: Annotated[AlertQuery, Query()]
) -> Response:
    """Decisions in which alert rules found something, the newest by event time first."""
    wanted = msgspec.structs.replace(_wanted(DecisionFilter, query, services, principal), alerting=True)
    page = await services.queries.decisions(wanted, limit=query.limit, after=query.after)
    return _json(_shown(services, principal, page))


@router.get("/explain/{prediction_id}", tags=["cases"], **openapi.EXPLAIN)
async def explain(prediction_id: Name, _principal: OfCases, services: Services_) -> Response:
    """What raised or lowered the score of a decision, once that is stored: a moment after it was made."""
    found = await services.queries.decision(prediction_id)
    if found is None:
        raise Problem(404, "not-found", "there is no such decision, or it is not stored yet")
    return _json(
        Explained(
            prediction_id=found.decision_id,
            decision=found.decision,
            score=found.score,
            model_version=found.model_version,
            degraded=found.degraded,
            rules=found.rules,
            findings=found.findings,
            explanation=found.explanation,
            not_explained=found.not_explained,
        )
    )


@router.get("/users/top-risk", tags=["users"], **openapi.TOP_RISK)
async def list_top_risk(
    principal: OfUsers, services: Services_, query: Annotated[TopQuery, Query()]
) -> Response:
    """The users with the highest risk now."""
    ranked = await services.queries.top_risk(limit=query.limit)
    return _json([identities.shown(services, principal, one) for one in ranked])


@router.get("/users/{user_id}/risk-profile", tags=["users"], **openapi.RISK_PROFILE)
async def show_risk_profile(user_id: UserName, principal: OfUsers, services: Services_) -> Response:
    """A user's risk now, and the latest 30 days with a decision."""
    name = identities.asked(services, principal, user_id)
    risk = await services.queries.user_risk(name)
    if risk is None:
        raise Problem(404, "not-found", "there is no such user")
    risk = identities.shown(services, principal, risk)
    try:
        page = await services.queries.profiles(name, limit=30)
    except StoreAway:
        return _json(RiskProfile(risk, None))
    days = [msgspec.structs.replace(day, user_id=risk.user_id) for day in page.items]
    return _json(RiskProfile(risk, days))


@router.get("/stats", tags=["stats"], **openapi.STATS)
async def show_stats(
    _principal: OfStats, services: Services_, query: Annotated[StatsQuery, Query()]
) -> Response:
    """Counts by event time, at most 25 hours of them, which is how long they are kept."""
    until = now_ms() if query.until is None else query.until
    since = until - HOUR_MS if query.since is None else query.since
    return _json(await services.queries.stats(since, until, step=query.step))


def _wanted(kind: Any, query: _Paged, services: Services, principal: Principal) -> Any:
    fields = query.model_dump(exclude={"limit", "after"})
    if fields["user_id"] is not None:
        fields["user_id"] = identities.asked(services, principal, fields["user_id"])
    return kind(**fields)


def _shown(services: Services, principal: Principal, page: Page[Any]) -> Page[Any]:
    return Page([identities.shown(services, principal, one) for one in page.items], page.next)


def _json(document: Any) -> Response:
    return Response(msgspec.json.encode(document), media_type=JSON)
