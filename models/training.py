"""Training of an ensemble: replay, split by time, fit, export, weigh, calibrate, measure."""

import hashlib
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from events.control import Thresholds
from models.artefact import (
    FEATURES_SHA256,
    Manifest,
    PartManifest,
    TrainingSummary,
    probe_batch,
    sha256,
)
from models.baseline import Baseline, baseline
from models.ensemble import IDENTITY, Ensemble, fit_ensemble, knots
from models.heuristic import heuristic
from models.history import History
from models.metrics import Decile, daily_top, deciles, metrics
from models.model import Part
from models.parts.fitted import FitOptions, Fitted
from models.parts.trees import TreeOptions
from models.recipe import DEFAULT_PARTS, recipe
from state.contract import CONTRACT_VERSION, DAY_MS, FEATURE_NAMES
from state.replay import replay

SPLIT: Final = (0.6, 0.2, 0.2)
LEAST_DAYS: Final = 5.0
"""Of the three blocks together, without the gaps between them."""
MAX_ONNX_DIFFERENCE: Final = 1e-5
LEAST_BLOCKED: Final = 20
"""Rows on which the precision of blocking must have been seen."""

OPTIONAL: Final[tuple[tuple[tuple[str, float], ...], ...]] = (
    (("terminal", 0),),
    (("device", 0),),
    (("receiver", 0),),
    (("country", 0),),
    (("latitude", np.nan), ("longitude", np.nan)),
    (("card_present", np.nan),),
    (("type", 0),),
    (("balance_before", np.nan), ("balance_after", np.nan)),
)
"""Fields of TRANSACTION that a source may lack, those that go together in one group, and how each says so."""


class TrainingError(ValueError):
    """Nothing can be trained on this history; the message says why. Nothing was written."""


class TrainingOptions(NamedTuple):
    """How to train. `alerts_per_day` takes the place of `review_fpr` where it is given."""

    parts: tuple[str, ...] = DEFAULT_PARTS
    trees: TreeOptions = TreeOptions()
    seed: int = 1
    label_delay_days: float = 7.0
    threads: int = 2
    blanked_users: float = 0.3
    review_fpr: float = 0.005
    alerts_per_day: float | None = None
    block_precision: float = 0.9


class Blocks(NamedTuple):
    """Rows of each block, with a gap of one label delay before the second and the third."""

    train: slice
    calibration: slice
    test: slice


class Trained(NamedTuple):
    """A trained ensemble, measured on a block of time it has not seen.

    onnx_difference: by part, the largest from the library that fitted it.
    """

    ensemble: Ensemble
    thresholds: Thresholds
    baseline: Baseline
    metrics: dict[str, dict[str, float]]
    deciles: list[Decile]
    rows: int
    frauds: int
    window_ms: tuple[int, int]
    data_sha256: str
    onnx_difference: dict[str, float]
    constant: list[str]
    """Features that never vary in the training block, and so cannot count."""


def train(history: History, options: TrainingOptions, progress: Callable[[str], None]) -> Trained:
    """Train on a history; the same history and options give the same model.

    For a share of the users optional fields are blanked in the training block, so that sources which lack
    them are nothing new. `progress` is told each step. Raises TrainingError where the history does not do,
    and UnknownPartError.
    """
    fits = recipe(options.parts, options.trees)
    delay_ms = round(options.label_delay_days * DAY_MS)
    blocks = split(history, delay_ms)

    progress("features")
    features, scored = _features(history, delay_ms)
    blanked, bare = _blanked(history, options)
    blanked_features, _ = _features(blanked, delay_ms)

    fitted = np.flatnonzero(scored[blocks.train]) + blocks.train.start
    held = np.flatnonzero(scored[blocks.calibration]) + blocks.calibration.start
    fraud = history.is_fraud
    constant = _constant(blanked_features[fitted])
    ensemble = fit_ensemble(
        fits,
        (blanked_features[fitted], fraud[fitted]),
        (features[held], fraud[held]),
        FitOptions(options.seed, options.threads),
        progress,
    )
    model = ensemble.model("trained", Thresholds(0, 1))
    days = (history.time[held[-1]] - history.time[held[0]]) / DAY_MS
    thresholds = choose_thresholds(model.score(features[held]).score, fraud[held], days, options)

    progress("metrics")
    tested = np.flatnonzero(scored[blocks.test]) + blocks.test.start
    difference = {
        name: onnx_difference(name, part, features[tested]) for name, part in ensemble.parts.items()
    }
    score, by_part, *_ = model.score(features[tested])
    measured = {
        "test": _metrics(history, tested, score),
        "test_heuristic": _metrics(history, tested, heuristic(features[tested])),
        "test_at_thresholds": _at_thresholds(history, tested, score, thresholds),
    } | {f"test_{name}": _metrics(history, tested, part) for name, part in by_part.items()}
    alone = tested[bare[history.user[tested]]]
    if history.is_fraud[alone].any() and not history.is_fraud[alone].all():
        measured["test_without_optional_fields"] = _metrics(
            history, alone, model.score(blanked_features[alone]).score
        )
    return Trained(
        ensemble=ensemble,
        thresholds=thresholds,
        baseline=baseline(features[tested], score),
        metrics=measured,
        deciles=deciles(score, history.is_fraud[tested]),
        rows=len(fitted),
        frauds=int(history.is_fraud[fitted].sum()),
        window_ms=(int(history.time[fitted[0]]), int(history.time[fitted[-1]])),
        data_sha256=_data_sha256(history),
        onnx_difference=difference,
        constant=constant,
    )


