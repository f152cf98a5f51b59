"""Isolation forest: how few random cuts set a transaction apart from the others.

Needs no labels. Only the high side of its features counts: a small amount or a quiet terminal is no sign of
fraud, however rare. So what lies below the median, or is missing, is taken for the median.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest
from sklearn.tree import ExtraTreeRegressor

from models.model import INPUT
from models.onnx_export import rounded_down
from models.parts.fitted import FitOptions, Fitted, require_both_classes
from models.parts.onnx_nodes import Nodes
from state.contract import FEATURE_NAMES

NAMES = (
    "amount",
    "median_ratio",
    "median_z",
    "terminal_amount_z",
    "user_count_1h",
    "user_count_24h",
    "user_sum_24h",
    "new_device",
    "new_country",
    "foreign",
    "speed_kmh",
    "card_not_present",
    "balance_share",
    "new_receiver",
    "receivers_24h",
    "terminal_users_24h",
    "terminal_risk_24h",
    "terminal_risk_7d",
    "terminal_risk_30d",
    "terminal_frauds",
)
"""What is unusual where it is high: amounts, velocity, anything new or far away, a terminal with frauds."""
COLUMNS = np.array([FEATURE_NAMES.index(name) for name in NAMES], np.int64)


class ForestOptions(NamedTuple):
    """trees: how many; rows: drawn for each tree."""

    trees: int = 100
    rows: int = 256


DEFAULT = ForestOptions()


def fit(
    features: NDArray[np.float32],
    is_fraud: NDArray[np.bool_],
    options: FitOptions,
    shape: ForestOptions = DEFAULT,
) -> Fitted:
    """A forest over features f4 [n, N_FEATURES]; the classes bool [n] are checked and not used.

    The score is 2^(-E(h) / c), in [0, 1], with the mean path length E(h) of a row and the normalisation c
    (Liu, Ting and Zhou, Isolation Forest, 2008, equation 2). Raises ValueError for rows of one class only,
    no rows, or infinite values.
    """
    require_both_classes(features, is_fraud)
    floor = np.array([_median(features[:, column]) for column in COLUMNS], np.float32)

    def high(rows: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.fmax(rows[:, COLUMNS], floor)

    forest = IsolationForest(
        n_estimators=shape.trees,
        max_samples=min(shape.rows, len(features)),
        random_state=options.seed,
        n_jobs=options.threads,
    ).fit(high(features))

    def native(rows: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.asarray(-forest.score_samples(high(rows)), np.float64)

    return Fitted(_onnx(forest.estimators_, forest.max_samples_), native)


def _median(x: NDArray[np.float32]) -> np.float32:
    known = x[~np.isnan(x)]
    return np.median(known) if len(known) else np.float32(0)


def _onnx(trees: Sequence[ExtraTreeRegressor], rows: int) -> bytes:
    """Missing and low values need no branch of their own: no threshold lies below the median.

    They fail every `x > threshold`, as the median does.
    """
    scale = -np.log(2) / (len(trees) * float(_path_length(np.array([rows]))[0]))
    attributes: dict[str, list[Any]] = {}
    for number, tree in enumerate(trees):
        for name, values in _tree(tree.tree_, number, scale).items():
            attributes.setdefault(name, []).extend(values.tolist())
    nodes = Nodes()
    logarithm = nodes.add(
        "TreeEnsembleRegressor",
        INPUT,
        domain="ai.onnx.ml",
        n_targets=1,
        aggregate_function="SUM",
        **attributes,
    )
    return nodes.model(nodes.add("Exp", logarithm))


def _tree(tree: Any, number: int, scale: float) -> dict[str, NDArray[Any]]:
    """The attributes that ONNX wants of one tree, each leaf weighing its path length times `scale`."""
    leaf = np.flatnonzero(tree.children_left < 0)
    is_leaf = tree.children_left < 0
    path = tree.compute_node_depths() - 1 + _path_length(tree.n_node_samples)
    return {
        "nodes_treeids": np.full(tree.node_count, number),
        "nodes_nodeids": np.arange(tree.node_count),
        "nodes_modes": np.where(is_leaf, "LEAF", "BRANCH_GT"),
        "nodes_featureids": np.where(is_leaf, 0, COLUMNS[tree.feature]),
        "nodes_values": np.where(is_leaf, np.float32(0), rounded_down(tree.threshold)),
        "nodes_truenodeids": np.where(is_leaf, 0, tree.children_right),
        "nodes_falsenodeids": np.where(is_leaf, 0, tree.children_left),
        "target_treeids": np.full(len(leaf), number),
        "target_nodeids": leaf,
        "target_ids": np.zeros(len(leaf), np.int64),
        "target_weights": path[leaf] * scale,
    }


def _path_length(rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean path length c(n) of an unsuccessful search among n rows (Liu, Ting and Zhou, equation 1)."""
    n = np.maximum(rows, 2).astype(np.float64)
    harmonic = np.log(np.maximum(n - 1, 1)) + np.euler_gamma
    return np.select([rows <= 1, rows == 2], [0.0, 1.0], 2 * harmonic - 2 * (n - 1) / n)
