"""A loaded model: ONNX in, calibrated probability out."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from events.control import Thresholds

INPUT = "features"
"""Input of the ONNX model: f4 [n, N_FEATURES], in the order of the feature contract."""
OUTPUT = "raw_score"
"""Output of the ONNX model: f4 [n, 1] in [0, 1], before calibration."""
TREES = "gbt"
"""Name of the part of a score that the gradient-boosted trees give."""


class Scores(NamedTuple):
    """Scores of a batch.

    score: f8 [n], probability of fraud in [0, 1]; parts: f8 [n] in [0, 1] for each part of the model that
    took part; degraded: the heuristic decided instead of the model; model_version: what decided.
    """

    score: NDArray[np.float64]
    parts: dict[str, NDArray[np.float64]]
    degraded: bool
    model_version: str


class Model:
    """Gradient-boosted trees with their calibration.

    One thread: the scorer shares its cores with the stream, and a batch is too small to divide. A row's
    score does not depend on the batch it comes in: every tree is summed in the same order for each row.
    """

    def __init__(
        self,
        version: str,
        onnx: bytes,
        knots: tuple[Sequence[float], Sequence[float]],
        thresholds: Thresholds,
    ) -> None:
        """knots: x and y of the monotone piecewise-linear map from raw score to probability.

        Raises what onnxruntime raises where `onnx` is no model.
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what goes wrong is raised; the log would only say it again
        self.version = version
        self.thresholds = thresholds
        self.session = ort.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        self._x, self._y = (np.array(k, np.float64) for k in knots)

    def raw(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Uncalibrated scores f4 [n, 1] of features f4 [n, N_FEATURES]."""
        result: NDArray[np.float32] = self.session.run([OUTPUT], {INPUT: features})[0]
        return result

    def score(self, features: NDArray[np.float32]) -> Scores:
        """Scores of features f4 [n, N_FEATURES]. Raises what onnxruntime raises where it fails."""
        score = np.interp(self.raw(features)[:, 0], self._x, self._y)
        return Scores(score, {TREES: score}, False, self.version)
