import operator
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from events.control import Condition, ListField, Rule
from events.transaction import Transaction
from models import rules as module
from models.rules import MAX_ALLOW_DAYS, VERDICTS, Hits, RuleRefusedError, Ruleset
from state.contract import DAY_MS, FEATURE_NAMES, N_FEATURES

NOW = 1_700_000_000_000
LATER = NOW + DAY_MS
AMOUNT = FEATURE_NAMES.index("amount")
FIELDS = Transaction.__struct_fields__


def over(value: float) -> Condition:
    return Condition(feature="amount", operator=">", value=value)


def users(*values: str, operator: Any = "in") -> Condition:
    return Condition(field="user_id", operator=operator, values=list(values))


def rule(*conditions: Condition, **members: Any) -> Rule:
    defaults: dict[str, Any] = {"rule_id": "r", "version": 1, "owner": "o", "verdict": "review"}
    return Rule(**defaults | {"all": list(conditions) or [over(10)]} | members)


def allow(*conditions: Condition, **members: Any) -> Rule:
    return rule(*conditions, **{"verdict": "approve", "allow": True, "expires_at": LATER} | members)


def ruleset(*rules: Rule) -> Ruleset:
    rules_in_force = Ruleset()
    for r in rules:
        rules_in_force.apply(r, NOW)
    return rules_in_force


def row(**fields: str | None) -> list[Any]:
    return [fields.get(name) for name in FIELDS]


def evaluated(rules: Ruleset, *amounts: float, now_ms: int = NOW, **fields: str | None) -> Hits | None:
    """The rules over transactions that differ in their amounts."""
    features = np.full((len(amounts), N_FEATURES), np.nan, np.float32)
    features[:, AMOUNT] = amounts
    return rules.evaluate(features, [row(**fields)] * len(amounts), now_ms)


def hits(rules: Ruleset, *amounts: float, now_ms: int = NOW, **fields: Any) -> list[list[str]]:
    found = evaluated(rules, *amounts, now_ms=now_ms, **fields)
    return [[] for _ in amounts] if found is None else [sorted(names) for names in found.names()]


def decided(rules: Ruleset, level: int, **fields: Any) -> str:
    """The verdict where the model's is VERDICTS[level]."""
    found = evaluated(rules, 50, **fields)
    levels = np.array([level], np.int8)
    return VERDICTS[int((levels if found is None else found.decide(levels))[0])]


def test_without_rules_nothing_hits() -> None:
    assert evaluated(Ruleset(), 1, 2) is None


def test_nothing_to_say_where_none_hits_and_of_no_transactions() -> None:
    assert evaluated(ruleset(rule()), 1, np.nan) is None
    assert evaluated(ruleset(rule())) is None


def test_a_rule_hits_where_all_its_conditions_are_met() -> None:
    rules = ruleset(rule(over(10), Condition(feature="amount", operator="<", value=100), users("u-1", "u-2")))
    assert hits(rules, 5, 50, 500, user_id="u-1") == [[], ["r"], []]
    assert hits(rules, 50, user_id="u-3") == [[]]


def test_rules_of_unlike_length_do_not_mix() -> None:
    rules = ruleset(
        rule(over(1), over(2), over(30), rule_id="three"),
        rule(over(4), rule_id="one"),
        rule(over(5), over(50), rule_id="two"),
        rule(*[over(6)] * 7, over(60), rule_id="eight"),
    )
    assert hits(rules, 3, 4.5, 20, 40, 55, 70) == [
        [], ["one"], ["one"], ["one", "three"], ["one", "three", "two"], ["eight", "one", "three", "two"],
    ]  # fmt: skip


def test_lists_of_fields() -> None:
    rules = ruleset(
        rule(users("u-1"), rule_id="listed"),
        rule(users("u-1", operator="not_in"), rule_id="others"),
        rule(Condition(field="country", operator="in", values=["FR"]), rule_id="france"),
        rule(Condition(field="country", operator="not_in", values=["FR", "DE"]), rule_id="abroad"),
    )
    assert hits(rules, 1, user_id="u-1", country="FR") == [["france", "listed"]]
    assert hits(rules, 1, user_id="u-2", country="DE") == [["others"]]
    assert hits(rules, 1, user_id="u-2", country="IT") == [["abroad", "others"]]
    assert hits(rules, 1) == [[]], "what is missing meets no condition, not_in neither"


@pytest.mark.parametrize("field", get_args(ListField))
def test_every_field_of_a_list(field: Any) -> None:
    value = {"country": "FR", "currency": "EUR", "ip": "::1"}.get(field, "value-1")
    rules = ruleset(rule(Condition(field=field, operator="in", values=[value])))
    everywhere: dict[str, Any] = dict.fromkeys(get_args(ListField), value)
    assert hits(rules, 1, **everywhere) == [["r"]]
    assert hits(rules, 1, **everywhere | {field: None}) == [[]]


