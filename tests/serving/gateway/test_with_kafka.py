"""What passes the gateway into Kafka and out of it, with a real broker and a real Redis."""

import asyncio
import itertools
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import jwt
import msgspec
import pytest
from confluent_kafka import Consumer, Message, TopicPartition
from fastapi import FastAPI

from events.control import ModelUpdate, OnlineCommand, Rule
from events.decision import Decision, decision_id
from events.feedback import Feedback
from events.topics import TOPICS
from events.transaction import Transaction
from models.signing import read_private_key
from serving.gateway import openapi
from serving.security.audit import verify
from serving.security.permissions import ROLES
from stack.cluster import Cluster
from tests.models.artefacts import write_small
from tests.serving.gateway.running import Gateway, assert_problem
from tests.serving.servers import Server

if TYPE_CHECKING:
    from serving.gateway.services import Services

pytestmark = pytest.mark.stack

_prefixes = (f"g{n}." for n in itertools.count())
INGEST, SCORE = "/transactions/ingest", "/predictions/score"
NDJSON = {"Content-Type": "application/x-ndjson"}
JSON = {"Content-Type": "application/json"}
_DECISION: Any = next(topic.example for topic in TOPICS if topic.name == "decisions")


class Behind:
    """A gateway with topics of its own, and what lies in them."""

    def __init__(self, folder: Path, kafka: Cluster, redis: Server, **settings: Any) -> None:
        self.kafka, self.prefix = kafka, next(_prefixes)
        kafka.topics(self.prefix)
        self.gateway = Gateway(folder, kafka.bootstrap, redis.url, topic_prefix=self.prefix, **settings)

    def records(self, topic: str, record_type: type[Any]) -> list[Any]:
        """All but tombstones."""
        count = self.kafka.count(self.prefix + topic)
        values = [value for _, value in self.kafka.raw(self.prefix + topic, count)] if count else []
        return [msgspec.json.decode(value, type=record_type) for value in values if value]

    def post(self, path: str, role: Any = "producer", **how: Any) -> httpx.Response:
        headers = self.gateway.keys.token(role) | how.pop("headers", {})
        (answer,) = self.gateway.ask(("POST", path, {"headers": headers, **how}))
        return answer


@pytest.fixture
def behind(tmp_path: Path, kafka: Cluster, redis_server: Server) -> Behind:
    return Behind(tmp_path, kafka, redis_server)


def transaction(number: int, **changes: Any) -> dict[str, Any]:
    now = round(time.time() * 1000)
    return {
        "transaction_id": f"tx-{number}",
        "user_id": f"u-{number % 7}",
        "event_time": now,
        "amount": 5.0,
    } | changes


def decision(of: dict[str, Any], **changes: Any) -> Decision:
    user, name = of["user_id"], of["transaction_id"]
    named = {"user_id": user, "transaction_id": name, "decision_id": decision_id(user, name)}
    made: Decision = msgspec.structs.replace(_DECISION, **named, **changes)
    return made


@pytest.mark.parametrize("form", ["one", "array", "lines"])
def test_transactions_arrive_as_they_were_sent_with_the_id_of_their_request(
    behind: Behind, form: str
) -> None:
    sent = [transaction(n, country="FR") for n in range(1 if form == "one" else 1200)]
    headers = {"X-Correlation-Id": "request-7"} | (NDJSON if form == "lines" else JSON)
    document: Any = sent[0] if form == "one" else sent
    content = b"\n".join(map(msgspec.json.encode, sent)) if form == "lines" else msgspec.json.encode(document)
    answer = behind.post(INGEST, headers=headers, content=content)

    assert answer.status_code == 202, answer.text
    receipt = answer.json()
    assert (receipt["accepted"], receipt["refused"], receipt["errors"]) == (len(sent), 0, [])
    assert receipt["ids"] == [
        {
            "transaction_id": s["transaction_id"],
            "prediction_id": decision_id(s["user_id"], s["transaction_id"]),
        }
        for s in sent
    ]
    arrived = behind.records("transactions", Transaction)
    assert sorted(t.transaction_id for t in arrived) == sorted(s["transaction_id"] for s in sent)
    message = first_message(behind, "transactions")
    assert message.headers() == [("correlation_id", b"request-7")]
    assert json.loads(message.value() or b"")["user_id"].encode() == message.key()


def first_message(behind: Behind, topic: str) -> Message:
    consumer = Consumer({"bootstrap.servers": behind.kafka.bootstrap, "group.id": "one"})
    consumer.assign([TopicPartition(behind.prefix + topic, p, 0) for p in range(4)])
    message = consumer.poll(10)
    consumer.close()
    assert message is not None
    return message


