import time
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from models.artefact import load_model, read_manifest, write_artefact
from models.heuristic import heuristic
from models.history import History, history
from models.parts.trees import TreeOptions
from models.training import (
    Trained,
    TrainingError,
    TrainingOptions,
    artefact_files,
    choose_thresholds,
    manifest,
    onnx_difference,
    split,
    train,
)
from simulator.config import SimulationConfig
from simulator.simulation import simulate
from state.contract import DAY_MS, N_FEATURES
from state.replay import replay
from tests.models.artefacts import trusting

KEY = Ed25519PrivateKey.generate()
NOW = round(time.time() * 1000)
DELAY_MS = 3 * DAY_MS
OPTIONS = TrainingOptions(parts=("gbt",), trees=TreeOptions(rounds=30), label_delay_days=3.0, threads=1)


@pytest.fixture(scope="module")
def past() -> History:
    config = SimulationConfig(
        users=500, terminals=200, days=28, fraud_rate=0.02, seed=5, label_delay_days=3.0
    )
    return history(simulate(config).transactions, 3.0, NOW)


@pytest.fixture(scope="module")
def steps() -> list[str]:
    return []


@pytest.fixture(scope="module")
def trained(past: History, steps: list[str]) -> Trained:
    return train(past, OPTIONS, steps.append)


def part(past: History, rows: NDArray[np.bool_]) -> History:
    return past._replace(**{name: column[rows] for name, column in past._asdict().items()})


def test_small_model_is_worth_something(trained: Trained, steps: list[str]) -> None:
    assert steps == ["features", "gbt", "metrics"]
    test = trained.metrics["test"]
    assert test["auc_roc"] > 0.8
    assert test["average_precision"] > 5 * test["fraud_rate"]
    assert trained.metrics["test_without_optional_fields"]["auc_roc"] > 0.6
    assert test["mean_score"] == pytest.approx(test["fraud_rate"], rel=0.6)
    assert trained.onnx_difference["gbt"] < 1e-5
    assert sum(map(len, artefact_files(trained).values())) < 1 << 20
    assert any(name.startswith("alert_recall_of_") for name in trained.metrics["test_at_thresholds"])


def test_artefact_of_a_trained_model_loads(trained: Trained, tmp_path: Path) -> None:
    told = manifest(trained, None, "simulator", OPTIONS)
    write_artefact(tmp_path / "model", told, artefact_files(trained), KEY)
    model = load_model(tmp_path / "model", trusting(tester=KEY))
    assert model.version == told.model_version
    assert read_manifest(tmp_path / "model").training.frauds == trained.frauds


def test_training_is_deterministic(past: History, trained: Trained) -> None:
    again = train(past, OPTIONS, lambda _: None)
    assert artefact_files(again) == artefact_files(trained)
    assert again.ensemble.calibration == trained.ensemble.calibration
    assert again.data_sha256 == trained.data_sha256
    assert again.baseline == trained.baseline
    assert again.thresholds == trained.thresholds


def test_heuristic_on_simulated_traffic(past: History) -> None:
    result = replay(past.transactions, past.user, past.terminal, past.known_labels(), DELAY_MS)
    scored = result.status <= 1
    assert roc_auc_score(past.is_fraud[scored], heuristic(result.features[scored])) > 0.7


def test_blocks_are_apart_by_the_label_delay(past: History) -> None:
    blocks = split(past, DELAY_MS)
    assert blocks.train.start == 0
    assert blocks.test.stop == len(past.time)
    for earlier, later in ((blocks.train, blocks.calibration), (blocks.calibration, blocks.test)):
        assert past.time[later.start] - past.time[earlier.stop - 1] >= DELAY_MS


def test_no_fraud(past: History) -> None:
    with pytest.raises(TrainingError, match="there is no fraud"):
        train(past._replace(is_fraud=np.zeros_like(past.is_fraud)), OPTIONS, lambda _: None)


def test_nothing_but_fraud(past: History) -> None:
    with pytest.raises(TrainingError, match="nothing but fraud"):
        train(past._replace(is_fraud=np.ones_like(past.is_fraud)), OPTIONS, lambda _: None)


def test_block_without_fraud(past: History) -> None:
    late = past.time > past.time[0] + 20 * DAY_MS
    with pytest.raises(TrainingError, match=r"test block of .* has one class only"):
        split(past._replace(is_fraud=past.is_fraud & ~late), DELAY_MS)


def test_too_few_days(past: History) -> None:
    with pytest.raises(TrainingError, match=r"too few days, 10\.0; a label delay of 3 needs 11"):
        split(part(past, past.time < past.time[0] + 10 * DAY_MS), DELAY_MS)


def test_features_that_never_vary_are_named(trained: Trained, past: History) -> None:
    plain = past.transactions.copy()
    plain["device"] = 0
    bare = train(
        past._replace(transactions=plain), OPTIONS._replace(trees=TreeOptions(rounds=2)), lambda _: None
    )
    assert {"new_device", "device_count"} <= set(bare.constant)
    assert "new_device" not in trained.constant


def test_export_that_differs_is_an_error(trained: Trained, past: History) -> None:
    other = train(past, OPTIONS._replace(trees=TreeOptions(rounds=5)), lambda _: None)
    mixed = trained.ensemble.parts["gbt"]._replace(onnx=other.ensemble.parts["gbt"].onnx)
    with pytest.raises(TrainingError, match="gbt: the exported model differs from the trained one"):
        onnx_difference("gbt", mixed, np.zeros((1, N_FEATURES), np.float32))


class TestThresholds:
    score = np.linspace(0, 1, 1001)
    fraud = np.linspace(0, 1, 1001) > 0.95

    def test_review_by_false_alarms(self) -> None:
        limits = choose_thresholds(self.score, self.fraud, 10, OPTIONS._replace(review_fpr=0.1))
        assert (self.score >= limits.review)[~self.fraud].mean() == pytest.approx(0.1, abs=0.001)

    def test_review_by_alerts_a_day(self) -> None:
        limits = choose_thresholds(self.score, self.fraud, 10, OPTIONS._replace(alerts_per_day=8))
        assert (self.score >= limits.review).sum() == 80

    def test_block_by_precision(self) -> None:
        limits = choose_thresholds(self.score, self.fraud, 10, OPTIONS._replace(review_fpr=0.1))
        assert self.fraud[self.score >= limits.block].mean() >= 0.9
        assert limits.block == pytest.approx(0.945, abs=0.001)  # 50 frauds among the upper 55

    def test_nothing_is_blocked_where_precision_is_out_of_reach(self) -> None:
        limits = choose_thresholds(self.score, ~self.fraud, 10, OPTIONS)
        assert limits.block == 1.0
