"""The scorer of the running job: always answers, and changes what decides only for what is good."""

from pathlib import Path
from typing import Final

import numpy as np
import structlog
from numpy.typing import NDArray

from events.control import ModelUpdate, Thresholds
from events.types import Verdict
from models import heuristic
from models.artefact import ModelRefusedError, load_model
from models.model import Model, Scores
from models.online import OFFLINE, ONLINE, OnlinePart
from models.rules import VERDICTS
from models.signing import Keyring

__all__ = ["Model", "Scorer", "Scores"]

log = structlog.get_logger()

SAFE_VERSION: Final = f"{heuristic.VERSION}+safe-mode"
"""What decides in safe mode, as decisions name it; `of_ensemble` of it is the heuristic."""


class Scorer:
    """The current model with its thresholds, the online part beside it and the heuristic behind it.

    failures: batches for which the loaded model failed and the heuristic decided.
    """

    def __init__(self, model: Model | None, keyring: Keyring) -> None:
        """Without a model the heuristic decides until an update brings one; whose, the keyring says."""
        self.model = model
        self.online: OnlinePart | None = None
        self.failures = 0
        self.online_failures = 0
        self.budget_review: float | None = None
        """Where review starts by a budget of alerts, in place of the limit of the model it was set for."""
        self.safe_mode = False
        """The heuristic decides, whatever model is loaded, and no score blocks."""
        self._keyring = keyring
        self._override: Thresholds | None = None
        self._failing = False

    @property
    def thresholds(self) -> Thresholds:
        """The limits in force: those set by an update, else the model's own, else the heuristic's.

        Limits set by an update are meant for models; the heuristic keeps its own. See `review_threshold`.
        """
        if self.model is None:
            return heuristic.THRESHOLDS
        if self.review_threshold is not None:
            return Thresholds(self.review_threshold, self.model.thresholds.block)
        return self._override or self.model.thresholds

    @property
    def part_failures(self) -> int:
        """Batches in which a part failed, summed over those of the current model and the online one."""
        of_model = sum(self.model.failures.values()) if self.model is not None else 0
        return of_model + self.online_failures

    @property
    def review_threshold(self) -> float | None:
        """The limit that a budget of alerts has set for review; None where another limit holds."""
        return self.budget_review if self._override is None else None

    def score(self, features: NDArray[np.float32]) -> Scores:
        """Scores of features f4 [n, N_FEATURES]; never raises.

        Where no model is loaded, or it fails or answers a score that is not finite, the heuristic decides
        for the whole batch and the scores are `degraded`. What a model answers is pooled with the online
        part, where there is one; its own score is then the part `offline`. In safe mode no model is asked.
        """
        if self.safe_mode:
            return _by_heuristic(features, SAFE_VERSION)
        if self.model is not None:
            try:
                scores = self.model.score(features)
                reason = "a score is not finite"
                if np.isfinite(scores.score).all():
                    self._failing = False
                    return self._with_online(features, scores)
            except Exception as error:  # noqa: BLE001 - whatever a model's runtime raises, an answer is due
                reason = repr(error)
            self._count_failure(self.model, reason)
        return _by_heuristic(features, heuristic.VERSION)

    def levels(self, score: NDArray[np.float64], degraded: bool = False) -> NDArray[np.int8]:
        """Position in VERDICTS, i1 [n], of the verdict on each score f8 [n].

        degraded: as in `Scores`; scores of the heuristic are held against its own limits. In safe mode what
        they would block is reviewed.
        """
        limits = heuristic.THRESHOLDS if degraded else self.thresholds
        reviewed = (score >= limits.review).astype(np.int8)
        return reviewed if self.safe_mode else reviewed + (score >= limits.block)

    def verdicts(self, score: NDArray[np.float64], degraded: bool = False) -> list[Verdict]:
        """The verdict on each score f8 [n]; see `levels`."""
        return [VERDICTS[level] for level in self.levels(score, degraded).tolist()]

    def apply(self, update: ModelUpdate) -> None:
        """Load the model, take the online weights, set the thresholds or begin the safe mode of an update.

        Raises ModelRefusedError, and goes on as before, where the artefact or the weights are refused.
        """
        if update.slot == "thresholds":
            self._override = update.thresholds
            return
        if update.slot == "safe_mode":
            self.safe_mode = True
            return
        if update.online is not None:
            self.online = OnlinePart(update.online)
            return
        if update.artefact is None:
            raise ModelRefusedError("the update names no artefact")
        self.model = load_model(Path(update.artefact), self._keyring)
        self.budget_review = None

    def clear(self, slot: str | None) -> None:
        """Empty a slot of the updates: without `thresholds` those of the model's manifest hold again, without
        `online` the model decides alone, without `safe_mode` models decide again.

        Emptying `model` changes nothing; what decides is replaced, never taken away. Raises
        ModelRefusedError for any other slot.
        """
        if slot == "thresholds":
            self._override = None
        elif slot == "online":
            self.online = None
        elif slot == "safe_mode":
            self.safe_mode = False
        elif slot != "model":
            raise ModelRefusedError(f"unknown slot {slot!r}")

    def _with_online(self, features: NDArray[np.float32], scores: Scores) -> Scores:
        """The scores of the model, pooled with the online part; left alone where that gives none."""
        if self.online is None:
            return scores
        online, pooled = self.online.score(features, scores.score)
        if not np.isfinite(pooled).all():
            self.online_failures += 1
            return scores
        parts = {**scores.parts, OFFLINE: scores.score, ONLINE: online}
        return Scores(pooled, parts, False, f"{scores.model_version}+{self.online.version}")

    def _count_failure(self, model: Model, reason: str) -> None:
        """Count every failure, but log only the first of a row: there may be hundreds a second."""
        self.failures += 1
        if not self._failing:
            log.error("model_failed", model_version=model.version, reason=reason)
        self._failing = True


def _by_heuristic(features: NDArray[np.float32], version: str) -> Scores:
    score = heuristic.heuristic(features)
    return Scores(score, {"heuristic": score}, True, version)
