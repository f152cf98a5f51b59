"""Small networks: their layers in JAX and in ONNX, and the descent that fits them."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from numpy.typing import NDArray

from models.parts.onnx_nodes import Nodes

LEAST_BATCH = 128
STEPS = 1000
"""Of an epoch at most: more rows make larger batches."""
HELD = 0.2
"""The last share of the rows, by which the number of epochs is chosen."""
MOST_EPOCHS = 30
PATIENCE = 4
"""Epochs without a lower loss after which nothing more is hoped for."""

Parameters = TypeVar("Parameters")
Rows = tuple[NDArray[np.float32], ...]
"""Arrays of the same length."""
Loss = Callable[[Parameters, tuple[Array, ...]], Array]
"""Mean loss of parameters over some rows."""


class Dense(NamedTuple):
    """A layer x W + b. weight: f4 [inputs, outputs]; bias: f4 [outputs]."""

    weight: Array
    bias: Array


class Descent(NamedTuple):
    """Of AdamW (Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019).

    rate: of learning; decay: of the weights, in units of that rate.
    """

    rate: float
    decay: float


def dense(key: Array, inputs: int, outputs: int) -> Dense:
    """A layer with random weights (He et al., Delving Deep into Rectifiers, 2015)."""
    weight = jax.random.normal(key, (inputs, outputs)) * jnp.sqrt(2 / inputs)
    return Dense(weight, jnp.zeros(outputs))


def apply(layers: list[Dense], x: Array) -> Array:
    """Outputs f4 [n, outputs] of layers with rectifiers between them, for x f4 [n, inputs]."""
    for layer in layers[:-1]:
        x = jax.nn.relu(x @ layer.weight + layer.bias)
    return x @ layers[-1].weight + layers[-1].bias


def add_layers(nodes: Nodes, layers: list[Dense], x: str) -> str:
    """The same in ONNX."""
    for layer in layers[:-1]:
        x = nodes.add("Relu", nodes.add("Gemm", x, np.asarray(layer.weight), np.asarray(layer.bias)))
    return nodes.add("Gemm", x, np.asarray(layers[-1].weight), np.asarray(layers[-1].bias))


def log_loss(log_odds: Array, is_fraud: Array) -> Array:
    """Mean cross-entropy of log-odds f4 [n] against classes f4 [n] of 0 and 1."""
    return jnp.mean(jnp.logaddexp(0, log_odds) - log_odds * is_fraud)


def descend(
    loss: Loss[Parameters], start: Parameters, rows: Rows, how: Descent, seed: int
) -> Iterator[Parameters]:
    """After each epoch the mean of the parameters that it went through, without end.

    The mean varies less than the last of them (Polyak and Juditsky, Acceleration of Stochastic Approximation
    by Averaging, 1992). seed: of the order of the rows.
    """
    rng = np.random.default_rng(seed)
    data = tuple(jnp.asarray(column) for column in rows)
    n = len(rows[0])
    batch = min(n, max(LEAST_BATCH, n // STEPS))
    at = start, _optimiser(how).init(start)
    while True:
        order = rng.permutation(n)[: n // batch * batch].reshape(-1, batch)
        at, mean = _epoch(loss, how, at, jnp.asarray(order), data)
        yield mean


def fit_network(loss: Loss[Parameters], start: Parameters, rows: Rows, how: Descent, seed: int) -> Parameters:
    """Parameters after as many epochs over all rows, in the order of time, as served the last of them best.

    How many those are is found on the rows before (early stopping).
    """
    cut = len(rows[0]) - max(1, round(len(rows[0]) * HELD))
    early = tuple(column[:cut] for column in rows)
    late = tuple(jnp.asarray(column[cut:]) for column in rows)
    measure = jax.jit(loss)
    least, best = np.inf, 0
    for epoch, parameters in enumerate(islice(descend(loss, start, early, how, seed), MOST_EPOCHS)):
        held = float(measure(parameters, late))
        if held < least:
            least, best = held, epoch
        elif epoch - best >= PATIENCE:
            break
    return next(islice(descend(loss, start, rows, how, seed), best, None))


def _optimiser(how: Descent) -> optax.GradientTransformation:
    return optax.adamw(how.rate, weight_decay=how.decay)


@partial(jax.jit, static_argnames=("loss", "how"))
def _epoch(
    loss: Loss[Parameters],
    how: Descent,
    at: tuple[Parameters, Any],
    order: Array,
    data: tuple[Array, ...],
) -> tuple[tuple[Parameters, Any], Parameters]:
    """Where the batches of `order`, i8 [steps, batch] places of rows, lead to from `at`; the mean of the way.

    at: parameters and state of the optimiser.
    """

    def step(carry: Any, batch: Array) -> tuple[Any, None]:
        (parameters, state), total = carry
        slope = jax.grad(loss)(parameters, tuple(column[batch] for column in data))
        change, state = _optimiser(how).update(slope, state, parameters)
        parameters = optax.apply_updates(parameters, change)
        return ((parameters, state), jax.tree.map(jnp.add, total, parameters)), None

    nothing = jax.tree.map(jnp.zeros_like, at[0])
    (at, total), _ = jax.lax.scan(step, (at, nothing), order)
    return at, jax.tree.map(lambda value: value / len(order), total)
