"""Watches the model in force from within its task: drift of what it is given, and a budget of alerts."""

import numpy as np
import structlog
from numpy.typing import NDArray
from pyflink.metrics import Counter, MetricGroup

from models.alert_budget import AlertBudget
from models.drift import CHANGED, UNCHANGED, Drift, Drifted
from models.model import Model, Scores
from models.online import OFFLINE
from models.scorer import Scorer

log = structlog.get_logger()


class Level:
    """A level on a counter: in thread mode a gauge would be read by a thread that is none of Python's."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._value = 0

    def set(self, value: float) -> None:
        """Set to a value, rounded to a whole number."""
        change = round(value) - self._value
        if change:
            self._counter.inc(change)
            self._value += change


class Watch:
    """Counts what the model is given and answers; another model means starting again.

    Nothing is kept over a restart: the window fills again, and the threshold starts from the model's own.
    """

    def __init__(self, metrics: MetricGroup, drift_hours: float, alerts_per_day: float) -> None:
        """alerts_per_day: of this task, 0 for no budget."""
        self._metrics = metrics
        self._drift_hours = drift_hours
        self._alerts_per_day = alerts_per_day
        self._model: Model | None = None
        self._drift: Drift | None = None
        self._budget: AlertBudget | None = None
        self._changed: set[str] = set()
        self._score = Level(metrics.counter("drift_score_milli_psi"))
        self._largest = Level(metrics.counter("drift_largest_milli_psi"))
        self._features_changed = Level(metrics.counter("drift_features_changed"))
        self._features: dict[str, Level] = {}
        self._review = Level(metrics.counter("review_threshold_millionths"))

    def observe(
        self,
        scorer: Scorer,
        features: NDArray[np.float32],
        scores: Scores,
        alert_scores: NDArray[np.float64],
        time_ms: int,
    ) -> None:
        """Take in a batch, after it was decided; may move the threshold of the scorer.

        alert_scores: f8 [n], the scores as the budget counts them: an alert that rules raised counts too.
        time_ms: latest event time. What the heuristic decided is left out.
        """
        if scorer.model is not self._model:
            self._follow(scorer.model)
        if scores.degraded:
            return
        if self._drift is not None:
            # The baseline is that of the ensemble alone.
            of_ensemble = scores.parts.get(OFFLINE, scores.score)
            drifted = self._drift.observe(features, of_ensemble, time_ms)
            if drifted is not None:
                self._tell(drifted, scores.model_version)
        if self._budget is not None:
            self._budget.observe(alert_scores, time_ms)
            scorer.budget_review = self._budget.review
        self._review.set(scorer.thresholds.review * 1e6)

    def _follow(self, model: Model | None) -> None:
        self._model = model
        self._drift = self._budget = None
        self._changed.clear()
        for level in (self._score, self._largest, self._features_changed, *self._features.values()):
            level.set(0)
        if model is None:
            return
        if model.baseline is not None:
            self._drift = Drift(model.baseline, self._drift_hours)
        if self._alerts_per_day > 0:
            self._budget = AlertBudget(self._alerts_per_day, model.thresholds)

    def _tell(self, drifted: Drifted, model_version: str) -> None:
        """Set the levels; log what has changed since it was last unchanged."""
        values = drifted.features
        changed = {name for name, value in values.items() if value > CHANGED}
        self._score.set(1000 * drifted.score)
        self._largest.set(1000 * max(values.values(), default=0.0))
        self._features_changed.set(len(changed))
        for name in changed - self._features.keys():
            self._features[name] = Level(self._metrics.counter(f"drift_{name}_milli_psi"))
        for name, level in self._features.items():
            level.set(1000 * values.get(name, 0.0))
        new = changed - self._changed
        if new:
            named = {name: round(values[name], 3) for name in sorted(new, key=lambda n: -values[n])}
            log.warning(
                "drift",
                model_version=model_version,
                rows=drifted.rows,
                score=round(drifted.score, 3),
                features=named,
            )
        self._changed = changed | {n for n in self._changed if values.get(n, 0.0) > UNCHANGED}