def split(history: History, delay_ms: int) -> Blocks:
    """Blocks of time in the proportions of SPLIT, with the gaps in which labels become known.

    Raises TrainingError where there are too few days, or a block lacks one of the classes.
    """
    if not history.is_fraud.any():
        raise TrainingError("is_fraud: there is no fraud")
    if history.is_fraud.all():
        raise TrainingError("is_fraud: there is nothing but fraud")
    time = history.time
    usable = time[-1] + 1 - time[0] - 2 * delay_ms
    if usable < LEAST_DAYS * DAY_MS:
        days, needed = (time[-1] - time[0]) / DAY_MS, LEAST_DAYS + 2 * delay_ms / DAY_MS
        raise TrainingError(
            f"event_time: too few days, {days:.1f}; a label delay of {delay_ms / DAY_MS:g} needs {needed:g}"
        )
    edges = []
    start = int(time[0])
    for share in SPLIT:
        end = start + round(usable * share) + 1
        edges.append(slice(*np.searchsorted(time, (start, end)).tolist()))
        start = end + delay_ms
    blocks = Blocks(*edges)
    for name, block in blocks._asdict().items():
        frauds = history.is_fraud[block]
        if not frauds.any() or frauds.all():
            raise TrainingError(
                f"is_fraud: the {name} block of {len(frauds)} transactions has one class only"
            )
    return blocks


def choose_thresholds(
    score: NDArray[np.float64], is_fraud: NDArray[np.bool_], days: float, options: TrainingOptions
) -> Thresholds:
    """Review as often as the alert budget allows, block where blocking is right often enough.

    score: f8 [n], calibrated, over `days` days. Where no threshold reaches `block_precision` nothing short
    of certainty is blocked.
    """
    descending = np.argsort(-score, kind="stable")
    ranked, frauds = score[descending], is_fraud[descending]
    false_alarms = np.cumsum(~frauds)
    if options.alerts_per_day is None:
        allowed = int(np.searchsorted(false_alarms, options.review_fpr * false_alarms[-1], side="right"))
    else:
        allowed = int(options.alerts_per_day * days)
    review = ranked[np.clip(allowed - 1, 0, len(ranked) - 1)]
    precision = np.cumsum(frauds) / np.arange(1, len(ranked) + 1)
    precise = np.flatnonzero(precision >= options.block_precision)
    block = ranked[precise[-1]] if len(precise) and precise[-1] >= LEAST_BLOCKED - 1 else 1.0
    return Thresholds(review=round(float(review), 6), block=round(float(max(review, block)), 6))


def onnx_difference(name: str, fitted: Fitted, features: NDArray[np.float32]) -> float:
    """Largest difference between ONNX and the library over these features and the probe of every load.

    Raises TrainingError where it exceeds MAX_ONNX_DIFFERENCE.
    """
    exported = Part(fitted.onnx, knots(IDENTITY), 1.0)
    largest = 0.0
    for batch in (features, probe_batch()):
        difference = np.abs(exported.raw(batch)[:, 0] - fitted.native(batch))
        largest = max(largest, float(difference.max(initial=0.0)))
    if largest > MAX_ONNX_DIFFERENCE:
        raise TrainingError(f"{name}: the exported model differs from the trained one by {largest:.2g}")
    return largest


def artefact_files(trained: Trained) -> dict[str, bytes]:
    """The files of the artefact: the ONNX of each part that is switched on, and what belongs to it."""
    files: dict[str, bytes] = {}
    for name, fitted in trained.ensemble.parts.items():
        if trained.ensemble.weights[name] > 0:
            files |= {f"{name}.onnx": fitted.onnx, **fitted.extra}
    return files


