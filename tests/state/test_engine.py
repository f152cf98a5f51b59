"""The engines against the replay of the whole: whatever the batches, arena, restarts and shards."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from events.transaction import Transaction
from state.columns import label_array
from state.contract import MAX_RISK_DELAY_MS, N_TERMINAL, N_USER, U
from state.engine import TerminalEngine, UserEngine
from state.layout import LABEL, TRANSACTION
from state.user_kernel import Status
from tests.state.histories import DAY_MS, History, Keyed, arrays, label, replayed, steady
from tests.state.reference import KnownLabel

COUNT = 6000
CAPACITY = 130  # of 150 users; the 110 or so of a batch of 2000 must fit
DELAY_MS = DAY_MS


class Whole:
    """One history and what the replay says of it."""

    def __init__(self) -> None:
        self.transactions = steady(COUNT, 3)
        self.array = arrays(self.transactions)
        rng = np.random.default_rng(4)
        befores = np.sort(rng.integers(1, COUNT, 60)).tolist()
        self.labels = [
            KnownLabel(b, label(self.transactions[int(rng.integers(b))], bool(rng.random() < 0.8)))
            for b in befores
        ]
        self.replay = replayed(History(self.transactions, self.labels), DELAY_MS)


@pytest.fixture(scope="module")
def whole() -> Whole:
    return Whole()


def splits(longest: int, labels: Sequence[KnownLabel], seed: int) -> list[int]:
    """Ends of batches of 1 to `longest` transactions; a label becomes known between two batches."""
    rng = np.random.default_rng(seed)
    sizes = (
        rng.integers(1, longest + 1, 2 * COUNT // longest + 10) if longest > 1 else np.ones(COUNT, np.int64)
    )
    return sorted(
        {*np.cumsum(sizes).tolist(), *(known.before for known in labels), COUNT} & set(range(COUNT + 1))
    )


def streamed(
    whole: Whole, ends: Sequence[int], states: tuple[Keyed, Keyed], restarts: Sequence[int] = ()
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Features and status as the job computes them: batch after batch, the terminals after the users."""
    features = np.full((COUNT, N_USER + N_TERMINAL), np.nan, np.float32)
    status = np.empty(COUNT, np.uint8)
    users, terminals = engines(states)
    start = 0
    for end in ends:
        known = [k.label for k in whole.labels if k.before == start]
        array = label_array(known)
        users.label([k.user_id for k in known], array)
        placed = [k for k, named in enumerate(known) if named.terminal_id is not None]
        terminals.label([str(known[k].terminal_id) for k in placed], array[placed])
        if any(start <= restart < end for restart in restarts):
            users, terminals = engines(states)
        batch = whole.transactions[start:end]
        block, status[start:end] = users.features([t.user_id for t in batch], whole.array[start:end])
        features[start:end, :N_USER] = block
        scored = np.flatnonzero(status[start:end] <= Status.LATE) + start
        features[scored, N_USER:] = terminals.features(
            [whole.transactions[k].terminal_id for k in scored],
            whole.array[scored],
            features[scored, U.USER_FRAUDS],
        )
        start = end
    return features, status


def engines(states: tuple[Keyed, Keyed]) -> tuple[UserEngine, TerminalEngine]:
    return UserEngine(states[0], CAPACITY), TerminalEngine(states[1], DELAY_MS, 40)


@pytest.mark.parametrize("longest", [1, 7, 64, 500, 2000])
def test_every_split_into_batches_gives_the_features_of_the_replay(whole: Whole, longest: int) -> None:
    states = Keyed(), Keyed()
    features, status = streamed(whole, splits(longest, whole.labels, longest), states)
    assert status.tobytes() == whole.replay.status.tobytes()
    assert features.tobytes() == whole.replay.features.tobytes()
    assert set(whole.replay.status.tolist()) == {Status.FOLDED, Status.LATE, Status.REPEAT}
    assert states[0].reads > len(states[0]) > CAPACITY, "profiles were evicted and read again"


