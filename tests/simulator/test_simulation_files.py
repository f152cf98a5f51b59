from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from events.codec import Decoder
from events.feedback import Label
from events.transaction import Transaction
from simulator.config import SimulationConfig
from simulator.datasets import read_transactions
from simulator.files import SimulationFiles, write_files
from simulator.simulation import Day, simulate, simulate_days

CONFIG = SimulationConfig(users=80, terminals=40, days=5, fraud_rate=0.05, seed=2)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_tables_read_back_as_they_were_simulated(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "deep" / f"run{suffix}"
    run = simulate(CONFIG)
    assert write_files(simulate_days(CONFIG), path) == len(run.transactions)
    chunks = list(read_transactions(path, chunk_rows=100))
    assert len(chunks) > 1
    read = pd.concat(chunks, ignore_index=True)
    pd.testing.assert_frame_equal(read, run.transactions, check_dtype=False)
    labels = (
        pd.read_csv(path.with_name("labels.csv"))
        if suffix == ".csv"
        else pd.read_parquet(path.with_name("labels.parquet"))
    )
    assert labels["transaction_id"].tolist() == run.labels["transaction_id"].tolist()
    assert labels["labelled_at"].tolist() == run.labels["labelled_at"].tolist()


def test_json_lines_are_wire_records(tmp_path: Path) -> None:
    write_files(simulate_days(CONFIG), tmp_path / "run.jsonl")
    run = simulate(CONFIG)
    transactions = Decoder(Transaction).decode((tmp_path / "run.jsonl").read_bytes().splitlines())
    assert [t.transaction_id for t in transactions if isinstance(t, Transaction)] == run.transactions[
        "transaction_id"
    ].tolist()
    labels = Decoder(Label).decode((tmp_path / "labels.jsonl").read_bytes().splitlines())
    assert [x.is_fraud for x in labels if isinstance(x, Label)] == run.labels["is_fraud"].tolist()


def test_an_interrupted_run_leaves_no_files(tmp_path: Path) -> None:
    days = simulate_days(CONFIG)
    first = next(days)

    def interrupted() -> Iterator[Day]:
        yield first
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_files(interrupted(), tmp_path / "run.csv")
    assert list(tmp_path.iterdir()) == []


def test_existing_files_are_kept_unless_told_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    path.with_name("labels.csv").write_text("mine")
    with pytest.raises(FileExistsError, match=r"labels\.csv"):
        write_files(simulate_days(CONFIG), path)
    assert write_files(simulate_days(CONFIG), path, overwrite=True) > 0


@pytest.mark.parametrize("name", ["run.xlsx", "run", "labels.csv"])
def test_names_that_cannot_be_written_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        SimulationFiles(tmp_path / name)
