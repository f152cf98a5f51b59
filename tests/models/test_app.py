import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from models.app import app
from models.artefact import load_model
from models.signing import Keyring, generate_keys

SMALL = [
    "--users",
    "300",
    "--terminals",
    "100",
    "--days",
    "20",
    "--fraud-rate",
    "0.02",
    "--label-delay-days",
    "2",
]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "200"})


def test_train_writes_an_artefact_and_reports(tmp_path: Path) -> None:
    out = tmp_path / "new" / "model"
    key, _ = generate_keys(tmp_path / "keys")
    result = run("--out", out, *SMALL, "--rounds", 10, "--version", "tiny-1", "--key", key)
    assert result.exit_code == 0, result.output
    assert load_model(out, Keyring.read(tmp_path / "keys")).version == "tiny-1"
    for told in ("auc_roc", "average_precision", "alert_precision", "observed frauds", "tiny-1"):
        assert told in result.output
    assert "not signed" not in result.output


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        (
            {"user_id": ["u"], "event_time": [1_780_000_000_000], "amount": [1.0]},
            "column is_fraud is missing",
        ),
        ({"user_id": [], "event_time": [], "amount": [], "is_fraud": []}, "there are no transactions"),
        (
            {"user_id": ["u"], "event_time": [4_000_000_000_000], "amount": [1.0], "is_fraud": [1]},
            "event_time: 1 lie in the future",
        ),
        (
            {"user_id": ["u"], "event_time": [1_780_000_000_000], "amount": [1.0], "is_fraud": [0]},
            "there is no fraud",
        ),
        ({"user_id": ["u"], "event_time": [1_780_000_000_000], "amount": ["x"]}, "amount"),
    ],
    ids=["column", "empty", "future", "fraud", "amount"],
)
def test_bad_file_writes_nothing(tmp_path: Path, columns: dict[str, Any], reason: str) -> None:
    data = tmp_path / "data.csv"
    pd.DataFrame(columns).to_csv(data, index=False)
    result = run(data, "--out", tmp_path / "model")
    assert result.exit_code == 1
    assert "not trained" in result.output
    assert reason in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["data.csv"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["nowhere.csv"], "no such file"),
        (["nowhere.csv", "--columns", "user_id"], "'user_id' is not WIRE=SOURCE"),
        (["--users", "1"], "users"),
        (["--days", "10"], "too few days"),
    ],
)
def test_bad_options(tmp_path: Path, arguments: list[str], reason: str) -> None:
    result = run("--out", tmp_path / "model", *arguments)
    assert result.exit_code == 1
    assert reason in result.output


def test_unsigned_artefact_is_called_so(tmp_path: Path) -> None:
    out = tmp_path / "model"
    result = run("--out", out, *SMALL, "--rounds", 10)
    assert result.exit_code == 0, result.output
    assert f"fraudstream models sign {out} --key FILE" in result.output


def test_nothing_is_trained_that_could_not_be_signed_or_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    for option, reason in (
        (("--key", tmp_path / "none.key"), "No such file"),
        (("--mlflow", "file:runs"), "mlflow is not installed"),
    ):
        result = run("--out", tmp_path / "model", *SMALL, *option)
        assert result.exit_code == 1
        assert reason in result.output
    assert list(tmp_path.iterdir()) == []


def test_existing_artefact_is_kept(tmp_path: Path) -> None:
    result = run("--out", tmp_path, *SMALL)
    assert result.exit_code == 1
    assert "never overwritten" in result.output
    assert list(tmp_path.iterdir()) == []
