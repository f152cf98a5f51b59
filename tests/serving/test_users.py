from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.alert import Alert
from events.decision import Decision
from events.feedback import Label
from serving.alerts import SEVERITIES, findings
from serving.cases import MAX_MEMBERS, SUPPRESSION_MS, contains, without
from serving.users import REMEMBERED, RISK_HALF_LIFE_MS, LayoutError, User
from state.contract import FEATURE_NAMES
from tests.serving.samples import MINUTE, START_MS, decided, label

COUNT_5M = FEATURE_NAMES.index("user_count_5m")
RATIO = FEATURE_NAMES.index("user_amount_ratio")

Record = Decision | Label


@st.composite
def decisions(draw: st.DrawFn) -> Decision:
    number = draw(st.integers(1, 20))
    return decided(
        number,
        score=draw(st.sampled_from([0.01, 0.5, 0.85, 0.95])),
        decision=draw(st.sampled_from(["approve", "review"])),
        event_time=START_MS + draw(st.integers(0, 20 * MINUTE)),
        amount=draw(st.integers(0, 1000)) / 4,
        values={COUNT_5M: draw(st.sampled_from([1.0, 8.0])), RATIO: draw(st.sampled_from([1.0, 9.0]))},
    )


labels = st.builds(
    lambda number, is_fraud, at: label(number, is_fraud=is_fraud, labelled_at=START_MS + at),
    st.integers(1, 20),
    st.booleans(),
    st.integers(0, 10**7),
)
histories = st.lists(decisions() | labels, max_size=30)


def fold(user: User, record: Record) -> Any:
    return user.decide(record) if isinstance(record, Decision) else user.label(record)


def folded(records: list[Record]) -> tuple[User, list[Any]]:
    user = User()
    told = []
    for record in records:
        judged = fold(user, record)
        told.append(judged and (judged.found, judged.alert, judged.case and judged.case.revision))
    return user, told


@given(histories)
def test_a_restart_at_any_place_changes_nothing(records: list[Record]) -> None:
    user, told = folded(records)

    restarted, again = User(), []
    for record in records:
        restarted = User.unpack(restarted.pack())
        judged = fold(restarted, record)
        again.append(judged and (judged.found, judged.alert, judged.case and judged.case.revision))

    assert again == told
    assert restarted == user


@given(histories, st.data())
def test_a_repeat_changes_nothing(records: list[Record], data: st.DataObject) -> None:
    once, _ = folded(records)
    user, repeated = User(), []
    for i, record in enumerate(records):
        fold(user, record)
        if data.draw(st.booleans()):
            repeated.append(fold(user, records[data.draw(st.integers(0, i))]))

    assert user == once
    assert all(judged is None for judged in repeated)


@given(histories)
def test_a_case_counts_what_was_merged_since_the_last_verdict(records: list[Record]) -> None:
    user = User()
    merged: dict[str, list[Decision]] = {}
    opened: list[str] = []
    for record in records:
        was_open = user.case is not None and user.case.status == "open"
        judged = fold(user, record)
        if isinstance(record, Label) or judged is None or judged.case is None:
            continue
        merged.setdefault(judged.case.case_id, []).append(record)
        if not was_open:
            opened.append(judged.case.case_id)
        own = merged[judged.case.case_id]
        ranks = [finding.rank for decision in own for finding in findings(decision)]
        assert judged.case.severity == SEVERITIES[max(ranks)]
        assert judged.case.alerts == len(own)
        assert judged.case.sum == sum(decision.amount for decision in own)
        assert sum(judged.case.kinds.values()) == len(ranks)
    assert len(set(opened)) == len(opened) == len(merged)


@given(st.lists(decisions(), max_size=30))
def test_a_kind_is_announced_again_after_5_minutes_or_when_it_is_worse(records: list[Decision]) -> None:
    user = User()
    announced: dict[int, tuple[int, int]] = {}
    for record in records:
        judged = user.decide(record)
        if judged is None:
            continue
        news = [
            finding
            for finding in judged.found
            if finding.kind not in announced
            or abs(record.event_time - announced[finding.kind][0]) >= SUPPRESSION_MS
            or finding.rank > announced[finding.kind][1]
        ]
        announced |= {finding.kind: (record.event_time, finding.rank) for finding in news}
        assert isinstance(judged.alert, Alert) == bool(news)
        if judged.alert is not None:
            assert judged.alert.severity == SEVERITIES[max(finding.rank for finding in news)]


