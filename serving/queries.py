"""The only reader of the stores: lists in pages, one of a kind by its id, counts, and the live feed.

Lists are in an order that no later change of a document disturbs, and a page begins after the last entry of
the one before (keyset paging): whoever walks to the end sees every entry that was there at the start once.
Values of callers are checked to be texts, numbers or known words, so none of them is read as an operator.
"""

import base64
import binascii
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar

import msgspec
import pymongo
import structlog
from bson.codec_options import CodecOptions, TypeDecoder, TypeRegistry
from bson.int64 import Int64
from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from serving.documents import AUDIT, CASES, DECISIONS, LABELS, PROFILES, Keys
from serving.errors import QueryError, StoreAway
from serving.stored import (
    Body,
    CaseDetail,
    CaseFilter,
    Counts,
    DecisionFilter,
    Filter,
    Key,
    LabelFilter,
    LiveDecision,
    Page,
    Precision,
    RankedUser,
    Share,
    SimilarCase,
    SourcePrecision,
    Stats,
    StepFilter,
    StoredCase,
    StoredDecision,
    StoredLabel,
    StoredProfile,
    StoredStep,
    UserRisk,
    case_of,
    decision_of,
    label_of,
    profile_of,
    step_of,
)
from serving.users import RISK_HALF_LIFE_MS, faded
from serving.views import FEED, TOP_RISK, minute_key, user_key
from state.contract import HOUR_MS, MINUTE_MS

MAX_PAGE: Final = 200
MAX_MINUTES: Final = 1_500
"""The longest window of counts: what Redis keeps of them."""
MAX_LABELS: Final = 5_000
MAX_CANDIDATES: Final = 300
MAX_SHARES: Final = 100
WITHIN_S: Final = 2.0

T = TypeVar("T")
Checked = TypeVar("Checked", bound=msgspec.Struct)
Stepping = Literal["minute", "hour"]

log = structlog.get_logger()

# Summed where they lie: a window has tens of thousands of them.
_SUM: Final = """
local sums = {}
for _, key in ipairs(KEYS) do
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    sums[fields[i]] = (sums[fields[i]] or 0) + tonumber(fields[i + 1])
  end
end
local flat = {}
for name, sum in pairs(sums) do
  flat[#flat + 1] = name
  flat[#flat + 1] = sum
end
return flat
"""
_SUMMED_AT_ONCE: Final = 60
_COUNTED: Final = ("decisions", "review", "block", "labelled:fraud", "labelled:legitimate")


class _Whole(TypeDecoder):
    """64-bit numbers as plain ones, which can be encoded again."""

    bson_type = Int64

    def transform_bson(self, value: Int64) -> int:
        return int(value)


_PLAIN: Final = CodecOptions[Body](type_registry=TypeRegistry([_Whole()]))


class _Place(msgspec.Struct, array_like=True, frozen=True):
    """Of the last entry of a page."""

    collection: str
    at: int
    id: str


class _List(NamedTuple, Generic[T]):
    """In falling order of `at`, a number of its documents that never changes, and of their ids."""

    collection: str
    at: str
    read: Callable[[Body], T]
    shown: Body | None = None


_CASES: Final = _List(CASES, "opened_at", case_of)
_DECISIONS: Final = _List(DECISIONS, "event_time", decision_of, {"features": 0})
_LABELS: Final = _List(LABELS, "event_time", label_of)
_PROFILES: Final = _List(PROFILES, "day", profile_of)
_STEPS: Final = _List(AUDIT, "at", step_of)


