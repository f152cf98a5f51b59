"""What `rule send` refuses before anything is sent."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from cli import kafka
from tests.cli.commands import fraudstream

RULE: dict[str, Any] = {
    "rule_id": "night-electronics",
    "version": 1,
    "owner": "analyst-7",
    "feature": "amount",
    "operator": ">=",
    "value": 1000.0,
    "verdict": "review",
}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"feature": "shoe_size"}, "unknown feature 'shoe_size'"),
        ({"operator": "~"}, "operator"),
        ({"value": "high"}, "value"),
        ({"value": 1e300}, "not a finite float32"),
        ({"rule_id": "a b"}, "rule_id"),
        ({"version": 0}, "version"),
        ({"verdict": "jail"}, "verdict"),
    ],
)
def test_rules_that_are_no_good_are_not_sent(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    file = tmp_path / "rule.json"
    file.write_bytes(msgspec.json.encode(RULE | changes))
    answer = fraudstream("rule", "send", file)

    assert answer.status == 1
    assert said in answer.text
    assert "broker" not in answer.text


def test_a_rule_is_one_thing_or_the_other(tmp_path: Path) -> None:
    assert "either FILE or --remove" in fraudstream("rule", "send").text
    assert "No such file" in fraudstream("rule", "send", tmp_path / "none").text
    assert "malformed_json" in fraudstream("rule", "send", "-", stdin=b"{").text


def test_what_is_good_gets_as_far_as_the_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "TIMEOUT_S", 0.5)
    answer = fraudstream("rule", "send", "-", stdin=msgspec.json.encode(RULE))

    assert answer.status == 1
    assert "no Kafka broker answers at 127.0.0.1:1" in answer.text
