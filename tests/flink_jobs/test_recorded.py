"""A whole recorded data set through Kafka and the job, against the offline engine.

FRAUDSTREAM_DATA names a file and FRAUDSTREAM_FORMAT its format (see `fraudstream replay`); without them a
simulated data set is taken.
"""

import os
import time
from collections.abc import Iterable
from functools import partial

import msgspec
import numpy as np
import pytest
from xxhash import xxh3_64_intdigest

from events.decision import Decision
from events.transaction import Transaction
from simulator.columns import encode_transactions
from simulator.config import SimulationConfig
from simulator.datasets import read_transactions
from simulator.simulation import simulate
from stack.cluster import Cluster
from state.columns import field_values, transaction_array
from state.contract import N_USER
from state.replay import replay

pytestmark = [pytest.mark.stack, pytest.mark.slow]

ALONE = 2_000  # records sent one by one, so that they come in batches of one

# width, micro-batch window in ms, share of the data set by then
PHASES = ((1, 5, 0.2), (2, 20, 0.45), (1, 50, 0.7), (2, 10, 1.0))


def recorded() -> list[bytes]:
    """The transactions of the data set in their order, as JSON."""
    path = os.environ.get("FRAUDSTREAM_DATA")
    if path is None:
        config = SimulationConfig(users=5_000, terminals=1_000, days=40, seed=8)
        return encode_transactions(simulate(config).transactions)
    chunks = read_transactions(path, os.environ.get("FRAUDSTREAM_FORMAT", "fraudstream"))
    return [value for chunk in chunks for value in encode_transactions(chunk)]


def offline(transactions: list[Transaction]) -> dict[str, int]:
    """Digest of the user features of each transaction, by the offline engine."""
    array = transaction_array([field_values(t) for t in transactions])
    _, user = np.unique([t.user_id for t in transactions], return_inverse=True)
    features = replay(array, user.astype(np.int64), np.full(len(transactions), -1, np.int64)).features
    return {
        t.transaction_id: xxh3_64_intdigest(row[:N_USER].tobytes())
        for t, row in zip(transactions, features, strict=True)
    }


def send(cluster: Cluster, topic: str, transactions: Iterable[tuple[Transaction, bytes]]) -> None:
    cluster.produce(topic, ((t.user_id.encode(), value) for t, value in transactions))


def test_a_recorded_data_set_has_the_features_of_the_offline_engine(cluster: Cluster, prefix: str) -> None:
    values = recorded()
    transactions = msgspec.json.decode(b"[" + b",".join(values) + b"]", type=list[Transaction])
    both = list(zip(transactions, values, strict=True))
    topic, decided = f"{prefix}transactions", f"{prefix}decisions"
    savepoint, done = None, 0
    for width, batch_ms, share in PHASES:
        job = cluster.submit(
            prefix, "--shards", "2", "--width", str(width), "--batch-ms", str(batch_ms), savepoint=savepoint
        )
        begun, first = time.monotonic(), done
        if first == 0:
            for one in both[:ALONE]:
                send(cluster, topic, [one])
            done = ALONE
        end = int(share * len(both))
        send(cluster, topic, both[done:end])
        done = end
        cluster.until(partial(_reached, cluster, decided, done), 600, f"{done} decisions")
        took = time.monotonic() - begun
        print(f"width {width}, window {batch_ms} ms: {done - first:,} transactions in {took:.0f} s")
        savepoint = cluster.stop_with_savepoint(job)

    expected = offline(transactions)
    decode = msgspec.json.Decoder(Decision).decode
    answered = 0
    for _, value in cluster.raw(decided, len(both), timeout=600):
        decision = decode(value)
        answered += 1
        digest = expected.pop(decision.transaction_id, None)
        assert digest is not None, f"{decision.transaction_id} has two decisions, or was never sent"
        assert digest == xxh3_64_intdigest(decision.features[: 4 * N_USER]), decision.transaction_id
    assert not expected, f"{len(expected)} transactions have no decision"
    print(f"{answered:,} decisions, user features equal bit for bit")


def _reached(cluster: Cluster, topic: str, enough: int) -> bool:
    return cluster.count(topic) >= enough
