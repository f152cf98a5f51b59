"""What is no good loses nothing and teaches nothing."""

from collections import Counter

import msgspec
import pytest

from online_learning.join import Joined
from tests.online_learning.bad_feedback import BAD_FEEDBACK, SHARED, BadFeedback, feedback
from tests.online_learning.feedback import Desk, decision, verdict


@pytest.fixture
def desk() -> Desk:
    desk = Desk()
    desk.decide(decision(), decision(SHARED), decision(SHARED, "u-2"))
    return desk


def refused(*answers: Joined) -> list[tuple[str, str | None, bytes | None]]:
    return [(i.reason, i.field, r.payload) for joined in answers for i, r in joined.refused]


def test_there_are_sixty_kinds_with_names_of_their_own() -> None:
    assert len({bad.name for bad in BAD_FEEDBACK}) == len(BAD_FEEDBACK) >= 60


@pytest.mark.parametrize("bad", BAD_FEEDBACK, ids=lambda bad: bad.name)
def test_bad_feedback_becomes_one_dead_letter_and_no_example(desk: Desk, bad: BadFeedback) -> None:
    answers = desk.send([(bad.key, bad.value)]), desk.join.close()

    assert refused(*answers) == [(bad.reason, bad.field, bad.value)]
    for joined in answers:
        assert (joined.labels, joined.examples, joined.forwarded) == ([], [], [])


def test_all_at_once_leave_the_good_one_alone(desk: Desk) -> None:
    records = [(bad.key, bad.value) for bad in BAD_FEEDBACK]
    answers = desk.send([*records, ("t-1", feedback()), *records]), desk.join.close()

    assert [x.transaction_id for joined in answers for x in joined.examples] == ["t-1"]
    # An unknown transaction is waited for once.
    waited = sum(bad.reason == "unknown_transaction" for bad in BAD_FEEDBACK)
    assert len(refused(*answers)) + sum(j.repeats for j in answers) == 2 * len(BAD_FEEDBACK)
    assert sum(joined.repeats for joined in answers) == waited
    expected = Counter((bad.reason, bad.field) for bad in BAD_FEEDBACK)
    assert set(Counter(x[:2] for x in refused(*answers))) == set(expected)


@pytest.mark.parametrize("value", [b"rubbish", feedback(label="perhaps"), feedback(anomaly_id="a-2")])
def test_ten_thousand_times_the_same_bad_one_are_ten_thousand_dead_letters(desk: Desk, value: bytes) -> None:
    joined = desk.send([("t-1", value)] * 10_000)
    assert len(joined.refused) == 10_000
    assert (joined.labels, joined.examples) == ([], [])


def test_ten_thousand_repeats_of_a_good_one_teach_nothing_more(desk: Desk) -> None:
    assert len(desk.tell(verdict()).examples) == 1
    joined = desk.send([("t-1", msgspec.json.encode(verdict()))] * 10_000)
    assert (joined.labels, joined.examples, joined.refused) == ([], [], [])
    assert joined.repeats == 10_000


def test_a_flood_of_invented_transactions_by_one_source(desk: Desk) -> None:
    flood = [verdict(f"x-{n}", source="customer", analyst_id=None) for n in range(10_000)]
    answers = desk.tell(*flood), desk.join.close()
    assert len(refused(*answers)) == 10_000
    assert {reason for reason, _, _ in refused(*answers)} == {"unknown_transaction"}
    assert not any(joined.examples for joined in answers)


def test_a_weaker_source_that_contradicts_teaches_nothing(desk: Desk) -> None:
    desk.tell(verdict(source="chargeback"))
    flood = [
        verdict(label="legitimate", source=source, labelled_at=verdict().labelled_at + n)  # type: ignore[operator]
        for n in range(100)
        for source in ("customer", "analyst")
    ]
    joined = desk.tell(*flood)
    assert (joined.labels, joined.examples, joined.refused, joined.repeats) == ([], [], [], 200)
