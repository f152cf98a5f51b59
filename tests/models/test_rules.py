import operator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from events.control import Rule
from models.rules import VERDICTS, RuleRefusedError, Ruleset
from state.contract import FEATURE_NAMES, N_FEATURES

NOW = 1_700_000_000_000
AMOUNT = FEATURE_NAMES.index("amount")


def rule(**fields: Any) -> Rule:
    defaults: dict[str, Any] = {
        "rule_id": "r",
        "version": 1,
        "owner": "o",
        "feature": "amount",
        "operator": ">",
        "value": 10.0,
        "verdict": "review",
    }
    return Rule(**{**defaults, **fields})


def amounts(*values: float) -> NDArray[np.float32]:
    features = np.full((len(values), N_FEATURES), np.nan, np.float32)
    features[:, AMOUNT] = values
    return features


def ruleset(*rules: Rule) -> Ruleset:
    rules_in_force = Ruleset()
    for r in rules:
        rules_in_force.apply(r)
    return rules_in_force


def test_without_rules_nothing_hits() -> None:
    hits = Ruleset().evaluate(amounts(1, 2), NOW)
    assert hits.level.tolist() == [0, 0]
    assert hits.level.dtype == np.int8
    assert hits.names is None


def test_no_names_where_none_hits() -> None:
    assert ruleset(rule()).evaluate(amounts(1, np.nan), NOW).names is None


def test_strictest_verdict_wins_and_all_hits_are_named() -> None:
    rules = ruleset(rule(rule_id="mild"), rule(rule_id="strict", operator=">=", value=100.0, verdict="block"))
    hits = rules.evaluate(amounts(5, 50, 500), NOW)
    assert hits.level.tolist() == [0, 1, 2]
    assert hits.names == [[], ["mild"], ["mild", "strict"]]


def test_approve_only_reports() -> None:
    hits = ruleset(rule(verdict="approve")).evaluate(amounts(50), NOW)
    assert (hits.level.tolist(), hits.names) == ([0], [["r"]])


def test_shadow_rule_is_reported_as_such_and_changes_nothing() -> None:
    hits = ruleset(rule(verdict="block", shadow=True)).evaluate(amounts(50), NOW)
    assert (hits.level.tolist(), hits.names) == ([0], [["r (shadow)"]])


@pytest.mark.parametrize("symbol", ["<", "<=", ">", ">=", "=="])
def test_nan_never_hits(symbol: str) -> None:
    assert ruleset(rule(operator=symbol)).evaluate(amounts(np.nan), NOW).names is None


def test_value_is_compared_as_float32() -> None:
    assert ruleset(rule(operator="==", value=0.1)).evaluate(amounts(0.1), NOW).names == [["r"]]
    assert ruleset(rule(operator=">", value=0.1)).evaluate(amounts(0.1), NOW).names is None


def test_rule_ends_when_it_expires() -> None:
    rules = ruleset(rule(expires_at=NOW), rule(rule_id="other", expires_at=NOW + 10))
    assert rules.evaluate(amounts(50), NOW - 1).names == [["r", "other"]]
    assert rules.evaluate(amounts(50), NOW).names == [["other"]]
    assert rules.evaluate(amounts(50), NOW + 10).names is None


def test_newer_version_replaces_and_can_disable() -> None:
    rules = ruleset(rule(), rule(version=2, value=100.0))
    assert rules.evaluate(amounts(50), NOW).names is None
    rules.apply(rule(version=3, value=1.0))
    assert rules.evaluate(amounts(50), NOW).names == [["r"]]
    rules.apply(rule(version=4, enabled=False))
    assert rules.evaluate(amounts(50), NOW).names is None


def test_removed_rule_is_forgotten() -> None:
    rules = ruleset(rule(version=7))
    rules.remove("r")
    rules.remove("never-known")
    assert rules.evaluate(amounts(50), NOW).names is None
    rules.apply(rule(version=1))
    assert rules.evaluate(amounts(50), NOW).names == [["r"]]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"feature": "amonut"}, "rule r: unknown feature 'amonut'"),
        ({"version": 2, "value": 7.0}, "version 2 is not newer than 2"),
        ({"version": 1}, "version 1 is not newer than 2"),
        ({"version": 3, "value": float("nan")}, "not a finite float32"),
        ({"version": 3, "value": 1e39}, "not a finite float32"),
    ],
)
def test_refused_rule_leaves_the_old_one(fields: dict[str, Any], reason: str) -> None:
    rules = ruleset(rule(version=2))
    with pytest.raises(RuleRefusedError, match=reason):
        rules.apply(rule(**fields))
    assert rules.evaluate(amounts(50), NOW).names == [["r"]]


def test_a_rule_delivered_once_more_is_no_error() -> None:
    rules = ruleset(rule(version=2))
    rules.apply(rule(version=2))
    assert rules.evaluate(amounts(50), NOW).names == [["r"]]


COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq}
VALUES = st.sampled_from([-1.0, 0.0, 1.0, 2.5, 100.0])
RULES: st.SearchStrategy[list[dict[str, Any]]] = st.lists(
    st.builds(
        dict,
        feature=st.sampled_from(FEATURE_NAMES),
        operator=st.sampled_from(sorted(COMPARE)),
        value=VALUES,
        verdict=st.sampled_from(VERDICTS),
        shadow=st.booleans(),
        enabled=st.booleans(),
    ),
    max_size=8,
)


@settings(max_examples=100, deadline=None)
@given(RULES, st.lists(st.lists(VALUES | st.just(np.nan), min_size=3, max_size=3), min_size=1, max_size=4))
def test_batch_equals_one_comparison_at_a_time(drawn: list[dict[str, Any]], cells: list[list[float]]) -> None:
    features = np.resize(np.array(cells, np.float32), (len(cells), N_FEATURES))
    rules = [rule(rule_id=f"r{i}", **fields) for i, fields in enumerate(drawn)]
    hits = ruleset(*rules).evaluate(features, NOW)
    for i, row in enumerate(features):
        hit = [
            r
            for r in rules
            if r.enabled and COMPARE[r.operator](row[FEATURE_NAMES.index(r.feature)], r.value)
        ]
        named = [r.rule_id + " (shadow)" * r.shadow for r in hit]
        assert sorted(hits.names[i] if hits.names else []) == sorted(named)
        assert hits.level[i] == max([VERDICTS.index(r.verdict) for r in hit if not r.shadow], default=0)
