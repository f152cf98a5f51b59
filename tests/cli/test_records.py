"""`decisions show` and `dead-letters show` on files, and what they do to hostile text."""

import struct
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.terminal import printable, printable_bytes
from events.decision import DeadLetter, Decision
from events.topics import TOPICS
from serving import broker
from state.contract import CONTRACT_VERSION, FEATURE_NAMES, N_FEATURES
from tests.cli.commands import fraudstream, write_lines


def decision(number: int, **fields: Any) -> Decision:
    known: dict[str, Any] = {
        "user_id": f"user-{number % 3}",
        "transaction_id": f"tx-{number}",
        "decision_id": f"d-{number}",
        "event_time": 1_764_000_000_000 + number,
        "amount": 12.5,
        "decision": ("approve", "review", "block")[number % 3],
        "score": 0.5,
        "model_version": "gbt-1",
        "contract_version": CONTRACT_VERSION,
        "features": struct.pack(f"<{N_FEATURES}f", *range(1000, 1000 + N_FEATURES)),
        "decided_at": 1_764_000_000_100,
    }
    return Decision(**known | fields)


def letter(reason: str, payload: bytes, field: str | None = None, key: bytes | None = None) -> DeadLetter:
    return DeadLetter(
        reason=reason,
        detail="why",
        topic="transactions",
        partition=3,
        offset=41,
        payload=payload,
        field=field,
        key=key,
    )


def test_the_newest_decisions_are_shown(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "part-0", *map(decision, range(30)))
    said = fraudstream("decisions", "show", file, "--limit", "2")

    assert said.status == 0
    assert "tx-28" in said.text
    assert "tx-29" in said.text
    assert "tx-27" not in said.text
    assert "2 of 30 decisions" in said.text


def test_a_folder_is_read_without_unfinished_files(tmp_path: Path) -> None:
    write_lines(tmp_path / "part-0", decision(0))
    write_lines(tmp_path / "part-1", decision(1))
    (tmp_path / ".part-2.inprogress").write_text("{")

    assert "2 of 2 decisions" in fraudstream("decisions", "show", tmp_path).text


@pytest.mark.parametrize(
    ("options", "shown"),
    [(("--user", "user-1"), 10), (("--verdict", "block"), 10), (("--transaction", "tx-7"), 1)],
)
def test_decisions_are_filtered(options: tuple[str, str], shown: int, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "part-0", *map(decision, range(30)))

    assert f"{shown} of {shown} decisions" in fraudstream("decisions", "show", file, *options).text


def test_features_have_names_values_and_units(tmp_path: Path) -> None:
    values = [float("nan"), *range(1001, 1000 + N_FEATURES)]
    packed = struct.pack(f"<{N_FEATURES}f", *values)
    said = fraudstream(
        "decisions", "show", write_lines(tmp_path / "part-0", decision(0, features=packed)), "--features"
    )

    assert "amount missing currency" in said.text
    assert all(f" {name} " in f" {said.text} " for name in FEATURE_NAMES)
    assert all(f"{value:,}" in said.text for value in range(1001, 1000 + N_FEATURES))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"contract_version": CONTRACT_VERSION + 1}, f"contract {CONTRACT_VERSION + 1}; this program knows"),
        ({"features": b"1234"}, f"4 bytes are not {N_FEATURES} features"),
    ],
)
def test_other_feature_vectors_are_not_guessed_at(fields: dict[str, Any], said: str, tmp_path: Path) -> None:
    shown = fraudstream(
        "decisions", "show", write_lines(tmp_path / "part-0", decision(0, **fields)), "--features"
    )

    assert shown.status == 1
    assert said in shown.text


def test_the_line_that_is_no_decision_is_named(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "part-0", decision(0))
    file.write_bytes(file.read_bytes() + b'\n{"user_id": 1}\n')
    said = fraudstream("decisions", "show", file)

    assert said.status == 1
    assert "part-0:3:" in said.text.replace(" ", "")
    assert "$.user_id" in said.text


@pytest.mark.parametrize("command", ["decisions", "dead-letters"])
def test_a_missing_file_and_a_missing_broker_are_told(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = fraudstream(command, "show", tmp_path / "none")
    assert missing.status == 1
    assert "No such file" in missing.text

    monkeypatch.setattr(broker, "TIMEOUT_S", 0.5)
    alone = fraudstream(command, "show")
    assert alone.status == 1
    assert "no Kafka broker answers at 127.0.0.1:1" in alone.text


def test_there_may_be_no_decisions(tmp_path: Path) -> None:
    said = fraudstream("decisions", "show", write_lines(tmp_path / "part-0"))

    assert (said.status, said.text) == (1, "error: there are no decisions")


def test_decisions_come_from_standard_input_too() -> None:
    example = next(topic.example for topic in TOPICS if topic.name == "decisions")
    said = fraudstream("decisions", "show", "-", stdin=msgspec.json.encode(example))
    assert "1 of 1 decisions" in said.text


def test_dead_letters_are_shown_with_their_bytes_escaped(tmp_path: Path) -> None:
    hostile = b'{"user_id":"\x1b[2J\xff","note":"\xe2\x80\xaeevil"}\r\n[red]'
    file = write_lines(
        tmp_path / "part-0",
        letter("bad_identifier", hostile, field="user_id", key=b"u\x07"),
        letter("empty", b""),
    )
    said = fraudstream("dead-letters", "show", file)

    assert said.status == 0
    assert r'{"user_id":"\x1b[2J\xff","note":"\u202eevil"}\r\n[red]' in said.text
    assert "transactions[3]@41" in said.text
    assert r"u\x07" in said.text
    assert "bad_identifier 1, empty 1" in said.text
    assert not set(said.text) & set("\x1b\x07\u202e")


def test_dead_letters_of_one_reason(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "part-0", letter("empty", b""), letter("too_deep", b"[["))

    assert fraudstream("dead-letters", "show", file, "--reason", "too_deep").text.endswith("too_deep 1")
    assert "no such dead letters" in fraudstream("dead-letters", "show", file, "--reason", "x").text


@given(st.text())
def test_printable_text_is_one_harmless_line_that_stands_for_itself(text: str) -> None:
    shown = printable(text)

    assert shown.isprintable()
    if text.isascii() or text.isprintable():
        assert shown.encode("latin-1", "backslashreplace").decode("unicode_escape") == text


@given(st.binary(max_size=60))
def test_printable_bytes_are_harmless_and_tell_wrong_bytes_from_backslashes(data: bytes) -> None:
    shown = printable_bytes(data, 100)

    assert shown.isprintable()
    if data.isascii():
        assert shown.encode().decode("unicode_escape").encode() == data


def test_long_bytes_are_cut_and_say_so() -> None:
    assert printable_bytes(b"a" * 5000, 4) == "aaaa… (5,000 bytes)"
