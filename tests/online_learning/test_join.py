"""Feedback meets decisions: in any order, once, with a precedence that does not depend on the order."""

from itertools import permutations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from events.decision import decision_id
from events.feedback import Feedback
from online_learning.join import MAX_CHANGES, JoinSettings
from online_learning.precedence import ruling
from state.contract import DAY_MS
from tests.online_learning.feedback import (
    EVENT_MS,
    KEEP_ALL,
    NOW_MS,
    Desk,
    decision,
    features,
    verdict,
)


def test_a_label_carries_what_the_decision_knew() -> None:
    desk = Desk()
    made = decision(decision="review", score=0.7, parts={"trees": 0.6, "offline": 0.65})
    desk.decide(made)
    joined = desk.tell(verdict())

    (label,) = joined.labels
    assert (label.transaction_id, label.user_id, label.terminal_id) == ("t-1", "u-1", "terminal-1")
    assert (label.event_time, label.amount, label.is_fraud, label.source) == (EVENT_MS, 12.5, True, "analyst")
    assert label.labelled_at == EVENT_MS + 60_000
    (example,) = joined.examples
    assert example.features == made.features
    assert (example.score, example.model_version) == (0.7, "gbt-1")
    assert example.parts == pytest.approx(made.parts)
    assert (example.transaction_id, example.user_id, example.analyst_id) == ("t-1", "u-1", "analyst-7")
    assert (example.is_fraud, example.source, example.corrects, example.sampled) == (
        True,
        "analyst",
        False,
        1,
    )
    assert example.example_id.startswith(made.decision_id)


@pytest.mark.parametrize(
    ("label", "is_fraud"),
    [("fraud", True), ("true_positive", True), ("legitimate", False), ("false_positive", False)],
)
def test_four_words_for_two_truths(label: str, is_fraud: bool) -> None:
    desk = Desk()
    desk.decide(decision())
    (said,) = desk.tell(verdict(label=label)).labels
    assert said.is_fraud == is_fraud


@pytest.mark.parametrize("restarts", [False, True])
def test_feedback_waits_for_its_decision(restarts: bool) -> None:
    desk = Desk()
    assert desk.tell(verdict()).labels == []
    assert desk.join.waiting == 1
    if restarts:
        desk.restart()
        assert desk.join.waiting == 1
    assert len(desk.decide(decision()).examples) == 1
    assert desk.join.waiting == 0
    assert not desk.room


def test_in_one_batch_feedback_finds_its_decision() -> None:
    desk = Desk()
    joined = desk.join.join(
        [desk.received("u-1", decision())], feedback=[desk.received("t-1", verdict())], now_ms=NOW_MS
    )
    assert len(joined.examples) == 1


def test_a_label_may_come_a_hundred_days_later() -> None:
    desk = Desk()
    desk.decide(decision(), now_ms=EVENT_MS)
    desk.restart()
    late = verdict(source="chargeback", labelled_at=EVENT_MS + 100 * DAY_MS)
    assert len(desk.tell(late, now_ms=EVENT_MS + 100 * DAY_MS).examples) == 1


def test_repeats_count_once() -> None:
    desk = Desk()
    desk.decide(decision(), decision(), decision())
    joined = desk.tell(*[verdict()] * 10_000)
    assert (len(joined.examples), len(joined.labels), joined.repeats) == (1, 1, 9_999)
    assert desk.tell(verdict()).examples == []
    assert desk.decide(decision()).repeats == 1


def test_repeats_wait_once() -> None:
    desk = Desk()
    joined = desk.tell(*[verdict()] * 10_000)
    assert (desk.join.waiting, joined.repeats) == (1, 9_999)


def test_a_better_source_that_agrees_is_an_example_of_its_own() -> None:
    desk = Desk()
    desk.decide(decision())
    desk.tell(verdict())
    (example,) = desk.tell(verdict(source="chargeback", labelled_at=EVENT_MS)).examples
    assert (example.source, example.is_fraud, example.corrects) == ("chargeback", True, False)


def test_the_same_source_that_says_the_same_later_is_none() -> None:
    desk = Desk()
    desk.decide(decision())
    desk.tell(verdict())
    joined = desk.tell(verdict(labelled_at=EVENT_MS + 90_000))
    assert (joined.labels, joined.examples, joined.refused) == ([], [], [])
    between = verdict(label="legitimate", labelled_at=EVENT_MS + 80_000)
    assert desk.tell(between).labels == [], "the later one holds nevertheless"


