"""Evaluation of an ensemble by a protocol: what it is worth, what each part adds, how it varies by seed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from events.control import Thresholds
from models.ensemble import Ensemble, Fit, fit_ensemble
from models.history import History
from models.metrics import alerted, cost, daily_precision, metrics
from models.parts.fitted import FitOptions
from models.protocols import Fold, Rows
from state.contract import DAY_MS

LATE_SHARE = 0.25
"""Of the days trained on, the last share on which weights and calibration are learnt."""
ANY = Thresholds(0, 1)

Figures = dict[str, float]
Measure = Callable[[Rows, NDArray[np.float64]], Figures]
"""Figures of scores f8 [n] of the rows tested."""


class Evaluated(NamedTuple):
    """One fold with one seed.

    whole: figures of the ensemble; alone, without: by part, figures of the part alone and of the ensemble
    without it; weights: by part; score: f8 [n] of the rows tested.
    """

    fold: str
    seed: int
    rows: Rows
    whole: Figures
    alone: dict[str, Figures]
    without: dict[str, Figures]
    weights: dict[str, float]
    score: NDArray[np.float64]


def evaluate(  # noqa: PLR0913, PLR0917 - what is measured, how, and who is told
    history: History,
    features: NDArray[np.float32],
    fold: Fold,
    fits: Mapping[str, Fit],
    options: FitOptions,
    measure: Measure,
    progress: Callable[[str], None],
) -> Evaluated:
    """Fit on the training rows of a fold and measure on its test rows.

    features: f4 [n, N_FEATURES] of the whole history. Parts are fitted on all training rows; their weights
    and the calibration come from a first fit on the earlier of them, scored on the later.
    """
    early, late = later_share(history, fold.train, LATE_SHARE)
    fraud = history.is_fraud
    ensemble = fit_ensemble(
        fits, (features[early], fraud[early]), (features[late], fraud[late]), options, progress
    )
    train = features[fold.train], fraud[fold.train]
    ensemble = ensemble._replace(parts={name: fit(*train, options) for name, fit in fits.items()})

    tested = features[fold.test]
    model = ensemble.model("evaluated", ANY)
    score = model.score(tested).score
    alone, without = {}, {}
    for name in fits:
        progress(f"ablation of {name}")
        alone[name] = measure(fold.test, _score(ensemble, frozenset({name}), tested))
        others = frozenset(ensemble.weights) - {name}
        if others:
            without[name] = measure(fold.test, _score(ensemble, others, tested))
    return Evaluated(
        fold.name,
        options.seed,
        fold.test,
        measure(fold.test, score),
        alone,
        without,
        ensemble.weights,
        score,
    )


def later_share(history: History, rows: Rows, share: float) -> tuple[Rows, Rows]:
    """The rows before and after the point of time that leaves the last share of the days behind it."""
    time = history.time[rows]
    cut = time[-1] - round((time[-1] - time[0]) * share)
    late = time > cut
    return rows[~late], rows[late]


def fold_figures(history: History, top: int) -> Measure:
    """AUC, average precision, card precision and recall at fixed false-positive rates."""

    def measure(rows: Rows, score: NDArray[np.float64]) -> Figures:
        return metrics(score, history.is_fraud[rows], history.time[rows], history.user[rows], top)

    return measure


def stream_figures(history: History, budgets: Sequence[int], top: int) -> Measure:
    """The figures of a fold, daily precision, and precision and recall at alert budgets, by pattern too."""

    def measure(rows: Rows, score: NDArray[np.float64]) -> Figures:
        fraud, time, user = history.is_fraud[rows], history.time[rows], history.user[rows]
        figures = metrics(score, fraud, time, user, top)
        figures[f"precision_at_{top}"], figures[f"daily_card_precision_at_{top}"] = daily_precision(
            score, fraud, time, user, top
        )
        for budget in budgets:
            chosen = alerted(score, time, budget)
            figures[f"precision_at_{budget}_a_day"] = float(fraud[chosen].mean())
            figures[f"recall_at_{budget}_a_day"] = float(chosen[fraud].mean())
            for name, of in _scenarios(history, rows).items():
                figures[f"recall_of_{name}_at_{budget}_a_day"] = float(chosen[of].mean())
        return figures

    return measure


def temporal_figures(history: History, top: int, false_alarm: float) -> Measure:
    """The figures of a fold, and the cost of alerting the `top` transactions of each day."""
    amount = history.transactions["amount"]

    def measure(rows: Rows, score: NDArray[np.float64]) -> Figures:
        fraud, time = history.is_fraud[rows], history.time[rows]
        chosen = alerted(score, time, top)
        return metrics(score, fraud, time, history.user[rows], top) | cost(
            chosen, fraud, amount[rows], false_alarm
        )

    return measure


def summary(runs: Sequence[Evaluated]) -> dict[str, Any]:
    """Means over folds and seeds, deviations over seeds of the means over folds, and every single run."""
    seeds = sorted({run.seed for run in runs})
    by_seed = [_mean([run.whole for run in runs if run.seed == seed]) for seed in seeds]
    return {
        "mean": _mean([run.whole for run in runs]),
        "std": _deviation(by_seed),
        "std_over_folds": _deviation(
            [_mean([r.whole for r in runs if r.fold == fold]) for fold in dict.fromkeys(r.fold for r in runs)]
        ),
        "folds": [
            {"fold": run.fold, "seed": run.seed, "transactions": len(run.rows)} | run.whole for run in runs
        ],
        "parts": {
            name: _mean([run.alone[name] for run in runs])
            | {
                "weight": float(np.mean([run.weights[name] for run in runs])),
                "without": _mean([run.without[name] for run in runs if name in run.without]),
            }
            for name in runs[0].alone
        },
    }


def _score(ensemble: Ensemble, names: frozenset[str], features: NDArray[np.float32]) -> NDArray[np.float64]:
    return ensemble.model("ablation", ANY, names).score(features).score


def _scenarios(history: History, rows: Rows) -> dict[str, NDArray[np.bool_]]:
    scenario, fraud = history.scenario[rows], history.is_fraud[rows]
    return {name: fraud & (scenario == name) for name in sorted(set(scenario[fraud]) - {""})}


def _mean(figures: Sequence[Figures]) -> Figures:
    return {name: float(np.mean([f[name] for f in figures])) for name in figures[0]} if figures else {}


def _deviation(figures: Sequence[Figures]) -> Figures:
    if len(figures) < 2:
        return dict.fromkeys(figures[0], 0.0)
    return {name: float(np.std([f[name] for f in figures], ddof=1)) for name in figures[0]}


def day_of(ms: int) -> str:
    """ISO date of a time."""
    return str(np.datetime64(ms // DAY_MS, "D"))
