"""Writes to real servers, which stop and start again."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from pymongo import MongoClient

from serving.documents import INDEXES, Document, of_case, of_decision
from serving.stores import (
    Circuit,
    MongoStore,
    Refused,
    Unavailable,
    connect_mongo,
    connect_redis,
    redis_circuit,
)
from serving.users import User
from serving.views import Change, Views, minute_key
from stack.cluster import Cluster
from tests.serving.samples import START_MS, VIEWS, decided, known
from tests.serving.servers import Server


class Flaky:
    """A store that fails so often, then answers."""

    def __init__(self, failures: int) -> None:
        self.failures, self.writes, self.pings = failures, 0, 0

    def ping(self) -> None:
        self.pings += 1
        self._fail()

    def write(self) -> str:
        self.writes += 1
        self._fail()
        return "written"

    def _fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise Unavailable


@pytest.mark.parametrize("failures", [0, 1, 3, 8])
def test_an_open_circuit_asks_before_it_writes(failures: int) -> None:
    store = Flaky(failures)
    circuit = Circuit("test", store.ping, (Unavailable,), threshold=3, longest_s=0.01)

    assert circuit.call(store.write) == "written"
    assert circuit.retries == failures
    assert store.writes == min(failures, 3) + 1
    assert store.pings == (failures - 3 + 1 if failures >= 3 else 0)
    assert not circuit.is_open


def test_an_error_that_does_not_pass_is_raised_at_once() -> None:
    circuit = Circuit("test", lambda: None, (Unavailable,))

    with pytest.raises(ZeroDivisionError):
        circuit.call(lambda: 1 / 0)


@pytest.fixture(scope="module")
def client(restartable_mongo: Server) -> MongoClient[Any]:
    return connect_mongo(restartable_mongo.settings.mongo_url)


def documents(numbers: Sequence[int]) -> list[Document]:
    written = []
    for place, number in enumerate(numbers):
        decision = decided(number, f"u{number % 7}", score=0.95)
        judged = User().decide(decision)
        assert judged is not None
        assert judged.case is not None
        written += [
            Document("decisions", of_decision(decision, judged, None, known(decision.user_id)), place),
            Document("cases", of_case(judged.case, known()), place),
        ]
    return written


def dump(client: MongoClient[Any], database: str) -> dict[str, list[Any]]:
    return {name: sorted(client[database][name].find(), key=lambda d: d["_id"]) for name in INDEXES}


@pytest.mark.stack
def test_writing_again_changes_nothing(client: MongoClient[Any]) -> None:
    store = MongoStore(client, "again")
    assert store.write(documents(range(50))) == []
    before = dump(client, "again")

    assert store.write(documents(range(25, 50))) == []
    assert dump(client, "again") == before
    assert len(before["decisions"]) == len(before["cases"]) == 50


@pytest.mark.stack
def test_a_later_state_of_a_case_takes_the_place_of_the_earlier(client: MongoClient[Any]) -> None:
    store, user = MongoStore(client, "cases"), User()
    for number in (1, 2, 3):
        judged = user.decide(decided(number, score=0.85 + number / 50))
        assert judged is not None
        assert judged.case is not None
        store.write([Document("cases", of_case(judged.case, known()), 0)])

    (case,) = client["cases"]["cases"].find()
    assert (case["alerts"], case["revision"], case["severity"]) == (3, 3, "critical")


@pytest.mark.stack
def test_a_bad_document_is_refused_and_the_others_are_stored(client: MongoClient[Any]) -> None:
    bad: list[dict[str, Any]] = [
        {"_id": "too-large", "blob": b"x" * (17 << 20)},
        {"_id": "too-long-a-number", "n": 1 << 70},
        {"_id": "half-a-character", "text": "\ud800"},
        {"_id": "operator", "$where": "1"},
    ]
    given = [Document("decisions", body, 100 + place) for place, body in enumerate(bad)]
    store = MongoStore(client, "bad")
    refused = store.write([*documents([1]), *given, *documents([2])])

    assert {refusal.place for refusal in refused} >= {100, 101, 102}
    assert all(refusal.detail for refusal in refused)
    stored = {document["_id"] for document in client["bad"]["decisions"].find({}, {"_id": 1})}
    assert {decided(1, "u1").decision_id, decided(2, "u2").decision_id} <= stored
    # A newer server takes names that begin with a dollar.
    assert len(stored) + len(refused) == 6


@pytest.mark.stack
def test_every_index_is_there_also_for_the_next_process(client: MongoClient[Any]) -> None:
    for numbers in ([1], [2]):
        MongoStore(client, "indexed").write(documents(numbers))  # the second finds them all

    for collection, indexes in INDEXES.items():
        found = client["indexed"][collection].index_information()
        assert {name: tuple(found[name]["key"]) for name in indexes} == indexes


SIZE = 50


def batches_through_outages(server: Server, circuit: Circuit, write: Callable[[range], None]) -> int:
    """Write batches of SIZE numbers while the server is killed twice and started again; how many."""
    done = threading.Event()
    written = 0

    def go_on() -> None:
        nonlocal written
        while not done.is_set():
            write(range(written * SIZE, (written + 1) * SIZE))
            written += 1

    writer = threading.Thread(target=go_on)
    writer.start()
    try:
        for _ in range(2):
            before = written
            Cluster.until(lambda before=before: written > before + 5, 60, "batches are written")  # type: ignore[misc]
            server.kill()
            Cluster.until(lambda: circuit.is_open, 30, "the circuit opens")
            server.start()
            Cluster.until(lambda: not circuit.is_open, 60, "the circuit closes")
    finally:
        done.set()
        writer.join(timeout=60)
    assert not writer.is_alive()
    return written


@pytest.mark.stack
def test_mongodb_killed_under_writes_loses_and_repeats_nothing(
    client: MongoClient[Any], restartable_mongo: Server
) -> None:
    store = MongoStore(client, "outage")
    refused: list[Refused] = []
    written = batches_through_outages(
        restartable_mongo, store.circuit, lambda numbers: refused.extend(store.write(documents(numbers)))
    )

    stored = dump(client, "outage")
    assert refused == []
    assert [len(stored[name]) for name in ("decisions", "cases")] == [written * SIZE] * 2


@pytest.mark.stack
def test_redis_killed_under_writes_counts_every_decision_once(restartable_redis: Server) -> None:
    redis = connect_redis(restartable_redis.settings.redis_url)
    redis.flushall()
    views, circuit, users = Views(redis, VIEWS, "log"), redis_circuit(redis), dict[str, User]()
    minute = START_MS // 60_000

    def write(numbers: range) -> None:
        changes = []
        for number in numbers:
            decision = decided(number, f"u{number % 7}", event_time=START_MS)
            judged = users.setdefault(known(decision.user_id).pseudonym, User()).decide(decision)
            assert judged is not None
            changes.append(Change(0, number, decision, judged, known(decision.user_id)))
        circuit.call(lambda: views.write("0", changes, users))

    written = batches_through_outages(restartable_redis, circuit, write)

    counts: Any = redis.hgetall(minute_key(minute))
    assert int(counts[b"decisions"]) == written * SIZE