@given(st.lists(st.tuples(st.floats(0, 0.79), st.integers(0, 10**9)), min_size=1, max_size=10))
def test_risk_is_the_highest_score_faded_whatever_the_order(scores: list[tuple[float, int]]) -> None:
    user = User()
    for number, (score, at) in enumerate(scores):
        user.decide(decided(number + 1, score=score, event_time=START_MS + at))

    latest = max(at for _, at in scores)
    expected = max(score * 0.5 ** ((latest - at) / RISK_HALF_LIFE_MS) for score, at in scores)
    assert user.risk == pytest.approx(expected)


def test_a_transaction_dated_ahead_does_not_silence_those_that_follow() -> None:
    user = User()
    alerts = []
    for number, minutes in enumerate((0, 60, 6, 7)):
        judged = user.decide(decided(number, score=0.85, event_time=START_MS + minutes * MINUTE))
        assert judged is not None
        alerts.append(judged.alert is not None)

    assert alerts == [True, True, True, False]


def test_a_verdict_closes_the_case_and_the_next_alert_opens_another() -> None:
    user = User()
    user.decide(decided(1, score=0.95))
    user.decide(decided(2, score=0.95))
    judged = user.label(label(2, is_fraud=False))
    following = user.decide(decided(3, score=0.85))

    assert judged is not None
    assert judged.case is not None
    assert (judged.case.status, judged.case.alerts) == ("legitimate", 2)
    assert following is not None
    assert following.case is not None
    assert following.alert is not None
    assert following.case.case_id != judged.case.case_id


def test_a_verdict_on_a_transaction_outside_the_case_leaves_it_open() -> None:
    user = User()
    user.decide(decided(1))
    user.decide(decided(2, score=0.95))
    user.label(label(1))

    assert user.case is not None
    assert user.case.status == "open"


def test_a_case_is_fraud_while_one_of_its_transactions_is() -> None:
    user = User()
    statuses = []
    for number in (1, 2):
        user.decide(decided(number, score=0.95))
    for number, is_fraud in ((1, True), (2, False), (1, False)):
        user.label(label(number, is_fraud=is_fraud))
        assert user.case is not None
        statuses.append(user.case.status)

    assert statuses == ["fraud", "fraud", "legitimate"]


def test_a_legitimate_case_takes_the_risk_away_and_a_fraud_brings_it() -> None:
    user = User()
    user.decide(decided(1, score=0.95))
    user.label(label(1, is_fraud=False))
    cleared = user.risk
    user.label(label(1, is_fraud=True))

    assert (cleared, user.risk) == (0.0, 1.0)


def test_an_alert_names_neither_user_nor_place() -> None:
    judged = User().decide(decided(1, score=0.95, decision="block", country="FR"))

    assert judged is not None
    assert judged.alert is not None
    assert judged.alert.summary == "score 0.95"


def test_the_state_of_a_user_is_bounded() -> None:
    user = User()
    for number in range(MAX_MEMBERS + 200):
        user.decide(decided(number, score=0.95, event_time=START_MS))
        user.label(label(number + 5_000, is_fraud=True))

    assert user.case is not None
    assert user.case.alerts == MAX_MEMBERS + 200
    assert len(user.pack()) < 8 * (MAX_MEMBERS + REMEMBERED) + 500


def test_another_layout_is_refused_by_its_number() -> None:
    with pytest.raises(LayoutError, match="layout 9; this program knows 1"):
        User.unpack(b"\x09" + User().pack()[1:])


@given(st.lists(st.binary(min_size=8, max_size=8), max_size=20), st.binary(min_size=8, max_size=8))
def test_packed_hashes_are_a_set(hashes: list[bytes], other: bytes) -> None:
    packed = b"".join(hashes)

    assert contains(packed, other) == (other in hashes)
    for hashed in hashes:
        assert contains(packed, hashed)
    if hashes.count(other) <= 1:
        assert without(packed, other) == b"".join(h for h in hashes if h != other)


@given(st.lists(st.binary(min_size=1, max_size=1), min_size=3, max_size=12))
def test_a_hash_that_straddles_two_others_is_none(letters: list[bytes]) -> None:
    hashes = [letter * 8 for letter in letters]
    packed = b"".join(hashes)

    for start in range(len(packed) - 8):
        part = packed[start : start + 8]
        assert contains(packed, part) == (part in hashes)
