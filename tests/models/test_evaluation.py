"""Evaluation from the command line, over a simulated world."""

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from models.evaluation_app import app
from simulator.config import SimulationConfig
from simulator.simulation import simulate

RUNNER = CliRunner()
QUICK = ("--parts", "gbt", "--rounds", "20", "--leaves", "8", "--threads", "1")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("evaluation") / "transactions.parquet"
    config = SimulationConfig(
        users=400, terminals=150, days=40, fraud_rate=0.02, seed=8, label_delay_days=3.0
    )
    simulate(config).transactions.to_parquet(path)
    return path


def evaluated(table: Path, *arguments: str) -> dict[str, object]:
    result = table.parent / "result.json"
    run = RUNNER.invoke(app, [*arguments, "--data", str(table), "--json", str(result), *QUICK])
    assert run.exit_code == 0, run.output
    figures: dict[str, object] = json.loads(result.read_text())
    return figures


@pytest.mark.parametrize(
    ("protocol", "options", "told"),
    [
        ("folds", ("--seeds", "1,2"), {"card_precision_at_100", "recall_at_fpr_1%"}),
        ("folds", ("--history", "open", "--top", "5"), {"card_precision_at_5"}),
        ("stream", ("--budgets", "5,20"), {"precision_at_100", "recall_at_20_a_day"}),
        ("temporal", ("--cost-fp", "3"), {"cost", "amount_lost", "share_saved"}),
    ],
)
def test_every_protocol_tells_its_figures(
    table: Path, protocol: str, options: tuple[str, ...], told: set[str]
) -> None:
    figures = evaluated(table, protocol, "--label-delay", "3", *options)
    mean = figures["mean"]
    assert isinstance(mean, dict)
    assert {"auc_roc", "average_precision", *told} <= set(mean)
    assert mean["auc_roc"] > 0.7
    assert set(figures) >= {"protocol", "mean", "std", "folds", "parts", "seconds"}
    parts = figures["parts"]
    assert isinstance(parts, dict)
    assert parts["gbt"]["auc_roc"] == pytest.approx(mean["auc_roc"], abs=0.02)


def test_plots_are_drawn(table: Path, tmp_path: Path) -> None:
    evaluated(table, "temporal", "--out", str(tmp_path / "plots"))
    drawn = {path.name for path in (tmp_path / "plots").iterdir()}
    assert drawn == {"temporal_precision_recall.png", "temporal_reliability.png", "temporal_parts.png"}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("folds", "--starts", "tomorrow"), "starts: 'tomorrow' is no list of dates"),
        (("folds", "--starts", "2001-01-01"), "there are no transactions in the training block"),
        (("folds", "--parts", "oracle"), "'oracle' is none of"),
        (("folds", "--seeds", "one"), "seeds: 'one' is no list of whole numbers"),
        (("stream", "--fit-end", "2001-01-01"), "no transactions in the training block"),
        (("temporal", "--columns", "amount"), "'amount' is not WIRE=SOURCE"),
    ],
)
def test_what_cannot_be_evaluated_is_told(table: Path, arguments: tuple[str, ...], reason: str) -> None:
    run = RUNNER.invoke(app, [*arguments, "--data", str(table)])
    assert run.exit_code == 1
    assert reason in " ".join(run.output.split())


def test_a_file_without_labels_is_told(tmp_path: Path) -> None:
    path = tmp_path / "bare.csv"
    pd.DataFrame({"transaction_id": ["1"], "user_id": ["a"], "event_time": [10**12], "amount": [1.0]}).to_csv(
        path, index=False
    )
    run = RUNNER.invoke(app, ["folds", "--data", str(path)])
    assert run.exit_code == 1
    assert "is_fraud" in run.output
