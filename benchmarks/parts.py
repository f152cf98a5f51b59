"""What each part of the ensemble costs on one core: to fit, and to score a row."""

import time
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from events.control import Thresholds
from models.history import history
from models.model import Knots, Model, Part
from models.parts.fitted import FitOptions
from models.parts.trees import TreeOptions
from models.recipe import PARTS, recipe
from models.sources import simulated
from state.contract import DAY_MS, DEFAULT_RISK_DELAY_MS
from state.replay import replay

ROWS = 70_000
BATCH = 64
REPEATS = 400
STRAIGHT: Knots = ([0.0, 1.0], [0.0, 1.0])


class PartCost(NamedTuple):
    """What one part costs.

    fit_s: seconds to fit on ROWS rows; bytes: of the ONNX file; single_us, batch_us: microseconds that a row
    takes by itself and among BATCH.
    """

    name: str
    fit_s: float
    bytes: int
    single_us: float
    batch_us: float


def _rows() -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Features f4 [ROWS, N_FEATURES] and classes bool [ROWS] of the last simulated transactions."""
    frame = simulated(users=2_000, terminals=500, days=60, fraud_rate=0.008, seed=1)
    whole = history(frame, DEFAULT_RISK_DELAY_MS / DAY_MS, round(time.time() * 1000))
    replayed = replay(
        whole.transactions, whole.user, whole.terminal, whole.known_labels(), DEFAULT_RISK_DELAY_MS
    )
    return replayed.features[-ROWS:], whole.is_fraud[-ROWS:]


def _us(model: Model, features: NDArray[np.float32], batch: int) -> float:
    """Microseconds a row, the least of many batches of other rows."""
    least = np.inf
    for start in range(0, REPEATS * batch, batch):
        rows = features[start : start + batch]
        began = time.perf_counter()
        model.score(rows)
        least = min(least, time.perf_counter() - began)
    return least / batch * 1e6


def measure() -> list[PartCost]:
    """Each part alone, then all of them."""
    features, is_fraud = _rows()
    parts, costs = {}, []
    for name, fit in recipe(PARTS, TreeOptions()).items():
        began = time.perf_counter()
        fitted = fit(features, is_fraud, FitOptions())
        seconds = time.perf_counter() - began
        parts[name] = Part(fitted.onnx, STRAIGHT, 1.0)
        costs.append(_cost(name, seconds, len(fitted.onnx), {name: parts[name]}, features))
    return [
        *costs,
        _cost("all", sum(c.fit_s for c in costs), sum(c.bytes for c in costs), parts, features),
    ]


def _cost(
    name: str, fit_s: float, size: int, parts: dict[str, Part], features: NDArray[np.float32]
) -> PartCost:
    model = Model("measured", parts, STRAIGHT, Thresholds(0, 1))
    return PartCost(name, fit_s, size, _us(model, features, 1), _us(model, features, BATCH))
