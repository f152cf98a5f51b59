"""Suppression, digests and repeats: every alert is accounted for, over restarts too."""

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.notifications.messages import notice
from serving.notifications.outbox import Outbox, OutboxError
from tests.serving.notifications.samples import Desk, alert

NOBODY = {"DESK_URL": "json://127.0.0.1:1/desk", "MAIL_URL": "json://127.0.0.1:1/mail"}
ROUTES = """
[targets.desk]
url_env = "DESK_URL"
[targets.mail]
url_env = "MAIL_URL"
max_pending = 5

[[routes]]
name = "urgent"
targets = ["desk"]
min_severity = "high"
suppress_minutes = 10

[[routes]]
name = "all"
targets = ["mail"]
suppress_minutes = 1
digest = {below = "critical", minutes = 15, items = 3}
"""


@pytest.fixture
def new_desk(tmp_path: Path) -> Iterator[Callable[[], Desk]]:
    """A notifier that sends nothing, so that what it has decided can be looked at; again after its end."""
    made: list[Desk] = []

    def make() -> Desk:
        if made:
            made[-1].close()
        made.append(Desk(tmp_path, ROUTES, NOBODY))
        # Couriers that were never started have nothing to end.
        made[-1].notifier.couriers.clear()
        return made[-1]

    yield make
    made[-1].close()


def queued(desk: Desk, target: str) -> list[str]:
    """Bodies of what waits for the target; it is taken away."""
    found = []
    while (one := desk.office.outbox.next(target)) is not None:
        found.append(one.message.title + "\n" + one.message.body)
        desk.office.outbox.done(one.number)
    return found


def test_the_same_user_case_and_kind_is_told_once_in_a_window(new_desk: Callable[[], Desk]) -> None:
    desk = new_desk()
    same = {"user_id": "u", "case_id": "c"}
    desk.take(*(alert(n, **same) for n in range(4)))
    assert len(queued(desk, "desk")) == 1

    desk.take(alert(10, kinds=["score", "travel"], **same))
    (told,) = queued(desk, "desk")
    assert "travel" in told, "another kind is news"
    assert "3 more were suppressed" in told

    desk.take(alert(11, "critical", **same))
    assert len(queued(desk, "desk")) == 1, "so is a higher severity"
    desk.take(alert(12, user_id="u", case_id="c2"), alert(13, user_id="u2", case_id="c"))
    assert len(queued(desk, "desk")) == 2, "and another case, and another user"

    desk.ahead_s = 601
    desk.take(alert(14, **same))
    assert len(queued(desk, "desk")) == 1, "and the same after the window"


def test_the_window_outlives_the_process(new_desk: Callable[[], Desk]) -> None:
    new_desk().take(alert(1, user_id="u", case_id="c"))
    again = new_desk()
    again.take(alert(2, user_id="u", case_id="c"))

    assert len(queued(again, "desk")) == 1
    assert again.counted("suppressed", route="urgent", reason="window") == 1


def test_an_alert_that_comes_again_is_known_by_its_id(new_desk: Callable[[], Desk]) -> None:
    new_desk().take(alert(1))
    again = new_desk()
    again.ahead_s = 3600  # past the window of suppression
    again.take(alert(1), alert(1))

    assert len(queued(again, "desk")) == 1
    assert again.counted("repeated") == 2


def test_a_digest_is_sent_when_it_is_full_or_old(new_desk: Callable[[], Desk]) -> None:
    desk = new_desk()
    desk.take(alert(1, "medium"), alert(2, "medium"))
    desk.flush()
    assert queued(desk, "mail") == [], "neither full nor old"

    desk.take(alert(3, "medium"))
    desk.flush()
    (told,) = queued(desk, "mail")
    assert "3 gathered, 0 suppressed" in told

    desk.take(alert(4, "medium", user_id="u", case_id="c"), alert(5, "medium", user_id="u", case_id="c"))
    desk.ahead_s = 901
    desk.flush()
    (told,) = queued(desk, "mail")
    assert "1 gathered, 1 suppressed" in told
    desk.flush()
    assert queued(desk, "mail") == []


def test_what_was_only_suppressed_is_told_by_the_digest_too(new_desk: Callable[[], Desk]) -> None:
    desk = new_desk()
    desk.take(*(alert(n, "critical", user_id="u", case_id="c") for n in range(3)))
    assert len(queued(desk, "mail")) == 1
    desk.ahead_s = 901
    desk.flush()

    (told,) = queued(desk, "mail")
    assert "0 gathered, 2 suppressed" in told


