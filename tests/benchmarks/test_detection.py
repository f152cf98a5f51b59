"""The simulator's traffic in the columns of other data sets, through the same commands."""

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from benchmarks.detection import in_columns_of
from models.evaluation_app import app
from simulator.config import SimulationConfig
from simulator.datasets import read_transactions
from simulator.simulation import simulate


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    config = SimulationConfig(users=400, terminals=150, days=40, fraud_rate=0.02, seed=8)
    return simulate(config).transactions


@pytest.mark.parametrize("layout", ["sparkov", "paysim"])
def test_other_columns_are_read_and_evaluated(frame: pd.DataFrame, tmp_path: Path, layout: str) -> None:
    table = tmp_path / f"{layout}.csv"
    written = in_columns_of(layout, frame)
    written.to_csv(table, index=False)
    read = pd.concat(read_transactions(table, layout))
    assert len(read) == len(written) > len(frame) / 2
    assert read["is_fraud"].sum() > 100
    assert read["event_time"].is_monotonic_increasing

    result = tmp_path / "result.json"
    options = ("--parts", "gbt", "--rounds", "20", "--label-delay", "3", "--threads", "1")
    run = CliRunner().invoke(
        app, ["temporal", "--data", str(table), "--format", layout, "--json", str(result), *options]
    )
    assert run.exit_code == 0, run.output
    assert json.loads(result.read_text())["mean"]["auc_roc"] > 0.7
