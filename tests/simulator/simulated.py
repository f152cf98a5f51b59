"""One simulated world that several tests look at from different sides."""

from functools import cache

import pandas as pd

from simulator.config import SimulationConfig
from simulator.simulation import Simulation, simulate


@cache
def complete_world() -> Simulation:
    """Enough fraud of every pattern to look at, and no missing fields that would hide it."""
    return simulate(
        SimulationConfig(users=600, terminals=300, days=60, seed=11, fraud_rate=0.03, missing_rate=0.0)
    )


def fraud(pattern: str) -> pd.DataFrame:
    transactions = complete_world().transactions
    return transactions[transactions["fraud_scenario"] == pattern]


def ordinary() -> pd.DataFrame:
    transactions = complete_world().transactions
    return transactions[transactions["is_fraud"] == 0]
