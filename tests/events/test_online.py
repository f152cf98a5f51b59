"""What the online learner is told and tells, and what is refused."""

from typing import Any

import msgspec
import pytest

from events.codec import Decoder, Invalid
from events.control import ModelUpdate, OnlineCommand
from events.example import Example
from events.topics import TOPICS

(EXAMPLE,) = (topic.example for topic in TOPICS if topic.name == "examples")
(COMMAND,) = (topic.example for topic in TOPICS if topic.name == "online-commands")
ONLINE = {
    "version": "online-1",
    "features_sha256": "0" * 64,
    "features": ["amount", "night"],
    "centre": [1.5, 0.1],
    "scale": [1.0, 4.0],
    "limit": 3.0,
    "weight": [0.25, -0.5],
    "offline": 1.0,
    "bias": 0.0,
    "share": 0.8,
}
UPDATE = {"slot": "online", "online": ONLINE, "issued_at": 1_790_000_000_000, "issued_by": "gate"}


def refused(record_type: type[msgspec.Struct], fields: dict[str, Any]) -> tuple[str, str | None]:
    """Reason and field."""
    (answer,) = Decoder(record_type).decode([msgspec.json.encode(fields)])
    assert isinstance(answer, Invalid), answer
    return answer.reason, answer.field


def test_online_weights_are_read() -> None:
    (update,) = Decoder(ModelUpdate).decode([msgspec.json.encode(UPDATE)])

    assert isinstance(update, ModelUpdate)
    assert msgspec.to_builtins(update.online) == ONLINE


@pytest.mark.parametrize(
    ("change", "reason", "field"),
    [
        ({"weight": [0.25]}, "inconsistent", "online"),
        ({"centre": [0.25]}, "inconsistent", "online"),
        ({"features": ["amount", "amount"]}, "inconsistent", "online"),
        ({"features": ["amount", "a; b"]}, "bad_identifier", "online.features[1]"),
        ({"features_sha256": "abc"}, "bad_identifier", "online.features_sha256"),
        ({"share": 1.5}, "out_of_range", "online.share"),
        ({"limit": 0}, "out_of_range", "online.limit"),
        ({"bias": None}, "wrong_type", "online.bias"),
        ({"version": "online 1"}, "bad_identifier", "online.version"),
        ({"features": [f"f{i}" for i in range(2_000)]}, "out_of_range", "online.features"),
    ],
)
def test_bad_online_weights_are_refused(change: dict[str, Any], reason: str, field: str) -> None:
    assert refused(ModelUpdate, UPDATE | {"online": ONLINE | change}) == (reason, field)


@pytest.mark.parametrize(
    "change",
    [{"online": None}, {"artefact": "models/x"}, {"slot": "model"}, {"previous": ["models/x"]}],
    ids=str,
)
def test_the_slot_says_what_is_carried(change: dict[str, Any]) -> None:
    assert refused(ModelUpdate, UPDATE | change)[0] == "inconsistent"


@pytest.mark.parametrize(
    ("change", "reason", "field"),
    [
        ({}, None, None),
        ({"reason": None}, "inconsistent", None),
        ({"reason": ""}, "out_of_range", "reason"),
        ({"reason": "r" * 1_001}, "out_of_range", "reason"),
        ({"reason": "\u202e"}, "bad_text", "reason"),
        ({"slot": "online"}, "inconsistent", None),
        ({"online": ONLINE}, "inconsistent", None),
    ],
)
def test_safe_mode_has_a_reason_and_nothing_else(
    change: dict[str, Any], reason: str | None, field: str | None
) -> None:
    update = {
        "slot": "safe_mode",
        "reason": "Scores ran wild.",
        "issued_at": 1_790_000_000_000,
        "issued_by": "a",
    }
    if reason is not None:
        assert refused(ModelUpdate, update | change) == (reason, field)
        return
    (read,) = Decoder(ModelUpdate).decode([msgspec.json.encode(update)])
    assert isinstance(read, ModelUpdate)
    assert read.reason == "Scores ran wild."


@pytest.mark.parametrize(
    ("change", "reason", "field"),
    [
        ({"score": 1.5}, "out_of_range", "score"),
        ({"sampled": 0}, "out_of_range", "sampled"),
        ({"parts": {"gbt": 2}}, "out_of_range", "parts[...]"),
        ({"features": "no base64"}, "wrong_type", "features"),
        ({"source": "rumour"}, "unknown_value", "source"),
        ({"analyst_id": "a b"}, "bad_identifier", "analyst_id"),
    ],
)
def test_bad_examples_are_refused(change: dict[str, Any], reason: str, field: str) -> None:
    assert refused(Example, msgspec.to_builtins(EXAMPLE) | change) == (reason, field)


@pytest.mark.parametrize(
    ("change", "reason", "field"),
    [
        ({"command": "explode"}, "unknown_value", "command"),
        ({"command_id": ""}, "out_of_range", "command_id"),
        ({"issued_by": "\x1b[2J"}, "bad_identifier", "issued_by"),
        ({"reason": "\u202e"}, "bad_text", "reason"),
    ],
)
def test_bad_commands_are_refused(change: dict[str, Any], reason: str, field: str) -> None:
    assert refused(OnlineCommand, msgspec.to_builtins(COMMAND) | change) == (reason, field)
