"""What the stores answer with: one plain struct for each thing that `serving.queries` finds, and its filters.

Times are milliseconds since the epoch. `user_id` is whatever the stores know the user by, an opaque text;
`sealed_user_id` can be opened by who may read identities.
"""

from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
from msgspec import Meta

from events.audit import Step
from events.feedback import Source
from events.types import EpochMs, Verdict
from serving.alerts import Severity
from serving.cases import Status

T = TypeVar("T")

KindName = Literal["verdict", "score", "velocity", "amount", "country", "travel"]
"""Names of `serving.alerts.Kind`."""
Key = Annotated[str, Meta(min_length=1, max_length=300)]
"""A text that is looked for. Never anything else: what is no text could be read as an operator."""


class Page(msgspec.Struct, Generic[T], frozen=True):
    """Some of a list, in its order. next: the cursor of what follows; None at the end."""

    items: list[T]
    next: str | None = None


class StoredFinding(msgspec.Struct, frozen=True):
    """What one alert rule found."""

    kind: KindName
    severity: Severity
    text: str


class StoredReason(msgspec.Struct, frozen=True):
    """As `models.reasons.Reason`."""

    code: str
    title: str
    log_odds: float
    text: str
    values: dict[str, float | None] = {}


class StoredExplanation(msgspec.Struct, frozen=True):
    """As `models.explained.Explained`, in log-odds."""

    sentence: str
    reasons: list[StoredReason]
    base: float
    calibration: float
    parts: dict[str, float]
    log_odds: float
    online: float | None = None


class StoredDecision(msgspec.Struct, frozen=True, kw_only=True):
    """A decision without its features. not_explained: why there is no explanation where one was due."""

    decision_id: str
    transaction_id: str
    user_id: str
    sealed_user_id: str | None = None
    event_time: int
    decided_at: int
    amount: float
    decision: Verdict
    score: float
    model_version: str
    terminal_id: str | None = None
    currency: str | None = None
    country: str | None = None
    channel: str | None = None
    degraded: bool = False
    late: bool = False
    explored: bool = False
    parts: dict[str, float] = {}
    rules: list[str] = []
    review_threshold: float | None = None
    correlation_id: str | None = None
    findings: list[StoredFinding] = []
    case_id: str | None = None
    explanation: StoredExplanation | None = None
    not_explained: str | None = None


class StoredCase(msgspec.Struct, frozen=True, kw_only=True):
    """A case. alerts: decisions merged; amount: their sum, whatever the currencies; kinds: findings each."""

    case_id: str
    user_id: str
    sealed_user_id: str | None = None
    status: Status
    severity: Severity
    opened_at: int
    updated_at: int
    closed_at: int | None = None
    alerts: int
    amount: float
    highest_score: float
    kinds: dict[KindName, int]
    latest: str
    revision: int


class CaseDetail(msgspec.Struct, frozen=True):
    """A case with its decisions, the newest first."""

    case: StoredCase
    decisions: Page[StoredDecision]


class SimilarCase(msgspec.Struct, frozen=True):
    """A case like another. likeness: 0 to 3, one each for the same kinds, terminal and amount."""

    case: StoredCase
    likeness: float
    shared_kinds: list[KindName]
    shared_terminal: bool


class StoredLabel(msgspec.Struct, frozen=True, kw_only=True):
    """The latest label of a transaction. case_id: of the case that it closed or changed."""

    decision_id: str
    transaction_id: str
    user_id: str
    event_time: int
    is_fraud: bool
    source: Source
    labelled_at: int
    terminal_id: str | None = None
    amount: float | None = None
    case_id: str | None = None


class StoredProfile(msgspec.Struct, frozen=True, kw_only=True):
    """A user at the first decision of a day (UTC, since the epoch). Habits: None where unknown."""

    user_id: str
    day: int
    at: int
    risk: float
    decisions: int
    flagged: int
    habits: dict[str, float | None]


class UserRisk(msgspec.Struct, frozen=True, kw_only=True):
    """A user now. risk: faded to the present, 0 to 1; at: event time of the latest record it holds.

    latest: id of the latest decision. From MongoDB, counts are those of the latest day's first decision.
    """

    user_id: str
    sealed_user_id: str | None = None
    risk: float
    at: int
    decisions: int
    flagged: int
    habits: dict[str, float | None]
    latest: str | None = None
    case_id: str | None = None
    case_status: Status | None = None
    severity: Severity | None = None
    source: Literal["redis", "mongo"]


