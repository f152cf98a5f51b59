import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from models.baseline import Baseline, baseline
from models.drift import CHANGED, LEAST_ROWS, STEP, Drift, Drifted, psi
from state.contract import DAY_MS, FEATURE_NAMES, HOUR_MS, N_FEATURES

MONDAY_MS = 1_764_547_200_000
BATCH = 64
AMOUNT = FEATURE_NAMES.index("amount")
DEVICE = FEATURE_NAMES.index("new_device")


def traffic(rows: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Features and scores of rows evenly over a day, the hour among them."""
    rng = np.random.default_rng(seed)
    features = rng.lognormal(1, 2, (rows, N_FEATURES)).astype(np.float32)
    features[rng.random(features.shape) < 0.1] = np.nan
    features[:, DEVICE] = rng.random(rows) < 0.05
    features[:, FEATURE_NAMES.index("hour")] = np.arange(rows) * 24 // rows
    features[:, FEATURE_NAMES.index("weekday")] = 0
    return features, rng.beta(1, 30, rows)


@pytest.fixture(scope="module")
def known() -> Baseline:
    return baseline(*traffic(20_000, 1))


def watched(
    drift: Drift, features: NDArray[np.float32], score: NDArray[np.float64], start_ms: int = MONDAY_MS
) -> list[Drifted]:
    """What a day of traffic in batches makes known."""
    reports = []
    for i in range(0, len(score), BATCH):
        part = slice(i, i + BATCH)
        reports.append(drift.observe(features[part], score[part], start_ms + i * DAY_MS // len(score)))
    reports.append(drift.observe(features[:0], score[:0], start_ms + DAY_MS))
    return [report for report in reports if report is not None]


def test_the_same_traffic_does_not_drift(known: Baseline) -> None:
    last = watched(Drift(known), *traffic(40_000, 2))[-1]

    assert last.rows == 40_000 // STEP
    assert last.score < 0.02
    assert max(last.features.values()) < 0.02
    assert "hour" in last.features
    assert "weekday" not in last.features, "a window of a day cannot tell"


def test_what_changes_is_named(known: Baseline) -> None:
    features, score = traffic(40_000, 3)
    features[:, AMOUNT] *= 4
    features[:, DEVICE] = np.random.default_rng(4).random(len(score)) < 0.5
    last = watched(Drift(known), features, score)[-1]

    assert {name for name, value in last.features.items() if value > CHANGED} == {"amount", "new_device"}
    assert last.score < 0.02


def test_the_score_drifts_too(known: Baseline) -> None:
    features, score = traffic(40_000, 5)
    assert watched(Drift(known), features, np.sqrt(score))[-1].score > CHANGED


def test_values_that_go_missing_are_drift(known: Baseline) -> None:
    features, score = traffic(40_000, 6)
    features[:, AMOUNT] = np.nan
    assert watched(Drift(known), features, score)[-1].features["amount"] > CHANGED


def test_too_few_rows_tell_nothing(known: Baseline) -> None:
    assert watched(Drift(known), *traffic(STEP * LEAST_ROWS - STEP, 7)) == []


def test_the_hour_waits_for_a_day_and_other_features_do_not(known: Baseline) -> None:
    reports = watched(Drift(known), *traffic(40_000, 8))

    assert "amount" in reports[0].features
    assert [("hour" in report.features) for report in reports] == [False] * (len(reports) - 1) + [True]


def test_the_window_slides(known: Baseline) -> None:
    drift = Drift(known)
    features, score = traffic(40_000, 9)
    other = features.copy()
    other[:, AMOUNT] *= 10
    assert watched(drift, other, score)[-1].features["amount"] > CHANGED
    assert watched(drift, features, score, MONDAY_MS + DAY_MS)[-1].features["amount"] < 0.02


def test_a_gap_empties_the_window(known: Baseline) -> None:
    drift = Drift(known)
    watched(drift, *traffic(40_000, 10))
    features, score = traffic(64, 11)
    drift.observe(features, score, MONDAY_MS + 40 * DAY_MS)

    assert drift.observe(features, score, MONDAY_MS + 41 * DAY_MS) is None


def test_late_rows_are_counted_where_the_time_is(known: Baseline) -> None:
    drift = Drift(known)
    features, score = traffic(40_000, 12)
    drift.observe(features, score, MONDAY_MS)
    assert drift.observe(features, score, MONDAY_MS - 10 * HOUR_MS) is None
    drifted = drift.observe(features[:0], score[:0], MONDAY_MS + HOUR_MS)

    assert drifted is not None
    assert drifted.rows == 2 * 40_000 // STEP


@given(st.lists(st.integers(0, 20), max_size=40))
def test_every_eighth_row_is_counted_whatever_the_batches(sizes: list[int]) -> None:
    features, score = traffic(sum(sizes), 13)
    drift = Drift(Baseline(100, {}, baseline(*traffic(100, 1)).score))
    start = 0
    for size in sizes:
        drift.observe(features[start : start + size], score[start : start + size], MONDAY_MS)
        start += size

    assert drift._observed[..., -1, :].sum() == math.ceil(sum(sizes) / STEP)


def test_features_that_the_baseline_does_not_know_are_not_judged(known: Baseline) -> None:
    some = {"amount": known.features["amount"], "retired": known.features["hour"]}
    last = watched(Drift(Baseline(known.rows, some, known.score)), *traffic(40_000, 14))[-1]

    assert set(last.features) == {"amount"}


def test_a_short_window(known: Baseline) -> None:
    features, score = traffic(40_000, 15)
    drift = Drift(known, hours=1)
    drift.observe(features, score, MONDAY_MS)
    last = drift.observe(features, score, MONDAY_MS + HOUR_MS)

    assert last is not None
    assert "hour" not in last.features


COUNTS = arrays(np.int64, (3, 11), elements=st.integers(0, 10_000))


@given(COUNTS, COUNTS)
def test_psi_is_symmetric_finite_and_never_negative(
    expected: NDArray[np.int64], observed: NDArray[np.int64]
) -> None:
    there, back = psi(expected.astype(np.float64), observed), psi(observed.astype(np.float64), expected)

    assert np.isfinite(there).all()
    assert (there >= -1e-12).all()
    assert there == pytest.approx(back)
    assert psi(expected.astype(np.float64), expected) == pytest.approx(0)


def test_psi_of_a_known_case() -> None:
    """Shares (0.2, 0.8) against (0.5, 0.5) with so many rows that half a row does not show."""
    found = psi(np.array([[5e8, 5e8, 0.0]]), np.array([[200_000_000, 800_000_000, 0]]))

    assert found[0] == pytest.approx(-0.3 * math.log(0.4) + 0.3 * math.log(1.6), abs=1e-6)
