"""What was seen lately."""

from collections import OrderedDict

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from online_learning.recent import Recent
from online_learning.snapshot import decode, encode

CAPACITY = 5
steps = st.lists(st.tuples(st.sampled_from("abcdefghij"), st.integers(0, 100)), max_size=60)


class Holder(msgspec.Struct):
    recent: Recent


@given(steps, st.integers(0, 60))
def test_forgets_the_oldest_first_also_after_a_restart(given_: list[tuple[str, int]], restart: int) -> None:
    recent, reference = Recent(CAPACITY), OrderedDict[str, int]()
    for i, (identity, value) in enumerate(given_):
        if i == restart:
            recent = decode(encode(Holder(recent)), Holder).recent
        recent.put(identity, value)
        reference[identity] = value
        if len(reference) > CAPACITY:
            reference.popitem(last=False)
        assert {name: recent.get(name) for name in "abcdefghij"} == {
            name: reference.get(name) for name in "abcdefghij"
        }