def test_strictest_verdict_wins_and_all_hits_are_named() -> None:
    rules = ruleset(rule(rule_id="mild"), rule(over(100), rule_id="strict", verdict="block"))
    found = evaluated(rules, 5, 50, 500)
    assert found is not None
    assert found.decide(np.zeros(3, np.int8)).tolist() == [0, 1, 2]
    assert found.decide(np.full(3, 2, np.int8)).tolist() == [2, 2, 2], "a rule never lowers"
    assert [sorted(names) for names in found.names()] == [[], ["mild"], ["mild", "strict"]]


LISTED = users("u")


@pytest.mark.parametrize(
    ("rules", "verdicts"),
    [
        ([rule(verdict="approve")], ["approve", "review", "block"]),
        ([rule()], ["review", "review", "block"]),
        ([rule(verdict="block")], ["block", "block", "block"]),
        ([rule(verdict="block", shadow=True)], ["approve", "review", "block"]),
        ([rule(verdict="block", enabled=False)], ["approve", "review", "block"]),
        ([allow(LISTED)], ["approve", "approve", "approve"]),
        ([allow(LISTED, shadow=True)], ["approve", "review", "block"]),
        ([allow(LISTED), rule(rule_id="raise")], ["approve", "approve", "approve"]),
        ([allow(LISTED), rule(rule_id="raise", verdict="block")], ["approve", "approve", "approve"]),
        ([allow(LISTED), rule(LISTED, rule_id="list", verdict="block")], ["block", "block", "block"]),
        ([allow(LISTED), rule(LISTED, over(9), rule_id="list", verdict="block")], ["block"] * 3),
        (
            [allow(LISTED), rule(LISTED, rule_id="list", verdict="block", shadow=True)],
            ["approve", "approve", "approve"],
        ),
        ([allow(LISTED), rule(LISTED, rule_id="list")], ["approve", "approve", "approve"]),
        (
            [allow(LISTED), rule(users("v", operator="not_in"), rule_id="list", verdict="block")],
            ["approve", "approve", "approve"],
        ),
    ],
    ids=[
        "approve only reports", "review raises", "block raises", "shadow", "disabled", "allow list lowers",
        "allow list in shadow", "allow over review", "allow over block by threshold", "block list over allow",
        "block list with threshold over allow", "block list in shadow", "a review list is no block list",
        "not_in is no block list",
    ],
)  # fmt: skip
def test_precedence(rules: list[Rule], verdicts: list[str]) -> None:
    for ordered in (rules, rules[::-1]):
        assert [decided(ruleset(*ordered), level, user_id="u") for level in range(3)] == verdicts


def test_alerts_as_a_budget_counts_them() -> None:
    rules = ruleset(rule(over(10)), allow(users("u"), over(100), rule_id="allowed"))
    found = evaluated(rules, 5, 50, 500, user_id="u")
    assert found is not None
    assert found.alert_scores(np.array([0.25, 0.5, 0.75])).tolist() == [0.25, 1.0, 0.0]


def test_shadow_rule_is_reported_as_such() -> None:
    assert hits(ruleset(rule(verdict="block", shadow=True)), 50) == [["r (shadow)"]]


@pytest.mark.parametrize("symbol", ["<", "<=", ">", ">=", "=="])
def test_nan_never_hits(symbol: Any) -> None:
    rules = ruleset(rule(Condition(feature="amount", operator=symbol, value=10)))
    assert evaluated(rules, np.nan) is None


def test_value_is_compared_as_float32() -> None:
    assert hits(ruleset(rule(Condition(feature="amount", operator="==", value=0.1))), 0.1) == [["r"]]
    assert hits(ruleset(rule(over(0.1))), 0.1) == [[]]


def test_the_form_of_the_first_rules() -> None:
    first = Rule(
        rule_id="r", version=1, owner="o", feature="amount", operator=">=", value=10.0, verdict="review"
    )
    assert hits(ruleset(first), 9.5, 10, np.nan) == [[], ["r"], []]


def test_rule_ends_when_it_expires() -> None:
    rules = ruleset(rule(expires_at=NOW + 5), rule(rule_id="other", expires_at=NOW + 10))
    assert hits(rules, 50, now_ms=NOW + 4) == [["other", "r"]]
    assert hits(rules, 50, now_ms=NOW + 5) == [["other"]]
    assert hits(rules, 50, now_ms=NOW + 10) == [[]]