class Queries:
    """Every read of MongoDB and Redis.

    All raise StoreAway where a store does not answer in time, and QueryError for values that are no good.
    """

    def __init__(
        self, mongo: "AsyncMongoClient[Body]", database: str, redis: Redis, within_s: float = WITHIN_S
    ) -> None:
        """within_s: how long a query may take."""
        self._database = mongo.get_database(database, _PLAIN)
        self._redis = redis
        self._within_s = within_s
        self._sum = redis.register_script(_SUM)

    # Cases

    async def cases(
        self, wanted: CaseFilter, *, limit: int = 50, after: str | None = None
    ) -> Page[StoredCase]:
        """Cases, those opened last first."""
        query = _equal(user_id=_checked(wanted).user_id, status=wanted.status, severity=wanted.severity)
        if wanted.kind is not None:
            query[f"kinds.{wanted.kind}"] = {"$exists": True}
        return await self._page(_CASES, query, wanted, limit, after)

    async def case(self, case_id: str, *, limit: int = 50, after: str | None = None) -> CaseDetail | None:
        """A case with its decisions, of which limit and after make pages; None where there is none."""
        found = await self._one(CASES, _text("case_id", case_id))
        if found is None:
            return None
        decisions = await self.decisions(DecisionFilter(case_id=case_id), limit=limit, after=after)
        return CaseDetail(case_of(found), decisions)

    async def similar_cases(self, case_id: str, *, limit: int = 10) -> list[SimilarCase] | None:
        """Cases like one, the likest first; None where there is no such case.

        Compared are the MAX_CANDIDATES opened last and those with alerts at the same terminals.
        """
        _check_limit(limit)
        body = await self._one(CASES, _text("case_id", case_id))
        if body is None:
            return None
        case = case_of(body)
        own = await self._find(DECISIONS, {"case_id": case_id}, (("event_time", -1),), 50, {"terminal_id": 1})
        terminals = sorted({d["terminal_id"] for d in own if d.get("terminal_id")})[:10]
        neighbours: set[str] = set()
        if terminals:
            there = {"terminal_id": {"$in": terminals}, "case_id": {"$ne": None}}
            hits = await self._find(DECISIONS, there, (("event_time", -1),), MAX_CANDIDATES, {"case_id": 1})
            neighbours = {d["case_id"] for d in hits}
        bodies = await self._find(CASES, {}, (("opened_at", -1), ("_id", -1)), MAX_CANDIDATES)
        missing = sorted(neighbours - {b["_id"] for b in bodies})
        if missing:
            bodies += await self._find(CASES, {"_id": {"$in": missing}}, (), MAX_CANDIDATES)
        likened = [_likened(case, case_of(b), b["_id"] in neighbours) for b in bodies if b["_id"] != case_id]
        return sorted(likened, key=lambda one: -one.likeness)[:limit]

    # Decisions

    async def decisions(
        self, wanted: DecisionFilter, *, limit: int = 50, after: str | None = None
    ) -> Page[StoredDecision]:
        """Decisions, the newest by event time first."""
        query = _equal(
            user_id=_checked(wanted).user_id,
            transaction_id=wanted.transaction_id,
            case_id=wanted.case_id,
            country=wanted.country,
            channel=wanted.channel,
            decision=wanted.verdict,
        )
        if wanted.alerting and wanted.case_id is None:
            query["case_id"] = {"$ne": None}
        # No $elemMatch: FerretDB does not know it.
        query |= _equal(**{"findings.kind": wanted.kind, "findings.severity": wanted.severity})
        return await self._page(_DECISIONS, query, wanted, limit, after)

    async def decision(self, decision_id: str) -> StoredDecision | None:
        """One decision, with its explanation."""
        found = await self._one(DECISIONS, _text("decision_id", decision_id))
        return None if found is None else decision_of(found)

    # Labels

    async def labels(
        self, wanted: LabelFilter, *, limit: int = 50, after: str | None = None
    ) -> Page[StoredLabel]:
        """The latest label of each transaction, the newest of these first; earlier ones are not kept."""
        query = _equal(
            _id=_checked(wanted).decision_id,
            user_id=wanted.user_id,
            transaction_id=wanted.transaction_id,
            source=wanted.source,
            is_fraud=wanted.is_fraud,
        )
        return await self._page(_LABELS, query, wanted, limit, after)

    async def label(self, decision_id: str) -> StoredLabel | None:
        """The latest label of the transaction of a decision."""
        found = await self._one(LABELS, _text("decision_id", decision_id))
        return None if found is None else label_of(found)

    async def precision(self, since: int, until: int) -> Precision:
        """What each source called fraud, of the MAX_LABELS latest labels given in a window.

        By source only: who judged is not stored with a label.
        """
        _check_window(since, until)
        given = {"labelled_at": {"$gte": since, "$lt": until}}
        shown = {"source": 1, "is_fraud": 1}
        bodies = await self._find(LABELS, given, (("labelled_at", -1),), MAX_LABELS + 1, shown)
        counted = Counter((body["source"], body["is_fraud"]) for body in bodies[:MAX_LABELS])
        sources = [
            SourcePrecision(source, fraud, legitimate, fraud / (fraud + legitimate))
            for source in sorted({source for source, _ in counted})
            for fraud, legitimate in [(counted[source, True], counted[source, False])]
        ]
        return Precision(sources, counted.total(), len(bodies) > MAX_LABELS)

    # Users

    async def profiles(
        self, user_id: str, *, limit: int = 50, after: str | None = None
    ) -> Page[StoredProfile]:
        """A user day by day, the latest first."""
        query = {"user_id": _text("user_id", user_id)}
        return await self._page(_PROFILES, query, None, limit, after)

    async def user_risk(self, user_id: str) -> UserRisk | None:
        """A user now, from Redis; from MongoDB where that has nothing or is away. None for nobody known."""
        try:
            with self._asking_redis():
                asked: Any = self._redis.hgetall(user_key(_text("user_id", user_id)))
                held = await asked
        except StoreAway:
            held = {}
        if held:
            return _risk_of_hash(user_id, {name.decode(): value for name, value in held.items()})
        profiles = (await self.profiles(user_id, limit=1)).items
        if not profiles:
            return None
        cases = (await self.cases(CaseFilter(user_id=user_id), limit=1)).items
        latest = (await self.decisions(DecisionFilter(user_id=user_id), limit=1)).items
        (profile,), case = profiles, cases[0] if cases else None
        return UserRisk(
            user_id=user_id,
            sealed_user_id=latest[0].sealed_user_id if latest else None,
            risk=faded(profile.risk, max(0, _now_ms() - profile.at)),
            at=profile.at,
            decisions=profile.decisions,
            flagged=profile.flagged,
            habits=profile.habits,
            latest=latest[0].decision_id if latest else None,
            case_id=case.case_id if case else None,
            case_status=case.status if case else None,
            severity=case.severity if case else None,
            source="mongo",
        )

    async def top_risk(self, *, limit: int = 50) -> list[RankedUser]:
        """The users with the highest risk now."""
        _check_limit(limit)
        with self._asking_redis():
            ranked: Any = await self._redis.zrevrange(TOP_RISK, 0, limit - 1, withscores=True)
            async with self._redis.pipeline(transaction=False) as pipe:
                for user, _ in ranked:
                    pipe.hget(user_key(user.decode()), "sealed_user_id")
                sealed = await pipe.execute()
        aged = _now_ms() / RISK_HALF_LIFE_MS
        return [
            RankedUser(user.decode(), min(1.0, math.exp2(rank - aged)), seal and seal.decode())
            for (user, rank), seal in zip(ranked, sealed, strict=True)
        ]

    # Counts

    async def stats(self, since: int, until: int, *, step: Stepping = "minute") -> Stats:
        """Counts by minute or hour of event time, for at most MAX_MINUTES minutes.

        The window is widened to whole minutes. Counts of minutes that Redis has forgotten are 0.
        """
        if step not in ("minute", "hour"):
            raise QueryError("step", "is neither minute nor hour")
        _check_window(since, until)
        minutes = range(since // MINUTE_MS, -(-until // MINUTE_MS))
        if len(minutes) > MAX_MINUTES:
            raise QueryError("until", f"a window of counts has at most {MAX_MINUTES} minutes")
        keys = [minute_key(minute) for minute in minutes]
        with self._asking_redis():
            async with self._redis.pipeline(transaction=False) as pipe:
                for key in keys:
                    pipe.hmget(key, list(_COUNTED))
                for start in range(0, len(keys), _SUMMED_AT_ONCE):
                    await self._sum(keys=keys[start : start + _SUMMED_AT_ONCE], client=pipe)
                answers = await pipe.execute()
        rows, sums = answers[: len(keys)], answers[len(keys) :]
        step_ms = MINUTE_MS if step == "minute" else HOUR_MS
        series: dict[int, Counter[str]] = {}
        for minute, row in zip(minutes, rows, strict=True):
            counts = series.setdefault(minute * MINUTE_MS // step_ms * step_ms, Counter())
            counts.update({name: int(value or 0) for name, value in zip(_COUNTED, row, strict=True)})
        whole: Counter[str] = Counter()
        for flat in sums:
            whole.update({name.decode(): int(n) for name, n in zip(flat[::2], flat[1::2], strict=True)})
        return Stats(
            since=minutes.start * MINUTE_MS,
            until=minutes.stop * MINUTE_MS,
            step=step,
            total=_counts(minutes.start * MINUTE_MS, whole),
            series=[_counts(at, counts) for at, counts in series.items()],
            countries=_shares(whole, "country:"),
            channels=_shares(whole, "channel:"),
        )

    # The learner, and what happens now

    async def steps(
        self, wanted: StepFilter, *, limit: int = 50, after: str | None = None
    ) -> Page[StoredStep]:
        """Steps of the online learner and its gate, the latest first."""
        return await self._page(_STEPS, _equal(step=_checked(wanted).step), wanted, limit, after)

    async def feed(
        self, after: str | None = None, *, limit: int = 100, wait_ms: int | None = None
    ) -> list[LiveDecision]:
        """Decisions of the live feed after one of it, in order; without one the newest, in the same order.

        wait_ms: where there is none after it yet, wait so long for one; less than a query may take.
        An id that the feed has forgotten stands for the oldest that it still holds.
        """
        _check_limit(limit)
        if after is None:
            with self._asking_redis():
                entries: Any = await self._redis.xrevrange(FEED, count=limit)
            return [_live(*entry) for entry in reversed(entries)]
        if not _is_feed_id(after):
            raise QueryError("after", "is no id of the feed")
        if wait_ms is not None and not 1 <= wait_ms < 1000 * self._within_s:
            raise QueryError("wait_ms", f"is not from 1 to less than {1000 * self._within_s:.0f}")
        with self._asking_redis():
            streams: Any = await self._redis.xread({FEED: after}, count=limit, block=wait_ms)
        return [_live(*entry) for _, entries in streams for entry in entries]

    async def answers(self) -> dict[str, bool]:
        """Which of the stores answers."""
        found = {}
        for name, ask in (("mongo", self._ping_mongo), ("redis", self._ping_redis)):
            try:
                await ask()
                found[name] = True
            except StoreAway:
                found[name] = False
        return found

    async def _ping_mongo(self) -> None:
        with self._asking_mongo():
            await self._database.client.admin.command("ping")

    async def _ping_redis(self) -> None:
        with self._asking_redis():
            await self._redis.ping()

    # How MongoDB is asked

    async def _one(self, collection: str, name: str) -> Body | None:
        with self._asking_mongo():
            # By the id alone: of anything else FerretDB decodes every document there is.
            return await self._database[collection].find_one({"_id": name})

    async def _find(
        self, collection: str, query: Body, order: Keys, most: int, shown: Body | None = None
    ) -> list[Body]:
        """At most so many documents, all in the first answer of the server."""
        with self._asking_mongo():
            cursor = self._database[collection].find(query, shown, limit=most, batch_size=most)
            return await (cursor.sort(list(order)) if order else cursor).to_list()

    async def _page(
        self, of: _List[T], query: Body, window: Filter | None, limit: int, after: str | None
    ) -> Page[T]:
        """A page of what a query finds in a list."""
        _check_limit(limit)
        bounds = _bounds(window)
        if after is not None:
            place = _place(after, of.collection)
            # Implied by what follows; but an index is entered at it.
            bounds["$lte"] = place.at
            query["$or"] = [{of.at: {"$lt": place.at}}, {of.at: place.at, "_id": {"$lt": place.id}}]
        if bounds:
            query[of.at] = bounds
        bodies = await self._find(of.collection, query, ((of.at, -1), ("_id", -1)), limit + 1, of.shown)
        items = [of.read(body) for body in bodies[:limit]]
        if len(bodies) <= limit:
            return Page(items)
        last = bodies[limit - 1]
        return Page(items, _cursor(_Place(of.collection, last[of.at], last["_id"])))

    @contextmanager
    def _asking_mongo(self) -> Iterator[None]:
        try:
            with pymongo.timeout(self._within_s):
                yield
        except PyMongoError as error:
            log.warning("mongo.away", error=type(error).__name__, code=getattr(error, "code", None))
            raise StoreAway("MongoDB", _why(error.timeout)) from error

    @contextmanager
    def _asking_redis(self) -> Iterator[None]:
        try:
            yield
        except (RedisError, OSError) as error:
            log.warning("redis.away", error=type(error).__name__)
            raise StoreAway("Redis", "does not answer") from error


def open_mongo(url: str, within_s: float = WITHIN_S) -> "AsyncMongoClient[Body]":
    """A client for `Queries`; it connects when first asked, in the event loop that asks."""
    return AsyncMongoClient(
        url,
        appname="fraudstream-reads",
        connect=False,
        serverSelectionTimeoutMS=round(within_s * 1000),
        connectTimeoutMS=round(within_s * 1000),
        socketTimeoutMS=round(within_s * 2000),
    )


def open_redis(url: str, within_s: float = WITHIN_S) -> Redis:
    """A client for `Queries`, none of whose waits is longer."""
    redis: Redis = Redis.from_url(url, socket_timeout=within_s, socket_connect_timeout=within_s)
    return redis


def _equal(**values: str | bool | None) -> Body:
    """Conditions on the values that are given."""
    return {name: {"$eq": value} for name, value in values.items() if value is not None}


def _bounds(window: Filter | None) -> Body:
    """Raises QueryError for a window that ends before it begins."""
    if window is None:
        return {}
    if window.since is not None and window.until is not None:
        _check_window(window.since, window.until)
    return {
        operator: bound
        for operator, bound in (("$gte", window.since), ("$lt", window.until))
        if bound is not None
    }


def _checked(given: Checked) -> Checked:
    """A filter whose values are of the types that it states. Raises QueryError."""
    try:
        return msgspec.convert(msgspec.structs.asdict(given), type(given))
    except msgspec.ValidationError as error:
        reason, _, place = str(error).partition(" - at `$.")
        raise QueryError(place.rstrip("`") or "filter", reason) from error


def _text(name: str, value: str) -> str:
    try:
        return msgspec.convert(value, Key)
    except msgspec.ValidationError as error:
        raise QueryError(name, str(error)) from error


def _check_limit(limit: int) -> None:
    if type(limit) is not int or not 1 <= limit <= MAX_PAGE:
        raise QueryError("limit", f"is not from 1 to {MAX_PAGE}")


def _check_window(since: int, until: int) -> None:
    if type(since) is not int or type(until) is not int or not 0 <= since < until < 2**53:
        raise QueryError("until", "is not after since, both in milliseconds since the epoch")


def _cursor(place: _Place) -> str:
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(place)).decode().rstrip("=")


def _place(cursor: str, collection: str) -> _Place:
    try:
        data = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True)
        place = msgspec.msgpack.decode(data, type=_Place)
    except (TypeError, ValueError, binascii.Error, msgspec.MsgspecError) as error:
        raise QueryError("after", "is no cursor") from error
    if place.collection != collection:
        raise QueryError("after", "is a cursor of another list")
    if not -(2**53) < place.at < 2**53:
        raise QueryError("after", "is no cursor")
    return place


