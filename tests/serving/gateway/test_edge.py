"""What every request meets, whoever asks."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from serving.gateway.edge import SECURITY_HEADERS
from tests.serving.gateway.running import Gateway, assert_problem

INGEST = "/transactions/ingest"


@pytest.fixture
def gateway(tmp_path: Path) -> Gateway:
    return Gateway(tmp_path, gateway_max_body=1024, gateway_max_stream=2048, gateway_body_idle_s=0.2)


def test_every_error_is_a_problem_and_every_answer_is_marked(gateway: Gateway) -> None:
    token = {"headers": gateway.keys.token("producer")}
    requests: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", "/health", {}),
        ("GET", "/ready", {}),
        ("GET", "/nothing", {}),
        ("GET", "//health", {}),
        ("GET", "/health/", {}),
        ("DELETE", INGEST, {}),
        ("OPTIONS", INGEST, {}),
        ("POST", INGEST, {"json": {}}),
        ("POST", INGEST, token | {"content": b"{}", "headers": token["headers"]}),
        ("GET", "/predictions/" + "a" * 129, token),
        ("GET", "/predictions/%00", token),
        ("GET", "/predictions/..%2f..%2fetc", token),
    ]
    answers = gateway.ask(*requests)
    assert [answer.status_code for answer in answers] == [
        200, 503, 404, 404, 404, 405, 405, 401, 415, 422, 422, 404,
    ]  # fmt: skip
    for answer in answers:
        assert SECURITY_HEADERS.items() <= dict(answer.headers).items()
        if answer.status_code != 200:
            assert_problem(answer, answer.status_code)
    assert answers[5].headers["allow"] == "POST"
    assert answers[1].headers["retry-after"]
    assert answers[1].json()["kafka"] is False
    assert "www-authenticate" in answers[7].headers


@pytest.mark.parametrize("given", ["req-1", "A" * 128, "a:b@c/d"])
def test_a_correlation_id_that_is_an_identifier_is_kept(gateway: Gateway, given: str) -> None:
    (answer,) = gateway.ask(("GET", "/nothing", {"headers": {"X-Correlation-Id": given}}))
    assert answer.headers["x-correlation-id"] == given
    assert assert_problem(answer, 404)["instance"].endswith(given)


@pytest.mark.parametrize(
    "given", [[""], ["A" * 129], ["a b"], ["a\r\nSet-Cookie: x"], ['"}'], ["\x1b[31m"], ["é"], ["a", "b"]]
)
def test_any_other_correlation_id_is_replaced(gateway: Gateway, given: list[str]) -> None:
    headers = [(b"x-correlation-id", text.encode()) for text in given]
    (answer,) = gateway.ask(("GET", "/health", {"headers": headers}))
    assert len(answer.headers["x-correlation-id"]) == 32
    assert "set-cookie" not in answer.headers


def test_bodies_are_bounded_whether_their_length_is_told_or_not(gateway: Gateway) -> None:
    def chunks(count: int) -> Iterator[bytes]:
        for _ in range(count):
            yield b" " * 100

    async def parts(count: int) -> AsyncIterator[bytes]:
        for chunk in chunks(count):
            yield chunk

    token = gateway.keys.token("producer")
    signed = {"Authorization": "FRAUDSTREAM-HMAC-V2 client=a"}
    json_, lines = (token | {"Content-Type": f"application/{kind}"} for kind in ("json", "x-ndjson"))
    answers = gateway.ask(
        ("POST", INGEST, {"headers": json_, "content": b" " * 1025}),
        ("POST", INGEST, {"headers": json_, "content": parts(11)}),
        ("POST", INGEST, {"headers": lines, "content": b" " * 2049}),
        ("POST", INGEST, {"headers": lines, "content": parts(21)}),
        ("POST", INGEST, {"headers": json_ | {"Content-Length": "-1"}, "content": b"{}"}),
        ("POST", INGEST, {"headers": json_ | {"Content-Length": "9" * 5000}, "content": b"{}"}),
        ("POST", INGEST, {"headers": lines | signed, "content": parts(11)}),
        ("POST", INGEST, {"headers": lines | signed, "content": b" " * 1025}),
        ("POST", INGEST, {"headers": lines | {"Idempotency-Key": "k"}, "content": b" " * 1025}),
        ("POST", INGEST, {"headers": json_, "content": b" " * 1024}),
        ("POST", INGEST, {"headers": lines, "content": parts(20)}),
    )
    *refused, not_signed, length, replayable, whole, stream = answers
    # Without a good header of a signature no byte of the body is read.
    assert_problem(not_signed, 401)
    for answer in (*refused, length, replayable):
        assert_problem(answer, 413, "too-large")
    for answer in (whole, stream):
        assert_problem(answer, 422, "empty")


async def ask_raw(gateway: Gateway, app: FastAPI, body: AsyncIterator[dict[str, Any]]) -> list[Any]:
    """What the app answers as a server asks it; httpx would read the whole body first."""
    sent: list[Any] = []

    async def answer(message: Any) -> None:
        sent.append(message)

    headers = {**gateway.keys.token("producer"), "content-type": "application/x-ndjson"}
    await app(
        {
            "type": "http", "method": "POST", "path": INGEST, "raw_path": INGEST.encode(),
            "query_string": b"",
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
            "http_version": "1.1", "scheme": "http", "client": ("127.0.0.1", 1), "server": ("g", 80),
        },
        body.__anext__, answer,
    )  # fmt: skip
    return sent


def test_a_body_that_never_ends_is_given_up(gateway: Gateway) -> None:
    async def slow() -> AsyncIterator[dict[str, Any]]:
        yield {"type": "http.request", "body": b"{", "more_body": True}
        await asyncio.Event().wait()

    start, body = gateway.run(lambda _, app: ask_raw(gateway, app, slow()))
    assert start["status"] == 408
    assert json.loads(body["body"])["type"].endswith("too-slow")


def test_a_client_that_goes_away_is_no_fault(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    async def gone() -> AsyncIterator[dict[str, Any]]:
        yield {"type": "http.request", "body": b"{", "more_body": True}
        yield {"type": "http.disconnect"}

    assert gateway.run(lambda _, app: ask_raw(gateway, app, gone())) == []
    printed = capsys.readouterr().out
    assert "status=499" in printed
    assert "request.failed" not in printed


def test_an_unforeseen_fault_is_a_problem_that_tells_nothing_of_it(gateway: Gateway) -> None:
    async def fail() -> None:
        raise ZeroDivisionError("secret of the house")

    async def send(client: httpx.AsyncClient, app: FastAPI) -> httpx.Response:
        app.add_api_route("/fail", fail)
        return await client.get("/fail")

    answer = gateway.run(send)
    assert_problem(answer, 500, "internal")
    assert "secret" not in answer.text
    assert "Zero" not in answer.text


def test_other_hosts_and_origins_are_let_in_by_settings_alone(tmp_path: Path) -> None:
    origin = {"Origin": "https://console.example", "Access-Control-Request-Method": "POST"}
    closed, opened = (
        Gateway(tmp_path / "a"),
        Gateway(tmp_path / "b", gateway_hosts=["gateway"], gateway_origins=["https://console.example"]),
    )
    (refused,) = closed.ask(("OPTIONS", INGEST, {"headers": origin}))
    assert "access-control-allow-origin" not in refused.headers
    good, bad, allowed, stranger = opened.ask(
        ("GET", "/health", {"headers": {"Host": "gateway:8443"}}),
        ("GET", "/health", {"headers": {"Host": "attacker.example"}}),
        ("OPTIONS", INGEST, {"headers": origin}),
        ("OPTIONS", INGEST, {"headers": origin | {"Origin": "https://attacker.example"}}),
    )
    assert good.status_code == 200
    assert_problem(bad, 421)
    assert allowed.headers["access-control-allow-origin"] == "https://console.example"
    assert "access-control-allow-origin" not in stranger.headers
