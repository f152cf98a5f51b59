"""What arrives at receivers: a mail server, HTTP, HTTPS; while they are down, slow or fail, and after."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apprise.plugins.slack import NotifySlack

from serving.security.personal import USER
from tests.serving.notifications.receivers import HttpReceiver, MailReceiver, eventually, self_signed
from tests.serving.notifications.samples import PSEUDONYMS, Desk, alert

HOSTILE = "Shop <!channel> @here *bold* [a](https://evil.example) <b>x</b> & <at>Joe</at> `c`"


def routes(*targets: str, **settings: Any) -> str:
    """One route to some targets, each with the settings."""
    lines = "\n".join(f"{name} = {value}" for name, value in settings.items())
    tables = "\n".join(f'[targets.{name}]\nurl_env = "{name.upper()}"\n{lines}' for name in targets)
    return f'{tables}\n[[routes]]\nname = "all"\ntargets = {json.dumps(targets)}\n'


FAST = {"per_minute": 6000, "longest_wait_s": 0.2}


@pytest.fixture
def http() -> Iterator[HttpReceiver]:
    receiver = HttpReceiver()
    receiver.start()
    yield receiver
    receiver.stop()


def test_json_and_mail_arrive_as_they_were_written(tmp_path: Path, http: HttpReceiver) -> None:
    mail = MailReceiver()
    mail.start()
    urls = {
        "DESK": f"json://127.0.0.1:{http.port}/hook",
        "MAIL": f"mailto://127.0.0.1:{mail.port}?from=fraud@bank.example&to=desk@bank.example&mode=insecure",
    }
    desk = Desk(tmp_path, routes("desk", "mail", **FAST), urls)
    desk.start()
    desk.take(alert(1, "critical", summary=HOSTILE, terminal_id="Ümläut\r\nBcc: all@bank.example"))
    eventually(lambda: bool(http.posts and mail.mails), "both arrive")
    desk.close()
    mail.stop()

    (post,) = http.posts
    (letter,) = mail.mails
    assert post.path == "/hook"
    assert post.body["title"] == letter["Subject"] == "[CRITICAL] Fraud alert: score"
    assert post.body["type"] == "failure"
    text = letter.get_payload(decode=True)
    assert isinstance(text, bytes)
    assert letter.get_content_type() == "text/plain"
    assert text.decode().replace("\r\n", "\n").strip() == post.body["message"].strip()
    assert PSEUDONYMS.of(USER, "user-1") in post.body["message"]
    assert "user-1" not in post.body["message"].split()
    assert letter["Bcc"] is None
    assert letter["To"] == "desk@bank.example"


def test_teams_gets_a_card_in_which_foreign_text_is_escaped(tmp_path: Path) -> None:
    teams = HttpReceiver(self_signed(tmp_path))
    teams.start()
    url = f"workflows://127.0.0.1:{teams.port}/workflow0123/signature0123/?verify=no"
    desk = Desk(tmp_path, routes("teams", **FAST), {"TEAMS": url})
    desk.start()
    desk.take(alert(1, summary=HOSTILE))
    eventually(lambda: bool(teams.posts), "it arrives")
    desk.close()
    teams.stop()

    (post,) = teams.posts
    assert "/workflows/workflow0123/triggers/manual/paths/invoke?" in post.path
    card = post.body["attachments"][0]["content"]
    assert card["type"] == "AdaptiveCard"
    assert "entities" not in card["msteams"], "nobody is mentioned"
    text = next(block["text"] for block in card["body"] if block.get("id") == "body")
    assert r"\*bold\*" in text
    assert r"\[a\]\(" in text
    assert "<at>" not in text


def test_slack_gets_foreign_text_escaped(
    tmp_path: Path, http: HttpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    # apprise knows no other host for Slack: the address alone is replaced, what is sent is what Slack gets.
    monkeypatch.setattr(NotifySlack, "webhook_url", f"http://127.0.0.1:{http.port}/services")
    monkeypatch.setattr(NotifySlack, "request_rate_per_sec", 0)
    url = "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7/"
    desk = Desk(tmp_path, routes("slack", **FAST), {"SLACK": url})
    desk.start()
    desk.take(alert(1, summary=HOSTILE))
    eventually(lambda: bool(http.posts), "it arrives")
    desk.close()

    (post,) = http.posts
    assert post.path == "/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7"
    assert post.body["mrkdwn"] is False
    (attachment,) = post.body["attachments"]
    assert "&lt;!channel&gt; (at)here" in attachment["text"]
    assert "<" not in attachment["text"]


def test_a_target_that_is_down_gets_all_once_it_is_back_and_holds_up_no_other(
    tmp_path: Path, http: HttpReceiver
) -> None:
    other = HttpReceiver()
    urls = {"DESK": f"json://127.0.0.1:{http.port}", "OTHER": f"json://127.0.0.1:{other.port}"}
    desk = Desk(tmp_path, routes("desk", "other", **FAST), urls)
    desk.start()
    desk.take(*(alert(n) for n in range(5)))
    eventually(lambda: len(http.posts) == 5, "the other target has all")
    eventually(lambda: desk.counted("failures", target="other") >= 2, "it is tried again")
    assert desk.office.outbox.pending("other") == 5

    other.start()
    eventually(lambda: len(other.posts) == 5, "they arrive")
    desk.close()
    other.stop()
    assert [post.body["message"] for post in other.posts] == [post.body["message"] for post in http.posts]
    assert desk.counted("delivered", target="other") == 5


@pytest.mark.parametrize("status", [500, 429, 403])
def test_a_target_that_answers_with_an_error_is_asked_again(
    tmp_path: Path, http: HttpReceiver, status: int
) -> None:
    http.status = status
    desk = Desk(tmp_path, routes("desk", **FAST), {"DESK": f"json://127.0.0.1:{http.port}"})
    desk.start()
    desk.take(alert(1))
    eventually(lambda: desk.counted("failures", target="desk") >= 2, "it is tried again")
    http.status = 200
    eventually(lambda: bool(http.posts), "it arrives")
    desk.close()

    assert len(http.posts) == 1
    assert not desk.office.letters.file.read_bytes()


def test_a_slow_target_holds_up_no_other_and_may_get_a_message_twice(
    tmp_path: Path, http: HttpReceiver
) -> None:
    slow = HttpReceiver()
    slow.delay_s = 1.5
    slow.start()
    urls = {"DESK": f"json://127.0.0.1:{http.port}", "SLOW": f"json://127.0.0.1:{slow.port}?rto=0.5"}
    desk = Desk(tmp_path, routes("desk", "slow", **FAST), urls)
    desk.start()
    desk.take(*(alert(n) for n in range(3)))
    eventually(lambda: len(http.posts) == 3, "the other target has all")
    assert desk.counted("delivered", target="slow") == 0
    eventually(lambda: desk.counted("failures", target="slow") >= 1, "it did not answer in time")
    slow.delay_s = 0.0
    eventually(lambda: desk.counted("delivered", target="slow") == 3, "they arrive")
    desk.close()
    slow.stop()

    assert len({post.body["message"] for post in slow.posts}) == 3
    assert len(slow.posts) >= 3


def test_what_is_not_taken_in_time_is_given_up_with_the_reason(tmp_path: Path, http: HttpReceiver) -> None:
    http.status = 500
    desk = Desk(
        tmp_path, routes("desk", give_up_minutes=60, **FAST), {"DESK": f"json://127.0.0.1:{http.port}"}
    )
    desk.start()
    desk.take(alert(1), alert(2))
    eventually(lambda: desk.counted("failures", target="desk") >= 1, "it is tried")
    desk.ahead_s = 3601
    eventually(lambda: desk.counted("given_up", target="desk") == 2, "both are given up")
    http.status = 200
    desk.take(alert(3))
    eventually(lambda: bool(http.posts), "the next arrives")
    desk.close()

    letters = [json.loads(line) for line in desk.office.letters.file.read_bytes().splitlines()]
    assert [letter["target"] for letter in letters] == ["desk", "desk"]
    assert all("500" in letter["reason"] for letter in letters)
    assert "Alert: alert-1" in letters[0]["body"]
    assert len(http.posts) == 1


def test_a_target_gets_no_more_than_its_rate(tmp_path: Path, http: HttpReceiver) -> None:
    desk = Desk(tmp_path, routes("desk", per_minute=300), {"DESK": f"json://127.0.0.1:{http.port}"})
    desk.start()
    began = time.monotonic()
    desk.take(*(alert(n) for n in range(6)))
    eventually(lambda: len(http.posts) == 6, "all arrive")
    desk.close()

    assert http.posts[-1].at - began >= 5 * 60 / 300, "five gaps of a fifth of a second"


def test_what_was_not_sent_at_the_end_is_sent_by_the_next_process(tmp_path: Path, http: HttpReceiver) -> None:
    http.stop()
    urls = {"DESK": f"json://127.0.0.1:{http.port}"}
    first = Desk(tmp_path, routes("desk", per_minute=6000, longest_wait_s=60), urls)
    first.start()
    first.take(alert(1), alert(2))
    eventually(lambda: first.counted("failures", target="desk") >= 3, "it is tried")
    began = time.monotonic()
    first.close()
    assert time.monotonic() - began < 20, "a wait between attempts ends at once"

    http.start()
    second = Desk(tmp_path, routes("desk", **FAST), urls)
    second.start()
    eventually(lambda: len(http.posts) == 2, "both arrive")
    second.close()
