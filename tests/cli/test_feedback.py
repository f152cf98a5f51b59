"""`fraudstream feedback send`: what is refused is named, the rest is sent."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from events.feedback import Feedback
from serving import broker
from tests.cli.commands import Said, fraudstream

GOOD: dict[str, Any] = {
    "transaction_id": "tx-1",
    "label": "fraud",
    "source": "chargeback",
    "labelled_at": 1_790_000_000_000,
}


class Topic:
    """What would have been sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[str | None, Feedback]] = []

    def take(self, _config: Any, topic: str, records: Any) -> tuple[int, list[str]]:
        assert topic == "feedback"
        taken = [(key, msgspec.json.decode(value, type=Feedback)) for _, key, value in records]
        self.sent += taken
        return len(taken), []


@pytest.fixture
def topic(monkeypatch: pytest.MonkeyPatch) -> Topic:
    """Instead of a broker: the sending itself is tested on a real one."""
    made = Topic()
    monkeypatch.setattr(broker, "send_all", made.take)
    return made


def send(*arguments: str | Path, stdin: bytes | None = None) -> Said:
    return fraudstream("feedback", "send", *arguments, stdin=stdin)


def line(**changes: Any) -> bytes:
    return msgspec.json.encode({k: v for k, v in (GOOD | changes).items() if v is not None}) + b"\n"


def test_one_by_options(topic: Topic) -> None:
    said = send(
        "--anomaly-id", "a-1", "--label", "false_positive", "--source", "analyst", "--analyst-id", "a"
    )
    assert said == (0, "1 sent, 0 refused, 0 not acknowledged")
    ((key, feedback),) = topic.sent
    assert key == feedback.anomaly_id == "a-1"
    assert (feedback.label, feedback.source, feedback.analyst_id) == ("false_positive", "analyst", "a")
    assert isinstance(feedback.labelled_at, int)


@pytest.mark.parametrize("time", ["1790000000000", "2026-09-21T14:13:20Z"])
def test_a_time_in_either_form(topic: Topic, time: str) -> None:
    send("--transaction-id", "t", "--label", "fraud", "--source", "customer", "--labelled-at", time)
    assert len(topic.sent) == 1


def test_the_good_lines_are_sent_and_the_bad_ones_named(topic: Topic, tmp_path: Path) -> None:
    file = tmp_path / "labels.jsonl"
    file.write_bytes(
        line(transaction_id="tx-1")
        + b"\n"
        + line(label="perhaps")
        + line(labelled_at=4_102_444_799_999)
        + b"{\n"
        + line(notes="\x1b[2J")
        + line(transaction_id="tx-2")
    )
    said = send(file)
    assert said.status == 1
    assert [feedback.transaction_id for _, feedback in topic.sent] == ["tx-1", "tx-2"]
    for told in (
        f"{file}:3: label: ",
        f"{file}:4: labelled_at: ",
        "(future_event)",
        f"{file}:5: ",
        "(malformed_json)",
        f"{file}:6: notes: ",
        "2 sent, 4 refused",
    ):
        assert told in said.text
    assert "\x1b" not in said.text


CSV = b"""transaction_id,label,source,labelled_at,analyst_id,shop
tx-1,fraud,chargeback,1790000000000,,a
tx-2,legitimate,analyst,2026-09-21T14:13:20Z,me,b
tx-3,maybe,analyst,1790000000000,me,c
tx-4,fraud,analyst,1790000000000,me,d,too many
tx-\xff,fraud,analyst,1790000000000,me,e
,fraud,analyst,1790000000000,me,f
tx-7,fraud,analyst,yesterday,me,g
"tx-8,fraud
"""


@pytest.mark.parametrize("by_name", [True, False])
def test_csv(topic: Topic, tmp_path: Path, by_name: bool) -> None:
    file = tmp_path / "labels.csv"
    file.write_bytes(CSV)
    said = send(file) if by_name else send("-", "--format", "csv", stdin=CSV)
    assert said.status == 1
    assert [feedback.transaction_id for _, feedback in topic.sent] == ["tx-1", "tx-2"]
    name = file if by_name else "-"
    for told in (
        f"{name}:4: label: ",
        f"{name}:5: there are more cells than the header names (malformed_csv)",
        f"{name}:6: transaction_id: bytes that are not UTF-8 (invalid_utf8)",
        f"{name}:7: either transaction_id or anomaly_id is required (inconsistent)",
        f"{name}:8: labelled_at: ",
        f"{name}:9: unexpected end of data (malformed_csv)",
        "2 sent, 6 refused",
    ):
        assert told in said.text


@pytest.mark.parametrize(
    ("arguments", "stdin", "told"),
    [
        ((), None, "give either FILE or the fields"),
        (("-", "--label", "fraud"), None, "give either FILE or the fields"),
        (("none.jsonl",), None, "No such file"),
        (("none.csv",), None, "No such file"),
        (("-", "--format", "csv"), b"", "the first line names neither"),
        (("-", "--format", "csv"), b"id,label\n1,fraud\n", "the first line names neither"),
        (("--label", "fraud", "--source", "analyst"), None, "either transaction_id or anomaly_id is"),
        (("--transaction-id", "a b", "--label", "fraud", "--source", "analyst"), None, "bad_identifier"),
        (("--transaction-id", "t", "--label", "fraud", "--source", "me"), None, "source: "),
    ],
)
def test_what_cannot_be_sent_at_all(
    topic: Topic, arguments: tuple[str, ...], stdin: bytes | None, told: str
) -> None:
    said = send(*arguments, stdin=stdin)
    assert said.status == 1
    assert told in said.text
    assert topic.sent == []


@pytest.mark.usefixtures("topic")
def test_nothing_is_nothing() -> None:
    assert send("-", stdin=b"\n\n") == (1, "0 sent, 0 refused, 0 not acknowledged")


def test_what_is_good_gets_as_far_as_the_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "TIMEOUT_S", 0.5)
    said = send("-", stdin=line())
    assert said.status == 1
    assert "no Kafka broker answers at 127.0.0.1:1" in said.text
