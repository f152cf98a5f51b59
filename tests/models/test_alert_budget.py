from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from events.control import Thresholds
from models.alert_budget import FLOOR, LONGEST_MS, SHORTEST_MS, SLICE_MS, AlertBudget
from state.contract import DAY_MS, HOUR_MS

START_MS = 1_764_547_200_000
BATCH = 64
DAYS = 6
BUDGET = 500
A_DAY = 60_000

Shift = Callable[[float], float]
"""From days since the start to a shift of all scores, in log-odds."""


def steady(_: float) -> float:
    return 0.0


def rising(day: float) -> float:
    return 0.3 * day


def waving(day: float) -> float:
    return float(0.4 * np.sin(2 * np.pi * day / 3))


def jumping(day: float) -> float:
    return 1.0 if day >= 3.5 else 0.0


def falling(day: float) -> float:
    return -1.0 if day >= 3.5 else 0.0


def alerts(budget: AlertBudget, shift: Shift, seed: int = 1, start_ms: int = START_MS) -> NDArray[np.int64]:
    """Alerts in each hour, i8 [DAYS * 24], of traffic that is thin by night and riskier then."""
    rng = np.random.default_rng(seed)
    raised = np.zeros(DAYS * 24, np.int64)
    for hour in range(DAYS * 24):
        rows = rng.poisson(A_DAY / 24 * (1 + 0.8 * np.sin(2 * np.pi * hour / 24)))
        times = start_ms + hour * HOUR_MS + np.sort(rng.integers(0, HOUR_MS, rows))
        odds = rng.normal(-6, 1.2, rows) + shift(hour / 24) + 0.3 * (hour % 24 < 6)
        odds += (rng.random(rows) < 0.004) * rng.normal(5, 2, rows)
        score = 1 / (1 + np.exp(-odds))
        for i in range(0, rows, BATCH):
            part = score[i : i + BATCH]
            raised[hour] += np.count_nonzero(part >= budget.review)
            budget.observe(part, int(times[min(i + BATCH, rows) - 1]))
    return raised


@pytest.mark.parametrize("shift", [steady, rising, waving, jumping, falling])
@pytest.mark.parametrize("start", [0.02, 0.2])
def test_the_budget_holds_from_the_second_day_on(shift: Shift, start: float) -> None:
    daily = alerts(AlertBudget(BUDGET, Thresholds(start, 0.99)), shift).reshape(DAYS, 24).sum(axis=1)
    assert daily[1:] == pytest.approx(BUDGET, rel=0.2)


def test_a_jump_is_taken_back_within_hours() -> None:
    raised = alerts(AlertBudget(BUDGET, Thresholds(0.05, 0.99)), jumping)
    calm = alerts(AlertBudget(BUDGET, Thresholds(0.05, 0.99)), steady)
    at = round(3.5 * 24)

    assert raised[at : at + 2].sum() > 1.5 * calm[at : at + 2].sum(), "the jump is felt"
    assert raised[at + 6 : at + 18].sum() == pytest.approx(calm[at + 6 : at + 18].sum(), rel=0.25)


def test_the_threshold_does_not_oscillate_under_steady_traffic() -> None:
    budget = AlertBudget(BUDGET, Thresholds(0.05, 0.99))
    rng = np.random.default_rng(2)
    seen = []
    for i in range(4 * A_DAY // BATCH):
        budget.observe(rng.beta(1, 40, BATCH), START_MS + i * BATCH * DAY_MS // A_DAY)
        seen.append(budget.review)
    settled = np.array(seen[len(seen) // 2 :])

    assert settled.std() / settled.mean() < 0.1


@pytest.mark.parametrize("parts", [2, 4])
def test_parallel_tasks_share_the_budget(parts: int) -> None:
    daily = sum(
        alerts(AlertBudget(BUDGET / parts, Thresholds(0.05, 0.99)), rising, seed)
        .reshape(DAYS, 24)
        .sum(axis=1)
        for seed in range(parts)
    )
    assert daily[1:] == pytest.approx(BUDGET, rel=0.2)


@given(
    st.floats(0.1, 1e6),
    st.floats(0, 1),
    st.floats(0, 1),
    st.lists(
        st.tuples(
            arrays(np.float64, st.integers(0, 8), elements=st.floats(0, 1)), st.integers(0, 10 * DAY_MS)
        ),
        max_size=20,
    ),
)
def test_the_threshold_stays_between_floor_and_block(
    per_day: float, low: float, high: float, batches: list[tuple[NDArray[np.float64], int]]
) -> None:
    limits = Thresholds(min(low, high), max(low, high))
    budget = AlertBudget(per_day, limits)
    assert budget.review == limits.review
    for score, time in batches:
        budget.observe(score, START_MS + time)
        assert FLOOR * limits.review <= budget.review <= limits.block


def test_it_starts_from_the_limit_of_the_model() -> None:
    budget = AlertBudget(BUDGET, Thresholds(0.05, 0.9))
    score = np.full(BATCH, 0.5)
    budget.observe(score, START_MS)
    budget.observe(score, START_MS + SLICE_MS - 1)
    assert budget.review == 0.05
    budget.observe(score, START_MS + SLICE_MS)
    assert budget.review == pytest.approx(0.05, rel=0.1)


def test_more_alerts_by_blocking_than_the_budget_leave_the_block_limit() -> None:
    budget = AlertBudget(1, Thresholds(0.05, 0.9))
    for hour in range(24):
        budget.observe(np.full(BATCH, 0.99), START_MS + hour * HOUR_MS)
    assert budget.review == 0.9


def test_nothing_worth_an_alert_leaves_the_floor() -> None:
    budget = AlertBudget(1e6, Thresholds(0.05, 0.9))
    for hour in range(24):
        budget.observe(np.full(BATCH, 1e-6), START_MS + hour * HOUR_MS)
    assert budget.review == FLOOR * 0.05


@pytest.mark.parametrize("hours", [3, 7, 23, 24, 25, 400])
def test_after_a_pause_there_is_no_flood(hours: int) -> None:
    budget = AlertBudget(BUDGET, Thresholds(0.05, 0.99))
    alerts(budget, steady)
    before = budget.review
    resumed = START_MS + DAYS * DAY_MS + hours * HOUR_MS
    budget.observe(np.zeros(0), resumed)
    assert budget.review == pytest.approx(before, rel=0.3)
    assert alerts(budget, steady, 2, resumed)[:24].sum() < 1.5 * BUDGET


def test_a_small_budget_remembers_longer() -> None:
    lives = [AlertBudget(n, Thresholds(0.1, 0.9))._half_life_ms for n in (0.1, 10, 50, 10_000)]
    assert lives == sorted(lives, reverse=True)
    assert (lives[0], lives[-1]) == (LONGEST_MS, SHORTEST_MS)
