"""What a kept decision costs, and that its layout is known."""

import msgspec
import numpy as np
import pytest

from events.transaction import Transaction
from online_learning.join import JoinSettings
from online_learning.remembered import LAYOUT, pack, unpack
from simulator.columns import encode_transactions
from simulator.config import SimulationConfig
from simulator.simulation import simulate
from state.columns import field_values, transaction_array
from state.migration import UnknownLayoutError
from state.replay import replay
from tests.online_learning.feedback import Desk, decision

MOST = 600
FLINK = 40  # key group, shard, lengths and the time to live of an entry


def simulated() -> list[bytes]:
    """Features of simulated transactions, of users with a history."""
    frame = simulate(SimulationConfig(users=200, terminals=60, days=20, seed=5)).transactions
    transactions = [msgspec.json.decode(value, type=Transaction) for value in encode_transactions(frame)]
    array = transaction_array([field_values(t) for t in transactions])
    _, user = np.unique([t.user_id for t in transactions], return_inverse=True)
    _, terminal = np.unique([t.terminal_id or "" for t in transactions], return_inverse=True)
    features = replay(array, user.astype(np.int64), terminal.astype(np.int64)).features
    return [row.tobytes() for row in features[len(features) // 2 :]]


def test_a_kept_decision_takes_at_most_six_hundred_bytes_with_long_ids_and_five_parts() -> None:
    desk = Desk(JoinSettings(floor=0.0))
    uuid = "0190a6a2-7c1e-7d4f-9a3b-{:012d}"
    parts = {"gbt": 0.1, "forest": 0.2, "sequence": 0.3, "offline": 0.2, "online": 0.3}
    vectors = simulated()
    desk.decide(
        *(
            decision(
                uuid.format(n), uuid.format(n % 200), terminal_id=f"terminal-{n % 60:06d}", features=features,
                parts=parts, model_version="ensemble-54b7cb7d04ad+online-17",
            )
            for n, features in enumerate(vectors)
        )
    )  # fmt: skip
    sizes = [len(key) + len(value) + FLINK for key, value in desk.transactions.items()]
    assert len(sizes) == len(vectors) > 2_000
    assert np.mean(sizes) <= MOST
    assert np.quantile(sizes, 0.99) <= MOST


def test_another_layout_is_not_misread() -> None:
    with pytest.raises(UnknownLayoutError, match=f"layout {LAYOUT + 1}"):
        unpack(bytes((LAYOUT + 1,)) + pack([])[1:])
