"""How features and score were distributed where a model was measured: what drift is held against."""

from itertools import pairwise
from typing import Annotated, Any, Final

import msgspec
import numba as nb
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from events.types import Finite, Probability
from state.contract import FEATURE_NAMES

BINS: Final = 10
"""At most, and one more for what is missing."""
SHARES_SUM: Final = 1e-3
"""How far rounded shares may be from summing to 1."""


class Bins(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The distribution of one value.

    A bin holds what is above its lower edge and not above its upper one; the outer bins have one edge each.
    shares: of each bin, ascending, and last of the rows in which the value is missing.
    """

    edges: Annotated[list[Finite], Meta(max_length=BINS - 1)]
    shares: Annotated[list[Probability], Meta(max_length=BINS + 1)]

    def __post_init__(self) -> None:
        """Raises ValueError where edges and shares make no distribution."""
        if len(self.shares) != len(self.edges) + 2:
            raise ValueError("there must be two shares more than edges")
        if not all(a < b for a, b in pairwise(self.edges)):
            raise ValueError("edges do not ascend")
        if not abs(sum(self.shares) - 1) <= SHARES_SUM:
            raise ValueError("shares do not sum to 1")


class Baseline(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The distributions of features, by name, and of the score, over some rows."""

    rows: Annotated[int, Meta(ge=1)]
    features: dict[str, Bins]
    score: Bins


def baseline(features: NDArray[np.float32], score: NDArray[np.float64]) -> Baseline:
    """The baseline of features f4 [n, N_FEATURES] and of the scores f8 [n] a model gives them, for n > 0.

    Edges are deciles. A value that takes up two deciles or more gets a bin of its own, so that features that
    are constant, or have few values, have bins that mean something.
    """
    edges = [_edges(column) for column in (*features.T, score.astype(np.float32))]
    counts = np.zeros((len(edges), BINS + 1), np.int64)
    count(features, score, edge_table(edges), counts)
    bins = [
        Bins(
            [float(str(edge)) for edge in upper],
            [round(float(n) / len(score), 6) for n in (*row[: len(upper) + 1], row[BINS])],
        )
        for upper, row in zip(edges, counts, strict=True)
    ]
    return Baseline(len(score), dict(zip(FEATURE_NAMES, bins, strict=False)), bins[-1])


def edge_table(edges: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Edges as `count` takes them, f4 [values, BINS - 1]: none is above the last of fewer."""
    table = np.full((len(edges), BINS - 1), np.inf, np.float32)
    for row, own in zip(table, edges, strict=True):
        row[: len(own)] = own
    return table


@nb.njit(cache=True)
def count(features: Any, score: Any, edges: Any, counts: Any) -> None:
    """Add rows to counts i8 [N_FEATURES + 1, BINS + 1]; its last row is the score's, its last column for NaN.

    features: f4 [n, N_FEATURES]; score: f8 [n]; edges: f4 [N_FEATURES + 1, BINS - 1].
    """
    n_features = features.shape[1]
    for i in range(len(score)):
        for k in range(n_features + 1):
            value = features[i, k] if k < n_features else np.float32(score[i])
            above = 0
            for j in range(edges.shape[1]):
                above += value > edges[k, j]
            counts[k, counts.shape[1] - 1 if np.isnan(value) else above] += 1


def _edges(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Upper edges, f4 [at most BINS - 1], of the bins of some values."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return np.empty(0, np.float32)
    deciles = np.quantile(finite, np.arange(1, BINS) / BINS, method="lower")
    edges, times = np.unique(deciles, return_counts=True)
    heavy = edges[times > 1]
    # Below the lowest number lies nothing that is counted.
    heavy = heavy[heavy > np.finfo(np.float32).min]
    below = np.nextafter(heavy, np.float32(-np.inf))
    # Right below 0 lie numbers that some runtimes take for 0.
    smallest = np.finfo(np.float32).smallest_normal
    below[np.abs(below) < smallest] = -smallest
    return np.union1d(edges, below).astype(np.float32)
