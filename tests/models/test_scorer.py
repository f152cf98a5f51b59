from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from events.control import ModelUpdate, Thresholds
from models import heuristic
from models.artefact import SIGNATURE_FILE, ModelRefusedError, load_model, probe_batch
from models.model import Model, Part, Scores
from models.online import of_ensemble
from models.scorer import SAFE_VERSION, Scorer
from models.signing import TRUSTED_KEYS, Keyring
from state.contract import N_FEATURES
from tests.models.online_weights import online_update

NOBODY = Keyring({})


def update(**fields: Any) -> ModelUpdate:
    return ModelUpdate(**fields, issued_at=1_700_000_000_000, issued_by="test")


class BrokenModel(Model):
    """A loaded model whose runtime fails while `fault` is set."""

    fault: Exception | float | None = None

    def score(self, features: NDArray[np.float32]) -> Scores:
        if isinstance(self.fault, Exception):
            raise self.fault
        scores = super().score(features)
        if self.fault is not None:
            scores.score[-1] = self.fault
        return scores


@pytest.fixture
def breakable(onnx: bytes) -> BrokenModel:
    identity = ([0, 1], [0, 1])
    return BrokenModel("breakable", {"trees": Part(onnx, identity, 1.0)}, identity, Thresholds(0.2, 0.8))


def test_without_a_model_the_heuristic_decides() -> None:
    features = probe_batch()
    scorer = Scorer(None, NOBODY)
    scores = scorer.score(features)
    assert scores.degraded
    assert scores.model_version == heuristic.VERSION
    assert scores.score.tolist() == heuristic.heuristic(features).tolist()
    assert scorer.failures == 0


def test_with_a_model_it_decides(artefact: Path, keyring: Keyring) -> None:
    scores = Scorer(load_model(artefact, keyring), keyring).score(probe_batch())
    assert not scores.degraded
    assert scores.model_version == "gbt-test"
    assert list(scores.parts) == ["trees"]


@pytest.mark.parametrize("fault", [RuntimeError("out of memory"), float("nan"), float("inf")])
def test_failure_falls_back_and_recovers(breakable: BrokenModel, fault: Exception | float) -> None:
    scorer = Scorer(breakable, NOBODY)
    features = probe_batch()
    good = scorer.score(features)
    breakable.fault = fault
    for count in (1, 2):
        scores = scorer.score(features)
        assert scores.degraded
        assert np.isfinite(scores.score).all()
        assert scores.score.tolist() == heuristic.heuristic(features).tolist()
        assert scorer.failures == count
    breakable.fault = None
    assert scorer.score(features).score.tolist() == good.score.tolist()
    assert scorer.failures == 2


def test_features_of_another_width_degrade_rather_than_raise(breakable: BrokenModel) -> None:
    scorer = Scorer(breakable, NOBODY)
    assert scorer.score(np.zeros((3, N_FEATURES + 1), np.float32)).degraded
    assert scorer.failures == 1


def test_degraded_scores_are_held_against_the_limits_of_the_heuristic(breakable: BrokenModel) -> None:
    scorer = Scorer(breakable, NOBODY)
    score = np.array([0.15, 0.2, 0.75, 0.8])
    assert scorer.levels(score).tolist() == [0, 1, 1, 2]
    assert scorer.levels(score, degraded=True).tolist() == [1, 1, 2, 2]
    assert scorer.verdicts(score) == ["approve", "review", "review", "block"]
    assert Scorer(None, NOBODY).levels(score).tolist() == [1, 1, 2, 2]


def test_update_swaps_the_model(artefact: Path, keyring: Keyring) -> None:
    scorer = Scorer(None, keyring)
    scorer.apply(update(slot="model", artefact=str(artefact)))
    assert scorer.score(probe_batch()).model_version == "gbt-test"
    assert scorer.thresholds == Thresholds(0.4, 0.9)


