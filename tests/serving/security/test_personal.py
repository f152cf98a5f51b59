"""Pseudonyms, sealed values, and what reaches a log."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.signing import KeyFileError
from serving.security.personal import (
    MASK,
    Masking,
    Pseudonyms,
    SealError,
    Seals,
    new_secrets,
    read_secrets,
)

PSEUDONYMS = Pseudonyms(b"k" * 32)
SEALS = Seals({"aaaaaaaa": b"a" * 32, "bbbbbbbb": b"b" * 32})


@given(st.text(), st.text())
def test_a_pseudonym_stands_for_one_value_of_one_kind(one: str, other: str) -> None:
    one, other = one.encode(errors="replace").decode(), other.encode(errors="replace").decode()
    assert (PSEUDONYMS.of("user_id", one) == PSEUDONYMS.of("user_id", other)) == (one == other)
    assert PSEUDONYMS.of("user_id", one)[-32:] != PSEUDONYMS.of("device_id", one)[-32:]
    assert PSEUDONYMS.of("user_id", one) != Pseudonyms(b"l" * 32).of("user_id", one)


@given(st.text(st.characters(codec="utf-8"), max_size=128))
def test_what_is_sealed_opens_again_as_the_same_kind_alone(value: str) -> None:
    sealed = SEALS.seal("user_id", value)
    assert SEALS.open("user_id", sealed) == value
    assert SEALS.seal("user_id", value) != sealed
    with pytest.raises(SealError):
        SEALS.open("ip", sealed)


@given(st.data())
def test_an_altered_seal_does_not_open(data: st.DataObject) -> None:
    sealed = SEALS.seal("user_id", "user-1")
    at = data.draw(st.integers(0, len(sealed) - 1))
    forged = sealed[:at] + data.draw(st.characters()) + sealed[at + 1 :]
    if forged[:-1] == sealed[:-1]:  # the last character holds bits that no decoder reads
        return
    with pytest.raises(SealError):
        SEALS.open("user_id", forged)


def test_old_seals_open_until_their_key_is_gone(tmp_path: Path) -> None:
    new_secrets(tmp_path)
    pseudonyms, before = read_secrets(tmp_path)
    old = before.seal("user_id", "user-1")
    new_secrets(tmp_path)
    again, after = read_secrets(tmp_path)
    assert after.open("user_id", old) == "user-1"
    assert pseudonyms.of("user_id", "u") == again.of("user_id", "u")
    with pytest.raises(SealError):
        before.open("user_id", after.seal("user_id", "user-1"))
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.iterdir())


@pytest.mark.parametrize("content", ["", "00", "zz" * 32])
def test_a_file_that_is_no_secret_is_named(content: str, tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="seal"):
        read_secrets(tmp_path)
    new_secrets(tmp_path)
    (tmp_path / "seal-0000.secret").write_text(content)
    with pytest.raises(KeyFileError, match="seal-0000"):
        read_secrets(tmp_path)


@pytest.mark.parametrize(
    "secret",
    [
        "203.0.113.9",
        "2001:db8::8a2e:370:7334",
        "4111 1111 1111 1111",
        "4111111111111111",
        "jane.doe@example.com",
        "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhIn0.c2ln",
    ],
)
def test_no_log_holds_what_looks_personal(secret: str) -> None:
    masked = Masking(PSEUDONYMS)(
        None, "info", {"event": f"came from {secret}, refused", "deep": [{"why": f"x={secret}"}]}
    )
    assert secret not in json.dumps(masked)
    assert masked["event"] == f"came from {MASK}, refused"


@given(st.sampled_from(["user_id", "IP", "device_id", "receiver_id", "Authorization", "notes", "latitude"]))
def test_no_log_holds_a_personal_value_by_its_name(name: str) -> None:
    value = "user-4711"
    for event in ({name: value}, {"a": {name: [value]}}, {"a": [{"b": {name: {"c": value}}}]}):
        shown = Masking(PSEUDONYMS)(None, "info", dict(event))
        assert value not in json.dumps(shown)
        assert json.dumps(shown) == json.dumps(Masking(PSEUDONYMS)(None, "info", dict(event)))


@pytest.mark.parametrize(
    "plain", ["at 12:34:56 all was well", "1764000000001", "order 4111111111111112", "2.3.0", "std::vector"]
)
def test_what_is_not_personal_is_left_alone(plain: str) -> None:
    event = {"event": plain, "count": 3, "ok": True, "ms": 1.5, "none": None}
    assert Masking(PSEUDONYMS)(None, "info", dict(event)) == event
