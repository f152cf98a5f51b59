"""What is written to MongoDB: one document per decision, case, label, user and day, and step of the learner.

Pure. Times are milliseconds since the epoch, as on the wire; NaN is None, because not every server that
speaks MongoDB's protocol takes it. Names that come from outside are values, never keys. A user is written
as a pseudonym; decisions and cases hold the user id beside it, sealed.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import numpy as np

from events.audit import AuditEvent
from events.decision import Decision, decision_id
from events.feedback import Label
from events.types import epoch_ms
from serving.alerts import SEVERITIES, Finding
from serving.cases import Case, kind_counts
from serving.security.personal import Person
from serving.users import Judged, User
from state.contract import CONTRACT_VERSION, DAY_MS, FEATURE_NAMES

if TYPE_CHECKING:
    # Else who writes documents would load what explains decisions.
    from models.explained import Explained

Body = dict[str, Any]
Keys = tuple[tuple[str, int], ...]

DECISIONS, CASES, LABELS, PROFILES, AUDIT = "decisions", "cases", "labels", "profiles", "audit"

REPLACED: Final = frozenset({CASES, LABELS})
"""A later document takes the place of an earlier one of the same id; elsewhere the first stays for ever."""

INDEXES: Final[Mapping[str, Mapping[str, Keys]]] = {
    DECISIONS: {
        "by_time": (("event_time", -1), ("_id", -1)),
        "by_user": (("user_id", 1), ("event_time", -1), ("_id", -1)),
        "by_transaction": (("transaction_id", 1), ("event_time", -1), ("_id", -1)),
        "by_case": (("case_id", 1), ("event_time", -1), ("_id", -1)),
        "by_verdict": (("decision", 1), ("event_time", -1), ("_id", -1)),
        "by_country": (("country", 1), ("event_time", -1), ("_id", -1)),
        "by_channel": (("channel", 1), ("event_time", -1), ("_id", -1)),
        "by_terminal": (("terminal_id", 1), ("event_time", -1)),
    },
    CASES: {
        "by_time": (("opened_at", -1), ("_id", -1)),
        "by_status": (("status", 1), ("opened_at", -1), ("_id", -1)),
        "by_severity": (("severity", 1), ("opened_at", -1), ("_id", -1)),
        "by_user": (("user_id", 1), ("opened_at", -1), ("_id", -1)),
    },
    LABELS: {
        "by_time": (("event_time", -1), ("_id", -1)),
        "by_user": (("user_id", 1), ("event_time", -1), ("_id", -1)),
        "by_source": (("source", 1), ("event_time", -1), ("_id", -1)),
        "by_transaction": (("transaction_id", 1), ("event_time", -1), ("_id", -1)),
        "by_labelling": (("labelled_at", -1),),
    },
    PROFILES: {"by_user": (("user_id", 1), ("day", -1), ("_id", -1))},
    AUDIT: {"by_time": (("at", -1), ("_id", -1)), "by_step": (("step", 1), ("at", -1), ("_id", -1))},
}
"""The indexes of each collection, by name; what they end with is the order of a list of `serving.queries`."""

_PROFILED: Final = (
    "user_amount_mean",
    "user_amount_median",
    "user_count_24h",
    "user_count_7d",
    "user_count_30d",
    "user_sum_24h",
    "user_sum_7d",
    "user_sum_30d",
    "device_count",
    "user_frauds",
)
"""Features that stand for the user's habits."""
_PROFILED_AT: Final = [FEATURE_NAMES.index(name) for name in _PROFILED]


class Document(NamedTuple):
    """One document for a collection. place: of the record it comes from, in its batch."""

    collection: str
    body: Body
    place: int


def of_decision(
    decision: Decision, judged: Judged, explained: "Explained | str | None", person: Person
) -> Body:
    """explained: a text says why there is no explanation, None that none was asked for."""
    body: Body = _builtins(decision)
    body["_id"] = body.pop("decision_id")
    body["user_id"], body["sealed_user_id"] = person
    body["parts"] = _named(decision.parts)
    body["findings"] = [_of_finding(finding) for finding in judged.found]
    body["case_id"] = None if judged.case is None else judged.case.case_id
    if isinstance(explained, str):
        body["not_explained"] = explained
    elif explained is not None:
        body["explanation"] = {
            "sentence": explained.sentence,
            "reasons": _builtins(explained.reasons),
            "base": explained.base,
            "calibration": explained.calibration,
            "parts": _named(explained.parts),
            "log_odds": explained.log_odds,
            "online": explained.online,
        }
    return body


def of_case(case: Case, person: Person) -> Body:
    """amount: the sum over the case, whatever the currencies."""
    return {
        "_id": case.case_id,
        "user_id": person.pseudonym,
        "sealed_user_id": person.sealed,
        "status": case.status,
        "severity": case.severity,
        "severity_rank": case.rank,
        "opened_at": case.opened_ms,
        "updated_at": case.updated_ms,
        "closed_at": case.closed_ms,
        "alerts": case.alerts,
        "amount": case.sum,
        "highest_score": case.highest_score,
        "kinds": kind_counts(case),
        "latest": case.latest,
        "revision": case.revision,
    }


def of_label(label: Label, case: Case | None, person: Person) -> Body:
    """case: the one that the label closed or changed. The id is that of the decision on the transaction."""
    return {
        "_id": decision_id(label.user_id, label.transaction_id),
        "user_id": person.pseudonym,
        "transaction_id": label.transaction_id,
        "event_time": epoch_ms(label.event_time),
        "is_fraud": label.is_fraud,
        "source": label.source,
        "labelled_at": epoch_ms(label.labelled_at),
        "terminal_id": label.terminal_id,
        "amount": label.amount,
        "case_id": None if case is None else case.case_id,
    }


def of_user(decision: Decision, user: User, person: Person) -> Body:
    """The user's profile as of a decision, the first of its day in UTC. Habits are None where unknown."""
    day = decision.event_time // DAY_MS
    return {
        "_id": f"{person.pseudonym}@{day}",
        "user_id": person.pseudonym,
        "day": day,
        "at": decision.event_time,
        "risk": user.risk,
        "decisions": user.decisions,
        "flagged": user.flagged,
        **habits(decision),
    }


def of_audit(event: AuditEvent) -> Body:
    """A step of the online learner or its gate."""
    body: Body = _builtins(event)
    body["_id"] = body.pop("event_id")
    body["figures"] = _named(event.figures)
    return body


def habits(decision: Decision) -> dict[str, float | None]:
    """What a decision's features say of the user's habits, None where they do not."""
    if decision.contract_version != CONTRACT_VERSION or len(decision.features) != 4 * len(FEATURE_NAMES):
        return dict.fromkeys(_PROFILED)
    values = np.frombuffer(decision.features, "<f4")[_PROFILED_AT].tolist()
    return {
        name: value if math.isfinite(value) else None for name, value in zip(_PROFILED, values, strict=True)
    }


def _of_finding(finding: Finding) -> Body:
    return {"kind": finding.kind.name.lower(), "severity": SEVERITIES[finding.rank], "text": finding.text}


def _named(values: Mapping[str, float]) -> list[Body]:
    return [{"name": name, "value": value} for name, value in values.items()]


def _builtins(record: Any) -> Any:
    return msgspec.to_builtins(record, builtin_types=(bytes,))
