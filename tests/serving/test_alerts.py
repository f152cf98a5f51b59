from typing import Any

import numpy as np
import pytest

from serving.alerts import SEVERITIES, Finding, Kind, findings
from state.contract import FEATURE_NAMES, U
from tests.serving.samples import decided

COUNT_5M = FEATURE_NAMES.index("user_count_5m")


def found(**changes: Any) -> list[tuple[Kind, str]]:
    return [(f.kind, SEVERITIES[f.rank]) for f in findings(decided(**changes))]


def with_features(**values: float) -> list[Finding]:
    return findings(decided(values={FEATURE_NAMES.index(name): value for name, value in values.items()}))


def test_nothing_is_found_in_an_ordinary_decision() -> None:
    assert found() == []


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (0.8, []),
        (0.81, [(Kind.SCORE, "high")]),
        (0.9, [(Kind.SCORE, "high")]),
        (0.91, [(Kind.SCORE, "critical")]),
    ],
)
def test_score_is_high_over_80_and_critical_over_90_percent(score: float, expected: object) -> None:
    assert found(score=score) == expected


def test_what_is_not_approved_is_found_whatever_its_score() -> None:
    assert found(decision="review", score=0.3) == [(Kind.VERDICT, "medium")]


def test_what_is_not_approved_with_a_high_score_is_found_once() -> None:
    assert found(decision="block", score=0.95) == [(Kind.SCORE, "critical")]


@pytest.mark.parametrize(("count", "kinds"), [(5, []), (6, [Kind.VELOCITY])])
def test_velocity_is_more_than_5_in_5_minutes(count: int, kinds: list[Kind]) -> None:
    assert [f.kind for f in with_features(user_count_5m=count)] == kinds


@pytest.mark.parametrize(("ratio", "kinds"), [(5.0, []), (5.1, [Kind.AMOUNT]), (float("nan"), [])])
def test_amount_is_over_5_times_the_mean(ratio: float, kinds: list[Kind]) -> None:
    assert [f.kind for f in with_features(user_amount_ratio=ratio)] == kinds


@pytest.mark.parametrize(
    ("seconds", "kinds"), [(3_600, [Kind.COUNTRY]), (-60, [Kind.COUNTRY]), (3_601, []), (float("nan"), [])]
)
def test_country_change_counts_within_an_hour(seconds: float, kinds: list[Kind]) -> None:
    assert [f.kind for f in with_features(country_change=1, seconds_since_last=seconds)] == kinds


def test_impossible_travel_tells_distance_and_speed() -> None:
    (finding,) = with_features(impossible_travel=1, distance_km=5_837.4, speed_kmh=5_837.4)

    assert (finding.kind, finding.text) == (Kind.TRAVEL, "5837 km at 5837 km/h")


def test_several_rules_find_each_their_own() -> None:
    values = {COUNT_5M: 9.0, int(U.AMOUNT_RATIO): 12.0}

    assert [f.kind for f in findings(decided(score=0.99, values=values))] == [
        Kind.SCORE,
        Kind.VELOCITY,
        Kind.AMOUNT,
    ]


@pytest.mark.parametrize("changes", [{"contract_version": 1}, {"features": b""}, {"features": b"\0" * 7}])
def test_features_of_another_contract_are_not_read(changes: dict[str, Any]) -> None:
    loud = np.full(len(FEATURE_NAMES), 1e6, "<f4").tobytes()

    assert [k for k, _ in found(**{"features": loud, "score": 0.95} | changes)] == [Kind.SCORE]
