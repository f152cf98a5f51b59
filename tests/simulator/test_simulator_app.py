from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from simulator.app import app


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner(env={"FRAUDSTREAM_BOOTSTRAP": ""}).invoke(app, list(arguments))
    return result.exit_code, " ".join(result.output.split())


def test_simulate_writes_files_and_says_how_much(tmp_path: Path) -> None:
    path = tmp_path / "run.parquet"
    code, said = run(
        *("simulate", "--out", str(path), "--users", "50", "--terminals", "40", "--days", "4"),
        *("--fraud-rate", "0.05", "--mix", "slow_mimicry=0", "--drift", "card_testing:2:appears"),
    )
    assert code == 0, said
    frame = pd.read_parquet(path)
    assert f"{len(frame):,} transactions" in said
    assert "slow_mimicry" not in set(frame["fraud_scenario"])
    assert path.with_name("labels.parquet").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["simulate"], "--out FILE, or --bootstrap"),
        (["simulate", "--out", "run.txt"], ".jsonl, .csv or .parquet"),
        (
            ["simulate", "--out", "run.csv", "--users", "3"],
            "users: Input should be greater than or equal to 10",
        ),
        (["simulate", "--out", "run.csv", "--drift", "x"], "pattern:day:change"),
        (["simulate", "--out", "run.csv", "--mix", "card_testing=lots"], "mix: could not convert"),
        (["simulate", "--out", "run.csv", "--tps", "5"], "for Kafka"),
        (["simulate", "--bootstrap", "h:1", "--tps", "5", "--now", "--labels"], "--now and --labels exclude"),
        (["simulate", "--bootstrap", "h:1", "--tps", "5", "--speed", "2"], "tps and speed exclude"),
        (["replay", "none.csv"], "--bootstrap"),
        (["replay", "none.csv", "--bootstrap", "h:1"], "no such file"),
        (["replay", "none.csv", "--bootstrap", "h:1", "--format", "ieee"], "unknown format"),
        (["replay", "none.csv", "--bootstrap", "h:1", "--columns", "user_id"], "NAME=VALUE"),
        (["replay", "none.csv", "--bootstrap", "h:1", "--time-unit", "weeks"], "unknown time unit"),
    ],
)
def test_wrong_options_end_with_a_reason(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, output = run(*arguments)
    assert code == 1
    assert said in output
    assert list(tmp_path.iterdir()) == []


def test_a_bad_row_is_found_before_anything_is_sent(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("user_id,event_time,amount\n" + "a,2026-03-01,1\n" * 30_000 + "a,soon,1\n")
    # Nothing listens at this address: the row is reported, not the broker.
    code, said = run("replay", str(path), "--bootstrap", "localhost:1")
    assert code == 1
    assert "column event_time, row 30001: 'soon'" in said


def test_labels_need_the_truth(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("user_id,event_time,amount\na,2026-03-01,1\n")
    code, said = run("replay", str(path), "--bootstrap", "localhost:1", "--labels")
    assert code == 1
    assert "no is_fraud column" in said