def test_of_a_batch_the_good_are_taken_and_the_others_named(behind: Behind) -> None:
    lines = [
        msgspec.json.encode(transaction(1)),
        b"",
        msgspec.json.encode(transaction(2, amount=-1)),
        b"\xff",
        b"\x00avro",
        b'{"transaction_id": "a", "transaction_id": "b"}',
        msgspec.json.encode(transaction(3, event_time=round(time.time() * 1000) + 7_200_000)),
        msgspec.json.encode(transaction(4, user_id={"$gt": ""})),
        msgspec.json.encode(transaction(5)),
        b"x" * 70_000,
    ]
    answer = behind.post(INGEST, headers=NDJSON, content=b"\n".join(lines))
    assert answer.status_code == 202
    receipt = answer.json()
    assert [taken["transaction_id"] for taken in receipt["ids"]] == ["tx-1", "tx-5"]
    assert [(e["line"], e["reason"], e.get("field")) for e in receipt["errors"]] == [
        (3, "out_of_range", "amount"),
        (4, "invalid_utf8", None),
        (5, "malformed_json", None),
        (6, "duplicate_key", "transaction_id"),
        (7, "future_event", "event_time"),
        (8, "wrong_type", "user_id"),
        (10, "malformed_json", None),
    ]
    assert {t.transaction_id for t in behind.records("transactions", Transaction)} == {"tx-1", "tx-5"}


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "empty"), (b" \n", "empty"), (b"[]", "empty"), (b"[1", "malformed-json"),
        (b"[" * 5000, "malformed-json"), (b'"text"', "invalid"), (b"{", "invalid"), (b"[1, {}]", "invalid"),
        (b"\x00\x00\x00\x00\x01", "invalid"),
    ],
)  # fmt: skip
def test_where_nothing_is_good_nothing_is_sent(behind: Behind, content: bytes, kind: str) -> None:
    assert_problem(behind.post(INGEST, headers=JSON, content=content), 422, kind)
    assert behind.kafka.count(f"{behind.prefix}transactions") == 0


def test_the_same_idempotency_key_has_the_same_answer_and_sends_once(behind: Behind) -> None:
    token = behind.gateway.keys.token("producer") | JSON | {"Idempotency-Key": "order-1"}
    other = behind.gateway.keys.token("producer", "other") | JSON | {"Idempotency-Key": "order-1"}
    first, second = (msgspec.json.encode(transaction(n)) for n in (1, 2))

    async def send(client: httpx.AsyncClient, _app: FastAPI) -> list[httpx.Response]:
        both = await asyncio.gather(*(client.post(INGEST, headers=token, content=first) for _ in range(2)))
        return [
            *both,
            await client.post(INGEST, headers=token, content=first),
            await client.post(INGEST, headers=token, content=second),
            await client.post(INGEST, headers=other, content=first),
            await client.post(INGEST, headers=token | {"Idempotency-Key": "a b"}, content=first),
        ]

    one, two, replayed, reused, of_another, malformed = behind.gateway.run(send)
    assert {one.status_code, two.status_code} <= {202, 409}
    assert replayed.status_code == 202
    assert replayed.headers["idempotency-replayed"] == "true"
    assert replayed.content == (one if one.status_code == 202 else two).content
    assert_problem(reused, 422, "idempotency-key-reused")
    assert of_another.status_code == 202
    assert_problem(malformed, 400)
    assert behind.kafka.count(f"{behind.prefix}transactions") == 2


def test_a_request_that_failed_does_not_keep_its_idempotency_key(behind: Behind) -> None:
    token = behind.gateway.keys.token("producer") | JSON | {"Idempotency-Key": "order-1"}
    bad = ("POST", INGEST, {"headers": token, "content": b"{}"})
    good = ("POST", INGEST, {"headers": token, "content": msgspec.json.encode(transaction(1))})
    first, second = behind.gateway.ask(bad, good)
    assert_problem(first, 422)
    assert second.status_code == 202


