"""Counts how often each rule hits, as Flink counters."""

import re
from typing import Final

import numpy as np
from pyflink.metrics import Counter, MetricGroup
from xxhash import xxh32_hexdigest

from events.control import Rule
from models.rules import MAX_RULES, Hits

MAX_COUNTED: Final = 4 * MAX_RULES
"""Versions of rules with a counter of their own: Flink keeps a counter for as long as its task lives."""


class RuleHits:
    """A counter `hits_total` for each version of each rule, in the groups `rule` and `version`.

    In shadow mode it is `shadow_hits_total`. The name of the group is the rule's id with all but letters and
    digits made `_`, and a hash of the id behind it where another rule has that name already. Hits of
    versions beyond MAX_COUNTED are counted together, as version 0 of `others`.
    """

    def __init__(self, metrics: MetricGroup) -> None:
        """Nothing is counted yet."""
        self._metrics = metrics
        self._counters: dict[tuple[str, int, bool], Counter] = {}
        self._others: Counter | None = None
        self._names: dict[str, str] = {}

    def add(self, rule: Rule) -> None:
        """Let the hits of a rule be counted; what is counted already goes on."""
        key = (rule.rule_id, rule.version, rule.shadow)
        if key in self._counters:
            return
        if len(self._counters) < MAX_COUNTED:
            self._counters[key] = self._counter(self._name(rule.rule_id), rule.version, rule.shadow)
        elif self._others is None:
            self._others = self._counter("others", 0, False)

    def count(self, hits: Hits) -> None:
        """Count the hits of a batch, all by rules that were added."""
        for rule, n in zip(hits.rules, np.count_nonzero(hits.hit, axis=1).tolist(), strict=True):
            counter = self._counters.get((rule.rule_id, rule.version, rule.shadow), self._others)
            if counter is not None:
                counter.inc(n)

    def _counter(self, name: str, version: int, shadow: bool) -> Counter:
        group = self._metrics.add_group("rule", name).add_group("version", str(version))
        return group.counter("shadow_hits_total" if shadow else "hits_total")

    def _name(self, rule_id: str) -> str:
        name = re.sub("[^A-Za-z0-9]", "_", rule_id)
        if self._names.setdefault(name, rule_id) != rule_id:
            name += f"_{xxh32_hexdigest(rule_id.encode())}"
        return name