def manifest(trained: Trained, version: str | None, source: str, options: TrainingOptions) -> Manifest:
    """The manifest of a trained model; without a version it gets one that follows from its content."""
    ensemble = trained.ensemble
    digests = {name: sha256(data) for name, data in artefact_files(trained).items()}
    start, end = (
        datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds") for ms in trained.window_ms
    )
    return Manifest(
        model_version=version or f"ensemble-{sha256(repr(sorted(digests.items())).encode())[:12]}",
        contract_version=CONTRACT_VERSION,
        features_sha256=FEATURES_SHA256,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        files=digests,
        training=TrainingSummary(
            source,
            trained.rows,
            trained.frauds,
            (start, end),
            options.seed,
            options.label_delay_days,
            trained.data_sha256,
        ),
        metrics=trained.metrics,
        parts={
            name: PartManifest(f"{name}.onnx", weight, ensemble.calibrations[name])
            for name, weight in ensemble.weights.items()
            if weight > 0
        },
        calibration=ensemble.calibration,
        thresholds=trained.thresholds,
        baseline=trained.baseline,
    )


def _data_sha256(history: History) -> str:
    digest = hashlib.sha256()
    for column in (
        history.transactions,
        history.user,
        history.terminal,
        history.is_fraud,
        history.labelled_at,
    ):
        digest.update(np.ascontiguousarray(column).view(np.uint8).data)
    return digest.hexdigest()


def _features(history: History, delay_ms: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Features f4 [n, N_FEATURES], and bool [n] which transactions the job would score (repeats it drops)."""
    result = replay(history.transactions, history.user, history.terminal, history.known_labels(), delay_ms)
    return result.features, result.status <= 1


def _blanked(history: History, options: TrainingOptions) -> tuple[History, NDArray[np.bool_]]:
    """The history without optional fields for a share of the users, and bool [users] who of them has none.

    Half of these users keep nothing but the terminal; the others lose each group of fields by even chance.
    """
    rng = np.random.default_rng(options.seed)
    users = int(history.user.max()) + 1
    draw = rng.random(users)
    bare = draw < options.blanked_users / 2
    some = (draw < options.blanked_users) & ~bare
    array, terminal = history.transactions.copy(), history.terminal.copy()
    for group in OPTIONAL:
        loses = some & rng.integers(0, 2, users, np.bool_)
        if group[0][0] != "terminal":
            loses |= bare
        rows = loses[history.user]
        for field, missing in group:
            array[field][rows] = missing
        if group[0][0] == "terminal":
            terminal[rows] = -1
    return history._replace(transactions=array, terminal=terminal), bare


def _constant(features: NDArray[np.float32]) -> list[str]:
    """Names of the features that are the same, or missing, in every row."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all NaN is one of the answers
        low, high = np.nanmin(features, axis=0), np.nanmax(features, axis=0)
    partly_missing = np.isnan(features).any(axis=0) & ~np.isnan(low)
    return [FEATURE_NAMES[k] for k in np.flatnonzero(~(low < high) & ~partly_missing)]


def _metrics(history: History, rows: NDArray[np.int64], score: NDArray[np.float64]) -> dict[str, float]:
    time, user = history.time[rows], history.user[rows]
    return metrics(score, history.is_fraud[rows], time, user, daily_top(time, user))


def _at_thresholds(
    history: History, rows: NDArray[np.int64], score: NDArray[np.float64], thresholds: Thresholds
) -> dict[str, float]:
    """What the thresholds do: alerts a day, precision, recall in all and by fraud pattern."""
    fraud, scenario = history.is_fraud[rows], history.scenario[rows]
    review, block = score >= thresholds.review, score >= thresholds.block
    days = (history.time[rows[-1]] - history.time[rows[0]]) / DAY_MS
    figures = {
        "alerts_per_day": float(review.sum() / days),
        "alert_precision": float(fraud[review].mean()) if review.any() else 0.0,
        "alert_recall": float(review[fraud].mean()),
        "false_alarm_rate": float(review[~fraud].mean()),
        "block_precision": float(fraud[block].mean()) if block.any() else 0.0,
        "block_recall": float(block[fraud].mean()),
    }
    for name in sorted(set(scenario[fraud]) - {""}):
        figures[f"alert_recall_of_{name}"] = float(review[fraud & (scenario == name)].mean())
    return figures