def test_a_score_is_the_decision_of_the_job_where_it_comes_in_time(
    tmp_path: Path, kafka: Cluster, redis_server: Server
) -> None:
    behind = Behind(tmp_path, kafka, redis_server, gateway_score_ms=20_000)
    sent = transaction(1)
    made = decision(sent)

    async def send(client: httpx.AsyncClient, app: FastAPI) -> list[httpx.Response]:
        services: Services = app.state.services
        await asyncio.to_thread(services.decisions.listening.wait, 20)
        asked = asyncio.create_task(
            client.post(SCORE, headers=behind.gateway.keys.token("producer"), json=sent)
        )
        # The job's part: it decides once the transaction is there.
        while await asyncio.to_thread(kafka.count, f"{behind.prefix}transactions") == 0:
            await asyncio.sleep(0.01)
        record = [(sent["user_id"].encode(), msgspec.json.encode(made))]
        await asyncio.to_thread(kafka.produce, f"{behind.prefix}decisions", record)
        by_id = f"/predictions/{made.decision_id}"
        return [
            await asked,
            *[await client.get(by_id, headers=behind.gateway.keys.token(r)) for r in ("analyst", "admin")],
            await client.post(SCORE, headers=behind.gateway.keys.token("producer"), json=sent),
        ]

    answer, seen, masked, again = behind.gateway.run(send)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["decision"], told["score"], told["provisional"], told["recorded"]) == (
        made.decision, made.score, False, True,
    )  # fmt: skip
    assert seen.json() == told == again.json()
    assert kafka.count(f"{behind.prefix}transactions") == 1, "what is decided is not sent again"
    assert masked.json()["user_id"].startswith("user_id~")
    assert sent["user_id"] not in json.dumps(masked.json())

    sealed = masked.json()["sealed_user_id"]
    opened = behind.post("/identities/open", "analyst", json={"sealed": sealed})
    assert opened.json() == {"user_id": sent["user_id"]}
    assert_problem(behind.post("/identities/open", "admin", json={"sealed": sealed}), 403)
    assert_problem(behind.post("/identities/open", "analyst", json={"sealed": sealed[:-9] + "A" * 9}), 422)
    opening = [entry for entry in behind.gateway.audit() if entry["action"] == "identities.open"]
    assert [(entry["actor"], entry["outcome"]) for entry in opening] == [
        ("analyst", "requested"), ("analyst", "done"),
    ]  # fmt: skip
    assert opening[0]["target"] == masked.json()["user_id"]


def test_a_score_that_does_not_come_in_time_is_degraded_and_says_so(
    tmp_path: Path, kafka: Cluster, redis_server: Server
) -> None:
    # Long enough for a broker to acknowledge, however slow the machine is.
    behind = Behind(tmp_path, kafka, redis_server, gateway_score_ms=5_000, gateway_query_s=0.2)
    sent = transaction(1, event_time="2026-01-01T03:00:00Z", terminal_id="t1")
    answer = behind.post(SCORE, json=sent)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["provisional"], told["degraded"], told["recorded"]) == (True, True, True)
    assert told["model_version"] == "heuristic-1"
    assert 0 <= told["score"] <= 1
    assert behind.records("transactions", Transaction)[0].transaction_id == "tx-1"
    assert_problem(
        behind.gateway.ask(
            ("GET", f"/predictions/{told['prediction_id']}", {"headers": behind.gateway.keys.token("admin")})
        )[0],
        503,  # not remembered, and there is no MongoDB here
        "store-away",
    )


def test_without_kafka_a_score_is_degraded_and_not_recorded(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, gateway_ack_s=0.1)
    token = gateway.keys.token("producer")
    score, ingest = gateway.ask(
        ("POST", SCORE, {"headers": token, "json": transaction(1)}),
        ("POST", INGEST, {"headers": token, "json": transaction(1)}),
    )
    assert (score.json()["provisional"], score.json()["recorded"]) == (True, False)
    assert_problem(ingest, 503, "kafka-away")
    assert ingest.headers["retry-after"]


def test_decisions_made_before_the_gateway_began_are_known(behind: Behind) -> None:
    made = [decision(transaction(n)) for n in range(50)]
    behind.kafka.produce(
        f"{behind.prefix}decisions",
        [(d.user_id.encode(), msgspec.json.encode(d)) for d in made] + [(b"u", b"{")],
    )

    async def send(client: httpx.AsyncClient, app: FastAPI) -> list[int]:
        services: Services = app.state.services
        while services.decisions.get(made[-1].decision_id) is None:
            await asyncio.sleep(0.01)
        token = behind.gateway.keys.token("analyst")
        return [(await client.get(f"/predictions/{d.decision_id}", headers=token)).status_code for d in made]

    assert set(behind.gateway.run(send)) == {200}


