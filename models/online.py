"""The online part: a logistic model over squashed features and the ensemble's log-odds, pooled with these."""

import math
from typing import Any, Final

import numba as nb
import numpy as np
from numpy.typing import NDArray

from events.control import OnlineWeights
from models.artefact import FEATURES_SHA256, ModelRefusedError, probe_batch
from models.model import LEAST
from state.contract import FEATURE_NAMES, N_FEATURES

OFFLINE: Final = "offline"
ONLINE: Final = "online"
"""Names in the parts of a decision: the score of the ensemble, and what the online part gives by itself."""
FURTHEST: Final = math.log((1 - LEAST) / LEAST)
"""Log-odds are kept within this."""
ONE: Final = np.float32(1)


def of_ensemble(model_version: str) -> str:
    """The version of the ensemble in that of a decision, whether an online part stood beside it or not."""
    return model_version.partition("+")[0]


class OnlinePart:
    """Online weights, laid out for the batch.

    The pool is the weighted mean of the log-odds, as within the ensemble; see `model.pool`. A row's score
    does not depend on the batch it comes in.
    """

    def __init__(self, weights: OnlineWeights) -> None:
        """Raises ModelRefusedError where the weights are for other features or give no finite score."""
        if weights.features_sha256 != FEATURES_SHA256:
            raise ModelRefusedError(f"{weights.version}: the feature list differs from that of this engine")
        unknown = [name for name in weights.features if name not in FEATURE_NAMES]
        if unknown:
            raise ModelRefusedError(f"{weights.version}: unknown feature {unknown[0]!r}")
        self.version = weights.version
        columns = [FEATURE_NAMES.index(name) for name in weights.features]
        with np.errstate(over="ignore"):  # what float32 cannot hold is refused below
            self._linear = np.zeros((3, N_FEATURES), np.float32)
            self._linear[1] = 1
            self._linear[:, columns] = weights.centre, weights.scale, weights.weight
            self._scalars = (np.float32(weights.limit), weights.offline, weights.bias, weights.share)
        if not np.isfinite(self._linear).all() or not all(math.isfinite(scalar) for scalar in self._scalars):
            raise ModelRefusedError(f"{weights.version}: a weight is not finite")
        probe = probe_batch()
        scores = self.score(probe, np.linspace(0, 1, len(probe)))
        if not np.isfinite(scores).all():
            raise ModelRefusedError(f"{weights.version}: a score of the probe is not finite")

    def score(
        self, features: NDArray[np.float32], offline: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Probabilities f8 [n] by this part alone, and pooled with those of the ensemble.

        features: f4 [n, N_FEATURES], NaN where missing; offline: f8 [n], the probability by the ensemble.
        """
        answer: tuple[NDArray[np.float64], NDArray[np.float64]] = _score(
            squash(features), offline, self._linear, self._scalars
        )
        return answer


def squash(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """The symmetric logarithm sign(x) ln(1 + |x|) of features f4 of any shape; NaN stays.

    Webber, A bi-symmetric log transformation for wide-range data, 2013. Not by log1p, which is slower.
    """
    squashed: NDArray[np.float32] = np.abs(features)
    squashed += ONE
    np.log(squashed, out=squashed)
    return np.copysign(squashed, features, out=squashed)


# Sums may be taken in any order, the same for each row; NaN and infinity keep their meaning.
@nb.njit(cache=True, fastmath={"reassoc", "contract"})
def _score(squashed: Any, offline: Any, linear: Any, scalars: Any) -> Any:
    """What `OnlinePart.score` answers, by the formula of `OnlineWeights`."""
    centre, scale, weight = linear
    limit, of_offline, bias, share = scalars
    online, pooled = np.empty(len(squashed)), np.empty(len(squashed))
    for row in range(len(squashed)):
        held = min(max(offline[row], LEAST), 1 - LEAST)
        prior = math.log(held / (1 - held))
        log_odds = bias + of_offline * prior
        for k in range(squashed.shape[1]):
            x = squashed[row, k]
            z = min(max((x - centre[k]) * scale[k], -limit), limit)
            log_odds += weight[k] * (z if x == x else np.float32(0))  # noqa: PLR0124 - NaN is missing
        log_odds = min(max(log_odds, -FURTHEST), FURTHEST)
        online[row] = 1 / (1 + math.exp(-log_odds))
        pooled[row] = 1 / (1 + math.exp(-((1 - share) * prior + share * log_odds)))
    return online, pooled
