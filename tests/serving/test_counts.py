from collections import Counter

from serving.users import User
from serving.views import Change, counted
from tests.serving.samples import START_MS, decided, known, label


def test_counts_are_by_minute_of_event_time() -> None:
    user = User()
    changes = []
    for record in (decided(1), decided(2)):
        judged = user.decide(record)
        assert judged is not None
        changes.append(Change(0, 0, record, judged, known()))
    for verdict in (label(1), label(2, is_fraud=False)):
        judged = user.label(verdict)
        assert judged is not None
        changes.append(Change(1, 0, verdict, judged, known()))

    first = START_MS // 60_000 + 1
    expected = Counter(decisions=1) + Counter({"country:FR": 1, "channel:online": 1})
    assert counted(changes) == {
        first: expected + Counter({"labelled:fraud": 1}),
        first + 1: expected + Counter({"labelled:legitimate": 1}),
    }