def test_a_verdict_is_the_analysts_own(behind: Behind) -> None:
    body = {"transaction_id": "tx-1", "label": "fraud"}
    for member, value in (("analyst_id", "somebody-else"), ("source", "chargeback"), ("is_admin", True)):
        assert_problem(behind.post("/feedback", "analyst", json=body | {member: value}), 422)
    for member, value in (("analyst_id", "analyst"), ("source", "analyst")):
        report = {"source": "customer"} | body | {member: value}
        assert_problem(behind.post("/feedback/reports", "producer", json=report), 422)
    assert_problem(behind.post("/feedback", "analyst", json={"label": "fraud"}), 422)
    assert behind.kafka.count(f"{behind.prefix}feedback") == 0

    assert behind.post("/feedback", "analyst", json=body | {"notes": "<script>"}).status_code == 202
    assert behind.post("/feedback/reports", json=body | {"source": "chargeback"}).status_code == 202
    verdict, report = sorted(behind.records("feedback", Feedback), key=lambda f: f.source)
    assert (verdict.source, verdict.analyst_id, verdict.notes) == ("analyst", "analyst", "<script>")
    assert (report.source, report.analyst_id) == ("chargeback", None)


def test_the_life_of_a_rule(behind: Behind) -> None:
    keys = behind.gateway.keys
    admin, analyst = keys.token("admin"), keys.token("analyst")
    rule: dict[str, Any] = openapi.RULE_BODY
    answers = behind.gateway.ask(
        ("PUT", "/rules/night", {"headers": admin, "json": rule}),
        ("GET", "/rules/night", {"headers": analyst}),
        ("POST", "/rules/night/live", {"headers": admin}),
        ("POST", "/rules/night/disable", {"headers": admin}),
        ("GET", "/rules", {"headers": analyst}),
        ("PUT", "/rules/night", {"headers": admin, "json": rule | {"owner": "another"}}),
        ("PUT", "/rules/night", {"headers": admin, "json": rule | {"rule_id": "other"}}),
        ("PUT", "/rules/night", {"headers": admin, "json": rule | {"version": 1}}),
        ("PUT", "/rules/night", {"headers": admin, "json": rule | {"secret": 1}}),
        ("PUT", "/rules/night", {"headers": admin, "json": [rule]}),
        ("DELETE", "/rules/night", {"headers": admin}),
        ("DELETE", "/rules/night", {"headers": admin}),
        ("GET", "/rules/night", {"headers": analyst}),
        ("POST", "/rules/night/explode", {"headers": admin}),
    )
    assert [answer.status_code for answer in answers] == [
        200, 200, 200, 200, 200, 422, 422, 422, 422, 422, 200, 404, 404, 422,
    ]  # fmt: skip
    assert answers[1].json()["owner"] == "admin"
    assert answers[2].json()["told"] == "rule night, version 2, live"
    assert [(r["rule_id"], r["version"], r["state"]) for r in answers[4].json()] == [("night", 3, "disabled")]
    assert [rule.version for rule in behind.records("rules", Rule)] == [1, 2, 3]
    said = [(e["action"], e["outcome"]) for e in behind.gateway.audit()]
    assert said[:2] == [("rules.put", "requested"), ("rules.put", "done")]
    assert said.count(("rules.put", "refused")) == 5
    assert said[-2:] == [("rules.delete", "requested"), ("rules.delete", "refused")]


def test_models_are_promoted_and_rolled_back(tmp_path: Path, kafka: Cluster, redis_server: Server) -> None:
    behind = Behind(tmp_path, kafka, redis_server, registry=tmp_path / "registry",
                    trusted_keys=tmp_path / "keys" / "tokens", allow_unsigned=False)  # fmt: skip
    key = read_private_key(next((tmp_path / "keys" / "tokens").glob("*.key")))
    for name in ("a", "b"):
        write_small(tmp_path / "registry" / name, key, model_version=f"gbt-{name}")
    write_small(tmp_path / "elsewhere", key, model_version="gbt-c")
    admin = {"headers": behind.gateway.keys.token("admin")}
    answers = behind.gateway.ask(
        ("POST", "/models/rollback", admin),
        ("POST", "/models/gbt-a/promote", admin),
        ("POST", "/models/gbt-b/promote", admin),
        ("GET", "/models", admin),
        ("POST", "/models/rollback", admin),
        ("GET", "/models", admin),
        ("POST", "/models/gbt-c/promote", admin),
        ("POST", f"/models/{tmp_path}/promote", admin),
        ("POST", "/models/..%2felsewhere/promote", admin),
        ("POST", "/learner/commands", admin | {"json": {"command": "freeze", "reason": "doubt"}}),
        ("POST", "/learner/commands", admin | {"json": {"command": "explode"}}),
    )
    assert [answer.status_code for answer in answers] == [
        422, 200, 200, 200, 200, 200, 404, 404, 404, 200, 422,
    ]  # fmt: skip
    promoted = [[m["version"] for m in answers[i].json() if m["promoted"]] for i in (3, 5)]
    assert promoted == [["gbt-b"], ["gbt-a"]]
    assert str(tmp_path) not in "".join(answer.text for answer in answers[:7])
    updates = behind.records("model-updates", ModelUpdate)
    assert {update.issued_by for update in updates} == {"admin"}
    assert [c.command for c in behind.records("online-commands", OnlineCommand)] == ["freeze"]