@pytest.mark.parametrize(("spoilt", "reason"), [("trees.onnx", "SHA-256"), (SIGNATURE_FILE, "malformed")])
def test_refused_update_leaves_everything(
    artefact: Path, breakable: BrokenModel, keyring: Keyring, spoilt: str, reason: str
) -> None:
    scorer = Scorer(breakable, keyring)
    (artefact / spoilt).write_bytes(b"spoilt")
    before = scorer.score(probe_batch())
    with pytest.raises(ModelRefusedError, match=reason):
        scorer.apply(update(slot="model", artefact=str(artefact)))
    after = scorer.score(probe_batch())
    assert scorer.thresholds == Thresholds(0.2, 0.8)
    assert after.model_version == before.model_version
    assert after.score.tolist() == before.score.tolist()


def test_update_to_an_artefact_that_nobody_trusted_signed(artefact: Path, breakable: BrokenModel) -> None:
    scorer = Scorer(breakable, NOBODY)
    with pytest.raises(ModelRefusedError, match="not among the trusted keys"):
        scorer.apply(update(slot="model", artefact=str(artefact)))
    assert scorer.model is breakable


def test_failures_of_parts_are_counted(onnx: bytes) -> None:
    identity = ([0, 1], [0, 1])
    parts = {name: Part(onnx, identity, 0.5) for name in ("one", "other")}
    scorer = Scorer(Model("two", parts, identity, Thresholds(0.2, 0.8)), NOBODY)
    assert not scorer.score(probe_batch()).degraded
    assert scorer.part_failures == 0
    scorer.score(np.zeros((3, N_FEATURES + 1), np.float32))
    assert scorer.part_failures == 2
    assert Scorer(None, NOBODY).part_failures == 0


def test_thresholds_outlast_the_model_until_cleared(
    artefact: Path, breakable: BrokenModel, keyring: Keyring
) -> None:
    scorer = Scorer(breakable, keyring)
    scorer.apply(update(slot="thresholds", thresholds=Thresholds(0.5, 0.6)))
    assert scorer.thresholds == Thresholds(0.5, 0.6)
    scorer.apply(update(slot="model", artefact=str(artefact)))
    assert scorer.thresholds == Thresholds(0.5, 0.6)
    scorer.clear("thresholds")
    assert scorer.thresholds == Thresholds(0.4, 0.9)
    scorer.clear("model")
    assert scorer.score(probe_batch()).model_version == "gbt-test"
    with pytest.raises(ModelRefusedError, match="unknown slot 'other'"):
        scorer.clear("other")


def test_the_online_part_is_pooled_with_the_model_until_it_is_cleared(
    artefact: Path, keyring: Keyring
) -> None:
    features, scorer = probe_batch(), Scorer(load_model(artefact, keyring), keyring)
    alone = scorer.score(features)
    scorer.apply(online_update())
    scores = scorer.score(features)

    assert scores.model_version == "gbt-test+online-7"
    assert list(scores.parts) == ["trees", "offline", "online"]
    assert scores.parts["offline"].tolist() == alone.score.tolist()
    assert scores.score.tolist() != alone.score.tolist()
    low, high = (
        reduce((scores.parts["offline"], scores.parts["online"]))
        for reduce in (np.minimum.reduce, np.maximum.reduce)
    )
    assert ((scores.score >= low - 1e-9) & (scores.score <= high + 1e-9)).all()
    # It goes with whatever model there is.
    scorer.apply(update(slot="model", artefact=str(artefact)))
    assert scorer.score(features).model_version == "gbt-test+online-7"
    scorer.clear("online")
    again = scorer.score(features)
    assert again.model_version == "gbt-test"
    assert again.score.tolist() == alone.score.tolist()
    assert list(again.parts) == ["trees"]


