"""Exploration by chance, the same chance every time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.exploration import explored

IDS = [f"decision-{i}" for i in range(50_000)]


@pytest.mark.parametrize("share", [0.001, 0.01, 0.3])
def test_the_share_is_kept(share: float) -> None:
    drawn = sum(explored(identity, share, 7) for identity in IDS)

    deviation = (len(IDS) * share * (1 - share)) ** 0.5
    assert abs(drawn - len(IDS) * share) < 4 * deviation


def test_another_seed_draws_others() -> None:
    drawn = [{identity for identity in IDS if explored(identity, 0.01, seed)} for seed in (1, 2)]

    assert len(drawn[0] & drawn[1]) < 0.1 * len(drawn[0])


@given(st.text(), st.floats(0, 1), st.floats(0, 1), st.integers(0, 2**64 - 1))
def test_a_larger_share_draws_all_that_a_smaller_one_does(
    identity: str, one: float, other: float, seed: int
) -> None:
    smaller, larger = sorted((one, other))

    assert explored(identity, larger, seed) or not explored(identity, smaller, seed)
    assert explored(identity, 1.0, seed)
    assert not explored(identity, 0.0, seed)
