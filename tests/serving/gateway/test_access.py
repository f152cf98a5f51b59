"""Attacks on who asks, over HTTP, with a real Redis; no Kafka is needed to be refused."""

import secrets
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from fastapi import FastAPI

from serving import broker
from serving.gateway.app import log_as_json
from serving.security import signatures
from tests.serving.gateway.running import Gateway, assert_problem
from tests.serving.servers import Server

INGEST = "/transactions/ingest"
BODY = b'{"amount": 1}'
"""No valid transaction: 422 tells that who sent it was let in."""
TYPE = {"Content-Type": "application/json"}


@pytest.fixture
def gateway(tmp_path: Path, redis_server: Server, monkeypatch: pytest.MonkeyPatch) -> Gateway:
    monkeypatch.setattr(broker, "TIMEOUT_S", 0.05)
    return Gateway(tmp_path, redis=redis_server.url)


def signed(gateway: Gateway, target: str = INGEST, method: str = "POST", **changes: Any) -> dict[str, str]:
    request = signatures.Request(method, target.encode(), BODY)
    with_these = {
        "client": "producer",
        "secret": gateway.keys.clients["producer"].secret,
        "timestamp": round(time.time() * 1000),
        "nonce": secrets.token_urlsafe(16),
    } | changes
    return TYPE | {"Authorization": signatures.sign(request, **with_these)}


@pytest.mark.stack
def test_a_signed_request_is_let_in_once(gateway: Gateway) -> None:
    once = {"headers": signed(gateway), "content": BODY}
    other = {"headers": signed(gateway), "content": BODY}
    first, second, third = gateway.ask(
        ("POST", INGEST, once), ("POST", INGEST, once), ("POST", INGEST, other)
    )
    assert_problem(first, 422)
    assert_problem(second, 401)
    assert_problem(third, 422)


@pytest.mark.stack
def test_a_signature_holds_for_nothing_else(gateway: Gateway) -> None:
    nonce = secrets.token_urlsafe(16)
    good = signed(gateway, nonce=nonce)
    now = round(time.time() * 1000)
    analyst = gateway.keys.clients["analyst"].secret
    refused: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", INGEST, {"headers": good, "content": BODY + b" "}),
        ("POST", INGEST + "?a=1", {"headers": good, "content": BODY}),
        ("POST", "/transactions/%69ngest", {"headers": good, "content": BODY}),
        ("POST", "/predictions/score", {"headers": good, "content": BODY}),
        ("POST", INGEST, {"headers": signed(gateway, timestamp=now - 121_000), "content": BODY}),
        ("POST", INGEST, {"headers": signed(gateway, timestamp=now + 125_000), "content": BODY}),
        ("POST", INGEST, {"headers": signed(gateway, secret=analyst), "content": BODY}),
        ("POST", INGEST, {"headers": signed(gateway, client="nobody"), "content": BODY}),
        ("POST", INGEST, {"headers": signed(gateway, method="PUT"), "content": BODY}),
        ("POST", INGEST, {"headers": TYPE | {"Authorization": "FRAUDSTREAM-HMAC-V2 x"}, "content": BODY}),
        ("POST", INGEST, {"headers": TYPE | {"Authorization": "Basic YTpi"}, "content": BODY}),
        ("POST", INGEST, {"headers": TYPE | {"Authorization": "Bearer "}, "content": BODY}),
        ("POST", INGEST, {"headers": TYPE | {"Authorization": ""}, "content": BODY}),
        ("POST", INGEST, {"headers": TYPE, "content": BODY}),
    ]
    *answers, last = gateway.ask(*refused, ("POST", INGEST, {"headers": good, "content": BODY}))
    for answer, request in zip(answers, refused, strict=True):
        assert_problem(answer, 401), request
    # What was refused has not used up the nonce, so nobody can lock a client out by guessing.
    assert_problem(last, 422)


@pytest.mark.stack
def test_a_signature_covers_the_query_that_is_sent(gateway: Gateway) -> None:
    target = INGEST + "?b=2&a=%20"
    (answer,) = gateway.ask(("POST", target, {"headers": signed(gateway, target), "content": BODY}))
    assert_problem(answer, 422)