def _is_feed_id(text: str) -> bool:
    """Milliseconds and a number, of 64 bits each."""
    if not isinstance(text, str):
        return False
    parts = text.split("-")
    return len(parts) == 2 and all(p.isascii() and p.isdigit() and len(p) <= 19 for p in parts)


def _risk_of_hash(user_id: str, held: Mapping[str, bytes]) -> UserRisk:
    text = {name: value.decode() for name, value in held.items()}
    at = int(text["at"])
    return msgspec.convert(
        {
            "user_id": user_id,
            "risk": faded(float(text["risk"]), max(0, _now_ms() - at)),
            "at": at,
            "decisions": int(text["decisions"]),
            "flagged": int(text["flagged"]),
            "habits": msgspec.json.decode(held.get("habits", b"{}")),
            "sealed_user_id": text.get("sealed_user_id"),
            "latest": text.get("latest"),
            "case_id": text.get("case_id"),
            "case_status": text.get("case_status"),
            "severity": text.get("severity"),
            "source": "redis",
        },
        UserRisk,
    )


def _counts(at: int, counts: Counter[str]) -> Counts:
    fraud, legitimate = counts["labelled:fraud"], counts["labelled:legitimate"]
    decisions, flagged = counts["decisions"], counts["review"] + counts["block"]
    return Counts(
        at=at,
        decisions=decisions,
        review=counts["review"],
        block=counts["block"],
        labelled_fraud=fraud,
        labelled_legitimate=legitimate,
        flagged_rate=flagged / decisions if decisions else None,
        fraud_rate=fraud / (fraud + legitimate) if fraud + legitimate else None,
    )


def _shares(counts: Counter[str], prefix: str) -> list[Share]:
    names = {name.removeprefix(prefix).removesuffix(":flagged") for name in counts if name.startswith(prefix)}
    shares = [Share(n, counts[f"{prefix}{n}"], counts[f"{prefix}{n}:flagged"]) for n in names]
    return sorted(shares, key=lambda share: (-share.decisions, share.name))[:MAX_SHARES]


def _likened(one: StoredCase, other: StoredCase, shared_terminal: bool) -> SimilarCase:
    shared, all_kinds = one.kinds.keys() & other.kinds.keys(), one.kinds.keys() | other.kinds.keys()
    least, most = sorted((one.amount, other.amount))
    likeness = len(shared) / max(1, len(all_kinds)) + shared_terminal + (least / most if most > 0 else 1.0)
    return SimilarCase(other, likeness, sorted(shared), shared_terminal)


def _live(feed_id: bytes, fields: Mapping[bytes, bytes]) -> LiveDecision:
    told = msgspec.json.decode(fields[b"decision"])
    return msgspec.convert(told | {"feed_id": feed_id.decode()}, LiveDecision)


def _why(in_time: bool) -> str:
    return "does not answer in time" if in_time else "does not answer"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
