"""Analysts' rules: one condition each on one feature, evaluated over the batch."""

import operator
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from events.control import Rule
from events.types import Verdict, epoch_ms
from state.contract import FEATURE_NAMES

VERDICTS: Final[tuple[Verdict, ...]] = ("approve", "review", "block")
"""Verdicts by level, from mild to strict."""
SHADOW: Final = " (shadow)"
"""Stands behind the id of a shadow rule that hit; no id can hold a blank."""

COMPARISONS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
}
NEVER: Final = np.iinfo(np.int64).max
LARGEST: Final = float(np.finfo(np.float32).max)


class RuleRefusedError(Exception):
    """The rule was not taken; the message says why."""


class Hits(NamedTuple):
    """What the rules say of a batch.

    level: i1 [n], position in VERDICTS of the strictest verdict among the rules that hit, 0 where none did;
    names: for each transaction the ids of the rules that hit, None where none hit at all.
    """

    level: NDArray[np.int8]
    names: list[list[str]] | None


class _Comparison(NamedTuple):
    """All active rules with one operator: feature [r], value f4 [r]."""

    compare: Callable[[Any, Any], Any]
    columns: NDArray[np.int64]
    values: NDArray[np.float32]


class Ruleset:
    """The rules in force.

    A rule raises a decision, never lowers it: one whose verdict is approve only reports. Features are
    float32, so the value of a rule is rounded to float32 before it is compared; NaN never hits.
    """

    def __init__(self) -> None:
        """No rules yet."""
        self._rules: dict[str, Rule] = {}
        self._compile(0)

    def apply(self, rule: Rule) -> None:
        """Take a new rule or a newer version of a known one.

        Raises RuleRefusedError, and changes nothing, where the feature is unknown, the value not a finite
        float32, or the version not newer than the one in force.
        """
        if rule.feature not in FEATURE_NAMES:
            raise RuleRefusedError(f"rule {rule.rule_id}: unknown feature {rule.feature!r}")
        if not abs(rule.value) <= LARGEST:
            raise RuleRefusedError(f"rule {rule.rule_id}: value {rule.value} is not a finite float32")
        known = self._rules.get(rule.rule_id)
        if rule == known:
            return  # delivered once more
        if known is not None and rule.version <= known.version:
            raise RuleRefusedError(
                f"rule {rule.rule_id}: version {rule.version} is not newer than {known.version}"
            )
        self._rules[rule.rule_id] = rule
        self._compile(0)

    def remove(self, rule_id: str | None) -> None:
        """Forget a rule; an unknown one is no error."""
        if rule_id is not None and self._rules.pop(rule_id, None) is not None:
            self._compile(0)

    def evaluate(self, features: NDArray[np.float32], now_ms: int) -> Hits:
        """Which rules hit which of the features f4 [n, N_FEATURES]; a rule holds until its `expires_at`."""
        level = np.zeros(len(features), np.int8)
        if now_ms >= self._next_expiry:
            self._compile(now_ms)
        if not self._comparisons:
            return Hits(level, None)
        hit = np.concatenate([c.compare(features[:, c.columns], c.values) for c in self._comparisons], axis=1)
        if not hit.any():
            return Hits(level, None)
        level = (hit * self._levels).max(axis=1)
        names: list[list[str]] = [[] for _ in range(len(features))]
        for row, rule in np.argwhere(hit).tolist():
            names[row].append(self._names[rule])
        return Hits(level, names)

    def _compile(self, now_ms: int) -> None:
        """Lay out the rules that are active at `now_ms` for `evaluate`, by operator."""
        expiry = {
            rule_id: NEVER if rule.expires_at is None else epoch_ms(rule.expires_at)
            for rule_id, rule in self._rules.items()
        }
        active = [r for r in self._rules.values() if r.enabled and expiry[r.rule_id] > now_ms]
        self._next_expiry = min((expiry[r.rule_id] for r in active), default=NEVER)
        self._comparisons: list[_Comparison] = []
        ordered: list[Rule] = []
        for symbol, compare in COMPARISONS.items():
            chosen = [r for r in active if r.operator == symbol]
            if chosen:
                columns = np.array([FEATURE_NAMES.index(r.feature) for r in chosen])
                self._comparisons.append(
                    _Comparison(compare, columns, np.array([r.value for r in chosen], np.float32))
                )
                ordered += chosen
        self._names = [r.rule_id + SHADOW if r.shadow else r.rule_id for r in ordered]
        self._levels = np.array([0 if r.shadow else VERDICTS.index(r.verdict) for r in ordered], np.int8)
