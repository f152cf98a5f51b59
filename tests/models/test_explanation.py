from pathlib import Path

import lightgbm as lgb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from models import heuristic
from models.artefact import MANIFEST_FILE, load_model
from models.explanation import (
    TREES_FILE,
    Explainer,
    ExplanationError,
    explain_heuristic,
    load_explainer,
    shares,
)
from models.model import LEAST
from state.contract import FEATURE_NAMES, N_FEATURES
from tests.models.small_models import UNSIGNED, VERSION, random_features, trees, write_small_artefact

FEATURES = arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.just(N_FEATURES)),
    elements=st.floats(-1e6, 1e6, width=32) | st.just(float("nan")),
)
PROBABILITIES = st.floats(0, 1)


def log_odds(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    held = np.clip(probability, LEAST, 1 - LEAST)
    return np.asarray(np.log(held / (1 - held)))


@pytest.fixture(scope="module")
def alone() -> Explainer:
    return Explainer(VERSION, lgb.Booster(model_str=trees().model_to_string()), {"gbt": 1.0})


@settings(max_examples=30)
@given(FEATURES)
def test_values_and_base_sum_to_the_log_odds_of_the_trees(
    alone: Explainer, features: NDArray[np.float32]
) -> None:
    raw = np.asarray(trees().predict(features, raw_score=True))
    explained = alone.explain(features, [{"gbt": float(p)} for p in 1 / (1 + np.exp(-raw))])

    assert explained.base + explained.features.sum(axis=1) == pytest.approx(raw, abs=1e-6)
    assert explained.calibration == pytest.approx(0, abs=1e-6)
    assert explained.log_odds() == pytest.approx(raw, abs=1e-6)


@settings(max_examples=50)
@given(
    st.lists(
        st.dictionaries(st.sampled_from(("gbt", "net", "forest")), PROBABILITIES, min_size=1),
        min_size=1,
        max_size=6,
    ),
    st.tuples(PROBABILITIES, PROBABILITIES, PROBABILITIES),
)
def test_everything_sums_to_the_pooled_log_odds(
    parts: list[dict[str, float]], weights: tuple[float, float, float]
) -> None:
    named = dict(zip(("net", "gbt", "forest"), weights, strict=True))
    explained = Explainer(VERSION, trees(), named).explain(random_features(len(parts), 5), parts)
    for row, total in zip(parts, explained.log_odds().tolist(), strict=True):
        weight = sum(named[name] for name in row)
        share = {name: named[name] / weight if weight > 0 else 1 / len(row) for name in row}
        pooled = sum(share[name] * log_odds(np.array(p)) for name, p in row.items())
        assert total == pytest.approx(pooled, abs=1e-9)


def test_a_part_that_failed_is_left_out() -> None:
    features = random_features(2, 6)
    explainer = Explainer(VERSION, trees(), {"gbt": 0.75, "net": 0.25})
    both, without = explainer.explain(features, [{"gbt": 0.2, "net": 0.6}, {"net": 0.6}]).rows()

    assert set(both.parts) == {"net"}
    assert both.parts["net"] == pytest.approx(0.25 * (np.log(0.6 / 0.4) - both.base))
    assert without.features.tolist() == [0.0] * N_FEATURES
    assert without.calibration == 0.0
    assert without.log_odds == pytest.approx(np.log(0.6 / 0.4))


@given(arrays(np.bool_, (4, 3)), arrays(np.float64, 3, elements=st.floats(0, 1)))
def test_shares_sum_to_one_and_none_is_for_the_absent(
    present: NDArray[np.bool_], weights: NDArray[np.float64]
) -> None:
    present[:, 0] |= ~present.any(axis=1)
    found = shares(present, weights)

    assert found.sum(axis=1) == pytest.approx(1)
    assert not found[~present].any()


def test_values_stand_at_the_features_that_moved_the_score(alone: Explainer) -> None:
    features = random_features(400, 7)
    raw = np.asarray(trees().predict(features))
    explained = alone.explain(features, [{"gbt": float(p)} for p in raw])
    strongest = np.abs(explained.features).mean(axis=0).argsort()[-3:]

    assert set(strongest.tolist()) == {0, 11, N_FEATURES - 1}


def test_nothing_to_explain(alone: Explainer) -> None:
    explained = alone.explain(np.empty((0, N_FEATURES), np.float32), [])

    assert explained.features.shape == (0, N_FEATURES)
    assert list(explained.rows()) == []


@pytest.mark.parametrize("parts", [{}, {"heuristic": 0.5}, {"gbt": 0.5, "other": 0.5}])
def test_parts_of_another_model(alone: Explainer, parts: dict[str, float]) -> None:
    with pytest.raises(ExplanationError, match="are not those of small-1"):
        alone.explain(random_features(1, 1), [parts])


def test_the_heuristic_is_explained_by_its_signs() -> None:
    features = random_features(500, 8)
    explained = explain_heuristic(features)

    assert explained.log_odds() == pytest.approx(log_odds(heuristic.heuristic(features)), abs=1e-6)
    assert explained.parts == {}
    named = {name for sign in heuristic.SIGNS for name, _ in sign.features}
    assert {FEATURE_NAMES[k] for k in np.flatnonzero(explained.features.any(axis=0))} <= named


def test_an_artefact_explains_what_its_model_decides(tmp_path: Path) -> None:
    folder = write_small_artefact(tmp_path / "small", {"gbt": 0.6, "net": 0.4})
    features = random_features(200, 9)
    scores = load_model(folder, UNSIGNED).score(features)
    names = list(scores.parts)
    parts = [dict(zip(names, row, strict=True)) for row in np.stack(list(scores.parts.values()), 1).tolist()]
    explained = load_explainer(folder, UNSIGNED).explain(features, parts)

    pooled = 1 / (1 + np.exp(-explained.log_odds()))
    assert np.interp(pooled, [0.0, 0.3, 1.0], [0.0, 0.6, 1.0]) == pytest.approx(scores.score, abs=1e-9)
    assert np.abs(explained.calibration).max() > 0.1, "the calibration bends"


def edit(path: Path, old: bytes, new: bytes) -> None:
    path.write_bytes(path.read_bytes().replace(old, new))


@pytest.mark.parametrize(
    ("file", "old", "new", "reason"),
    [
        (TREES_FILE, b"tree", b"twig", "gbt.txt: SHA-256 is"),
        (MANIFEST_FILE, b'"gbt.txt"', b'"other.txt"', "files lacks gbt.txt"),
        (MANIFEST_FILE, b'"contract_version": ', b'"contract_version": 9', "this engine computes"),
        (MANIFEST_FILE, b'"gbt":', b'"trees":', "no part gbt"),
        (MANIFEST_FILE, b"{", b"[", "malformed"),
    ],
)
def test_artefacts_that_do_not_do(tmp_path: Path, file: str, old: bytes, new: bytes, reason: str) -> None:
    folder = write_small_artefact(tmp_path / "small", {"gbt": 1.0})
    edit(folder / file, old, new)
    with pytest.raises(ExplanationError, match=reason):
        load_explainer(folder, UNSIGNED)


@pytest.mark.parametrize("text", [b"", b"not trees", b"\xff"])
def test_text_that_is_no_model(tmp_path: Path, text: bytes) -> None:
    with pytest.raises(ExplanationError, match=r"gbt\.txt does not load"):
        load_explainer(write_small_artefact(tmp_path / "small", {"gbt": 1.0}, text), UNSIGNED)


def test_trees_over_other_features(tmp_path: Path) -> None:
    text = trees().model_to_string().replace("amount_log", "amount_lag").encode()
    with pytest.raises(ExplanationError, match="other features"):
        load_explainer(write_small_artefact(tmp_path / "small", {"gbt": 1.0}, text), UNSIGNED)
