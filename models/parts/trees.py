"""Gradient-boosted trees (LightGBM)."""

from typing import NamedTuple

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from models.onnx_export import to_onnx
from models.parts.fitted import FitOptions, Fitted, require_both_classes
from state.contract import FEATURE_NAMES

TEXT_FILE = "gbt.txt"


class TreeOptions(NamedTuple):
    """By default few and small trees: more of them rank little better but cost time per score."""

    rounds: int = 160
    leaves: int = 24
    learning_rate: float = 0.05
    max_depth: int = 7
    least_rows: int = 80
    l2: float = 20.0
    columns: float = 0.3


def fit(
    features: NDArray[np.float32],
    is_fraud: NDArray[np.bool_],
    options: FitOptions,
    trees: TreeOptions,
) -> Fitted:
    """Trees over features f4 [n, N_FEATURES], of both classes; the same input gives the same model.

    The classes keep their weights: the rare class needs no help to be ranked by log loss, and weights would
    spoil the probabilities. LightGBM's own text goes with them, for explanations. Raises ValueError for rows
    of one class only, no rows, or infinite values.
    """
    require_both_classes(features, is_fraud)
    parameters = {
        "objective": "binary",
        "learning_rate": trees.learning_rate,
        "num_leaves": trees.leaves,
        "max_depth": trees.max_depth,
        "min_data_in_leaf": trees.least_rows,
        "feature_fraction": trees.columns,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "lambda_l2": trees.l2,
        "seed": options.seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": options.threads,
        "verbosity": -1,
    }
    data = lgb.Dataset(features, is_fraud, feature_name=list(FEATURE_NAMES), params=parameters)
    booster = lgb.train(parameters, data, trees.rounds)

    def native(rows: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.asarray(booster.predict(rows), np.float64)

    return Fitted(to_onnx(booster), native, {TEXT_FILE: booster.model_to_string().encode()})
