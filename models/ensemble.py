"""Fitting of an ensemble: parts on an earlier block, their weights and calibration on a later one."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from events.control import Thresholds
from models.artefact import Calibration
from models.calibration import calibrate
from models.model import Model, Part, log_odds, pool
from models.parts.fitted import FitOptions, Fitted

Fit = Callable[[NDArray[np.float32], NDArray[np.bool_], FitOptions], Fitted]
"""Fits a part on features f4 [n, N_FEATURES] and classes bool [n]."""

LEAST_WEIGHT = 0.03
"""A part with a smaller share adds nothing that is worth its time, and is switched off."""
RIDGE = 1e-3

IDENTITY = Calibration([0.0, 1.0], [0.0, 1.0])


class Ensemble(NamedTuple):
    """A fitted ensemble: parts and, by their names, weights that sum to 1 and calibrations."""

    parts: dict[str, Fitted]
    weights: dict[str, float]
    calibrations: dict[str, Calibration]
    calibration: Calibration

    def model(self, version: str, thresholds: Thresholds, names: frozenset[str] | None = None) -> Model:
        """The model of the parts that are switched on, or of the parts named."""
        chosen = names if names is not None else {name for name, weight in self.weights.items() if weight > 0}
        parts = {
            name: Part(fitted.onnx, knots(self.calibrations[name]), self.weights[name])
            for name, fitted in self.parts.items()
            if name in chosen
        }
        return Model(version, parts, knots(self.calibration), thresholds)


def knots(calibration: Calibration) -> tuple[list[float], list[float]]:
    """As `Model` takes them."""
    return calibration.x, calibration.y


def fit_ensemble(
    fits: Mapping[str, Fit],
    early: tuple[NDArray[np.float32], NDArray[np.bool_]],
    late: tuple[NDArray[np.float32], NDArray[np.bool_]],
    options: FitOptions,
    progress: Callable[[str], None],
) -> Ensemble:
    """Parts fitted on the earlier of two blocks of features f4 [n, N_FEATURES] and classes bool [n].

    Weights and calibrations are learnt on the later one, which no part has seen.
    """
    parts: dict[str, Fitted] = {}
    calibrations: dict[str, Calibration] = {}
    scores: dict[str, NDArray[np.float64]] = {}
    features, is_fraud = late
    for name, fit in fits.items():
        progress(name)
        parts[name] = fit(*early, options)
        raw = Part(parts[name].onnx, knots(IDENTITY), 1.0).raw(features)[:, 0]
        calibrations[name] = calibrate(raw, is_fraud)
        scores[name] = np.interp(raw, *knots(calibrations[name]))
    weights = learn_weights(scores, is_fraud)
    on = {name: score for name, score in scores.items() if weights[name] > 0}
    pooled = pool(on, weights)
    return Ensemble(parts, weights, calibrations, calibrate(pooled.astype(np.float32), is_fraud))


def learn_weights(scores: Mapping[str, NDArray[np.float64]], is_fraud: NDArray[np.bool_]) -> dict[str, float]:
    """Weights from 0 to 1, summing to 1, of parts with probabilities f8 [n].

    Logistic regression of the truth on the parts' log-odds, with no coefficient below 0 (stacking; Breiman,
    Stacked Regressions, 1996) and a light ridge, brought to sum 1; shares below LEAST_WEIGHT become 0.
    """
    names = list(scores)
    x = log_odds(np.stack([scores[name] for name in names], axis=1))
    centre = x.mean(axis=0)
    x -= centre

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights, bias = parameters[:-1], parameters[-1]
        odds = x @ weights + bias
        value = np.logaddexp(0, odds).mean() - odds[is_fraud].sum() / len(odds)
        gradient = 1 / (1 + np.exp(-odds)) - is_fraud
        slope = x.T @ gradient / len(odds) + 2 * RIDGE * weights
        return float(value + RIDGE * weights @ weights), np.append(slope, gradient.mean())

    start = np.append(np.full(len(names), 1 / len(names)), np.log(is_fraud.mean() / (1 - is_fraud.mean())))
    bounds = [(0.0, None)] * len(names) + [(None, None)]
    found = minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B").x[:-1]
    if found.sum() <= 0:
        return dict.fromkeys(names, 1 / len(names))
    shares = found / found.sum()
    shares[shares < LEAST_WEIGHT] = 0.0
    shares /= shares.sum()
    return {name: round(float(share), 4) for name, share in zip(names, shares, strict=True)}
