"""Where labelled transactions come from: a file of any known layout, or the simulator."""

from pathlib import Path

import pandas as pd

from models.history import HistoryError


def simulated(**world: float) -> pd.DataFrame:
    """Simulated transactions, each with the time at which its label becomes known.

    world: fields of SimulationConfig. Raises HistoryError where one is out of range.
    """
    from simulator.config import SimulationConfig  # noqa: PLC0415 - nothing else here needs a simulator
    from simulator.simulation import simulate  # noqa: PLC0415

    try:
        config = SimulationConfig.model_validate(world)
    except ValueError as error:
        raise HistoryError(str(error)) from error
    simulation = simulate(config)
    known = simulation.labels.set_index("transaction_id")["labelled_at"]
    return simulation.transactions.assign(labelled_at=simulation.transactions["transaction_id"].map(known))


def read(path: Path, layout: str, columns: str) -> pd.DataFrame:
    """The transactions of a file. Raises HistoryError where it has none or cannot be read."""
    from simulator.datasets import DatasetError, read_transactions  # noqa: PLC0415

    pairs = [pair.partition("=") for pair in columns.split(",") if pair]
    wrong = ["".join(pair) for pair in pairs if not all(pair)]
    if wrong:
        raise HistoryError(f"columns: {wrong[0]!r} is not WIRE=SOURCE")
    try:
        mapping = {wire: source for wire, _, source in pairs}
        chunks = list(read_transactions(path, layout, mapping))
    except DatasetError as error:
        raise HistoryError(str(error)) from error
    if not chunks:
        raise HistoryError(f"{path}: there are no transactions")
    frame: pd.DataFrame = pd.concat(chunks, ignore_index=True)
    return frame