@pytest.mark.stack
def test_two_proofs_are_none(gateway: Gateway) -> None:
    token = gateway.keys.token("producer")["Authorization"]
    headers = [("Authorization", token), ("Authorization", token), *TYPE.items()]
    (answer,) = gateway.ask(("POST", INGEST, {"headers": headers, "content": BODY}))
    assert_problem(answer, 401)


def test_without_redis_signatures_are_refused_and_tokens_are_limited_here(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    token = TYPE | gateway.keys.token("producer", "limited")
    requests: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", INGEST, {"headers": signed(gateway), "content": BODY}),
        *[("POST", INGEST, {"headers": token, "content": BODY}) for _ in range(101)],
    ]
    first, *answers, last = gateway.ask(*requests)
    assert first.headers["retry-after"]
    assert_problem(first, 503, "replay-protection-away")
    assert {answer.status_code for answer in answers} == {422}
    assert_problem(last, 429, "too-many-requests")
    assert int(last.headers["retry-after"]) >= 1


@pytest.mark.stack
def test_each_client_has_its_own_limit_however_it_comes(gateway: Gateway) -> None:
    limited = {"headers": TYPE | gateway.keys.token("producer", "limited"), "content": BODY}
    other = {"headers": TYPE | gateway.keys.token("producer", "other"), "content": BODY}
    answers = gateway.ask(*[("POST", INGEST, limited)] * 101, ("POST", INGEST, other))
    assert [answer.status_code for answer in answers] == [422] * 100 + [429, 422]
    # The bucket is Redis's: another gateway knows of it.
    again = gateway.ask(*[("POST", INGEST, limited)] * 20)
    assert_problem(again[-1], 429)


@pytest.mark.stack
def test_who_guesses_is_slowed_down(gateway: Gateway) -> None:
    guess = {"headers": {"Authorization": "Bearer a.b.c"}}
    answers = gateway.ask(*[("GET", "/rules", guess)] * 200)
    statuses = [answer.status_code for answer in answers]
    assert statuses[:100] == [401] * 100
    assert set(statuses[100:]) <= {401, 429}
    assert 429 in statuses


@pytest.mark.stack
def test_redis_that_hangs_costs_one_wait_and_not_one_for_each_request(
    gateway: Gateway, redis_server: Server
) -> None:
    async def send(client: httpx.AsyncClient, _app: FastAPI) -> float:
        token: dict[str, Any] = {"headers": TYPE | gateway.keys.token("producer"), "content": BODY}
        assert_problem(await client.post(INGEST, **token), 422)
        redis_server.freeze()
        try:
            began = time.monotonic()
            for _ in range(20):
                assert_problem(await client.post(INGEST, **token), 422)
            return time.monotonic() - began
        finally:
            redis_server.thaw()

    assert gateway.run(send) < 20 * gateway.settings.redis_timeout_s


@pytest.mark.stack
def test_no_log_and_no_answer_tells_a_secret(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    async def send(client: httpx.AsyncClient, app: FastAPI) -> str:
        log_as_json(app.state.services.pseudonyms)
        token = gateway.keys.token("producer")
        transaction = (
            b'{"transaction_id":"t","user_id":"user-4711","event_time":1,"amount":-1,"ip":"203.0.113.9"}'
        )
        texts = [
            (await client.post(INGEST, headers=TYPE | token, content=transaction)).text,
            (await client.get("/predictions/user-4711", headers=token)).text,
            (await client.get("/rules?user=user-4711", headers=signed(gateway))).text,
        ]
        assert token["Authorization"][7:] not in "".join(texts)
        return token["Authorization"][7:]

    try:
        token = gateway.run(send)
    finally:
        structlog.reset_defaults()
    printed = capsys.readouterr().out
    assert printed.count('"event":"request"') == 3
    for secret in (token, "user-4711", "203.0.113.9", "127.0.0.1", "producer"):
        assert secret not in printed
