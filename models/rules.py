"""Analysts' rules: conjunctions of conditions on features and fields, evaluated over the batch.

Precedence over what the model says, the strongest first:

1. a block list, a rule with the verdict block and an `in`: blocks;
2. an allow list, a rule with `allow`: approves;
3. any other rule raises to its verdict, block over review, and never lowers.

A rule with the verdict approve and without `allow` only reports, as do shadow rules.
"""

import operator
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any, Final, NamedTuple

import numpy as np
from msgspec import inspect
from numpy.typing import NDArray

from events.codec import marks
from events.control import Condition, Rule
from events.transaction import Transaction
from events.types import Verdict, epoch_ms
from state.contract import DAY_MS, FEATURE_NAMES

VERDICTS: Final[tuple[Verdict, ...]] = ("approve", "review", "block")
"""Verdicts by level, from mild to strict."""
SHADOW: Final = " (shadow)"
"""Stands behind the id of a shadow rule that hit; no id can hold a blank."""

MAX_RULES: Final = 1_000
MAX_LISTED: Final = 250_000
"""Values in the lists of all rules together."""
MAX_ALLOW_DAYS: Final = 90

COMPARISONS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
}
NEVER: Final = np.iinfo(np.int64).max
LARGEST: Final = float(np.finfo(np.float32).max)

_HOLDS: Final[dict[str, Callable[[str], object]]] = {
    field: extra["holds"] for field, extra in marks(inspect.type_info(Transaction), "") if "holds" in extra
}
"""By field of a transaction: whether a text can stand there."""


class RuleRefusedError(Exception):
    """The rule was not taken; the message says why."""


