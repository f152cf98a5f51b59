"""Whose labels count."""

from typing import Any

import msgspec
import numpy as np
import pytest

from events.example import Example
from online_learning.sources import MAX_SOURCES, OTHERS, Source, Sources, plain, weight_of_comparison
from state.contract import DAY_MS, HOUR_MS
from tests.online_learning.labelled import START_MS, examples, ordinary

(EXAMPLE,) = examples(ordinary(1, 1), "e")


def labelled(**fields: Any) -> Example:
    return msgspec.structs.replace(EXAMPLE, **fields)


def source(rank: int = 1) -> Source:
    return Source("analyst:a", 0, rank, 1_000.0, START_MS)


def compared(
    given: Source, wrong_of_legitimate: float, wrong_of_fraud: float, n: int, seed: int = 1
) -> int | None:
    """After how many comparisons, half of them with frauds, the trust in a source changes; None for never."""
    rng = np.random.default_rng(seed)
    for i in range(n):
        truth = i % 2 == 1
        wrong = rng.random() < (wrong_of_fraud if truth else wrong_of_legitimate)
        given.compare(truth != wrong, truth, 1.0)
        if given.reconsider():
            return i + 1
    return None


@pytest.mark.parametrize(
    ("wrong_of_legitimate", "wrong_of_fraud"), [(0.5, 0.5), (1.0, 0.0), (0.0, 1.0), (0.9, 0.9)], ids=str
)
@pytest.mark.parametrize("seed", range(5))
def test_who_labels_no_better_than_chance_loses_trust(
    wrong_of_legitimate: float, wrong_of_fraud: float, seed: int
) -> None:
    given = source()
    found = compared(given, wrong_of_legitimate, wrong_of_fraud, 400, seed)

    assert found is not None
    assert given.distrusted


@pytest.mark.parametrize(("wrong_of_legitimate", "wrong_of_fraud"), [(0.1, 0.1), (0.05, 0.3), (0.0, 0.0)])
@pytest.mark.parametrize("seed", range(5))
def test_who_errs_now_and_then_keeps_it(wrong_of_legitimate: float, wrong_of_fraud: float, seed: int) -> None:
    assert compared(source(), wrong_of_legitimate, wrong_of_fraud, 3_000, seed) is None


def test_trust_can_be_won_back() -> None:
    given = source()
    compared(given, 0.5, 0.5, 1_000)
    assert given.distrusted
    won = compared(given, 0.05, 0.05, 1_000)

    assert won is not None
    assert not given.distrusted


def test_chargebacks_are_what_the_others_are_held_against() -> None:
    assert compared(source(rank=2), 1.0, 1.0, 1_000) is None


def test_better_labels_say_more() -> None:
    customer, analyst, other, chargeback = source(0), source(1), source(1), source(2)
    weights = [weight_of_comparison(better, analyst) for better in (customer, analyst, other, chargeback)]
    assert weights == [0, 0, 0.25, 1]
    other.distrusted = True
    assert weight_of_comparison(other, analyst) == 0


@pytest.mark.parametrize(
    ("offline", "challenger", "expected"),
    [(0.95, 0.9, True), (0.95, 0.5, None), (0.001, 0.01, False), (0.001, 0.2, None), (0.95, 0.001, None)],
)
def test_plain_is_what_both_find_plain(offline: float, challenger: float, expected: bool | None) -> None:
    assert plain(offline, challenger) is expected


def test_a_source_may_give_so_many_labels_a_day() -> None:
    sources = Sources()
    given = sources.of(labelled(), 10)
    assert [sources.admit(given, 10) for _ in range(12)] == [True] * 10 + [False] * 2
    # Labels of the past do not turn the clock, and one of another source does.
    sources.of(labelled(labelled_at=START_MS - 90 * DAY_MS), 10)
    assert not sources.admit(given, 10)
    sources.of(labelled(labelled_at=START_MS + 12 * HOUR_MS, analyst_id="b"), 10)
    assert [sources.admit(given, 10) for _ in range(7)] == [True] * 5 + [False] * 2
    sources.of(labelled(labelled_at=START_MS + 30 * DAY_MS), 10)
    assert [sources.admit(given, 10) for _ in range(12)] == [True] * 10 + [False] * 2


def test_chargebacks_are_not_limited() -> None:
    sources = Sources()
    given = sources.of(labelled(source="chargeback", analyst_id=None), 10)

    assert all(sources.admit(given, 10) for _ in range(1_000))


def test_invented_analysts_are_one_source_from_some_number_on() -> None:
    sources = Sources()
    names = {sources.of(labelled(analyst_id=f"a{i}"), 10).name for i in range(MAX_SOURCES + 50)}

    assert len(sources.known) == len(names) == MAX_SOURCES + 1
    assert OTHERS in names
