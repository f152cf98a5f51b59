"""A loaded model: an ensemble of ONNX parts in, calibrated probability out."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import onnxruntime as ort
import structlog
from numpy.typing import NDArray

from events.control import Thresholds
from models.baseline import Baseline

INPUT = "features"
"""Input of each part: f4 [n, N_FEATURES], in the order of the feature contract."""
OUTPUT = "raw_score"
"""Output of each part: f4 [n, 1] in [0, 1], before calibration."""
LEAST = 1e-9
"""Probabilities are kept this far from 0 and 1 where their log-odds are taken."""

Knots = tuple[Sequence[float], Sequence[float]]
"""x and y of a monotone piecewise-linear map from raw score to probability."""

log = structlog.get_logger()


class ScoringError(Exception):
    """No part of the model gave scores."""


class Scores(NamedTuple):
    """Scores of a batch.

    score: f8 [n], probability of fraud in [0, 1]; parts: f8 [n] in [0, 1] for each part of the model that
    took part; degraded: the heuristic decided instead of the model; model_version: what decided.
    """

    score: NDArray[np.float64]
    parts: dict[str, NDArray[np.float64]]
    degraded: bool
    model_version: str


class Part:
    """One model of an ensemble, with its calibration and its weight among the others.

    One thread: the scorer shares its cores with the stream, and a batch is too small to divide. A row's
    score depends on the batch it comes in by rounding alone: the sums of a network take another order.
    """

    def __init__(self, onnx: bytes, knots: Knots, weight: float) -> None:
        """Raises what onnxruntime raises where `onnx` is no model."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what goes wrong is raised; the log would only say it again
        # By itself onnxruntime would take its own format too, which nothing here has looked into.
        options.add_session_config_entry("session.load_model_format", "ONNX")
        self.weight = weight
        self.session = ort.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        self._x, self._y = (np.array(k, np.float64) for k in knots)

    def raw(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Uncalibrated scores f4 [n, 1] of features f4 [n, N_FEATURES]."""
        result: NDArray[np.float32] = self.session.run([OUTPUT], {INPUT: features})[0]
        return result

    def score(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Probabilities f8 [n] of features f4 [n, N_FEATURES].

        Raises what onnxruntime raises where it fails, and ScoringError where a score is not finite.
        """
        score = np.interp(self.raw(features)[:, 0], self._x, self._y)
        if not np.isfinite(score).all():
            raise ScoringError("a score is not finite")
        return score


class Model:
    """An ensemble: the weighted mean of the log-odds of its parts, calibrated.

    A part that fails is left out of the batch, and the weights of the others count in proportion
    (logarithmic opinion pool; Genest and Zidek, Combining Probability Distributions, 1986).
    """

    def __init__(
        self,
        version: str,
        parts: Mapping[str, Part],
        knots: Knots,
        thresholds: Thresholds,
        baseline: Baseline | None = None,
    ) -> None:
        """knots: from the pooled probability to the probability that is given; baseline: to tell drift by."""
        self.version = version
        self.thresholds = thresholds
        self.baseline = baseline
        self.parts = dict(parts)
        self.failures = dict.fromkeys(parts, 0)
        """Batches that each part failed in."""
        self._x, self._y = (np.array(k, np.float64) for k in knots)

    def score(self, features: NDArray[np.float32]) -> Scores:
        """Scores of features f4 [n, N_FEATURES]. Raises ScoringError where no part gives any."""
        given: dict[str, NDArray[np.float64]] = {}
        reason = "it has no parts"
        for name, part in self.parts.items():
            try:
                given[name] = part.score(features)
            except Exception as error:  # noqa: BLE001 - whatever a part's runtime raises, the others go on
                reason = repr(error)
                self._count_failure(name, reason)
        if not given:
            raise ScoringError(reason)
        pooled = pool(given, {name: part.weight for name, part in self.parts.items()})
        return Scores(np.interp(pooled, self._x, self._y), given, False, self.version)

    def _count_failure(self, name: str, reason: str) -> None:
        """Count every failure, but log only the first: there may be hundreds a second."""
        if not self.failures[name]:
            log.error("model_part_failed", model_version=self.version, part=name, reason=reason)
        self.failures[name] += 1


def log_odds(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """The log-odds of probabilities f8 of any shape, held `LEAST` away from 0 and 1."""
    held = np.clip(probability, LEAST, 1 - LEAST)
    odds: NDArray[np.float64] = np.log(held / (1 - held))
    return odds


def pool(parts: Mapping[str, NDArray[np.float64]], weights: Mapping[str, float]) -> NDArray[np.float64]:
    """The weighted mean, in log-odds, of probabilities f8 [n] of each part.

    Weights count in proportion among the parts given; where all of those are 0 they count alike.
    """
    total = sum(weights[name] for name in parts)
    pooled = np.zeros(len(next(iter(parts.values()))))
    for name, probability in parts.items():
        share = weights[name] / total if total > 0 else 1 / len(parts)
        pooled += share * log_odds(probability)
    return 1 / (1 + np.exp(-pooled))