class Hits(NamedTuple):
    """The rules that hit in a batch of n transactions.

    rules: r of them; hit: bool [r, n]; raised: i1 [n], position in VERDICTS that rules raise to, 0 where none
    does; allowed: bool [n], on an allow list and on no block list.
    """

    rules: list[Rule]
    hit: NDArray[np.bool_]
    raised: NDArray[np.int8]
    allowed: NDArray[np.bool_]

    def decide(self, levels: NDArray[np.int8]) -> NDArray[np.int8]:
        """Position in VERDICTS, i1 [n], of the final verdicts, from the levels i1 [n] of the model."""
        return np.where(self.allowed, np.int8(0), np.maximum(levels, self.raised))

    def alert_scores(self, score: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scores f8 [n] as a budget of alerts counts them: 1 where rules alert, 0 where they allow."""
        return np.where(self.allowed, 0.0, np.where(self.raised > 0, 1.0, score))

    def names(self) -> list[list[str]]:
        """For each transaction the ids of the rules that hit, with SHADOW behind those of shadow rules."""
        ids = [rule.rule_id + SHADOW if rule.shadow else rule.rule_id for rule in self.rules]
        names: list[list[str]] = [[] for _ in range(self.hit.shape[1])]
        for rule, row in np.argwhere(self.hit).tolist():
            names[row].append(ids[rule])
        return names


class _Comparison(NamedTuple):
    """All conditions with one operator on features: position [c], feature [c], value f4 [c, 1]."""

    compare: Callable[[Any, Any], Any]
    positions: NDArray[np.int64]
    columns: NDArray[np.int64]
    values: NDArray[np.float32]

    def met(self, features: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which conditions features f4 [n, N_FEATURES] meet, bool [c, n]; NaN meets none."""
        held: NDArray[np.bool_] = self.compare(features.T[self.columns], self.values)
        return held


class _Membership(NamedTuple):
    """All conditions on one field: position [c], list [c], whether it is not_in, bool [c, 1].

    of: reads the field from a row; listed: the union of the lists. Most values stand in none, and one look-up
    tells so, however many lists there are.
    """

    of: Callable[[Sequence[Any]], str | None]
    positions: NDArray[np.int64]
    lists: list[frozenset[str]]
    negated: NDArray[np.bool_]
    listed: frozenset[str]

    def met(self, rows: Sequence[Sequence[Any]]) -> NDArray[np.bool_]:
        """Which conditions n transactions meet, bool [c, n]; a missing field meets none."""
        column = list(map(self.of, rows))
        held = np.zeros((len(self.lists), len(rows)), np.bool_)
        if not self.listed.isdisjoint(column):
            for i, value in enumerate(column):
                if value in self.listed:
                    held[:, i] = [value in values for values in self.lists]
        if self.negated.any():
            held = (held != self.negated) & np.array([value is not None for value in column])
        return held


class _Accepted(NamedTuple):
    """A rule that was taken, when it ends, and the values of each of its conditions."""

    rule: Rule
    until_ms: int
    lists: list[frozenset[str]]

    @property
    def listed(self) -> int:
        return sum(map(len, self.lists))


class Ruleset:
    """The rules in force, at most MAX_RULES with MAX_LISTED values in their lists.

    Features are float32, so the value of a condition is rounded to float32 before it is compared.
    """

    def __init__(self) -> None:
        """No rules yet."""
        self._accepted: dict[str, _Accepted] = {}
        self._compile(0)

    def apply(self, rule: Rule, now_ms: int | None) -> None:
        """Take a new rule or a newer version of a known one; one known to the letter changes nothing.

        now_ms: when it arrived; None where it was accepted before, so that its end is not held against the
        clock again. Raises RuleRefusedError, and changes nothing, where a feature is unknown, a value can
        never be met, the rule has expired or allows for too long, its version is not newer than the one in
        force, or there are too many rules.
        """
        known = self._accepted.get(rule.rule_id)
        if known is not None and rule == known.rule:
            return
        accepted = _checked(rule, now_ms)
        if known is not None and rule.version <= known.rule.version:
            raise _refused(rule, f"version {rule.version} is not newer than {known.rule.version}")
        others = [other for other in self._accepted.values() if other is not known]
        if len(others) >= MAX_RULES:
            raise _refused(rule, f"there are {MAX_RULES:,} rules already")
        listed = sum(other.listed for other in others)
        if listed + accepted.listed > MAX_LISTED:
            raise _refused(rule, f"the lists of all rules would hold more than {MAX_LISTED:,} values")
        self._accepted[rule.rule_id] = accepted
        self._next_change_ms = 0

    def remove(self, rule_id: str | None) -> None:
        """Forget a rule; an unknown one is no error."""
        if rule_id is not None and self._accepted.pop(rule_id, None) is not None:
            self._next_change_ms = 0

    def evaluate(
        self, features: NDArray[np.float32], rows: Sequence[Sequence[Any]], now_ms: int
    ) -> Hits | None:
        """Which rules hit; None where none does.

        features: f4 [n, N_FEATURES]; rows: n times the values of a Transaction's fields; a rule holds until
        its `expires_at`.
        """
        if now_ms >= self._next_change_ms:
            self._compile(now_ms)
        if not self._active:
            return None
        met = np.empty((sum(self._with_condition), len(features)), np.bool_)
        for comparison in self._comparisons:
            met[comparison.positions] = comparison.met(features)
        for membership in self._memberships:
            met[membership.positions] = membership.met(rows)
        first, *further = self._with_condition
        hit, done = met[:first], first
        for count in further:
            hit[:count] &= met[done : done + count]
            done += count
        chosen = np.flatnonzero(hit.any(axis=1))
        if not len(chosen):
            return None
        hit = hit[chosen]
        block_listed = hit[self._block_lists[chosen]].any(axis=0)
        return Hits(
            [self._active[i] for i in chosen.tolist()],
            hit,
            (hit * self._levels[chosen, None]).max(axis=0),
            hit[self._allow_lists[chosen]].any(axis=0) & ~block_listed,
        )

    def _compile(self, now_ms: int) -> None:
        """Lay out the rules that are active at `now_ms` for `evaluate`."""
        active = [a for a in self._accepted.values() if a.rule.enabled and a.until_ms > now_ms]
        self._next_change_ms = min((a.until_ms for a in active), default=NEVER)
        # The first conditions of all rules stand first, then the second ones of those that have two: blocks
        # are combined as wholes, where reducing rule by rule would cost ten times as much.
        active.sort(key=lambda a: -len(a.lists))
        self._active = [a.rule for a in active]
        most = len(active[0].lists) if active else 0
        self._with_condition = [sum(len(a.lists) > k for a in active) for k in range(most)]
        ordered = [(a, k) for k, count in enumerate(self._with_condition) for a in active[:count]]
        conditions = [a.rule.conditions[k] for a, k in ordered]
        self._comparisons = _comparisons(conditions)
        self._memberships = _memberships(conditions, [a.lists[k] for a, k in ordered])
        self._levels = np.array([_level(rule) for rule in self._active], np.int8)
        self._allow_lists = np.array([r.allow and not r.shadow for r in self._active], np.bool_)
        self._block_lists = np.array(
            [r.verdict == "block" and r.names_some and not r.shadow for r in self._active], np.bool_
        )


def _level(rule: Rule) -> int:
    """Position in VERDICTS that the rule raises to."""
    return 0 if rule.shadow else VERDICTS.index(rule.verdict)


def _comparisons(conditions: list[Condition]) -> list[_Comparison]:
    grouped = []
    for symbol, compare in COMPARISONS.items():
        chosen = [i for i, c in enumerate(conditions) if c.operator == symbol]
        if chosen:
            columns = [FEATURE_NAMES.index(str(conditions[i].feature)) for i in chosen]
            values = np.array([conditions[i].value for i in chosen], np.float32)
            grouped.append(_Comparison(compare, np.array(chosen), np.array(columns), values[:, None]))
    return grouped


def _memberships(conditions: list[Condition], lists: list[frozenset[str]]) -> list[_Membership]:
    grouped = []
    for field in dict.fromkeys(c.field for c in conditions if c.field is not None):
        chosen = [i for i, c in enumerate(conditions) if c.field == field]
        negated = np.array([[conditions[i].operator == "not_in"] for i in chosen])
        own = [lists[i] for i in chosen]
        of = operator.itemgetter(Transaction.__struct_fields__.index(field))
        grouped.append(_Membership(of, np.array(chosen), own, negated, own[0].union(*own[1:])))
    return grouped


def _checked(rule: Rule, now_ms: int | None) -> _Accepted:
    """Raises RuleRefusedError for the first reason why the rule is no good by itself."""
    for number, condition in enumerate(rule.conditions):
        fault = _fault(condition)
        if fault is not None:
            raise _refused(rule, f"all[{number}]: {fault}" if rule.all else fault)
    until_ms = NEVER if rule.expires_at is None else epoch_ms(rule.expires_at)
    if now_ms is not None and until_ms <= now_ms:
        raise _refused(rule, "expires_at has passed")
    if now_ms is not None and rule.allow and until_ms > now_ms + MAX_ALLOW_DAYS * DAY_MS:
        raise _refused(rule, f"expires_at: a rule with allow ends within {MAX_ALLOW_DAYS} days")
    return _Accepted(rule, until_ms, [frozenset(condition.values) for condition in rule.conditions])


def _fault(condition: Condition) -> str | None:
    """Why the condition can never be met, if so."""
    if condition.field is not None:
        strange = next((value for value in condition.values if not _HOLDS[condition.field](value)), None)
        return None if strange is None else f"values: {strange!r} is no {condition.field}"
    if condition.feature not in FEATURE_NAMES:
        near = get_close_matches(str(condition.feature), FEATURE_NAMES)
        return f"unknown feature {condition.feature!r}" + (f"; near are {', '.join(near)}" if near else "")
    if condition.value is None or not abs(condition.value) <= LARGEST:
        return f"value {condition.value} is not a finite float32"
    return None


def _refused(rule: Rule, reason: str) -> RuleRefusedError:
    return RuleRefusedError(f"rule {rule.rule_id}: {reason}")
