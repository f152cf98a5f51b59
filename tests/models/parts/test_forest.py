from collections.abc import Callable

import numpy as np
import onnx

from models.parts import forest
from models.parts.fitted import Fitted
from models.parts.forest import ForestOptions
from state.contract import N_FEATURES
from tests.models.parts.conftest import OPTIONS, Rows, column, raw


def thresholds(fitted: Fitted) -> list[tuple[int, float]]:
    """(column, threshold) of every cut."""
    node = next(n for n in onnx.load_from_string(fitted.onnx).graph.node if n.domain)
    of = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    cuts = zip(of["nodes_modes"], of["nodes_featureids"], of["nodes_values"], strict=True)
    return [(feature, value) for mode, feature, value in cuts if mode != b"LEAF"]


def test_labels_do_not_matter(train: Rows, fitted_of: Callable[[str], Fitted]) -> None:
    turned = forest.fit(train.features, ~train.is_fraud, OPTIONS)
    assert turned.onnx == fitted_of("forest").onnx


def test_features_at_a_threshold_take_the_same_branch(train: Rows) -> None:
    fitted = forest.fit(*train, OPTIONS, ForestOptions(trees=5, rows=64))
    rows = []
    for place, threshold in thresholds(fitted):
        near = np.float32(threshold)
        for value in (np.nextafter(near, np.float32(-np.inf)), near, np.nextafter(near, np.float32(np.inf))):
            row = np.full(N_FEATURES, np.nan, np.float32)
            row[place] = value
            rows.append(row)
    features = np.array(rows)
    assert np.abs(raw(fitted, features) - fitted.native(features)).max() < 1e-6


def test_only_the_high_side_is_unusual(fitted_of: Callable[[str], Fitted]) -> None:
    fitted = fitted_of("forest")
    usual = np.ones((1, N_FEATURES), np.float32)
    low, missing, high = usual.copy(), usual.copy(), usual.copy()
    low[0, column("amount")] = -1e6
    missing[0, column("amount")] = np.nan
    high[0, column("amount")] = 1e6
    same, of_low, of_missing, of_high = raw(fitted, np.concatenate((usual, low, missing, high)))
    assert of_low == of_missing == same
    assert of_high > same