def test_a_digest_survives_the_end_of_the_process(new_desk: Callable[[], Desk]) -> None:
    new_desk().take(alert(1, "medium"))
    again = new_desk()
    again.ahead_s = 901
    again.flush()

    (told,) = queued(again, "mail")
    assert "1 gathered" in told


def test_more_than_may_wait_is_counted(new_desk: Callable[[], Desk]) -> None:
    desk = new_desk()
    desk.take(*(alert(n, "critical") for n in range(9)))

    assert desk.counted("suppressed", route="all", reason="overflow") == 4
    assert len(queued(desk, "mail")) == 5
    assert len(queued(desk, "desk")) == 9, "the other target is not held up"


def test_an_old_alert_is_not_sent(new_desk: Callable[[], Desk]) -> None:
    desk = new_desk()
    desk.take(alert(1, raised_at=alert(1).raised_at - 25 * 3_600_000))  # type: ignore[operator]

    assert desk.counted("stale") == 1
    assert queued(desk, "desk") == []


def test_what_is_no_alert_is_put_aside_with_the_reason(new_desk: Callable[[], Desk]) -> None:
    desk = new_desk()
    deep = b"[" * 100_000
    values = [b"", b"\xff", b"{}", b'{"alert_id": 1}', deep]
    desk.notifier.intake.take(values)
    desk.take(alert(1))

    letters = [json.loads(line) for line in desk.office.letters.file.read_bytes().splitlines()]
    assert [base64.b64decode(letter["record"]) for letter in letters] == values
    assert all(letter["reason"] for letter in letters)
    assert desk.office.letters.file.stat().st_mode & 0o777 == 0o600
    assert len(queued(desk, "desk")) == 1, "the next is sent"


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    first = Outbox(tmp_path / "outbox.sqlite")
    with pytest.raises(OutboxError, match="another process uses it"):
        Outbox(tmp_path / "outbox.sqlite")
    first.close()
    Outbox(tmp_path / "outbox.sqlite").close()


@pytest.mark.parametrize("content", [b"no database", b"SQLite format 3\0" + b"x" * 5000])
def test_a_file_that_is_no_outbox_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "outbox.sqlite"
    file.write_bytes(content)
    with pytest.raises(OutboxError, match=r"outbox\.sqlite"):
        Outbox(file)


def test_the_outbox_is_no_place_to_look_people_up(tmp_path: Path) -> None:
    desk = Desk(tmp_path, ROUTES, NOBODY)
    desk.take(alert(1, user_id="cardholder-4711"), alert(2, "medium", user_id="cardholder-4711"))
    desk.office.outbox.close()

    content = b"".join(path.read_bytes() for path in (tmp_path / "state").iterdir())
    assert b"alert-1" in content
    assert b"cardholder-4711" not in content
    assert (tmp_path / "state" / "outbox.sqlite").stat().st_mode & 0o777 == 0o600


STEPS = st.lists(
    st.tuples(
        st.integers(0, 30),  # alert
        st.sampled_from(["medium", "high", "critical"]),
        st.integers(0, 2),  # user
        st.lists(st.sampled_from(["score", "travel"]), max_size=2, unique=True),
        st.sampled_from([0, 1, 61, 901]),  # seconds until the next
    ),
    max_size=40,
)


@given(STEPS)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_alert_is_sent_gathered_or_counted(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, str, int, list[str], int]]
) -> None:
    desk = Desk(tmp_path_factory.mktemp("desk"), ROUTES.replace("max_pending = 5", ""), NOBODY)
    desk.notifier.couriers.clear()
    sent = suppressed = 0
    for number, severity, user, kinds, seconds in steps:
        desk.take(alert(number, severity, user_id=f"u{user}", case_id=None, kinds=kinds))
        desk.ahead_s += seconds
        desk.flush()
    desk.ahead_s += 3600
    desk.flush()
    for told in queued(desk, "mail"):
        title, _, body = told.partition("\n")
        sent += int(title.split()[2]) if "gathered" in title else 1
        suppressed += sum(
            int(line.split()[0]) for line in body.splitlines() if "more were suppressed" in line
        )

    distinct = len({number for number, *_ in steps})
    assert sent + suppressed == distinct
    assert desk.counted("repeated") == len(steps) - distinct
    assert suppressed == desk.counted("suppressed", route="all", reason="window")
    desk.close()


def test_a_notice_survives_the_outbox(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.sqlite")
    shown = notice(alert(1, summary="ünïcode \ud800".encode(errors="replace").decode()), None)
    outbox.gather("r", shown, 1.0)

    assert outbox.take_gathered("r") == [shown]
    assert outbox.gathered("r").alerts == 0
    outbox.close()
