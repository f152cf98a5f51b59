"""Profiles of older layouts."""

import numpy as np
import pytest

from state.layout import TERMINAL_PROFILE, USER_PROFILE
from state.migration import TERMINAL, TERMINAL_1, USER, USER_1, Layout, UnknownLayoutError

V3 = np.dtype([("version", "u2"), ("count", "u4"), ("mean", "f8")], align=True)


def from_1(data: bytes) -> bytes:
    """Version 1 counted in two bytes."""
    return b"\x02\x00" + int.from_bytes(data[2:4], "little").to_bytes(4, "little")


def from_2(data: bytes) -> bytes:
    """Version 2 had no mean."""
    row = np.zeros(1, V3)
    row["version"], row["count"] = 3, int.from_bytes(data[2:6], "little")
    return row.tobytes()


CHAIN = Layout("user", V3, 3, {1: from_1, 2: from_2})


@pytest.mark.parametrize(
    "old", [b"\x01\x00\x09\x00", b"\x02\x00\x09\x00\x00\x00", from_2(b"\x02\x00\x09\x00\x00\x00")]
)
def test_a_profile_passes_through_as_many_migrations_as_it_needs(old: bytes) -> None:
    row = np.frombuffer(CHAIN.current(old), V3)[0]
    assert (row["version"], row["count"], row["mean"]) == (3, 9, 0.0)


def test_a_profile_of_today_is_left_alone() -> None:
    for layout in (USER, TERMINAL):
        row = np.zeros(1, layout.dtype)
        row["version"] = layout.version
        assert layout.current(row.tobytes()) == row.tobytes()
    assert (USER.dtype, TERMINAL.dtype) == (USER_PROFILE, TERMINAL_PROFILE)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x04\x00", "user profile has layout 4, known: 3"),
        (b"\xff\xff" + bytes(14), "user profile has layout 65535"),
        (b"\x00\x00" + bytes(14), "user profile has layout 0"),
        (b"", "user profile has layout 0"),
        (b"\x03\x00", "user profile has 2 bytes, layout 3 has 16"),
        (b"\x03\x00" + bytes(15), "user profile has 17 bytes, layout 3 has 16"),
    ],
)
def test_what_cannot_be_read_is_named(data: bytes, message: str) -> None:
    with pytest.raises(UnknownLayoutError, match=message):
        CHAIN.current(data)


@pytest.mark.parametrize("count", [0, 3, 20, 33, 120])
def test_a_user_of_layout_1_keeps_the_amounts_that_were_known(count: int) -> None:
    old = np.zeros(1, USER_1)
    old["version"], old["count"], old["mean"] = 1, count, 7.5
    for place in range(count):
        old["recent_amount"][0, place % 20] = place + 1
    new = np.frombuffer(USER.current(old.tobytes()), USER_PROFILE)[0]
    kept = {place % 50: place + 1 for place in range(max(count - 20, 0), count)}
    assert (new["version"], new["count"], new["mean"]) == (2, count, 7.5)
    assert {k: v for k, v in enumerate(new["recent_amount"].tolist()) if not np.isnan(v)} == kept


def test_a_terminal_of_layout_1_does_not_know_what_its_frauds_amounted_to() -> None:
    old = np.zeros(1, TERMINAL_1)
    old["version"], old["count"] = 1, 4
    old["fraud_id"][0, :2], old["fraud_second"][0, :2] = 5, 1_700_000_000
    new = np.frombuffer(TERMINAL.current(old.tobytes()), TERMINAL_PROFILE)[0]
    assert (new["version"], new["count"]) == (2, 4)
    assert np.isnan(new["fraud_amount"][:2]).all()
    assert not new["fraud_ratio"][2:].any()
    assert not new["defrauded_count"].any()


def test_a_migration_that_yields_the_wrong_size_is_found_out() -> None:
    broken = Layout("terminal", V3, 2, {1: lambda _: b"\x02\x00"})
    with pytest.raises(UnknownLayoutError, match="terminal profile has 2 bytes, layout 2 has 16"):
        broken.current(b"\x01\x00")
