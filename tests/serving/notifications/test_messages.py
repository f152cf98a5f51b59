"""What a message shows, and that foreign text in it is harmless."""

from hypothesis import example, given
from hypothesis import strategies as st

from serving.notifications.messages import LONGEST, MOST_LINES, harmless, notice, of_many, of_one
from serving.security.personal import USER
from tests.serving.notifications.samples import PSEUDONYMS, alert

HOSTILE = "Joe's\r\nSubject: x <!channel> @here https://evil.example \u202e\x1b[31m <at>Joe</at>"


@given(st.text(max_size=1000))
@example(HOSTILE)
@example("\ud800")
def test_foreign_text_is_one_line_that_calls_nobody_and_links_nowhere(text: str) -> None:
    shown = harmless(text)

    assert shown.isprintable()
    assert "@" not in shown
    assert "://" not in shown
    assert len(shown) <= 3 * (LONGEST + 1)
    shown.encode()


def test_a_message_tells_what_was_found_and_names_the_user_by_pseudonym() -> None:
    told = of_one(notice(alert(7, "critical", kinds=["score", "travel"]), PSEUDONYMS), suppressed=3)

    assert told.title == "[CRITICAL] Fraud alert: score, travel"
    assert told.level == "failure"
    lines = told.body.splitlines()
    assert lines[0] == "score 0.95"
    assert "Amount: 1,299.50 EUR" in lines
    assert "Terminal: terminal-7" in lines
    assert {"Case: case-7", "Decision: d-7", "Alert: alert-7"} <= set(lines)
    assert lines[-1] == "3 more were suppressed since the last message."
    assert "user-7" not in told.body
    assert PSEUDONYMS.of(USER, "user-7") in told.body


def test_a_route_may_ask_for_the_user_id() -> None:
    assert "User: user-7\n" in of_one(notice(alert(7), None), 0).body


def test_hostile_fields_stay_within_their_line() -> None:
    fields = {"summary": HOSTILE, "terminal_id": HOSTILE, "currency": HOSTILE, "case_id": HOSTILE}
    plain, hostile = (
        of_one(notice(alert(1, **more), None), 0) for more in ({}, fields | {"user_id": HOSTILE})
    )

    assert len(hostile.body.splitlines()) == len(plain.body.splitlines())
    assert "\r" not in hostile.body
    assert of_one(notice(alert(1, kinds=["<b>", "score"]), None), 0).title == "[HIGH] Fraud alert: score"


def test_an_alert_of_an_earlier_version_is_told_too() -> None:
    bare = alert(1, case_id=None, kinds=[], amount=None, currency=None, terminal_id=None)

    told = of_one(notice(bare, None), 0)
    assert told.title == "[HIGH] Fraud alert"
    assert "None" not in told.body


def test_a_digest_lists_its_end_and_counts_the_rest() -> None:
    gathered = [notice(alert(n, "medium"), PSEUDONYMS) for n in range(MOST_LINES + 5)]

    told = of_many(gathered, suppressed=4)
    lines = told.body.splitlines()
    assert told.title == f"Fraud alerts: {MOST_LINES + 5} gathered, 4 suppressed"
    assert lines[0] == "5 earlier alerts are not listed."
    assert len(lines) == MOST_LINES + 2
    assert f"case-{MOST_LINES + 4}" in lines[-2]
    assert lines[-1] == "4 more were suppressed since the last message."
    assert of_many([], 2).body == "2 more were suppressed since the last message."
