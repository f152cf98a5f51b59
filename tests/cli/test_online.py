"""`fraudstream online`, as far as it needs no broker."""

import pytest

from serving import broker
from tests.cli.commands import fraudstream


@pytest.mark.parametrize("command", ["status", "promote", "rollback", "freeze", "unfreeze"])
def test_every_command_gets_as_far_as_the_broker(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "TIMEOUT_S", 0.5)
    said = fraudstream("online", command)
    assert said.status == 1
    assert "no Kafka broker answers at 127.0.0.1:1" in said.text


@pytest.mark.parametrize(
    ("option", "value", "told"), [("--by", "a b", "issued_by: "), ("--reason", "\x1b[2J", "reason: ")]
)
def test_a_command_that_the_job_would_refuse_is_not_sent(option: str, value: str, told: str) -> None:
    said = fraudstream("online", "rollback", option, value)
    assert said.status == 1
    assert told in said.text
    assert "broker" not in said.text
    assert "\x1b" not in said.text
