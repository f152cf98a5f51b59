"""What is written to Redis: the latest decisions, users' risk, counts by minute and the live feed.

Everything a batch changes is one transaction (WATCH, MULTI, EXEC) with the position in Kafka up to which the
views hold it. A record at or below that position is left out, so a batch that is written again, whole or
cut differently, changes nothing: counts are exact, not estimates.

A user is known here by a pseudonym; with it stands the user's id, sealed.

Redis must be one server, not a cluster: a transaction has keys of many slots.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from redis import Redis
from redis.client import Pipeline
from redis.exceptions import WatchError

from events.decision import Decision
from events.feedback import Label
from events.types import epoch_ms
from serving.documents import habits
from serving.security.personal import Person
from serving.users import RISK_HALF_LIFE_MS, Judged, User
from state.contract import MINUTE_MS

PREFIX: Final = "fraudstream:"
FEED: Final = f"{PREFIX}feed"
"""Stream of the latest decisions."""
TOP_RISK: Final = f"{PREFIX}top-risk"
"""Sorted set of users by `risk_rank`."""
LEAST_RANKED: Final = 0.05
"""Risk from which a user is ranked."""

_encode = msgspec.json.Encoder().encode


class ViewSettings(msgspec.Struct, frozen=True):
    """How much the views keep."""

    recent_s: int
    """A decision can be looked up for so long."""
    user_days: int
    minutes: int
    """How long counts of a minute are kept after their last change."""
    feed: int
    """Decisions in the feed, about."""
    ranked: int
    """Users in the ranking by risk."""


class Change(NamedTuple):
    """What one record changed. position: in the log, greater than of any before in its partition."""

    partition: int
    position: int
    record: Decision | Label
    judged: Judged
    person: Person
    """The user of the record."""


class Views:
    """The views in one Redis."""

    def __init__(self, redis: Redis, settings: ViewSettings, source: str) -> None:
        """source: names the log that positions are in; another log is counted anew."""
        self._redis = redis
        self._settings = settings
        self._source = source

    def write(self, shard: str, changes: Sequence[Change], users: Mapping[str, User]) -> int:
        """Apply what is not applied yet; how many of the changes that was.

        users: all that the changes are about, by pseudonym, as of the last of them. Changes of one shard have
        one writer, and those of one partition come in order. Raises redis.RedisError; then all or nothing was
        applied, and writing again is right either way.
        """
        marks = f"{PREFIX}marks:{self._source}:{shard}"
        with self._redis.pipeline() as pipe:
            while True:
                pipe.watch(marks)  # type: ignore[no-untyped-call]
                held: Any = pipe.hgetall(marks)  # while watching, at once
                applied = {int(partition): int(position) for partition, position in held.items()}
                fresh = [c for c in changes if c.position > applied.get(c.partition, -1)]
                if not fresh:
                    return 0
                pipe.multi()
                self._apply(pipe, fresh, users)
                pipe.hset(marks, mapping={c.partition: c.position for c in fresh})
                try:
                    pipe.execute()
                except WatchError:
                    continue
                return len(fresh)

    def _apply(self, pipe: Pipeline, fresh: Sequence[Change], users: Mapping[str, User]) -> None:
        settings = self._settings
        latest: dict[str, Decision] = {}
        for _, _, record, judged, person in fresh:
            if isinstance(record, Label):
                continue
            latest[person.pseudonym] = record
            told = shown(record, judged, person)
            pipe.set(decision_key(record.decision_id), told, ex=settings.recent_s)
            pipe.set(transaction_key(record.transaction_id), record.decision_id, ex=settings.recent_s)
            pipe.xadd(FEED, {"decision": told}, maxlen=settings.feed, approximate=True)
        for name, person in {change.person.pseudonym: change.person for change in fresh}.items():
            self._tell(pipe, person, users[name], latest.get(name))
        pipe.zremrangebyrank(TOP_RISK, 0, -settings.ranked - 1)
        for minute, counts in counted(fresh).items():
            key = minute_key(minute)
            for field, count in counts.items():
                pipe.hincrby(key, field, count)
            pipe.expire(key, settings.minutes * 60)

    def _tell(self, pipe: Pipeline, person: Person, user: User, latest: Decision | None) -> None:
        key, case = user_key(person.pseudonym), user.case
        fields: dict[str, Any] = {
            "risk": user.risk,
            "at": user.at_ms,
            "decisions": user.decisions,
            "flagged": user.flagged,
            "sealed_user_id": person.sealed,
        }
        if case is not None:
            fields |= {"case_id": case.case_id, "case_status": case.status, "severity": case.severity}
        if latest is not None:
            fields |= {"latest": latest.decision_id, "habits": _encode(habits(latest))}
        pipe.hset(key, mapping=fields)
        pipe.expire(key, self._settings.user_days * 86_400)
        if user.risk >= LEAST_RANKED:
            pipe.zadd(TOP_RISK, {person.pseudonym: risk_rank(user.risk, user.at_ms)})
        else:
            pipe.zrem(TOP_RISK, person.pseudonym)


def risk_rank(risk: float, at_ms: int) -> float:
    """A number that orders users by risk at any one time, though their risks are of different times.

    Risk halves with time, so its logarithm falls alike for all: rank = log2(risk) + time / half-life, and
    the risk at a time is 2 ** (rank - time / half-life).
    """
    return math.log2(risk) + at_ms / RISK_HALF_LIFE_MS


def shown(decision: Decision, judged: Judged, person: Person) -> bytes:
    """A decision as JSON for those who look on: without its features."""
    return _encode(
        {
            "decision_id": decision.decision_id,
            "transaction_id": decision.transaction_id,
            "user_id": person.pseudonym,
            "sealed_user_id": person.sealed,
            "event_time": decision.event_time,
            "decided_at": decision.decided_at,
            "correlation_id": decision.correlation_id,
            "amount": decision.amount,
            "currency": decision.currency,
            "country": decision.country,
            "channel": decision.channel,
            "decision": decision.decision,
            "score": decision.score,
            "model_version": decision.model_version,
            "degraded": decision.degraded,
            "rules": decision.rules,
            "findings": [finding.kind.name.lower() for finding in judged.found],
            "case_id": None if judged.case is None else judged.case.case_id,
        }
    )


def counted(changes: Iterable[Change]) -> dict[int, Counter[str]]:
    """Counts by minute of event time: of decisions, by verdict, country and channel, and of labels.

    Fields: `decisions`, `review`, `block`; `country:FR`, `channel:online`, each with `:flagged` for those not
    approved; `labelled:fraud`, `labelled:legitimate`. A correction is one more label.
    """
    minutes: dict[int, Counter[str]] = {}
    for _, _, record, _, _ in changes:
        counts = minutes.setdefault(epoch_ms(record.event_time) // MINUTE_MS, Counter())
        if isinstance(record, Label):
            counts["labelled:fraud" if record.is_fraud else "labelled:legitimate"] += 1
            continue
        names = ["decisions"]
        names += [f"country:{record.country}"] if record.country else []
        names += [f"channel:{record.channel}"] if record.channel else []
        flagged = record.decision != "approve"
        for name in names:
            counts[name] += 1
            if flagged and name != "decisions":
                counts[f"{name}:flagged"] += 1
        if flagged:
            counts[record.decision] += 1
    return minutes


def decision_key(decision_id: str) -> str:
    return f"{PREFIX}decision:{decision_id}"


def transaction_key(transaction_id: str) -> str:
    """Holds the id of the decision on the transaction; the latest where users share a transaction id."""
    return f"{PREFIX}transaction:{transaction_id}"


def user_key(pseudonym: str) -> str:
    return f"{PREFIX}user:{pseudonym}"


def minute_key(minute: int) -> str:
    """minute: since the epoch."""
    return f"{PREFIX}minute:{minute}"