def test_in_safe_mode_no_model_decides_and_no_score_blocks(artefact: Path, keyring: Keyring) -> None:
    features, scorer = probe_batch(), Scorer(load_model(artefact, keyring), keyring)
    scorer.apply(online_update())
    before = scorer.score(features)
    scorer.apply(update(slot="safe_mode", reason="a test"))
    scores = scorer.score(features)

    assert scores.model_version == "heuristic-1+safe-mode"
    assert of_ensemble(scores.model_version) == heuristic.VERSION
    assert scores.degraded
    assert scores.score.tolist() == heuristic.heuristic(features).tolist()
    assert list(scores.parts) == ["heuristic"]
    assert scorer.verdicts(np.array([0.1, 0.15, 0.75, 1.0]), scores.degraded) == ["approve"] + 3 * ["review"]
    assert (scorer.failures, scorer.part_failures) == (0, 0)

    # What comes meanwhile is taken, and holds once safe mode ends.
    scorer.apply(update(slot="thresholds", thresholds=Thresholds(0.5, 0.6)))
    assert scorer.score(features).model_version == SAFE_VERSION
    scorer.clear("safe_mode")
    after = scorer.score(features)
    assert after.model_version == before.model_version == "gbt-test+online-7"
    assert after.score.tolist() == before.score.tolist()
    assert scorer.verdicts(np.array([0.55, 0.6])) == ["review", "block"]


def test_safe_mode_without_a_model_blocks_nothing_either() -> None:
    scorer = Scorer(None, NOBODY)
    assert scorer.verdicts(np.array([0.9]), degraded=True) == ["block"]
    scorer.apply(update(slot="safe_mode", reason="a test"))
    assert scorer.verdicts(np.array([0.9]), degraded=True) == ["review"]


def test_refused_online_weights_leave_the_last_ones(artefact: Path, keyring: Keyring) -> None:
    scorer = Scorer(load_model(artefact, keyring), keyring)
    scorer.apply(online_update())
    with pytest.raises(ModelRefusedError, match="online-8: the feature list differs"):
        scorer.apply(online_update(version="online-8", features_sha256="0" * 64))
    assert scorer.score(probe_batch()).model_version == "gbt-test+online-7"


def test_the_heuristic_decides_without_the_online_part(breakable: BrokenModel) -> None:
    scorer = Scorer(breakable, NOBODY)
    scorer.apply(online_update())
    breakable.fault = RuntimeError("out of memory")
    scores = scorer.score(probe_batch())

    assert scores.model_version == heuristic.VERSION
    assert list(scores.parts) == ["heuristic"]


def test_where_the_online_part_gives_no_score_the_model_decides_alone(breakable: BrokenModel) -> None:
    scorer = Scorer(breakable, NOBODY)
    scorer.apply(online_update(scale=[0.0] * len(online_update().online.features)))  # type: ignore[union-attr]
    features = np.full((3, N_FEATURES), np.inf, np.float32)
    scores = scorer.score(features)

    assert scores.model_version == "breakable"
    assert not scores.degraded
    assert np.isfinite(scores.score).all()
    assert scorer.part_failures == 1


def test_update_names_either_a_model_or_thresholds() -> None:
    with pytest.raises(msgspec.ValidationError, match="slot model takes an artefact"):
        msgspec.convert({"slot": "model", "issued_at": 1_700_000_000_000, "issued_by": "x"}, ModelUpdate)


def test_score_of_a_row_depends_on_its_batch_by_rounding_alone(shipped: Path) -> None:
    model = load_model(shipped, Keyring.read(TRUSTED_KEYS))
    rng = np.random.default_rng(7)
    features = np.concatenate([probe_batch(), rng.lognormal(1, 2, (1936, N_FEATURES)).astype(np.float32)])
    features[64:][rng.random((1936, N_FEATURES)) < 0.3] = np.nan
    whole = model.score(features).score
    assert len(np.unique(whole)) > 100
    for size in (1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 64, 65, 127, 128, 500, 1000, 1999):
        parts = [model.score(features[i : i + size]).score for i in range(0, len(features), size)]
        assert np.abs(np.concatenate(parts) - whole).max() < 1e-5, size


def test_empty_batch(artefact: Path, keyring: Keyring) -> None:
    empty = np.empty((0, N_FEATURES), np.float32)
    assert Scorer(load_model(artefact, keyring), keyring).score(empty).score.shape == (0,)
    assert Scorer(None, NOBODY).score(empty).score.shape == (0,)