def test_a_restart_anywhere_changes_nothing(whole: Whole) -> None:
    ends = splits(200, whole.labels, 9)
    once, twice = (Keyed(), Keyed()), (Keyed(), Keyed())
    expected = streamed(whole, ends, once)
    found = streamed(whole, ends, twice, restarts=[1, 1234, 3000, 3001, 5999])
    assert found[0].tobytes() == expected[0].tobytes() == whole.replay.features.tobytes()
    assert found[1].tobytes() == expected[1].tobytes()
    assert twice == once, "the profiles too"


def test_two_shards_give_what_one_gives(whole: Whole) -> None:
    label_free = replayed(History(whole.transactions, []))
    users = [t.user_id for t in whole.transactions]
    shard = np.array([int(user[4:]) % 2 for user in users])
    for number in (0, 1):
        mine = np.flatnonzero(shard == number)
        engine = UserEngine(Keyed(), 200)
        features, status = engine.features([users[k] for k in mine], whole.array[mine])
        assert features.tobytes() == label_free.features[mine, :N_USER].tobytes()
        assert status.tobytes() == label_free.status[mine].tobytes()

    scored = np.flatnonzero(label_free.status <= Status.LATE)
    names = [whole.transactions[k].terminal_id for k in scored]
    frauds = label_free.features[scored, U.USER_FRAUDS]
    one = TerminalEngine(Keyed(), capacity=200).features(names, whole.array[scored], frauds)
    placed = np.array([0 if name is None else int(name[8:]) % 2 for name in names])
    for number in (0, 1):
        mine = np.flatnonzero(placed == number)
        part = TerminalEngine(Keyed(), capacity=200).features(
            [names[k] for k in mine], whole.array[scored[mine]], frauds[mine]
        )
        assert part.tobytes() == one[mine].tobytes()


def test_batches_as_they_come_over_the_wire_are_read_in_place(whole: Whole) -> None:
    """Sub-batches and labels arrive as bytes: the arrays over them are read-only."""
    part = np.frombuffer(whole.array[:50].tobytes(), TRANSACTION)
    labels = np.frombuffer(np.zeros(1, LABEL).tobytes(), LABEL)
    assert not part.flags.writeable
    names = [t.terminal_id for t in whole.transactions[:50]]
    found, expected = TerminalEngine(Keyed()), TerminalEngine(Keyed())
    found.label(["terminal1"], labels)
    expected.label(["terminal1"], labels.copy())
    frauds = np.zeros(50, np.float32)
    whole_array = whole.array[:50]
    assert (
        found.features(names, part, frauds).tobytes()
        == expected.features(names, whole_array, frauds).tobytes()
    )


def test_more_transactions_than_one_pass_takes_are_taken_in_several() -> None:
    transactions = [
        Transaction(f"id{k}", f"u{k}", 1_772_323_200_000, 1.0, terminal_id=f"t{k}") for k in range(5000)
    ]
    array = arrays(transactions)
    features, status = UserEngine(Keyed(), 4096).features([t.user_id for t in transactions], array)
    assert (features[:, :11] == features[0, :11]).all()
    assert not status.any()
    names = [t.terminal_id for t in transactions]
    visits = TerminalEngine(Keyed(), capacity=4096).features(names, array, features[:, U.USER_FRAUDS])
    assert (visits[:, 0] == 1).all()


def test_an_empty_batch_is_no_work() -> None:
    features, status = UserEngine(Keyed()).features([], arrays([]))
    assert features.shape == (0, N_USER)
    assert status.shape == (0,)
    assert TerminalEngine(Keyed()).features([], arrays([]), np.zeros(0, np.float32)).shape == (0, N_TERMINAL)


@pytest.mark.parametrize("delay_ms", [-1, MAX_RISK_DELAY_MS + 1])
def test_a_risk_delay_out_of_range_is_refused(delay_ms: int) -> None:
    with pytest.raises(ValueError, match="risk delay must be 0 to"):
        TerminalEngine(Keyed(), delay_ms)
