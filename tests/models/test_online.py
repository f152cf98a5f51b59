"""The online part of the score, and what is refused."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.artefact import ModelRefusedError, probe_batch
from models.model import pool
from models.online import FURTHEST, OFFLINE, ONLINE, OnlinePart, of_ensemble, squash
from state.contract import FEATURE_NAMES, N_FEATURES
from tests.models.online_weights import online_weights

VALUES = [0.0, -0.0, 1e-30, 1.0, -1e10, 3e38, np.inf, -np.inf, np.nan]


def by_definition(features: NDArray[np.float32], offline: NDArray[np.float64]) -> NDArray[np.float64]:
    """What `OnlineWeights` says, in numpy and float64."""
    w = online_weights()
    x = features[:, [FEATURE_NAMES.index(name) for name in w.features]].astype(np.float64)
    z = np.clip((np.sign(x) * np.log1p(np.abs(x)) - w.centre) * w.scale, -w.limit, w.limit)
    held = np.clip(offline, 1e-9, 1 - 1e-9)
    log_odds = np.where(np.isnan(z), 0, z) @ w.weight + w.offline * np.log(held / (1 - held)) + w.bias
    probability: NDArray[np.float64] = 1 / (1 + np.exp(-np.clip(log_odds, -FURTHEST, FURTHEST)))
    return probability


def test_scores_by_its_definition_and_pools_as_the_ensemble_does() -> None:
    features = probe_batch()
    offline = np.linspace(0, 1, len(features))
    online, pooled = OnlinePart(online_weights()).score(features, offline)

    np.testing.assert_allclose(online, by_definition(features, offline), rtol=1e-5)
    parts, shares = {OFFLINE: offline, ONLINE: online}, {OFFLINE: 0.3, ONLINE: 0.7}
    np.testing.assert_allclose(pooled, pool(parts, shares), rtol=1e-6)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_of_all_or_nothing(share: float) -> None:
    features, offline = probe_batch(), np.linspace(0.01, 0.99, 64)
    online, pooled = OnlinePart(online_weights(share=share)).score(features, offline)

    np.testing.assert_allclose(pooled, online if share else offline, rtol=1e-9)


@given(st.lists(st.sampled_from(VALUES), min_size=1, max_size=30), st.floats(0, 1))
def test_any_feature_gives_a_probability(values: list[float], offline: float) -> None:
    rows = np.resize(np.array(values, np.float32), (3, N_FEATURES))
    for scores in OnlinePart(online_weights()).score(rows, np.full(3, offline)):
        assert ((scores >= 0) & (scores <= 1)).all()


def test_a_missing_feature_adds_nothing() -> None:
    weights = online_weights()
    part, rows = OnlinePart(weights), np.full((1, N_FEATURES), np.nan, np.float32)
    online, _ = part.score(rows, np.array([0.5]))

    assert online[0] == pytest.approx(1 / (1 + math.exp(-weights.bias)))


def test_score_of_a_row_does_not_depend_on_its_batch() -> None:
    rng = np.random.default_rng(7)
    features = np.concatenate([probe_batch(), rng.lognormal(1, 2, (1936, N_FEATURES)).astype(np.float32)])
    features[64:][rng.random((1936, N_FEATURES)) < 0.3] = np.nan
    offline, part = rng.random(2000), OnlinePart(online_weights())
    whole = np.array(part.score(features, offline))
    for size in (1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 64, 65, 127, 500, 1999):
        cuts = [slice(i, i + size) for i in range(0, 2000, size)]
        parts = [part.score(np.ascontiguousarray(features[cut]), offline[cut]) for cut in cuts]
        assert np.concatenate(parts, axis=1).tobytes() == whole.tobytes(), size


def test_empty_batch() -> None:
    online, pooled = OnlinePart(online_weights()).score(np.empty((0, N_FEATURES), np.float32), np.empty(0))

    assert online.shape == pooled.shape == (0,)


@given(st.floats(width=32, allow_nan=False))
def test_squash_is_symmetric_and_gives_order_back(value: float) -> None:
    row = np.array([value, -value, value / 2, np.nan], np.float32)
    squashed = squash(row)

    assert squashed[0] == -squashed[1]
    assert abs(squashed[0]) >= abs(squashed[2])
    assert np.sign(squashed[0]) == np.sign(row[0]) or abs(row[0]) < 1e-6
    assert np.isnan(squashed[3])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"features_sha256": "0" * 64}, "the feature list differs"),
        ({"features": ["amount", "no_such_feature"], "centre": [0, 0], "scale": [1, 1], "weight": [1, 1]},
         "unknown feature 'no_such_feature'"),
        ({"features": ["amount"], "centre": [0], "scale": [1], "weight": [1e39]}, "a weight is not finite"),
        ({"features": ["hour"], "centre": [math.nan], "scale": [1], "weight": [1]}, "a weight is not finite"),
        ({"bias": math.inf}, "a weight is not finite"),
        ({"share": math.nan}, "a weight is not finite"),
        ({"limit": math.inf}, "a weight is not finite"),
        ({"features": ["amount", "hour"], "centre": [-99, -99], "scale": [1, 1], "weight": [3e38, -3e38]},
         "a score of the probe is not finite"),
    ],
)  # fmt: skip
def test_weights_that_cannot_score_are_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ModelRefusedError, match=f"online-7: {reason}"):
        OnlinePart(online_weights(**changes))


@pytest.mark.parametrize(
    ("version", "ensemble"), [("gbm-1", "gbm-1"), ("gbm-1+online-17", "gbm-1"), ("", "")]
)
def test_the_ensemble_in_a_version(version: str, ensemble: str) -> None:
    assert of_ensemble(version) == ensemble
