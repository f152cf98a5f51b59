"""What a score is made of: SHAP values of the trees, and what the other parts of an ensemble add.

Everything is in log-odds, where the parts of an ensemble are averaged, and sums exactly:

    pooled log-odds = base + features + calibration + parts

`base` is the mean of the trees over the rows they were grown on. `features` are the SHAP values of the trees
times their share in the ensemble. `calibration` is what the calibration of the trees moves their log-odds,
times that share. A further part adds its share times the distance of its log-odds from the base; how it came
to them is not broken down. Shares are the weights of the parts that took part in the decision, brought to
sum 1, as in `model.pool`. The calibration of the pooled score comes after all that: it is monotone, so
what raises the log-odds never lowers the score.

SHAP values of trees are exact and follow the paths of the trees (Lundberg et al., From local explanations to
global understanding with explainable AI for trees, 2020).
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import lightgbm as lgb
import numpy as np
import shap
from numpy.typing import NDArray

from models import heuristic
from models.artefact import ModelRefusedError, check_contract, read_checked, trusted_manifest
from models.model import log_odds
from models.signing import Keyring
from state.contract import FEATURE_NAMES, N_FEATURES

TREES = "gbt"
"""Name of the part that holds the trees."""
TREES_FILE = "gbt.txt"
"""The trees as LightGBM writes them to text, beside the manifest."""


class ExplanationError(Exception):
    """A decision or a model cannot be explained; the message says why."""


class Explanation(NamedTuple):
    """What one score is made of, as in `Explanations`; features: f8 [N_FEATURES]."""

    base: float
    features: NDArray[np.float64]
    calibration: float
    parts: dict[str, float]
    log_odds: float


class Explanations(NamedTuple):
    """What the scores of a batch are made of, in log-odds; see the module.

    base, calibration: f8 [n]; features: f8 [n, N_FEATURES]; parts: f8 [n] for each part but the trees, 0
    where it took no part.
    """

    base: NDArray[np.float64]
    features: NDArray[np.float64]
    calibration: NDArray[np.float64]
    parts: dict[str, NDArray[np.float64]]

    def log_odds(self) -> NDArray[np.float64]:
        """The log-odds f8 [n] before the calibration of the pooled score."""
        log_odds: NDArray[np.float64] = self.base + self.features.sum(axis=1) + self.calibration
        for added in self.parts.values():
            log_odds += added
        return log_odds

    def rows(self) -> Iterator[Explanation]:
        """The explanation of each score, in order."""
        for i, odds in enumerate(self.log_odds().tolist()):
            parts = {name: float(added[i]) for name, added in self.parts.items()}
            yield Explanation(float(self.base[i]), self.features[i], float(self.calibration[i]), parts, odds)


class Explainer:
    """Explains the decisions of one model."""

    def __init__(self, version: str, trees: lgb.Booster, weights: Mapping[str, float]) -> None:
        """weights: of the parts of the model. Raises ExplanationError where the trees are not its own."""
        if tuple(trees.feature_name()) != FEATURE_NAMES:
            raise ExplanationError("the trees were grown on other features than those of the contract")
        if TREES not in weights:
            raise ExplanationError(f"the model has no part {TREES}")
        self.version = version
        self._names = tuple(weights)
        self._weights = np.array(list(weights.values()))
        self._trees = shap.TreeExplainer(trees)

    def explain(self, features: NDArray[np.float32], parts: Sequence[Mapping[str, float]]) -> Explanations:
        """Explain scores of features f4 [n, N_FEATURES] by `parts`, what each part gave, as in `Scores`.

        Raises ExplanationError where a score has no part of this model, or one that the model lacks.
        """
        given = self._given(parts)
        if not len(given):
            nothing = np.zeros(0)
            others = {name: nothing for name in self._names if name != TREES}
            return Explanations(nothing, np.zeros((0, N_FEATURES)), nothing, others)
        found = self._trees(features)
        base = np.asarray(found.base_values, np.float64)
        share = shares(~np.isnan(given), self._weights)
        added = np.where(share > 0, share * (log_odds(given) - base[:, np.newaxis]), 0.0)
        of_trees = self._names.index(TREES)
        values = found.values * share[:, [of_trees]]
        return Explanations(
            base=base,
            features=values,
            calibration=added[:, of_trees] - values.sum(axis=1),
            parts={name: added[:, k] for k, name in enumerate(self._names) if name != TREES},
        )

    def _given(self, parts: Sequence[Mapping[str, float]]) -> NDArray[np.float64]:
        """Probabilities f8 [n, parts] by the parts of the model; NaN for one that took no part."""
        for row in parts:
            if not row or not row.keys() <= set(self._names):
                raise ExplanationError(
                    f"parts {sorted(row)} are not those of {self.version}: {sorted(self._names)}"
                )
        rows = [[row.get(name, np.nan) for name in self._names] for row in parts]
        return np.array(rows, np.float64).reshape(len(rows), len(self._names))


def shares(present: NDArray[np.bool_], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share f8 [n, parts] of each part among those present, bool [n, parts] with one or more in a row.

    In proportion to weights f8 [parts]; where all of those present are 0 they count alike.
    """
    held = present * weights
    held = np.where(held.sum(axis=1, keepdims=True) > 0, held, present)
    shared: NDArray[np.float64] = held / held.sum(axis=1, keepdims=True)
    return shared


def explain_heuristic(features: NDArray[np.float32]) -> Explanations:
    """What the heuristic's scores of features f4 [n, N_FEATURES] are made of: the points of its signs."""
    n = len(features)
    base = np.full(n, heuristic.BASE_POINTS)
    return Explanations(base, heuristic.contributions(features), np.zeros(n), {})


def load_explainer(folder: Path, keyring: Keyring) -> Explainer:
    """The explainer of the model in an artefact's folder, from the trees' text.

    Raises ExplanationError where nobody in the keyring signed the artefact, it is not whole, not of this
    contract, or ships no trees.
    """
    try:
        manifest = trusted_manifest(folder, keyring)
        check_contract(manifest)
        text = read_checked(folder, TREES_FILE, manifest.files)
    except ModelRefusedError as error:
        raise ExplanationError(str(error)) from error
    try:
        trees = lgb.Booster(model_str=text.decode())
    except (lgb.basic.LightGBMError, UnicodeDecodeError) as error:
        raise ExplanationError(f"{TREES_FILE} does not load: {error}") from error
    weights = {name: part.weight for name, part in manifest.parts.items()}
    return Explainer(manifest.model_version, trees, weights)
