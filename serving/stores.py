"""Writes that wait: MongoDB in bulk, and a circuit breaker in front of each store.

While a store is down a write does not return. Its caller reads no further meanwhile, so the log keeps what
comes, and nothing is lost or skipped.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import bson
import structlog
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument
from pymongo import IndexModel, InsertOne, MongoClient, ReplaceOne
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError, PyMongoError
from redis import Redis
from redis.exceptions import RedisError
from tenacity import RetryCallState, Retrying, retry_if_exception_type
from tenacity.wait import wait_random_exponential

from serving.documents import INDEXES, REPLACED, Document

log = structlog.get_logger()

DUPLICATE: Final = 11_000
REFUSALS: Final = frozenset({2, 9, 14, 22, 28, 52, 55, 57, 121, 10_334, 17_280})
"""MongoDB's codes for a document that no later attempt will store: bad values, names, sizes, validation."""
MAX_DOCUMENT_BYTES: Final = 16 << 20
UNENCODABLE = (BSONError, OverflowError, ValueError, TypeError, RecursionError)

Answer = TypeVar("Answer")
Raw = RawBSONDocument


class Unavailable(Exception):  # noqa: N818 - a state of the store, as in HTTP
    """The store answered, but not to all of a write, for reasons that may pass."""


class Circuit:
    """Repeats a call for as long as a store is away.

    Between attempts it waits for a random time up to an exponentially growing limit (full jitter: Brooker,
    Exponential Backoff and Jitter, 2015). After `threshold` failures in a row the circuit is open: the store
    is only asked whether it is there, and the call itself is tried again when it is (half-open).
    """

    def __init__(
        self,
        store: str,
        ping: Callable[[], object],
        passing: tuple[type[Exception], ...],
        threshold: int = 3,
        longest_s: float = 10.0,
    ) -> None:
        """passing: errors that are worth another attempt; any other is raised."""
        self.is_open = False
        self.retries = 0
        self._store = store
        self._ping = ping
        self._threshold = threshold
        self._retrying = Retrying(
            retry=retry_if_exception_type(passing),
            wait=wait_random_exponential(multiplier=0.1, min=0.01, max=longest_s),
            before_sleep=self._failed,
        )

    def call(self, write: Callable[[], Answer]) -> Answer:
        """What the call returns, once it does; it must bear being repeated."""
        began = time.monotonic()
        answer: Answer = self._retrying(self._attempt, write)
        if self.is_open:
            self.is_open = False
            log.info("store answers again", store=self._store, after_s=round(time.monotonic() - began, 1))
        return answer

    def _attempt(self, write: Callable[[], Answer]) -> Answer:
        if self.is_open:
            self._ping()
        return write()

    def _failed(self, state: RetryCallState) -> None:
        self.retries += 1
        if state.attempt_number < self._threshold or self.is_open:
            return
        self.is_open = True
        error = state.outcome.exception() if state.outcome is not None else None
        # The text of an error may quote what was to be written.
        log.error(
            "store is down; waiting for it",
            store=self._store,
            error=type(error).__name__,
            code=getattr(error, "code", None),
        )


class Refused(NamedTuple):
    """A document that the store will never take, by the place of its record."""

    place: int
    detail: str


class MongoStore:
    """The collections of `serving.documents` in one database."""

    def __init__(self, client: MongoClient[Any], database: str) -> None:
        self._database = client[database]
        self._indexed = False
        self.circuit = Circuit("mongodb", lambda: client.admin.command("ping"), (PyMongoError, Unavailable))

    def write(self, documents: Sequence[Document]) -> list[Refused]:
        """Store documents, waiting while the server is away; those that it refuses, and why.

        Storing them again changes nothing.
        """
        refused: list[Refused] = []
        by_collection: dict[str, dict[str, tuple[Raw, int]]] = {}
        for document in documents:
            raw = _encoded(document)
            if isinstance(raw, Refused):
                refused.append(raw)
                continue
            entries = by_collection.setdefault(document.collection, {})
            name = document.body["_id"]
            if document.collection in REPLACED or name not in entries:
                entries[name] = raw, document.place
        for collection, entries in by_collection.items():
            refused += self.circuit.call(lambda c=collection, e=entries: self._store(c, e))  # type: ignore[misc]
        return refused

    def _store(self, name: str, entries: Mapping[str, tuple[Raw, int]]) -> list[Refused]:
        self._index()
        collection = self._database[name]
        ids, raws = list(entries), [raw for raw, _ in entries.values()]
        # What is new is most of it, and servers insert far faster than they replace.
        present, refused = _bulk(collection, [InsertOne(raw) for raw in raws])
        told = {ids[k]: detail for k, detail in refused.items()}
        if name in REPLACED and present:
            _, refused = _bulk(collection, [ReplaceOne({"_id": ids[k]}, raws[k]) for k in present])
            told |= {ids[present[k]]: detail for k, detail in refused.items()}
        return [Refused(entries[name][1], detail) for name, detail in told.items()]

    def _index(self) -> None:
        """Create the indexes that are missing: FerretDB fails on being asked for one that is there."""
        if self._indexed:
            return
        for name, indexes in INDEXES.items():
            present = self._database[name].index_information()
            missing = [
                IndexModel(list(keys), name=index) for index, keys in indexes.items() if index not in present
            ]
            if missing:
                self._database[name].create_indexes(missing)
        self._indexed = True


def _encoded(document: Document) -> Raw | Refused:
    try:
        data = bson.encode(document.body)
    except UNENCODABLE as error:
        return Refused(document.place, f"{type(error).__name__}: {error}")
    if len(data) > MAX_DOCUMENT_BYTES:
        return Refused(document.place, f"{len(data)} bytes are more than a document may have")
    return RawBSONDocument(data)


def _bulk(
    collection: Collection[Any], operations: Sequence[InsertOne[Raw] | ReplaceOne[Raw]]
) -> tuple[list[int], dict[int, str]]:
    """Places of the documents whose id is there already, and of those refused, with the reason.

    Raises Unavailable where something else was wrong with one of them, PyMongoError with all.
    """
    present: list[int] = []
    refused: dict[int, str] = {}
    try:
        collection.bulk_write(operations, ordered=False)
    except BulkWriteError as error:
        found = error.details or {}
        if found.get("writeConcernErrors"):
            raise Unavailable("not enough servers have it yet") from None
        for failure in found.get("writeErrors", ()):
            if failure["code"] == DUPLICATE:
                present.append(failure["index"])
            elif failure["code"] in REFUSALS:
                refused[failure["index"]] = failure["errmsg"]
            else:
                raise Unavailable(f"code {failure['code']}") from None
    return sorted(present), refused


def redis_circuit(redis: Redis) -> Circuit:
    """The circuit for writes to Redis."""
    return Circuit("redis", redis.ping, (RedisError,))


def connect_mongo(url: str) -> MongoClient[Any]:
    """A client that tells soon that a server is away, and gives one that is there the time it takes."""
    return MongoClient(
        url,
        appname="fraudstream-serving",
        connect=False,
        serverSelectionTimeoutMS=2_000,
        connectTimeoutMS=2_000,
        socketTimeoutMS=60_000,
    )


def connect_redis(url: str) -> Redis:
    """A client whose every wait ends."""
    return Redis.from_url(url, socket_connect_timeout=2, socket_timeout=10, health_check_interval=30)
