"""A recurrent network over the user's latest transactions, joined by the features of the present one."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from models.parts.fitted import FitOptions, Fitted, require_both_classes
from models.parts.inputs import Inputs, add_inputs, fit_inputs, normalise
from models.parts.network import Dense, Descent, add_layers, apply, dense, fit_network, log_loss
from models.parts.onnx_nodes import Nodes
from state.contract import FEATURE_NAMES, SEQUENCE

KINDS = ("amount", "age", "terminal")
"""What is known of each transaction of the sequence."""
PREVIOUS = tuple(f"previous_{kind}_{k}" for k in range(SEQUENCE, 0, -1) for kind in KINDS)
"""Features of the earlier transactions, from the oldest to the latest."""
PRESENT = tuple(name for name in FEATURE_NAMES if name not in PREVIOUS)
LENGTH = SEQUENCE + 1

LIMIT = 5.0
STATE = 16
HIDDEN = 64
HOW = Descent(rate=1e-3, decay=0.3)


class Gru(NamedTuple):
    """A gated recurrent unit, with gates update, reset and candidate side by side.

    weight: f4 [inputs, 3 STATE]; recurrent: f4 [STATE, 3 STATE]; bias: f4 [3 STATE]; reset_bias: f4 [STATE].
    """

    weight: Array
    recurrent: Array
    bias: Array
    reset_bias: Array


class Network(NamedTuple):
    """gru: reads the sequence; layers: read its last state and the features of the present transaction."""

    gru: Gru
    layers: list[Dense]


def fit(features: NDArray[np.float32], is_fraud: NDArray[np.bool_], options: FitOptions) -> Fitted:
    """The network over features f4 [n, N_FEATURES] in the order of time, and classes bool [n] of both kinds.

    The score is the network's probability of fraud. Raises ValueError for rows of one class only, no rows, or
    infinite values.
    """
    require_both_classes(features, is_fraud)
    sequence = fit_inputs(features, (*PREVIOUS, "amount"), LIMIT, tell_missing=False)
    present = fit_inputs(features, PRESENT, LIMIT, tell_missing=True)

    def read(rows: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return normalise(sequence, rows), normalise(present, rows)

    start = _start(jax.random.key(options.seed), present.width)
    rows = (*read(features), is_fraud.astype(np.float32))
    network = fit_network(_loss, start, rows, HOW, options.seed)

    def native(rows: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.asarray(_score(network, *read(rows)), np.float64)

    return Fitted(_onnx(network, sequence, present), native)


def _loss(network: Network, rows: tuple[Array, ...]) -> Array:
    steps, present, classes = rows
    return log_loss(_log_odds(network, steps, present), classes)


@jax.jit
def _score(network: Network, steps: Array, present: Array) -> Array:
    return jax.nn.sigmoid(_log_odds(network, steps, present))


def _log_odds(network: Network, steps: Array, present: Array) -> Array:
    """Log-odds of fraud f4 [n] by normalised steps f4 [n, 3 SEQUENCE + 1] and features f4 [n, width]."""
    state = _last_state(network.gru, steps)
    return apply(network.layers, jnp.concatenate((present, state), axis=1))[:, 0]


def _start(key: Array, width: int) -> Network:
    keys = jax.random.split(key, 4)
    recurrent = jnp.concatenate(jax.random.orthogonal(keys[0], STATE, (3,)), axis=1)
    weight = dense(keys[1], len(KINDS), 3 * STATE).weight
    gru = Gru(weight, recurrent, jnp.zeros(3 * STATE), jnp.zeros(STATE))
    return Network(gru, [dense(keys[2], width + STATE, HIDDEN), dense(keys[3], HIDDEN, 1)])


def _last_state(gru: Gru, steps: Array) -> Array:
    """The state f4 [n, STATE] after the last step (Cho et al., Learning Phrase Representations, 2014).

    The reset gate acts behind the recurrent product, so that one product serves all three gates. Of the
    present transaction only the amount is a step's; its age and terminal are left at the mean.
    """
    padded = jnp.pad(steps, ((0, 0), (0, len(KINDS) - 1))).reshape(-1, LENGTH, len(KINDS))

    def step(state: Array, x: Array) -> tuple[Array, None]:
        inward = x @ gru.weight + gru.bias
        recurrent = state @ gru.recurrent
        gates = jax.nn.sigmoid(inward[:, : 2 * STATE] + recurrent[:, : 2 * STATE])
        update, reset = gates[:, :STATE], gates[:, STATE:]
        held = reset * (recurrent[:, 2 * STATE :] + gru.reset_bias)
        return (1 - update) * jnp.tanh(inward[:, 2 * STATE :] + held) + update * state, None

    return jax.lax.scan(step, jnp.zeros((len(steps), STATE)), jnp.swapaxes(padded, 0, 1))[0]


def _onnx(network: Network, sequence: Inputs, present: Inputs) -> bytes:
    nodes = Nodes()
    # One row too many: of a batch without rows onnxruntime's GRU would abort the whole process.
    padding = np.array([0, 0, 1, len(KINDS) - 1], np.int64)
    padded = nodes.add("Pad", add_inputs(nodes, sequence), padding)
    steps = nodes.add("Reshape", padded, np.array([-1, LENGTH, len(KINDS)], np.int64))
    gru = network.gru
    bias = np.concatenate((gru.bias, np.zeros(2 * STATE, np.float32), gru.reset_bias))
    states = nodes.add(
        "GRU",
        nodes.add("Transpose", steps, perm=[1, 0, 2]),
        np.asarray(gru.weight).T[None],
        np.asarray(gru.recurrent).T[None],
        bias[None],
        hidden_size=STATE,
        linear_before_reset=1,
    )
    state = nodes.add(
        "Squeeze", nodes.add("Slice", states, *np.array([[0], [-1], [1]], np.int64)), np.array([0], np.int64)
    )
    joined = nodes.add("Concat", add_inputs(nodes, present), state, axis=1)
    return nodes.model(nodes.add("Sigmoid", add_layers(nodes, network.layers, joined)))
