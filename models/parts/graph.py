"""A network on what the graph of users, terminals and devices says of a transaction, and on nothing else.

Frauds known of a terminal or a user are spread along the edges of that graph to every transaction that meets
them, by state kept for each node; so the network reads features and needs no graph at hand. Blind to amounts
and habits, it errs elsewhere than the parts that see them. A network, not trees, since the trees of the
ensemble see the same features already: sums and slopes show other things than cuts, and cost less per row.
"""

import jax
import numpy as np
from jax import Array
from numpy.typing import NDArray

from models.parts.fitted import FitOptions, Fitted, require_both_classes
from models.parts.inputs import Inputs, add_inputs, fit_inputs, normalise
from models.parts.network import Dense, Descent, add_layers, apply, dense, fit_network, log_loss
from models.parts.onnx_nodes import Nodes

NAMES = (
    "new_device",
    "device_count",
    "new_terminal",
    "terminal_frequency",
    "user_frauds",
    "days_since_user_fraud",
    "terminal_users_5m",
    "terminal_users_1h",
    "terminal_users_24h",
    "terminal_users_7d",
    "terminal_users_30d",
    "terminal_risk_24h",
    "terminal_risk_7d",
    "terminal_risk_30d",
    "terminal_frauds",
    "days_since_terminal_fraud",
    "days_since_first_terminal_fraud",
    "legitimate_since_terminal_fraud",
    "terminal_fraud_run",
    "days_since_terminal_fraud_run",
    "days_clean_before_run",
    "terminal_fraud_amount",
    "terminal_fraud_ratio",
    "terminal_fraud_ratio_least",
    "terminal_defrauded_30d",
    "days_since_terminal_legitimate",
)
"""Who meets whom for the first time, and which frauds are known of either."""

LIMIT = 5.0
HIDDEN = 32
HOW = Descent(rate=1e-3, decay=0.3)


def fit(features: NDArray[np.float32], is_fraud: NDArray[np.bool_], options: FitOptions) -> Fitted:
    """The network over features f4 [n, N_FEATURES] in the order of time, and classes bool [n] of both kinds.

    The score is the network's probability of fraud. Raises ValueError for rows of one class only, no rows, or
    infinite values.
    """
    require_both_classes(features, is_fraud)
    inputs = fit_inputs(features, NAMES, LIMIT, tell_missing=True)

    keys = jax.random.split(jax.random.key(options.seed))
    start = [dense(keys[0], inputs.width, HIDDEN), dense(keys[1], HIDDEN, 1)]
    rows = (normalise(inputs, features), is_fraud.astype(np.float32))
    layers = fit_network(_loss, start, rows, HOW, options.seed)

    def native(rows: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.asarray(_score(layers, normalise(inputs, rows)), np.float64)

    return Fitted(_onnx(layers, inputs), native)


def _loss(layers: list[Dense], rows: tuple[Array, ...]) -> Array:
    x, classes = rows
    return log_loss(apply(layers, x)[:, 0], classes)


@jax.jit
def _score(layers: list[Dense], x: Array) -> Array:
    return jax.nn.sigmoid(apply(layers, x)[:, 0])


def _onnx(layers: list[Dense], inputs: Inputs) -> bytes:
    nodes = Nodes()
    return nodes.model(nodes.add("Sigmoid", add_layers(nodes, layers, add_inputs(nodes, inputs))))
