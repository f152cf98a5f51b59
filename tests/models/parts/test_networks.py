"""The auto-encoder, the sequence, the graph, and how their networks are fitted."""

from collections.abc import Callable
from itertools import islice

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from models.parts import autoencoder, graph, sequence
from models.parts.fitted import Fitted
from models.parts.network import Descent, descend, fit_network
from tests.models.parts.conftest import OPTIONS, Rows, column, raw

HOW = Descent(rate=0.02, decay=0.0)


def distance(place: Array, rows: tuple[Array, ...]) -> Array:
    return jnp.mean((rows[0] - place) ** 2)


def test_descent_reaches_the_mean() -> None:
    rows = np.random.default_rng(1).normal(3, 1, 2000).astype(np.float32)
    place = next(islice(descend(distance, jnp.float32(0), (rows,), HOW, 1), 30, None))
    assert abs(float(place) - rows.mean()) < 0.1


def test_descent_stops_where_later_rows_are_served_no_better() -> None:
    """All lie at 3, those held back at 1: the way to 3 leads past 1 early."""
    rows = np.where(np.arange(2000) < 1600, 3, 1).astype(np.float32)
    stopped = fit_network(distance, jnp.float32(0), (rows,), HOW, 1)
    to_the_end = next(islice(descend(distance, jnp.float32(0), (rows,), HOW, 1), 29, None))
    assert abs(float(to_the_end) - rows.mean()) < 0.1
    assert abs(float(stopped) - 1) < 0.5


def test_the_autoencoder_learns_from_legitimate_rows_alone(
    train: Rows, fitted_of: Callable[[str], Fitted]
) -> None:
    spoilt = train.features.copy()
    spoilt[train.is_fraud] = 7.0
    assert autoencoder.fit(spoilt, train.is_fraud, OPTIONS).onnx == fitted_of("autoencoder").onnx


def test_the_graph_sees_no_amounts(train: Rows, fitted_of: Callable[[str], Fitted]) -> None:
    fitted = fitted_of("graph")
    changed = train.features[:100].copy()
    unseen = [k for k in range(changed.shape[1]) if k not in {column(name) for name in graph.NAMES}]
    changed[:, unseen] = 1.0
    assert np.array_equal(raw(fitted, changed), raw(fitted, train.features[:100]))


def moved(features: NDArray[np.float32], first: int, second: int) -> NDArray[np.float32]:
    """Two of the previous transactions in each other's place."""
    result = features.copy()
    for kind in sequence.KINDS:
        pair = [column(f"previous_{kind}_{k}") for k in (first, second)]
        result[:, pair] = features[:, pair[::-1]]
    return result


def test_the_order_of_the_sequence_matters(train: Rows, fitted_of: Callable[[str], Fitted]) -> None:
    fitted = fitted_of("sequence")
    features = train.features[train.is_fraud]
    before, after = raw(fitted, features), raw(fitted, moved(features, 1, 10))
    assert np.abs(before - after).max() > 1e-3
    assert np.abs(fitted.native(moved(features, 1, 10)) - after).max() < 1e-5
