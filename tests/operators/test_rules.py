"""The terminal stage and its rules: swapped while it runs, counted, refused, kept over a restart."""

import collections
import copy
import time
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from pyflink.common import Row
from pyflink.datastream import OutputTag

from events.control import Condition, Rule
from events.decision import Anomaly, DeadLetter, Decision
from events.transaction import Transaction
from models.rules import Hits
from operators import rule_hits, terminal_stage
from operators.rule_hits import RuleHits
from operators.terminal_stage import ANOMALIES, TerminalStage, TerminalStageSettings
from state.contract import DAY_MS
from tests.models.small_models import UNSIGNED
from tests.operators.contexts import SHARD, Context, Entries
from tests.operators.test_terminal_stage import sub_batches

BLOCKED_USER = Condition(field="user_id", operator="in", values=["mallory"])
ANY_AMOUNT = Condition(feature="amount", operator=">=", value=0)


class Group:
    """A metric group that remembers its counters under their whole names."""

    def __init__(self, counts: collections.Counter[str], name: str = "") -> None:
        self._counts, self._name = counts, name

    def add_group(self, name: str, value: str) -> Any:
        return Group(self._counts, f"{self._name}{name}={value}.")

    def counter(self, name: str) -> Any:
        assert self._name + name not in self._counts, "Flink warns of a name that is taken"
        self._counts[self._name + name] = 0
        return Group(self._counts, self._name + name)

    def inc(self, n: int = 1) -> None:
        self._counts[self._name] += n


class Metered(Context):
    """Keeps the counters of a stage, those in groups too."""

    def __init__(self, states: dict[str, Entries]) -> None:
        super().__init__(0, states)
        self.counts: collections.Counter[str] = collections.Counter()

    def get_metrics_group(self) -> Any:
        return Group(self.counts)


class Stage:
    """The stage as Flink drives it, without a model, from a checkpoint or none."""

    def __init__(self, states: dict[str, Entries] | None = None, max_letter: int = 1 << 20) -> None:
        self.context: Any = Metered(states if states is not None else {})
        self._sent = 0
        self._stage = TerminalStage(
            TerminalStageSettings(
                model=None, keyring=UNSIGNED, shard_keys=(SHARD,), risk_delay_ms=0, state_ttl_days=90,
                model_updates_topic="model-updates", submitted_at_ms=0, thread_mode=False,
                decisions_topic=None, kafka_client={}, max_dead_letter_bytes=max_letter,
            )
        )  # fmt: skip
        self._stage.open(self.context)

    def restarted(self) -> "Stage":
        return Stage(copy.deepcopy(self.context.states))

    def decide(self, user_id: str, amount: float = 10.0) -> Decision:
        self._sent += 1
        now = int(time.time() * 1000)
        (batch,) = sub_batches([Transaction(f"t{self._sent}-{id(self)}", user_id, now, amount)])
        emitted = list(self._stage.process_element(batch, self.context))
        (row,) = (row for row in emitted if not isinstance(row[0], OutputTag))
        decision = msgspec.json.decode(row[1][0], type=Decision)
        anomalies = [msgspec.json.decode(out[1][1], type=Anomaly) for out in emitted if out[0] is ANOMALIES]
        assert [a.decision for a in anomalies] == [decision] * (decision.decision != "approve")
        return decision

    def control(self, key: str | None, payload: bytes | None) -> list[DeadLetter]:
        letters = self._stage.process_broadcast_element(Row("rules", key, payload, 3, 14), self.context)
        return [msgspec.json.decode(raw, type=DeadLetter) for _, raw in letters]

    def put(self, rule: Rule) -> list[DeadLetter]:
        return self.control(rule.rule_id, msgspec.json.encode(rule))


def rule(*conditions: Condition, **members: Any) -> Rule:
    defaults: dict[str, Any] = {"rule_id": "r", "version": 1, "owner": "o", "verdict": "block"}
    return Rule(**defaults | {"all": list(conditions) or [BLOCKED_USER]} | members)


def test_a_block_list_while_the_stage_runs() -> None:
    stage = Stage()
    assert (stage.decide("mallory").decision, stage.decide("mallory").rules) == ("approve", [])
    assert stage.put(rule()) == []
    blocked = stage.decide("mallory")
    assert (blocked.decision, blocked.rules) == ("block", ["r"])
    assert stage.decide("alice").decision == "approve"
    assert stage.control("r", None) == []
    assert (stage.decide("mallory").decision, stage.decide("mallory").rules) == ("approve", [])
    assert stage.context.counts["control_applied_total"] == 2
    assert stage.context.counts["model_decisions_block_total"] == 1


def test_an_allow_list_lowers_what_rules_raise_but_no_block_list() -> None:
    stage = Stage()
    stage.put(rule(ANY_AMOUNT, rule_id="raise"))
    assert stage.decide("mallory").decision == "block"
    stage.put(
        rule(rule_id="allow", verdict="approve", allow=True, expires_at=int(time.time() * 1000) + 30 * DAY_MS)
    )
    allowed = stage.decide("mallory")
    assert (allowed.decision, sorted(allowed.rules)) == ("approve", ["allow", "raise"])
    assert stage.decide("alice").decision == "block"
    stage.put(rule(rule_id="list"))
    assert stage.decide("mallory").decision == "block"


