"""Labelled examples of made-up traffic: an ensemble that knows it, and a pattern that it does not know."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from events.example import Example
from models.online import squash
from state.contract import CONTRACT_VERSION, N_FEATURES

START_MS = 1_764_000_000_000
RISKY = (3, 25, 60)
"""Features that the ensemble goes by."""
UNSEEN = (11, 40, 100)
"""Features that the unseen pattern shows in."""


class Traffic(NamedTuple):
    """features: f4 [n, N_FEATURES]; offline: f8 [n], the ensemble's probability; is_fraud: bool [n]."""

    features: NDArray[np.float32]
    offline: NDArray[np.float64]
    is_fraud: NDArray[np.bool_]

    def rows(self, chosen: Any) -> "Traffic":
        """Some of the transactions."""
        return Traffic(self.features[chosen], self.offline[chosen], self.is_fraud[chosen])


def ordinary(n: int, seed: int, base: float = -4.0, missing: float = 0.05) -> Traffic:
    """Traffic of which the ensemble's probabilities are true. base: log-odds of fraud without any sign."""
    rng = np.random.default_rng(seed)
    features = rng.lognormal(0, 1, (n, N_FEATURES)).astype("<f4")
    features[:, UNSEEN] **= 0.3
    features[rng.random(features.shape) < missing] = np.nan
    signs = np.nan_to_num(squash(features[:, RISKY]) - 0.8).sum(axis=1).astype(np.float64)
    offline = 1 / (1 + np.exp(-(base + 1.5 * signs)))
    return Traffic(features, offline, rng.random(n) < offline)


def unseen_frauds(n: int, seed: int) -> Traffic:
    """Frauds that the ensemble takes for ordinary traffic."""
    traffic = ordinary(n, seed)
    rng = np.random.default_rng(seed + 1)
    traffic.features[:, UNSEEN] = rng.lognormal(1.5, 0.3, (n, len(UNSEEN)))
    return Traffic(traffic.features, traffic.offline, np.ones(n, np.bool_))


def shuffled(seed: int, *parts: Traffic) -> Traffic:
    """All parts in one, in any order."""
    whole = Traffic(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    return whole.rows(np.random.default_rng(seed).permutation(len(whole.is_fraud)))


def examples(traffic: Traffic, prefix: str, start_ms: int = START_MS, **fields: Any) -> list[Example]:
    """An example for each transaction, a minute apart; `fields` over those it has by itself."""
    known: dict[str, Any] = {
        "user_id": "user-1", "source": "analyst", "analyst_id": "analyst-1",
        "contract_version": CONTRACT_VERSION, "model_version": "ensemble-1",
    }  # fmt: skip
    return [
        Example(
            **known
            | {
                "example_id": f"{prefix}-{i}",
                "transaction_id": f"{prefix}-tx-{i}",
                "event_time": start_ms + 60_000 * i,
                "labelled_at": start_ms + 60_000 * i,
                "is_fraud": bool(traffic.is_fraud[i]),
                "features": traffic.features[i].tobytes(),
                "score": float(traffic.offline[i]),
            }
            | fields
        )
        for i in range(len(traffic.is_fraud))
    ]


def interleaved(*streams: Iterable[Example]) -> list[Example]:
    """All examples by the time of their labels."""
    return sorted((e for stream in streams for e in stream), key=lambda e: e.labelled_at)