def test_a_correction_says_so() -> None:
    desk = Desk()
    desk.decide(decision())
    desk.tell(verdict())
    joined = desk.tell(verdict(source="chargeback", label="legitimate"))
    assert [x.corrects for x in joined.examples] == [True]
    assert [x.is_fraud for x in joined.labels] == [False]
    assert joined.corrections == 1
    assert desk.tell(verdict(source="analyst", labelled_at=NOW_MS)).labels == []


verdicts = st.builds(
    verdict,
    label=st.sampled_from(["fraud", "legitimate", "true_positive", "false_positive"]),
    source=st.sampled_from(["analyst", "chargeback", "customer"]),
    labelled_at=st.integers(EVENT_MS, EVENT_MS + 5),
    analyst_id=st.sampled_from([None, "a", "b"]),
)


@settings(max_examples=60)
@given(st.lists(verdicts, min_size=1, max_size=4), st.integers(0, 4), st.booleans())
def test_any_order_ends_in_the_same_label(given_: list[Feedback], decided_after: int, restarts: bool) -> None:
    best = max(map(ruling, given_))
    for order in permutations(given_):
        desk = Desk()
        labels = []
        for n, feedback in enumerate(order):
            if n == decided_after:
                labels += desk.decide(decision()).labels
            if restarts:
                desk.restart()
            labels += desk.tell(feedback).labels
        labels += desk.decide(decision()).labels
        assert (labels[-1].is_fraud, labels[-1].source) == (best.is_fraud, best.source)


@settings(max_examples=200)
@given(st.lists(verdicts, max_size=20), st.integers(0, 20), st.integers(1, 7))
def test_what_is_emitted_depends_on_the_feedback_alone(
    given_: list[Feedback], decided_after: int, batch: int
) -> None:
    """Not on when the decision comes, nor on where a batch ends: so a replay emits the same again."""
    first, other = Desk(), Desk()
    first.decide(decision())
    expected = [x for feedback in given_ for x in first.tell(feedback).examples]
    emitted = []
    for start in range(0, len(given_), batch):
        if start <= decided_after < start + batch:
            emitted += other.decide(decision()).examples
        emitted += other.tell(*given_[start : start + batch]).examples
    emitted += other.decide(decision()).examples
    assert emitted == expected
    assert len({x.example_id for x in emitted}) == len(emitted)


def test_a_source_that_keeps_changing_its_mind_is_refused_and_a_better_one_is_not() -> None:
    desk = Desk()
    desk.decide(decision())
    flood = [
        verdict(label=("fraud", "legitimate")[n % 2], labelled_at=EVENT_MS + n)
        for n in range(10 * MAX_CHANGES)
    ]
    joined = desk.tell(*flood)
    assert len(joined.examples) == MAX_CHANGES
    assert {invalid.reason for invalid, _ in joined.refused} == {"too_many_changes"}
    assert len(joined.refused) + joined.repeats + len(joined.examples) <= len(flood)
    (example,) = desk.tell(verdict(source="chargeback", labelled_at=EVENT_MS)).examples
    assert example.source == "chargeback"


def test_an_unknown_transaction_is_refused_after_a_while_with_the_bytes_that_came() -> None:
    desk = Desk()
    desk.tell(verdict(), now_ms=NOW_MS)
    desk.tell(verdict(None, anomaly_id="a-1"), now_ms=NOW_MS + 1)
    desk.restart()
    before = desk.tell(now_ms=NOW_MS + KEEP_ALL.waiting_ms - 1)
    assert before.refused == []
    assert desk.join.next_expiry_ms == NOW_MS + KEEP_ALL.waiting_ms
    joined = desk.tell(now_ms=NOW_MS + KEEP_ALL.waiting_ms + 1)
    assert [(i.reason, i.field) for i, _ in joined.refused] == [
        ("unknown_transaction", "transaction_id"),
        ("unknown_transaction", "anomaly_id"),
    ]
    assert joined.refused[0][1].payload == msgspec.json.encode(verdict())
    assert joined.refused[0][1].key == "t-1"
    assert desk.join.next_expiry_ms is None
    assert not desk.room