def test_hits_are_counted_by_rule_version_and_mode() -> None:
    stage = Stage()
    counts = stage.context.counts
    stage.put(rule(rule_id="night-owls", shadow=True))
    assert counts["rule=night_owls.version=1.shadow_hits_total"] == 0
    shadowed = stage.decide("mallory")
    assert (shadowed.decision, shadowed.rules) == ("approve", ["night-owls (shadow)"])
    stage.put(rule(rule_id="night-owls", version=2))
    for user_id in ("mallory", "mallory", "alice"):
        stage.decide(user_id)
    found = {name: n for name, n in counts.items() if name.startswith("rule=")}
    assert found == {
        "rule=night_owls.version=1.shadow_hits_total": 1,
        "rule=night_owls.version=2.hits_total": 2,
    }


def test_rules_are_kept_over_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(terminal_stage, "time", SimpleNamespace(time=lambda: now))
    stage = Stage()
    stage.put(rule(rule_id="stays"))
    stage.put(rule(rule_id="ends", version=5, expires_at=int(now * 1000) + 60_000))
    stage.put(rule(rule_id="gone"))
    stage.control("gone", None)
    assert sorted(stage.decide("mallory").rules) == ["ends", "stays"]
    now += 60
    assert stage.decide("mallory").rules == ["stays"]

    resumed = stage.restarted()
    blocked = resumed.decide("mallory")
    assert (blocked.decision, blocked.rules) == ("block", ["stays"])
    assert resumed.context.counts["control_refused_total"] == 0, "what has ended was good when it came"
    (letter,) = resumed.put(rule(rule_id="ends", version=4))
    assert "version 4 is not newer than 5" in letter.detail


@pytest.mark.parametrize(
    ("key", "payload", "said"),
    [
        ("r", b"{", "malformed_json: "),
        ("r", b'{"rule_id":"r"}', "missing_field: version: "),
        ("r", msgspec.json.encode(rule(version=2))[:-1] + b',"shadwo":true}', "`shadwo`"),
        ("x", msgspec.json.encode(rule(version=2)), "key_mismatch: rule r under another key"),
        (None, msgspec.json.encode(rule(version=2)), "key_mismatch: rule r under another key"),
        ("r", msgspec.json.encode(rule(owner="p")), "version 1 is not newer than 1"),
        ("r", msgspec.json.encode(rule(version=2, expires_at=1_700_000_000_000)), "expires_at has passed"),
        (
            "r",
            msgspec.json.encode(rule(Condition(feature="amonut", operator=">", value=1), version=2)),
            "near are amount",
        ),
    ],
)
def test_refused_rules_change_nothing_and_stay_visible(key: str | None, payload: bytes, said: str) -> None:
    stage = Stage()
    stage.put(rule())
    (letter,) = stage.control(key, payload)
    assert (letter.reason, letter.topic, letter.partition, letter.offset) == (
        "control_refused", "rules", 3, 14,
    )  # fmt: skip
    assert said in letter.detail
    assert (letter.payload, letter.key) == (payload, key.encode() if key is not None else None)
    assert stage.context.counts["control_refused_total"] == 1
    assert stage.decide("mallory").rules == ["r"]
    assert stage.restarted().decide("mallory").rules == ["r"]


def test_a_refused_list_too_large_for_the_dead_letters_is_cut() -> None:
    stage = Stage(max_letter=20_000)
    payload = msgspec.json.encode(rule(Condition(field="country", operator="in", values=["no"] * 9_000)))
    (letter,) = stage.control("r", payload)
    assert letter.truncated_from == len(payload) > 20_000
    assert len(msgspec.json.encode(letter)) <= 20_000
    assert payload.startswith(letter.payload)


def test_names_of_counters_are_told_apart() -> None:
    counts: collections.Counter[str] = collections.Counter()
    metrics: Any = Group(counts)
    counted = RuleHits(metrics)
    for rule_id in ("a-b", "a.b", "a-b"):
        counted.add(rule(rule_id=rule_id))
    first, second = counts
    assert first == "rule=a_b.version=1.hits_total"
    assert second.startswith("rule=a_b_")


def test_counters_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rule_hits, "MAX_COUNTED", 2)
    counts: collections.Counter[str] = collections.Counter()
    metrics: Any = Group(counts)
    counted = RuleHits(metrics)
    versions = [rule(version=n) for n in range(1, 6)]
    for version in versions:
        counted.add(version)
    hit = np.ones((5, 3), np.bool_)
    counted.count(Hits(versions, hit, np.full(3, 2, np.int8), ~hit[0]))
    assert counts == {
        "rule=r.version=1.hits_total": 3,
        "rule=r.version=2.hits_total": 3,
        "rule=others.version=0.hits_total": 9,
    }