def test_safe_mode_is_switched_by_an_administrator_who_says_why(behind: Behind) -> None:
    admin = {"headers": behind.gateway.keys.token("admin", "ada")}
    path = "/admin/safe-mode"
    off, bad, empty, told, shown, ended, again = behind.gateway.ask(
        ("GET", path, admin),
        ("PUT", path, admin | {"json": {"reason": "x", "issued_by": "eve"}}),
        ("PUT", path, admin | {"json": {"reason": ""}}),
        ("PUT", path, admin | {"json": openapi.SAFE_MODE_BODY}),
        ("GET", path, admin),
        ("DELETE", path, admin),
        ("GET", path, admin),
    )
    assert off.json() == again.json() == {"on": False, "reason": None, "issued_by": None, "issued_at": None}
    assert_problem(bad, 422)
    assert assert_problem(empty, 422)["errors"][0]["field"] == "reason"
    assert told.json()["told"] == "safe mode on"
    assert shown.json() == openapi.SAFE_MODE_BODY | {
        "on": True, "issued_by": "ada", "issued_at": shown.json()["issued_at"],
    }  # fmt: skip
    assert ended.json()["told"] == "safe mode off"
    said = [(entry["action"], entry["outcome"], entry["actor"]) for entry in behind.gateway.audit()]
    assert said == [
        ("safe-mode.on", "requested", "ada"),
        ("safe-mode.on", "done", "ada"),
        ("safe-mode.off", "requested", "ada"),
        ("safe-mode.off", "done", "ada"),
    ]


def test_the_audit_trail_is_verified_and_a_token_revoked(behind: Behind) -> None:
    keys = behind.gateway.keys
    admin, analyst = keys.token("admin"), keys.token("analyst")
    token_id = jwt.decode(analyst["Authorization"][7:], options={"verify_signature": False})["jti"]
    answers = behind.gateway.ask(
        ("GET", "/rules", {"headers": analyst}),
        ("POST", "/tokens/revocations", {"headers": admin, "json": {"token_id": "a b\nc"}}),
        ("POST", "/tokens/revocations", {"headers": admin, "json": {"token_id": token_id}}),
        ("GET", "/rules", {"headers": analyst}),
        ("GET", "/audit", {"headers": admin}),
    )
    assert [answer.status_code for answer in answers] == [200, 422, 200, 401, 200]
    head = answers[4].json()
    assert head == {"intact": True, "problem": None, "number": 2, "hash": head["hash"]}
    assert verify(behind.gateway.settings.gateway_audit).hash == head["hash"]
    noted = {"number": 2, "hash": head["hash"]}
    good, wrong, half = behind.gateway.ask(
        ("GET", "/audit", {"headers": admin, "params": noted}),
        ("GET", "/audit", {"headers": admin, "params": noted | {"hash": "0" * 64}}),
        ("GET", "/audit", {"headers": admin, "params": {"number": 2}}),
    )
    assert good.json()["intact"]
    assert not wrong.json()["intact"]
    assert_problem(half, 422)


def test_the_examples_of_the_description_are_good(behind: Behind) -> None:
    tokens = {role: behind.gateway.keys.token(role) for role in ROLES}
    answers = behind.gateway.ask(
        ("POST", INGEST, {"headers": tokens["producer"], "json": openapi.TRANSACTION}),
        ("POST", SCORE, {"headers": tokens["producer"], "json": openapi.TRANSACTION}),
        ("POST", "/feedback", {"headers": tokens["analyst"], "json": openapi.VERDICT_BODY}),
        ("POST", "/feedback/reports", {"headers": tokens["producer"], "json": openapi.REPORT_BODY}),
        ("PUT", "/rules/night", {"headers": tokens["admin"], "json": openapi.RULE_BODY}),
    )
    assert [answer.status_code for answer in answers] == [202, 200, 202, 202, 200]
    assert set(answers[0].json()) == set(openapi.RECEIPT)
    assert set(answers[1].json()) <= set(openapi.PREDICTION_BODY)
