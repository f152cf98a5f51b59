"""Auto-encoder: what a narrow network, fitted on legitimate transactions alone, cannot restore is unusual."""

from itertools import islice, pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from models.parts.fitted import FitOptions, Fitted, require_both_classes
from models.parts.inputs import Inputs, add_inputs, fit_inputs, normalise
from models.parts.network import Dense, Descent, add_layers, apply, dense, descend
from models.parts.onnx_nodes import Nodes

NAMES = (
    "amount",
    "hour_sin",
    "hour_cos",
    "user_count_1h",
    "user_count_24h",
    "user_count_7d",
    "user_count_30d",
    "user_sum_24h",
    "user_sum_7d",
    "user_amount_mean",
    "user_amount_deviation",
    "recent_amount_mean",
    "median_ratio",
    "median_z",
    "largest_ratio_3",
    "seconds_since_last",
    "new_device",
    "new_terminal",
    "new_country",
    "foreign",
    "speed_kmh",
    "card_not_present",
    "balance_share",
    "new_receiver",
    "receivers_24h",
    "terminal_count_24h",
    "terminal_count_7d",
    "terminal_count_30d",
    "terminal_users_24h",
    "terminal_users_7d",
    "terminal_users_30d",
    "terminal_amount_mean",
    "terminal_amount_z",
    "terminal_risk_24h",
    "terminal_risk_7d",
    "terminal_risk_30d",
    "terminal_frauds",
)
"""The transaction, the habits of user and terminal that it is to be seen against, and the terminal's risk."""

LIMIT = 20.0
"""Far values are what is looked for, so they are hardly bounded."""
SIZES = (24, 6, 24)
"""Of the layers within: the narrow one in the middle cannot hold what is unusual."""
EPOCHS = 10
HOW = Descent(rate=1e-3, decay=1e-4)
KNEE = 0.1
"""Of an error, in deviations, from where on it counts in proportion rather than by its square."""
RIDGE = 0.01
"""Variance that every error has at the least, so that what is restored well does not decide alone."""


class Spread(NamedTuple):
    """How the errors of legitimate rows vary.

    whiten: f4 [width, width], makes them uncorrelated with variance 1; typical: mean sum of their sizes then.
    """

    whiten: NDArray[np.float32]
    typical: np.float32


def fit(features: NDArray[np.float32], is_fraud: NDArray[np.bool_], options: FitOptions) -> Fitted:
    """The auto-encoder over the legitimate ones of features f4 [n, N_FEATURES], by classes bool [n].

    The score is d / (d + m) with the sum d of the sizes of a row's whitened errors and the mean m of that sum
    over legitimate rows. Sizes, not squares, so that one far value does not outweigh many odd ones. Raises
    ValueError for rows of one class only, no rows, or infinite values.
    """
    require_both_classes(features, is_fraud)
    legitimate = features[~is_fraud]
    inputs = fit_inputs(legitimate, NAMES, LIMIT, tell_missing=False)
    x = normalise(inputs, legitimate)
    layers = _fit(x, options.seed)
    spread = _spread(np.asarray(_errors(layers, jnp.asarray(x))))

    def native(rows: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.asarray(_score(layers, spread, normalise(inputs, rows)), np.float64)

    return Fitted(_onnx(layers, inputs, spread), native)


def _fit(x: NDArray[np.float32], seed: int) -> list[Dense]:
    """Layers that restore x f4 [n, width] as far as they can."""
    sizes = (x.shape[1], *SIZES, x.shape[1])
    keys = jax.random.split(jax.random.key(seed), len(sizes) - 1)
    start = [dense(key, *size) for key, size in zip(keys, pairwise(sizes), strict=True)]
    return next(islice(descend(_loss, start, (x,), HOW, seed), EPOCHS - 1, None))


def _loss(layers: list[Dense], rows: tuple[Array, ...]) -> Array:
    """Far values count in proportion, not by their square: else the layers would learn to restore them.

    Charbonnier et al., Two deterministic half-quadratic regularization algorithms, 1994.
    """
    return jnp.mean(jnp.sqrt(_errors(layers, rows[0]) ** 2 + KNEE**2))


def _errors(layers: list[Dense], x: Array) -> Array:
    return x - apply(layers, x)


def _spread(errors: NDArray[np.float32]) -> Spread:
    moments = errors.T @ errors / len(errors) + RIDGE * np.eye(errors.shape[1])
    whiten = np.linalg.cholesky(np.linalg.inv(moments)).astype(np.float32)
    typical = np.abs(errors @ whiten).sum(axis=1).mean()
    return Spread(whiten, np.maximum(typical, np.float32(1)))  # 0 where no feature varies


@jax.jit
def _score(layers: list[Dense], spread: Spread, x: Array) -> Array:
    distance = jnp.sum(jnp.abs(_errors(layers, x) @ spread.whiten), axis=1)
    return distance / (distance + spread.typical)


def _onnx(layers: list[Dense], inputs: Inputs, spread: Spread) -> bytes:
    nodes = Nodes()
    x = add_inputs(nodes, inputs)
    errors = nodes.add("Sub", x, add_layers(nodes, layers, x))
    distance = nodes.add("ReduceL1", nodes.add("MatMul", errors, spread.whiten), axes=[1], keepdims=1)
    return nodes.model(nodes.add("Div", distance, nodes.add("Add", distance, np.array([spread.typical]))))