def test_at_the_end_of_all_input_nobody_is_left_waiting() -> None:
    desk = Desk()
    desk.tell(verdict("t-1"), verdict("t-2"))
    assert [received.key for _, received in desk.join.close().refused] == ["t-1", "t-2"]
    assert not desk.room


def test_a_flood_of_unknown_transactions_costs_the_oldest_their_time() -> None:
    desk = Desk(JoinSettings(floor=0.0, max_waiting=100))
    joined = desk.tell(*[verdict(f"t-{n}") for n in range(1000)])
    assert desk.join.waiting == len(desk.room) == 100
    assert [received.key for _, received in joined.refused] == [f"t-{n}" for n in range(900)]


def test_an_anomaly_stands_for_its_transaction() -> None:
    desk = Desk()
    made = decision(decision="block")
    by_anomaly = verdict(None, anomaly_id=made.decision_id)
    desk.tell(by_anomaly)
    (early,) = desk.decide(made).forwarded
    (late,) = desk.tell(by_anomaly).forwarded
    assert early == late
    assert (late.transaction_id, late.anomaly_id, late.notes) == ("t-1", made.decision_id, None)
    joined = desk.tell(late)
    assert len(joined.examples) == 1
    assert joined.forwarded == [], "the way through Kafka has an end"


def test_where_there_is_one_shard_nothing_is_forwarded() -> None:
    desk = Desk(JoinSettings(floor=0.0, sole=True))
    desk.tell(verdict(None, anomaly_id=decision_id("u-1", "t-1")))
    joined = desk.decide(decision(decision="block"), decision("t-2", decision="block"))
    joined_2 = desk.tell(verdict(None, anomaly_id=decision_id("u-1", "t-2")))
    joined_3 = desk.send([("wrong", msgspec.json.encode(verdict("t-3")))])
    assert [len(j.examples) for j in (joined, joined_2, joined_3)] == [1, 1, 0]
    assert [j.forwarded for j in (joined, joined_2, joined_3)] == [[], [], []]
    assert len(desk.decide(decision("t-3")).examples) == 1


@pytest.mark.parametrize("key", [None, "", "t-2", "u-1"])
def test_feedback_under_another_key_is_sent_again_under_its_own(key: str | None) -> None:
    desk = Desk()
    desk.decide(decision())
    joined = desk.send([(key, msgspec.json.encode(verdict()))])
    assert joined.forwarded == [verdict()]
    assert len(desk.tell(*joined.forwarded).examples) == 1


def test_two_users_may_share_a_transaction_id() -> None:
    desk = Desk()
    desk.decide(decision(user_id="u-1"), decision(user_id="u-2"))
    joined = desk.tell(verdict())
    assert joined.labels == []
    assert [(i.reason, i.field) for i, _ in joined.refused] == [("ambiguous_transaction", "transaction_id")]
    (label,) = desk.tell(verdict(anomaly_id=decision_id("u-2", "t-1"))).labels
    assert label.user_id == "u-2"


@pytest.mark.parametrize("waits", [False, True])
def test_an_anomaly_of_another_transaction_is_refused(waits: bool) -> None:
    desk = Desk()
    foreign = verdict(anomaly_id=decision_id("u-1", "t-2"))
    if waits:
        desk.tell(foreign)
        joined = desk.decide(decision())
    else:
        desk.decide(decision())
        joined = desk.tell(foreign)
    assert joined.labels == []
    assert [(i.reason, i.field) for i, _ in joined.refused] == [("foreign_transaction", "anomaly_id")]


def test_a_label_is_not_older_than_its_transaction() -> None:
    desk = Desk()
    desk.decide(decision())
    joined = desk.tell(verdict(labelled_at=EVENT_MS - KEEP_ALL.max_future_ms - 1))
    assert [(i.reason, i.field) for i, _ in joined.refused] == [("inconsistent", "labelled_at")]
    assert len(desk.tell(verdict(labelled_at=EVENT_MS - KEEP_ALL.max_future_ms)).labels) == 1