class RankedUser(msgspec.Struct, frozen=True):
    """A user of the ranking, with the risk as of now."""

    user_id: str
    risk: float
    sealed_user_id: str | None = None


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of one step of a window. fraud_rate: of what was labelled; flagged_rate: of what was decided.

    Both are None where there is nothing to take a share of.
    """

    at: int
    decisions: int
    review: int
    block: int
    labelled_fraud: int
    labelled_legitimate: int
    flagged_rate: float | None
    fraud_rate: float | None


class Share(msgspec.Struct, frozen=True):
    """Counts of one country or channel. flagged: not approved."""

    name: str
    decisions: int
    flagged: int


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """Counts over a window of event time, whole minutes: since up to before until.

    total: of the whole window, `at` its beginning; countries and channels: most decisions first, at most 100.
    """

    since: int
    until: int
    step: Literal["minute", "hour"]
    total: Counts
    series: list[Counts]
    countries: list[Share]
    channels: list[Share]


class SourcePrecision(msgspec.Struct, frozen=True):
    """What one source said, latest labels only. precision: the share of fraud."""

    source: Source
    fraud: int
    legitimate: int
    precision: float


class Precision(msgspec.Struct, frozen=True):
    """Of labels in a window by the time of the label. truncated: there were more than were counted."""

    sources: list[SourcePrecision]
    counted: int
    truncated: bool


class StoredStep(msgspec.Struct, frozen=True, kw_only=True):
    """A step of the online learner or its gate, as `events.audit.AuditEvent`."""

    event_id: str
    at: int
    step: Step
    actor: str
    detail: str
    version: str | None = None
    figures: dict[str, float] = {}


class LiveDecision(msgspec.Struct, frozen=True, kw_only=True):
    """A decision of the live feed. feed_id: its place there."""

    feed_id: str
    decision_id: str
    transaction_id: str
    user_id: str
    sealed_user_id: str | None = None
    event_time: int
    decided_at: int
    amount: float
    currency: str | None = None
    country: str | None = None
    channel: str | None = None
    decision: Verdict
    score: float
    model_version: str
    degraded: bool = False
    rules: list[str] = []
    findings: list[KindName] = []
    case_id: str | None = None
    correlation_id: str | None = None


class CaseFilter(msgspec.Struct, frozen=True, kw_only=True):
    """since, until: of when the case was opened; until is excluded. kind: one of what was found."""

    status: Status | None = None
    severity: Severity | None = None
    user_id: Key | None = None
    kind: KindName | None = None
    since: EpochMs | None = None
    until: EpochMs | None = None


class DecisionFilter(msgspec.Struct, frozen=True, kw_only=True):
    """since, until: event time; until is excluded. alerting: only those in which something was found.

    kind, severity: something of this kind, and something of this severity, was found.
    """

    user_id: Key | None = None
    transaction_id: Key | None = None
    case_id: Key | None = None
    country: Key | None = None
    channel: Key | None = None
    verdict: Verdict | None = None
    alerting: bool = False
    kind: KindName | None = None
    severity: Severity | None = None
    since: EpochMs | None = None
    until: EpochMs | None = None


class LabelFilter(msgspec.Struct, frozen=True, kw_only=True):
    """since, until: event time of the transaction; until is excluded."""

    user_id: Key | None = None
    decision_id: Key | None = None
    transaction_id: Key | None = None
    source: Source | None = None
    is_fraud: bool | None = None
    since: EpochMs | None = None
    until: EpochMs | None = None


class StepFilter(msgspec.Struct, frozen=True, kw_only=True):
    """since, until: of the step; until is excluded."""

    step: Step | None = None
    since: EpochMs | None = None
    until: EpochMs | None = None


Filter = CaseFilter | DecisionFilter | LabelFilter | StepFilter
Body = dict[str, Any]


def decision_of(body: Body) -> StoredDecision:
    """From a document of `serving.documents.of_decision`. Raises msgspec.ValidationError for any other."""
    explanation = body.get("explanation")
    if explanation is not None:
        explanation = explanation | {"parts": _named(explanation["parts"])}
    own = {"decision_id": body["_id"], "parts": _named(body["parts"]), "explanation": explanation}
    return msgspec.convert(body | own, StoredDecision)


def case_of(body: Body) -> StoredCase:
    """From a document of `serving.documents.of_case`."""
    return msgspec.convert(body | {"case_id": body["_id"]}, StoredCase)


def label_of(body: Body) -> StoredLabel:
    """From a document of `serving.documents.of_label`."""
    return msgspec.convert(body | {"decision_id": body["_id"]}, StoredLabel)


def profile_of(body: Body) -> StoredProfile:
    """From a document of `serving.documents.of_user`; what has no field of its own there is a habit."""
    names = {*StoredProfile.__struct_fields__, "_id"}
    habits = {name: value for name, value in body.items() if name not in names}
    return msgspec.convert(body | {"habits": habits}, StoredProfile)


def step_of(body: Body) -> StoredStep:
    """From a document of `serving.documents.of_audit`."""
    return msgspec.convert(body | {"event_id": body["_id"], "figures": _named(body["figures"])}, StoredStep)


def _named(entries: list[Body]) -> dict[str, float]:
    return {entry["name"]: entry["value"] for entry in entries}