def test_newer_version_replaces_and_can_disable() -> None:
    rules = ruleset(rule(), rule(over(100), version=2))
    assert hits(rules, 50) == [[]]
    rules.apply(rule(over(1), version=3), NOW)
    assert hits(rules, 50) == [["r"]]
    rules.apply(rule(version=4, enabled=False), NOW)
    assert hits(rules, 50) == [[]]


def test_removed_rule_is_forgotten() -> None:
    rules = ruleset(rule(version=7))
    rules.remove("r")
    rules.remove("never-known")
    rules.remove(None)
    assert hits(rules, 50) == [[]]
    rules.apply(rule(version=1), NOW)
    assert hits(rules, 50) == [["r"]]


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (rule(Condition(feature="amonut", operator=">", value=1), version=3), r"all\[0\]: unknown feature"),
        (rule(Condition(feature="amonut", operator=">", value=1), version=3), "'amonut'; near are amount"),
        (rule(Condition(feature="xyzzy", operator=">", value=1), version=3), "'xyzzy'$"),
        (
            Rule(rule_id="r", version=3, owner="o", verdict="block", feature="no", operator=">", value=1.0),
            "rule r: unknown feature 'no'",
        ),
        (rule(over(5), over(float("nan")), version=3), r"all\[1\]: value nan is not a finite float32"),
        (rule(over(1e39), version=3), "not a finite float32"),
        (rule(over(7), version=2), "version 2 is not newer than 2"),
        (rule(version=1), "version 1 is not newer than 2"),
        (rule(version=3, expires_at=NOW), "expires_at has passed"),
        (rule(version=3, expires_at=NOW - 1), "expires_at has passed"),
        (
            allow(users("u"), version=3, expires_at=NOW + MAX_ALLOW_DAYS * DAY_MS + 1),
            "expires_at: a rule with allow ends within 90 days",
        ),
        (
            rule(Condition(field="country", operator="in", values=["FR", "fr"]), version=3),
            r"all\[0\]: values: 'fr' is no country",
        ),
        (rule(users("u-1", "u 2"), version=3), "'u 2' is no user_id"),
        (rule(Condition(field="ip", operator="in", values=["1.2.3"]), version=3), "'1.2.3' is no ip"),
        (rule(Condition(field="currency", operator="in", values=["€"]), version=3), "'€' is no currency"),
    ],
)  # fmt: skip
def test_refused_rule_leaves_the_old_one(refused: Rule, reason: str) -> None:
    rules = ruleset(rule(version=2), rule(over(1000), rule_id="other"))
    with pytest.raises(RuleRefusedError, match=reason):
        rules.apply(refused, NOW)
    assert hits(rules, 9, 50, 5000, user_id="u") == [[], ["r"], ["other", "r"]]
    rules.apply(rule(version=3), NOW)


def test_an_allow_list_may_last_as_long_as_the_limit() -> None:
    rules = ruleset(allow(users("u"), expires_at=NOW + MAX_ALLOW_DAYS * DAY_MS))
    assert decided(rules, 2, user_id="u") == "approve"


def test_no_more_rules_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_RULES", 2)
    rules = ruleset(rule(), rule(rule_id="second"))
    with pytest.raises(RuleRefusedError, match="rule third: there are 2 rules already"):
        rules.apply(rule(rule_id="third"), NOW)
    rules.apply(rule(version=2), NOW)
    rules.remove("second")
    rules.apply(rule(rule_id="third"), NOW)
    assert hits(rules, 50) == [["r", "third"]]


def test_no_more_listed_values_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LISTED", 5)
    rules = ruleset(rule(users("a", "b"), users("c")))
    with pytest.raises(RuleRefusedError, match="more than 5 values"):
        rules.apply(rule(users("a", "b", "c"), rule_id="second"), NOW)
    rules.apply(rule(users("a", "b"), rule_id="second"), NOW)
    rules.apply(rule(users("a", "b", "c"), version=2), NOW)
    assert hits(rules, 1, user_id="b") == [["r", "second"]]


def test_a_rule_delivered_once_more_is_no_error() -> None:
    known = rule(version=2, expires_at=NOW + 5)
    rules = ruleset(known, known)
    rules.apply(known, NOW + 6)
    assert hits(rules, 50) == [["r"]]


def test_what_was_accepted_before_is_not_held_against_the_clock_again() -> None:
    rules = Ruleset()
    rules.apply(rule(version=4, expires_at=NOW - 1), None)
    assert hits(rules, 50) == [[]]
    with pytest.raises(RuleRefusedError, match="version 3 is not newer than 4"):
        rules.apply(rule(version=3), NOW)
    with pytest.raises(RuleRefusedError, match="unknown feature"):
        rules.apply(rule(Condition(feature="gone", operator=">", value=1), version=5), None)


COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq}
VALUES = st.sampled_from([-1.0, 0.0, 1.0, 0.1, 2.5, 100.0, 16_777_217.0])
NAMES = ["u-1", "u-2", "u-3"]
LIST_FIELDS = ["user_id", "terminal_id", "device_id", "receiver_id"]
SOME_FEATURES = [*FEATURE_NAMES[:3], FEATURE_NAMES[-1]]
CONDITIONS = st.builds(
    Condition, feature=st.sampled_from(SOME_FEATURES), operator=st.sampled_from(sorted(COMPARE)), value=VALUES
) | st.builds(
    Condition,
    field=st.sampled_from(LIST_FIELDS),
    operator=st.sampled_from(["in", "not_in"]),
    values=st.lists(st.sampled_from(NAMES), min_size=1, max_size=3),
)
IN = st.builds(
    Condition,
    field=st.sampled_from(LIST_FIELDS),
    operator=st.just("in"),
    values=st.lists(st.sampled_from(NAMES), min_size=1, max_size=3),
)
RULES = st.lists(
    st.builds(
        rule,
        CONDITIONS,
        verdict=st.sampled_from(VERDICTS),
        shadow=st.booleans(),
        enabled=st.sampled_from([True, True, False]),
        expires_at=st.sampled_from([None, NOW + 1, NOW + 2]),
    )
    | st.builds(
        lambda conditions, **members: rule(*conditions, **members),
        st.lists(CONDITIONS, min_size=1, max_size=8),
        verdict=st.sampled_from(VERDICTS),
        shadow=st.booleans(),
    )
    | st.builds(allow, IN, CONDITIONS, shadow=st.booleans()),
    max_size=8,
)
ROWS = st.lists(
    st.tuples(
        st.lists(VALUES | st.just(np.nan), min_size=len(SOME_FEATURES), max_size=len(SOME_FEATURES)),
        st.lists(st.none() | st.sampled_from([*NAMES, "u-4"]), min_size=4, max_size=4),
        st.integers(0, 2),
    ),
    min_size=1,
    max_size=6,
)


def meets(condition: Condition, features: NDArray[np.float32], fields: dict[str, str | None]) -> bool:
    """The definition, one condition and transaction at a time."""
    if condition.field is not None:
        value = fields[condition.field]
        return value is not None and (value in condition.values) == (condition.operator == "in")
    feature = features[FEATURE_NAMES.index(str(condition.feature))]
    limit = np.float32(condition.value or 0.0)
    return not np.isnan(feature) and bool(COMPARE[condition.operator](feature, limit))


def reference(found: list[Rule], level: int) -> int:
    live = [r for r in found if not r.shadow]
    if any(r.verdict == "block" and r.names_some for r in live):
        return 2
    if any(r.allow for r in live):
        return 0
    return max([level, *(VERDICTS.index(r.verdict) for r in live)])


@settings(max_examples=300)
@given(RULES, ROWS, st.sampled_from([NOW, NOW + 1]))
@example([rule(Condition(feature="amount", operator=">", value=16_777_217.0))],
         [([16_777_217.0, 0.0, 0.0, 0.0], [None] * 4, 0)], NOW)  # fmt: skip
def test_batch_equals_the_definition_one_by_one(
    drawn: list[Rule], rows: list[tuple[list[float], list[str | None], int]], now_ms: int
) -> None:
    features = np.full((len(rows), N_FEATURES), np.nan, np.float32)
    features[:, [FEATURE_NAMES.index(name) for name in SOME_FEATURES]] = [row[0] for row in rows]
    fields = [dict(zip(LIST_FIELDS, row[1], strict=True)) for row in rows]
    levels = np.array([row[2] for row in rows], np.int8)
    named = [
        Rule(**{name: getattr(r, name) for name in Rule.__struct_fields__} | {"rule_id": f"r{i}"})
        for i, r in enumerate(drawn)
    ]
    found = ruleset(*named).evaluate(features, [row(**f) for f in fields], now_ms)
    names = found.names() if found is not None else [[] for _ in rows]
    decided = found.decide(levels) if found is not None else levels
    for i, transaction in enumerate(features):
        expected = [
            r
            for r in named
            if r.enabled
            and (r.expires_at is None or int(r.expires_at) > now_ms)  # type: ignore[arg-type]
            and all(meets(c, transaction, fields[i]) for c in r.conditions)
        ]
        assert sorted(names[i]) == sorted(r.rule_id + " (shadow)" * r.shadow for r in expected)
        assert decided[i] == reference(expected, int(levels[i]))