def test_of_low_scores_a_sample_is_kept_whole_and_of_the_rest_what_a_label_needs() -> None:
    settings = JoinSettings(floor=0.5, sample=0.1, seed=3)
    desk = Desk(settings)
    joined = desk.decide(*[decision(f"t-{n}", score=0.1) for n in range(5_000)])
    assert 400 < joined.kept < 600
    assert joined.kept + joined.remembered == 5_000
    joined = desk.tell(*[verdict(f"t-{n}") for n in range(5_000)])
    assert len(joined.labels) == 5_000
    assert 400 < len(joined.examples) < 600
    assert {x.sampled for x in joined.examples} == {0.1}

    again = Desk(settings)
    again.decide(*[decision(f"t-{n}", score=0.1) for n in reversed(range(5_000))])
    chosen = {x.transaction_id for x in again.tell(*[verdict(f"t-{n}") for n in range(5_000)]).examples}
    assert chosen == {x.transaction_id for x in joined.examples}, "the sample does not depend on the order"
    assert chosen != _sampled(JoinSettings(floor=0.5, sample=0.1, seed=4))


def _sampled(settings: JoinSettings) -> set[str]:
    desk = Desk(settings)
    desk.decide(*[decision(f"t-{n}", score=0.1) for n in range(5_000)])
    return {x.transaction_id for x in desk.tell(*[verdict(f"t-{n}") for n in range(5_000)]).examples}


def test_of_what_is_approved_a_sample_is_presumed_legitimate() -> None:
    settings = JoinSettings(floor=0.5, sample=0.0, presume=0.1, seed=3)
    desk = Desk(settings)
    decisions = [decision(f"t-{n}", score=0.1) for n in range(5_000)]
    refused = [decision(f"r-{n}", score=0.1, decision="review") for n in range(1_000)]
    joined = desk.decide(*decisions, *refused)

    assert 400 < len(joined.examples) < 600
    assert joined.labels == []
    assert {(x.source, x.is_fraud, x.sampled) for x in joined.examples} == {("presumed", False, 0.1)}
    assert all(x.transaction_id.startswith("t-") and x.features == features() for x in joined.examples)
    assert desk.decide(*decisions).examples == [], "a repeat is not presumed again"
    assert Desk(settings).decide(*reversed(decisions)).examples == joined.examples[::-1]

    told = desk.tell(verdict(joined.examples[0].transaction_id))
    assert len(told.labels) == 1, "a label may still come"


@pytest.mark.parametrize(("score", "answer"), [(0.5, "approve"), (0.0, "review"), (0.0, "block")])
def test_high_scores_and_alerts_are_kept_whatever_the_sample(score: float, answer: str) -> None:
    desk = Desk(JoinSettings(floor=0.5, sample=0.0))
    desk.decide(decision(score=score, decision=answer))
    (example,) = desk.tell(verdict()).examples
    assert example.sampled == 1.0


def test_what_was_reviewed_by_chance_stands_for_the_rest() -> None:
    desk = Desk(JoinSettings(floor=0.5, sample=0.1, explore_share=0.2))
    desk.decide(decision(score=0.1, decision="review", explored=True))
    (example,) = desk.tell(verdict()).examples
    assert example.sampled == pytest.approx(1 - 0.9 * 0.8)
    desk = Desk(JoinSettings(floor=0.5, sample=0.0))
    desk.decide(decision(score=0.1, decision="review", explored=True))
    (example,) = desk.tell(verdict()).examples
    assert example.sampled == 1.0, "where nobody told with which chance"


def test_the_rest_can_be_forgotten() -> None:
    desk = Desk(JoinSettings(floor=0.5, sample=0.0, remember_rest=False))
    joined = desk.decide(decision(score=0.1))
    assert (joined.kept, joined.remembered, len(desk.transactions)) == (0, 0, 0)
    desk.tell(verdict())
    assert desk.join.waiting == 1


def test_a_decision_that_cannot_be_read_is_refused_and_the_others_are_not() -> None:
    desk = Desk()
    good = [desk.received("u", decision(f"t-{n}")) for n in range(2)]
    bad = [desk.received("u", value) for value in (None, b"", b"{}", b"\xff", b"[" * 100_000, b'{"score":2}')]
    joined = desk.join.join([good[0], *bad, good[1]], bad, now_ms=NOW_MS)
    assert joined.kept == 2
    assert [received for _, received in joined.refused] == bad


def test_features_come_back_bit_for_bit_and_the_first_answer_counts() -> None:
    desk = Desk()
    desk.decide(decision(features=features(5)))
    desk.decide(decision(features=features(6), score=0.9))
    (example,) = desk.tell(verdict()).examples
    assert example.features == features(5)
