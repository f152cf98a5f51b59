import math
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from models.reasons import CATALOGUE, Reason, leading, listed, reasons, rounded, sentence
from state.contract import FEATURE_NAMES, FEATURES, N_FEATURES

FEATURE_ROWS = arrays(np.float32, N_FEATURES, elements=st.floats(width=32))
CONTRIBUTIONS = arrays(np.float64, N_FEATURES, elements=st.floats(-10, 10, allow_subnormal=False))


def row(**values: float) -> NDArray[np.float32]:
    features = np.full(N_FEATURES, np.nan, np.float32)
    for name, value in values.items():
        features[FEATURE_NAMES.index(name)] = value
    return features


def alone(feature: str, contribution: float = 1.0) -> NDArray[np.float64]:
    contributions = np.zeros(N_FEATURES)
    contributions[FEATURE_NAMES.index(feature)] = contribution
    return contributions


def test_every_feature_belongs_to_one_code() -> None:
    grouped = Counter(name for code in CATALOGUE for name in code.phrases)

    assert grouped == Counter(FEATURE_NAMES)


def test_codes_are_stable_names() -> None:
    codes = [code.code for code in CATALOGUE]

    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch("[A-Z][A-Z_]+", code) for code in codes)


def test_codes_are_documented() -> None:
    document = (Path(__file__).parents[2] / "docs" / "explanations.md").read_text()

    assert re.findall(r"^\| `([A-Z_]+)` \| ([A-Z].*?) \|", document, re.MULTILINE) == [
        (code.code, code.title) for code in CATALOGUE
    ]


def test_flags_have_a_phrase_for_each_of_their_values() -> None:
    flags = {feature.name for feature in FEATURES if feature.unit == "0/1"} - {"impossible_travel"}

    assert {
        n for code in CATALOGUE for n, phrase in code.phrases.items() if isinstance(phrase, tuple)
    } == flags


@pytest.mark.parametrize("name", FEATURE_NAMES)
def test_every_feature_is_put_into_words(name: str) -> None:
    code = next(code for code in CATALOGUE if name in code.phrases)
    (said,) = reasons(alone(name), np.ones(N_FEATURES, np.float32))
    (unknown,) = reasons(alone(name), row())

    assert said.code == unknown.code == code.code
    assert said.text != code.unknown
    assert not re.search(r"[{}*~]", said.text)
    assert unknown.text == code.unknown
    assert unknown.values == {name: None}


@pytest.mark.parametrize(
    ("feature", "features", "said"),
    [
        (
            "user_amount_ratio",
            row(amount=1250, user_amount_ratio=8.3, user_amount_mean=150.6),
            "1,250.00 EUR is 8.3 times the user's mean amount of 150.60 EUR",
        ),
        ("user_count_1h", row(user_count_1h=6), "the user's transaction number 6 in 60 min"),
        (
            "impossible_travel",
            row(impossible_travel=1, distance_km=1204, speed_kmh=5400),
            "1,204 km from the user's previous place, a journey at 5,400 km/h",
        ),
        ("new_device", row(new_device=1), "the device is new to the user"),
        ("new_device", row(new_device=0), "the device is one that the user had before"),
        ("terminal_risk_7d", row(terminal_risk_7d=0.05), "5.0% of the terminal's transactions were frauds"),
        ("days_since_terminal_fraud", row(days_since_terminal_fraud=2.5), "fraud was 2.5 days ago"),
        ("seconds_since_last", row(seconds_since_last=-90), "90 s from the user's latest transaction"),
        ("hour_sin", row(hour=3), "made in the hour from 3:00 UTC"),
        ("weekend", row(weekend=1, weekday=6), "made on a Sunday"),
        (
            "previous_terminal_2",
            row(previous_terminal_2=1),
            "the user's transaction 2 before this one was at this",
        ),
    ],
)
def test_what_is_said(feature: str, features: NDArray[np.float32], said: str) -> None:
    (reason,) = reasons(alone(feature), features, "EUR")

    assert said in reason.text


@given(CONTRIBUTIONS, FEATURE_ROWS)
def test_reasons_add_up_and_stand_in_order(
    contributions: NDArray[np.float64], features: NDArray[np.float32]
) -> None:
    found = reasons(contributions, features)
    steps = [reason.log_odds for reason in found]

    assert sum(steps) == pytest.approx(contributions.sum(), abs=1e-9)
    assert steps == sorted(steps, reverse=True)
    moved = {name for name, value in zip(FEATURE_NAMES, contributions, strict=True) if value}
    assert {name for reason in found for name in reason.values} == moved
    known = {name for name, value in zip(FEATURE_NAMES, features, strict=True) if math.isfinite(value)}
    assert {n for reason in found for n, v in reason.values.items() if v is not None} == moved & known


@given(CONTRIBUTIONS, FEATURE_ROWS, st.sampled_from(("approve", "review", "block")), st.floats(0, 1))
def test_any_decision_makes_a_sentence_of_one_line(
    contributions: NDArray[np.float64], features: NDArray[np.float32], verdict: str, score: float
) -> None:
    found = leading(reasons(contributions, features, "EUR"), verdict)  # type: ignore[arg-type]
    said = sentence(verdict, score, listed(found), ["rule-1"])  # type: ignore[arg-type]

    assert said.isprintable()
    assert said.endswith(". Rules that hit: rule-1.")
    assert len(said) < 1000


def test_reasons_speak_for_the_verdict() -> None:
    contributions = alone("amount", 2.0) + alone("night", 1.0) + alone("foreign", -3.0)
    found = reasons(contributions, np.ones(N_FEATURES, np.float32))

    assert [reason.code for reason in leading(found, "block")] == ["AMOUNT", "TIME"]
    assert [reason.code for reason in leading(found, "approve")] == ["COUNTRY"]
    assert [reason.code for reason in leading(found, "review", 1)] == ["AMOUNT"]


def test_the_feature_that_did_most_in_the_direction_of_its_code_speaks() -> None:
    contributions = alone("user_amount_z", -0.4) + alone("user_amount_ratio", 0.5) + alone("median_z", -0.2)
    (reason,) = reasons(contributions, np.ones(N_FEATURES, np.float32))

    assert reason.log_odds == pytest.approx(-0.1)
    assert "standard deviations" in reason.text
    assert list(reason.values) == ["user_amount_ratio", "user_amount_z", "median_z"]


def test_a_sentence() -> None:
    reason = Reason("AMOUNT", "Amount", 1.0, "the amount is 5.00", {})

    assert sentence("block", 0.9712, listed([reason])) == "Blocked with a score of 0.971: the amount is 5.00."
    assert sentence("approve", 0.001, listed([])) == "Approved with a score of 0.001: no feature stands out."


def test_rounded_features_keep_two_digits() -> None:
    features = np.array([1234.56, 0.0123456, -87.6, 0, 1, np.nan, 41], np.float32)

    assert rounded(features) == pytest.approx([1200, 0.012, -88, 0, 1, np.nan, 41], nan_ok=True)
