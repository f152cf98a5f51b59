import msgspec
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from events.codec import Decoder, Invalid
from events.feedback import Label
from events.transaction import Transaction
from simulator.columns import (
    LABEL_COLUMNS,
    TRUTH_COLUMNS,
    WIRE_COLUMNS,
    encode_labels,
    encode_transactions,
    maturity_labels,
)
from simulator.config import SimulationConfig
from simulator.simulation import simulate

# Nobody asked for a simulated transaction, so there is no request that it belongs to.
SIMULATED = tuple(name for name in WIRE_COLUMNS if name != "correlation_id")


@settings(max_examples=10)
@given(st.integers(0, 2**40), st.sampled_from([0.0, 0.1, 1.0]))
def test_simulated_rows_are_valid_on_the_wire(seed: int, missing_rate: float) -> None:
    run = simulate(
        SimulationConfig(users=40, terminals=30, days=4, seed=seed, fraud_rate=0.1, missing_rate=missing_rate)
    )
    transactions = Decoder(Transaction).decode(encode_transactions(run.transactions))
    assert not [answer for answer in transactions if isinstance(answer, Invalid)]
    labels = Decoder(Label).decode(encode_labels(run.labels))
    assert not [answer for answer in labels if isinstance(answer, Invalid)]
    assert len(transactions) == len(run.transactions)


def test_columns_are_those_of_the_wire() -> None:
    run = simulate(SimulationConfig(users=20, terminals=20, days=1))
    assert tuple(run.transactions) == (*SIMULATED, *TRUTH_COLUMNS)
    assert tuple(run.labels) == LABEL_COLUMNS


def test_json_holds_the_values_without_the_ground_truth() -> None:
    frame = simulate(SimulationConfig(users=60, terminals=30, days=3, missing_rate=0.3)).transactions
    for row, payload in zip(frame.to_dict("records"), encode_transactions(frame), strict=True):
        known = {name: row[name] for name in SIMULATED if not pd.isna(row[name])}
        assert msgspec.json.decode(payload) == known


def test_recorded_transactions_get_their_labels_after_the_delay() -> None:
    frame = pd.DataFrame(
        {
            "transaction_id": ["1", "2"],
            "user_id": ["a", "b"],
            "event_time": [10**12, 10**12 + 5],
            "amount": [7.5, 1.0],
            "is_fraud": [1, 0],
        }
    )
    labels = maturity_labels(frame, 2.0)
    assert labels["labelled_at"].tolist() == [10**12 + 172_800_000, 10**12 + 172_800_005]
    first, second = Decoder(Label).decode(encode_labels(labels))
    assert isinstance(first, Label)
    assert isinstance(second, Label)
    assert (first.is_fraud, second.is_fraud) == (True, False)
    assert first.terminal_id is None
    assert first.amount == 7.5
