"""The arena in front of keyed state."""

import numpy as np
import pytest

from state.layout import TERMINAL_PROFILE, USER_LAYOUT, USER_PROFILE
from state.migration import USER, UnknownLayoutError
from state.profiles import Arena
from tests.state.histories import Keyed


def profile(count: int) -> bytes:
    row = np.zeros(1, USER_PROFILE)
    row["version"], row["count"] = USER_LAYOUT, count
    return row.tobytes()


def test_a_user_takes_at_most_2300_bytes() -> None:
    assert USER_PROFILE.itemsize <= 2300
    assert TERMINAL_PROFILE.itemsize <= 4400


def test_profiles_are_read_once_and_written_when_told() -> None:
    state = Keyed(a=profile(5))
    arena = Arena(USER, state, 2)
    for _ in range(3):
        rows = arena.rows(["a", "b", "a"])
        assert rows[0] == rows[2] != rows[1]
    assert state.reads == 2
    assert arena.profiles["count"][rows].tolist() == [5, 0, 5]
    arena.profiles["count"][rows[0]] = 6
    arena.write(["a"])
    assert state == {"a": profile(6)}


def test_whoever_is_in_the_batch_stays_while_others_make_room() -> None:
    arena = Arena(USER, Keyed({name: profile(k) for k, name in enumerate("abcdef")}), 3)
    for batch in ("abc", "ad", "ace", "fa", "bcd", "a"):
        rows = arena.rows(list(batch))
        assert len(set(rows.tolist())) == len(batch)
        assert arena.profiles["count"][rows].tolist() == ["abcdef".index(name) for name in batch]


def test_a_newcomer_does_not_inherit_the_row_it_gets() -> None:
    arena = Arena(USER, Keyed(a=profile(5)), 1)
    arena.rows(["a"])
    assert arena.profiles[arena.rows(["b"])].tobytes() == bytes(USER_PROFILE.itemsize)


def test_more_entities_than_the_arena_holds_are_refused() -> None:
    with pytest.raises(ValueError, match="3 entities in one batch, the arena holds 2"):
        Arena(USER, Keyed(), 2).rows(["a", "b", "c", "a"])


def test_a_profile_that_cannot_be_read_leaves_nobody_elses_in_its_place() -> None:
    state = Keyed(a=profile(5), b=b"\x63\x00")
    arena = Arena(USER, state, 1)
    arena.rows(["a"])
    for _ in range(2):
        with pytest.raises(UnknownLayoutError):
            arena.rows(["b"])
    state.put("b", profile(7))
    assert arena.profiles["count"][arena.rows(["b"])].tolist() == [7]
