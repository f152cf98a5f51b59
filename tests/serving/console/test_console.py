"""The console in a real browser, before a real gateway with Kafka, Redis and FerretDB."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from playwright.sync_api import Page, expect
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from events.control import Rule
from events.decision import Decision, decision_id
from events.feedback import Label
from serving import control
from serving.control import Topics
from serving.gateway.folders import users_folder
from serving.security.accounts import Accounts
from state.contract import CONTRACT_VERSION, FEATURE_NAMES, N_FEATURES
from tests.serving.console.conftest import Seat
from tests.serving.console.world import HOSTILE, PASSWORD, PREFIX, ConsoleWorld

pytestmark = pytest.mark.stack

PATIENCE_MS = 90_000
SOCKET = "/console/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
Take = Callable[..., Seat]


def decided(number: int, user: str, score: float = 0.97, **changes: Any) -> Decision:
    """A decision of now that opens a critical case."""
    now, name = round(time.time() * 1000), f"new-{user}-{number}"
    features = np.zeros(N_FEATURES, "<f4")
    features[FEATURE_NAMES.index("amount")] = 250.0
    fields: dict[str, Any] = {
        "user_id": user, "transaction_id": name, "decision_id": decision_id(user, name), "event_time": now,
        "amount": 250.0, "decision": "block", "score": score, "model_version": "heuristic-1",
        "contract_version": CONTRACT_VERSION, "features": features.tobytes(), "decided_at": now,
        "country": "FR", "channel": "online", "terminal_id": "t-new", "currency": "EUR",
    }  # fmt: skip
    return Decision(**fields | changes)


def case_of(world: ConsoleWorld, decision: Decision) -> str:
    world.stored.take([decision])
    return f"case-{decision.decision_id}"


def told(page: Page, text: str) -> None:
    expect(page.get_by_text(text).first).to_be_visible(timeout=PATIENCE_MS)


def forget_attempts(world: ConsoleWorld) -> None:
    for key in world.stored.redis.scan_iter("fs:bucket:sign-in:*"):
        world.stored.redis.delete(key)


# Who comes in


def test_signing_in_and_out(world: ConsoleWorld, seats: Take) -> None:
    forget_attempts(world)
    seat = seats(None)
    page = seat.page
    page.goto(f"{world.gateway.url}/console/case/any")
    assert page.url.endswith("/console/sign-in")
    page.fill("#name", "ana")
    page.fill("#password", "a wrong password")
    page.click("button")
    told(page, "Name or password is wrong.")
    page.fill("#name", "ana")
    page.fill("#password", PASSWORD)
    page.click("button")
    expect(page.locator("h1")).to_have_text("Queue")
    (cookie,) = seat.context.cookies()
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Strict"
    assert cookie["path"] == "/console"
    jar = {cookie["name"]: cookie["value"]}
    assert httpx.get(f"{world.gateway.url}/console/", cookies=jar).status_code == 200
    page.get_by_text("Sign out").click()
    expect(page.locator("#password")).to_be_visible()
    assert seat.context.cookies() == []
    # The cookie itself is good no more, whoever kept it.
    assert httpx.get(f"{world.gateway.url}/console/", cookies=jar).status_code == 401
    acts = [(entry["actor"], entry["action"]) for entry in world.gateway.audit()]
    assert ("ana", "session.begin") in acts
    assert ("ana", "session.end") in acts
    assert PASSWORD not in world.gateway.log()


def test_attempts_are_limited(world: ConsoleWorld) -> None:
    forget_attempts(world)
    form = {"name": "nobody-of-that-name", "password": "x" * 20}
    headers = {"Origin": world.gateway.url}
    with httpx.Client(base_url=world.gateway.url, headers=headers) as client:
        # Tokens flow back while this goes on, so how many attempts are taken depends on the machine.
        answers: list[httpx.Response] = []
        while len(answers) < 60 and (not answers or answers[-1].status_code == 401):
            answers.append(client.post("/console/sign-in", data=form, timeout=60))
    assert len(answers) > 10
    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["retry-after"]) > 0
    forget_attempts(world)


@pytest.mark.parametrize("path", ["/", "/case/x", "/dashboards", "/administration", "/static/case_table.js"])
def test_nothing_is_shown_to_nobody(world: ConsoleWorld, path: str) -> None:
    url = f"{world.gateway.url}/console{path}"
    assert httpx.get(url).status_code == 401
    asked = httpx.get(url, headers={"accept": "text/html"})
    assert (asked.status_code, asked.headers["location"]) == (303, "/console/sign-in")
    assert httpx.get(url, cookies={"fraudstream_session": "eyJ.eyJ.x"}).status_code == 401
    assert httpx.post(url, cookies=world.cookie("ana")).status_code == 405


def test_another_site_can_do_nothing(world: ConsoleWorld) -> None:
    cookies = world.cookie("ana")
    for origin in ("https://evil.example", "null", None):
        headers = {} if origin is None else {"Origin": origin}
        for path in ("/console/sign-in", "/console/sign-out"):
            answer = httpx.post(f"{world.gateway.url}{path}", headers=headers, cookies=cookies)
            assert answer.status_code == 403, (origin, path)
    assert httpx.get(f"{world.gateway.url}/console/", cookies=cookies).status_code == 200


def test_a_websocket_of_another_origin_or_without_a_session_is_refused(world: ConsoleWorld) -> None:
    address = (
        world.gateway.url.replace("http", "ws") + "/console/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
    )
    session = "; ".join(f"{name}={value}" for name, value in world.cookie("ana").items())
    ours = world.gateway.url
    forged = "fraudstream_session=forged"
    for origin, cookie in (
        ("https://evil.example", session), ("null", session), (None, session), (ours, ""), (ours, forged),
    ):  # fmt: skip
        with pytest.raises(InvalidStatus) as refused:
            connect(
                address,
                origin=None if origin is None else Origin(origin),
                additional_headers={"Cookie": cookie},
            )
        assert refused.value.response.status_code == 403
    with connect(address, origin=Origin(ours), additional_headers={"Cookie": session}) as socket:
        assert str(socket.recv(timeout=20)).startswith("0{")
    polling = world.gateway.url + "/console/_nicegui_ws/socket.io/?EIO=4&transport=polling"
    assert httpx.get(polling, cookies=world.cookie("ana")).status_code == 405


def test_headers_bind_the_browser(world: ConsoleWorld) -> None:
    page = httpx.get(f"{world.gateway.url}/console/", cookies=world.cookie("ana"))
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "script-src 'self' 'nonce-" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2].partition(";")[0]
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["referrer-policy"] == "same-origin"
    again = httpx.get(f"{world.gateway.url}/console/", cookies=world.cookie("ana"))
    assert again.headers["content-security-policy"] != policy
    form = httpx.get(f"{world.gateway.url}/console/sign-in")
    assert "script-src" not in form.headers["content-security-policy"]


def test_a_session_ends_with_its_account(world: ConsoleWorld, seats: Take) -> None:
    accounts = Accounts(users_folder(world.keys))
    accounts.add("temp", "analyst", PASSWORD)
    page = seats("temp").open()
    accounts.remove("temp")
    expect(page.locator("#password")).to_be_visible(timeout=PATIENCE_MS)


# The queue


def test_the_queue_is_live_and_led_by_keys(world: ConsoleWorld, seats: Take) -> None:
    page = seats("ana").open()
    rows = page.locator("tr[data-case]")
    expect(rows.first).to_be_visible()
    case_id = case_of(world, decided(1, "user-queue", 0.999))
    new = page.locator(f'tr[data-case="{case_id}"]')
    expect(new).to_be_visible(timeout=PATIENCE_MS)
    assert rows.first.get_attribute("data-case") == case_id, "the gravest comes first"
    expect(new).to_contain_text("user-queue")
    expect(new).to_contain_text("250.00")
    page.keyboard.press("j")
    page.keyboard.press("j")
    expect(rows.nth(1)).to_have_class("go on")
    page.keyboard.press("k")
    expect(rows.nth(0)).to_have_class("go on")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/console/case/{case_id}")
    page.locator(".c-state", has_text="live").wait_for()
    for key in "gd":
        page.keyboard.press(key)
    page.wait_for_url("**/console/dashboards")
    page.locator(".c-state", has_text="live").wait_for()
    page.keyboard.press("?")
    told(page, "Undo the verdict, or correct it")


def test_filters_and_pages(world: ConsoleWorld, seats: Take) -> None:
    world.stored.take([decided(1, f"user-page-{number}", 0.95) for number in range(60)])
    page = seats("ana").open()
    page.get_by_role("button", name="Medium").click()
    expect(page.locator("tr[data-case] .k-critical")).to_have_count(0, timeout=PATIENCE_MS)
    expect(page.locator("tr[data-case] .k-medium").first).to_be_visible()
    page.get_by_role("button", name="All", exact=True).click()
    page.get_by_role("button", name="Any severity").click()
    expect(page.locator("tr[data-case]")).to_have_count(50, timeout=PATIENCE_MS)
    first = page.locator("tr[data-case]").first.get_attribute("data-case")
    page.get_by_role("button", name="Older").click()
    told(page, "Page 2")
    expect(page.locator(f'tr[data-case="{first}"]')).to_have_count(0, timeout=PATIENCE_MS)
    page.get_by_role("button", name="Newer").click()
    expect(page.locator(f'tr[data-case="{first}"]')).to_be_visible(timeout=PATIENCE_MS)
    page.get_by_role("button", name="Legitimate").click()
    page.get_by_role("button", name="velocity").click()
    told(page, "Nothing here")


def test_a_verdict_from_the_queue(world: ConsoleWorld, seats: Take) -> None:
    decision = decided(1, "user-quick", 0.998)
    case_id = case_of(world, decision)
    page = seats("ana").open()
    row = page.locator(f'tr[data-case="{case_id}"]')
    expect(row).to_be_visible(timeout=PATIENCE_MS)
    while "on" not in str(row.get_attribute("class")).split():
        page.keyboard.press("j")
    page.keyboard.press("l")
    (given,) = world.feedback(decision.transaction_id)
    assert (given.label, given.source, given.analyst_id) == ("legitimate", "analyst", "ana")
    expect(row).to_contain_text("legitimate", timeout=PATIENCE_MS)


# A case


def test_a_case_shows_its_reasons(seats: Take) -> None:
    page = seats("ana").open()
    page.locator("tr[data-case]").filter(has_not_text="user-").first.click()
    page.wait_for_url("**/console/case/*")
    told(page, "Why this score")
    told(page, "with a score of")
    panel = page.locator("section[aria-label='Why this score']")
    expect(panel.locator("canvas")).to_be_visible(timeout=PATIENCE_MS)
    expect(page.locator("section[aria-label='Ensemble']")).to_contain_text("gbt")
    expect(page.locator("section[aria-label='User']")).to_contain_text("Mean amount", timeout=PATIENCE_MS)
    expect(page.locator("section[aria-label='Timeline'] canvas")).to_be_visible(timeout=PATIENCE_MS)
    expect(page.locator("section[aria-label='Places'] circle").first).to_be_attached(timeout=PATIENCE_MS)
    expect(page.locator("section[aria-label='Similar cases'] a").first).to_be_visible(timeout=PATIENCE_MS)


def test_a_verdict_is_taken_back_then_given_and_seen_to_work(world: ConsoleWorld, seats: Take) -> None:
    decision = decided(1, "user-judged")
    case_id = case_of(world, decision)
    page = seats("ana").open(f"/case/{case_id}")
    told(page, decision.transaction_id)
    page.keyboard.press("f")
    told(page, "is sent in")
    page.keyboard.press("u")
    told(page, "verdict taken back, nothing was sent")
    expect(page.get_by_text("is sent in")).to_have_count(0)
    page.get_by_placeholder("Note for the record").fill(HOSTILE)
    page.get_by_role("button", name="Fraud").click()
    told(page, "Kafka has it")
    # Only the second: the first was never sent, though longer than its time has gone by.
    (given,) = world.feedback(decision.transaction_id)
    assert (given.label, given.analyst_id, given.notes) == ("fraud", "ana", HOSTILE)
    told(page, "Label not seen yet")
    told(page, "Case still open")

    # What the learning job makes of it.
    label = Label(
        transaction_id=decision.transaction_id, user_id=decision.user_id, event_time=decision.event_time,
        is_fraud=True, source="analyst", labelled_at=given.labelled_at,
    )  # fmt: skip
    world.stored.take(
        [label, decided(2, "user-after", 0.01, decision="approve", model_version="heuristic-1+online-9")]
    )
    told(page, "Label seen: fraud, by analyst")
    told(page, "Case closed: fraud")
    told(page, "Model: decided by heuristic-1, now heuristic-1+online-9")

    page.keyboard.press("u")
    told(page, "was sent already; corrected")
    first, second = world.feedback(decision.transaction_id, enough=2)
    assert (first.label, second.label) == ("fraud", "legitimate")
    acts = [
        (e["action"], e["outcome"]) for e in world.gateway.audit() if e["target"] == decision.transaction_id
    ]
    assert acts == [
        ("feedback.fraud", "requested"), ("feedback.fraud", "done"),
        ("feedback.legitimate", "requested"), ("feedback.legitimate", "done"),
    ]  # fmt: skip


def test_a_case_that_is_not_there(seats: Take) -> None:
    page = seats("ana").open("/case/case-of-nobody")
    told(page, "There is no such case")


def test_markup_in_what_is_stored_is_text(world: ConsoleWorld, seats: Take) -> None:
    decision = decided(1, "user-hostile")
    case_id = case_of(world, decision)
    # No job stores this, for it is no identifier; the console shall not depend on that.
    database = world.stored.mongo[world.stored.database]
    hostile = {"terminal_id": HOSTILE, "country": HOSTILE, "channel": HOSTILE, "rules": [HOSTILE]}
    database["decisions"].update_one({"_id": decision.decision_id}, {"$set": hostile})
    step = database["audit"].find_one()
    database["audit"].insert_one(
        {**step, "_id": "hostile", "at": round(time.time() * 1000), "detail": HOSTILE}
    )
    for path in (f"/case/{case_id}", "/dashboards"):
        page = seats("ana").open(path)
        told(page, HOSTILE)
        assert page.locator("img[src=x]").count() == 0
        assert "owned" not in page.title()


# Who may what


def test_an_administrator_reads_no_identity_and_judges_nothing(world: ConsoleWorld, seats: Take) -> None:
    case_id = case_of(world, decided(1, "user-secret"))
    page = seats("adam").open(f"/case/{case_id}")
    told(page, "Verdicts are given by analysts.")
    expect(page.locator("[data-user]")).to_contain_text("~")
    assert "user-secret" not in page.content().replace("new-user-secret-1", "")
    page.keyboard.press("f")
    page.wait_for_timeout(500)
    expect(page.get_by_text("is sent in")).to_have_count(0)
    shown = seats("ana").open(f"/case/{case_id}")
    expect(shown.locator("[data-user]")).to_have_text("user-secret")


def test_what_each_role_sees_of_administration(world: ConsoleWorld, seats: Take) -> None:
    topics = Topics({"bootstrap.servers": world.cluster.bootstrap}, PREFIX)
    rule = Rule(
        rule_id="large", version=1, owner="adam", description=HOSTILE, feature="amount", operator=">",
        value=1e6, verdict="review",
    )  # fmt: skip
    control.send_rule(topics, rule, msgspec.json.encode(rule))

    page = seats("ana").open()
    expect(page.get_by_text("Administration")).to_have_count(0)
    page = seats("ana").open("/administration")
    told(page, "Not for you")

    page = seats("dana").open("/administration")
    told(page, "large")
    expect(page.get_by_role("button", name="Disable")).to_have_count(0)
    expect(page.get_by_role("button", name="Begin safe mode")).to_have_count(0)
    expect(page.get_by_role("button", name="Freeze", exact=True)).to_be_visible()

    page = seats("adam").open("/administration")
    told(page, HOSTILE)
    assert page.locator("img[src=x]").count() == 0
    page.get_by_role("button", name="Disable").click()
    page.locator(".c-dialog").get_by_role("button", name="Cancel").click()
    expect(page.locator(".c-dialog")).to_have_count(0)
    page.get_by_role("button", name="Disable").click()
    page.locator(".c-dialog").get_by_role("button", name="Disable").click()
    told(page, "rule large, version 2, disabled: told")
    expect(page.get_by_role("button", name="Enable")).to_be_visible(timeout=PATIENCE_MS)
    held = control.held_rules(topics)["large"]
    assert held.state == "disabled"
    acts = [(e["actor"], e["action"], e["outcome"]) for e in world.gateway.audit() if e["target"] == "large"]
    assert acts == [("adam", "rules.disable", "requested"), ("adam", "rules.disable", "done")]


def test_safe_mode_is_switched_and_seen_by_all(world: ConsoleWorld, seats: Take) -> None:
    topics = Topics({"bootstrap.servers": world.cluster.bootstrap}, PREFIX)
    page, other = seats("adam").open("/administration"), seats("ana").open()
    page.get_by_role("button", name="Begin safe mode").click()
    page.locator(".c-dialog").get_by_role("button", name="Begin").click()
    told(page, "a reason is needed")
    page.get_by_role("button", name="Begin safe mode").click()
    page.get_by_placeholder("Reason, for the record").fill("scores are odd")
    page.locator(".c-dialog").get_by_role("button", name="Begin").click()
    told(other, "Safe mode is on: models do not decide. scores are odd")
    update = control.safe_mode(topics)
    assert update is not None
    assert (update.reason, update.issued_by) == ("scores are odd", "adam")
    told(page, "Models do not decide")
    page.get_by_role("button", name="End safe mode").click()
    page.locator(".c-dialog").get_by_role("button", name="End").click()
    told(page, "Models decide")
    expect(other.locator(".c-banner.safe")).to_be_hidden(timeout=PATIENCE_MS)
    assert control.safe_mode(topics) is None


# How it looks, and what it says when something is away


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_every_page_fits(world: ConsoleWorld, seats: Take, width: int, scheme: str, tmp_path: Path) -> None:
    case_id = case_of(world, decided(1, f"user-{width}-{scheme}"))
    seat = seats("adam", viewport={"width": width, "height": 844}, color_scheme=scheme)
    for path in ("/", f"/case/{case_id}", "/dashboards", "/administration"):
        page = seat.open(path)
        page.screenshot(path=tmp_path / "page.png")
        over = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert over <= 0, (path, over)
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(16, 20, 27)") == (scheme == "dark"), ground


def test_the_theme_is_kept(seats: Take) -> None:
    seat = seats("ana", color_scheme="light")
    page = seat.open()
    page.get_by_label("Light or dark").click()
    expect(page.locator("body")).to_have_class("desktop no-touch body--dark", timeout=PATIENCE_MS)
    page = seat.open("/dashboards")
    assert "body--dark" in str(page.locator("body").get_attribute("class"))


def test_a_store_that_is_away_is_told_of_and_comes_back(world: ConsoleWorld, seats: Take) -> None:
    page = seats("ana").open()
    shown = page.locator("tr[data-case]").count()
    assert shown
    world.mongo.freeze()
    try:
        told(page, "MongoDB does not answer")
        assert page.locator("tr[data-case]").count() == shown, "what was known stays"
    finally:
        world.mongo.thaw()
    expect(page.locator(".c-banner").first).to_be_hidden(timeout=PATIENCE_MS)
    expect(page.locator(".c-state")).to_have_text("live")
    case_id = case_of(world, decided(1, "user-returned", 0.997))
    expect(page.locator(f'tr[data-case="{case_id}"]')).to_be_visible(timeout=PATIENCE_MS)


def test_dashboards_count_what_happens(world: ConsoleWorld, seats: Take) -> None:
    page = seats("dana").open("/dashboards")
    figures = page.locator("section[aria-label='In the window']")
    expect(figures.locator(".c-figure")).to_have_count(6, timeout=PATIENCE_MS)
    before = int(figures.locator(".v").first.inner_text().replace(",", ""))
    world.stored.take([decided(n, "user-many", 0.01, decision="approve") for n in range(40)])
    expect(figures.locator(".v").first).to_have_text(f"{before + 40:,}", timeout=PATIENCE_MS)
    expect(page.locator("section[aria-label='Steps of the learner and its gate']")).to_contain_text(
        "promoted"
    )
    told(page, "Promoted artefact")
    page.get_by_role("button", name="24 hours").click()
    expect(figures.locator(".v").first).not_to_have_text(f"{before + 40:,}", timeout=PATIENCE_MS)
