"""The watch over the model in force, on its own and in the terminal stage, without a JVM."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from pyflink.datastream import OutputTag
from structlog.testing import capture_logs

from events.control import ModelUpdate, Thresholds
from events.decision import Decision
from events.transaction import Transaction
from models.artefact import load_model
from models.baseline import baseline
from models.drift import LEAST_ROWS, STEP
from models.model import Model, Scores
from models.scorer import Scorer
from operators.terminal_stage import TerminalStage, TerminalStageSettings
from operators.watch import Level, Watch
from state.contract import FEATURE_NAMES, HOUR_MS, MINUTE_MS, N_FEATURES
from tests.models.small_models import UNSIGNED, VERSION, random_features, write_small_artefact
from tests.operators.contexts import SHARD, Context
from tests.operators.test_terminal_stage import sub_batches

START_MS = 1_764_547_200_000
ROWS = 2 * STEP * LEAST_ROWS
AMOUNT = FEATURE_NAMES.index("amount")


class Counters:
    """A metric group that remembers its counters."""

    def __init__(self) -> None:
        self.values: dict[str, int] = {}
        self._name = ""

    def counter(self, name: str) -> Any:
        named = Counters()
        named.values, named._name = self.values, name
        assert name not in self.values, "Flink warns of a name that is taken and ignores the second"
        self.values[name] = 0
        return named

    def inc(self, n: int = 1) -> None:
        self.values[self._name] += n


def scored(features: NDArray[np.float32], degraded: bool = False) -> Scores:
    return Scores(np.linspace(0, 1, len(features)) ** 4, {}, degraded, "m")


def model_of(
    features: NDArray[np.float32], version: str = "m", thresholds: Thresholds | None = None
) -> Model:
    known = baseline(features, scored(features).score)
    return Model(version, {}, ([0, 1], [0, 1]), thresholds or Thresholds(0.4, 0.9), known)


def watched(watch: Watch, scorer: Scorer, features: NDArray[np.float32], hour: int) -> None:
    """An hour of traffic, all of it without rules, and the turn of the hour."""
    for rows, time_ms in (
        (features, START_MS + hour * HOUR_MS),
        (features[:0], START_MS + (hour + 1) * HOUR_MS),
    ):
        scores = scored(rows)
        watch.observe(scorer, rows, scores, scores.score, time_ms)


def test_a_level_is_set_by_differences() -> None:
    counters = Counters()
    level = Level(counters.counter("level"))
    for value, held in ((3.4, 3), (3.4, 3), (-2, -2), (0, 0)):
        level.set(value)
        assert counters.values == {"level": held}


def test_drift_shows_in_the_counters_and_once_in_the_log() -> None:
    features = random_features(ROWS, 1)
    counters: Any = Counters()
    watch = Watch(counters, drift_hours=24, alerts_per_day=0)
    scorer = Scorer(model_of(features), UNSIGNED)
    with capture_logs() as logs:
        watched(watch, scorer, features, 0)
        assert counters.values["drift_features_changed"] == 0
        assert counters.values["drift_largest_milli_psi"] < 50
        assert counters.values["review_threshold_millionths"] == 400_000
        assert logs == []

        drifted = features.copy()
        drifted[:, AMOUNT] *= 30
        for hour in range(1, 4):
            watched(watch, scorer, drifted, hour)
        (entry,) = logs
        assert list(entry["features"]) == ["amount"]
        assert entry["features"]["amount"] > 0.2
        assert counters.values["drift_features_changed"] == 1
        assert counters.values["drift_amount_milli_psi"] == counters.values["drift_largest_milli_psi"] > 200

        for hour in range(4, 40):
            watched(watch, scorer, features, hour)
        assert counters.values["drift_features_changed"] == 0
        assert counters.values["drift_amount_milli_psi"] < 50
        watched(watch, scorer, drifted, 70)
        assert len(logs) == 2, "what was unchanged in between is news again"


def test_another_model_starts_anew() -> None:
    features = random_features(ROWS, 2)
    counters: Any = Counters()
    watch = Watch(counters, drift_hours=24, alerts_per_day=1)
    scorer = Scorer(model_of(features * 5), UNSIGNED)
    for hour in range(12):
        watched(watch, scorer, features, hour)
    assert counters.values["drift_features_changed"] > 50
    assert scorer.review_threshold == scorer.thresholds.review == 0.9

    scorer.model, scorer.budget_review = model_of(features, "other", Thresholds(0.3, 0.8)), None
    watch.observe(scorer, features[:1], scored(features[:1]), np.zeros(1), START_MS)
    assert counters.values["drift_features_changed"] == counters.values["drift_largest_milli_psi"] == 0
    assert scorer.review_threshold == 0.3
    watched(watch, scorer, features, 13)
    assert counters.values["drift_features_changed"] == 0


def test_a_model_without_a_baseline_and_the_heuristic_are_left_alone() -> None:
    features = random_features(ROWS, 3)
    counters: Any = Counters()
    watch = Watch(counters, drift_hours=24, alerts_per_day=0)
    for model in (None, Model("bare", {}, ([0, 1], [0, 1]), Thresholds(0.4, 0.9))):
        scorer = Scorer(model, UNSIGNED)
        watched(watch, scorer, features, 0)
        assert scorer.review_threshold is None
    assert not any(value for name, value in counters.values.items() if name.startswith("drift"))


def test_degraded_scores_do_not_count() -> None:
    features = random_features(ROWS, 4)
    counters: Any = Counters()
    watch = Watch(counters, drift_hours=24, alerts_per_day=10)
    scorer = Scorer(model_of(features * 5), UNSIGNED)
    for hour in range(12):
        scores = scored(features, degraded=True)
        watch.observe(scorer, features, scores, scores.score, START_MS + hour * HOUR_MS)
    assert counters.values["drift_features_changed"] == 0
    assert scorer.review_threshold is None


def test_limits_of_an_update_hold_over_the_budget() -> None:
    features = random_features(ROWS, 5)
    counters: Any = Counters()
    watch = Watch(counters, drift_hours=24, alerts_per_day=1)
    scorer = Scorer(model_of(features), UNSIGNED)
    set_limits = ModelUpdate(
        slot="thresholds", thresholds=Thresholds(0.2, 0.7), issued_at=START_MS, issued_by="test"
    )
    for hour in range(8):
        watched(watch, scorer, features, hour)
    assert scorer.thresholds == Thresholds(0.9, 0.9)
    scorer.apply(set_limits)
    watched(watch, scorer, features, 9)
    assert scorer.thresholds == Thresholds(0.2, 0.7)
    assert scorer.review_threshold is None
    assert counters.values["review_threshold_millionths"] == 200_000
    scorer.clear("thresholds")
    assert scorer.thresholds == Thresholds(0.9, 0.9)


def test_alerts_by_rules_count_against_the_budget() -> None:
    scorers = []
    for raised in (False, True):
        counters: Any = Counters()
        watch = Watch(counters, drift_hours=24, alerts_per_day=2000)
        scorer = Scorer(model_of(random_features(100, 6), thresholds=Thresholds(0.4, 0.99)), UNSIGNED)
        rng = np.random.default_rng(6)
        for minute in range(0, 24 * 60, 5):
            scores = Scores(rng.beta(1, 5, 100), {}, False, "m")
            counted = np.where(np.arange(100) < 3 * raised, 1.0, scores.score)
            watch.observe(
                scorer, np.ones((100, N_FEATURES), np.float32), scores, counted, START_MS + minute * MINUTE_MS
            )
        scorers.append(scorer.thresholds.review)
    assert scorers[1] > scorers[0] + 0.05


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_artefact(tmp_path_factory.mktemp("models") / "small", {"gbt": 1.0})


def decisions(artefact: Path, alerts_per_day: float) -> list[Decision]:
    """Decisions of the terminal stage on a transaction every minute of half a day."""
    context: Any = Context(0, {})
    stage = TerminalStage(
        TerminalStageSettings(
            model=str(artefact), keyring=UNSIGNED, shard_keys=(SHARD,), risk_delay_ms=0, state_ttl_days=90,
            model_updates_topic="model-updates", submitted_at_ms=START_MS, thread_mode=False,
            decisions_topic=None, kafka_client={}, alerts_per_day=alerts_per_day,
        )
    )  # fmt: skip
    stage.open(context)
    batches = sub_batches(
        [Transaction(f"t{n}", f"u{n % 50}", START_MS + n * MINUTE_MS, 10.0 + n % 97) for n in range(720)]
    )
    return [
        msgspec.json.decode(value, type=Decision)
        for batch in batches
        for out in stage.process_element(batch, context)
        if not isinstance(out[0], OutputTag)
        for value in out[1]
    ]


def test_decisions_say_which_threshold_held(artefact: Path) -> None:
    limits = load_model(artefact, UNSIGNED).thresholds
    decided = decisions(artefact, alerts_per_day=20)

    assert {d.model_version for d in decided} == {VERSION}
    assert decided[0].review_threshold is None, "the first batch is held against the limit of the model"
    held = [d.review_threshold for d in decided[1:]]
    assert None not in held
    assert len(set(held)) > 20
    for d in decided:
        review = limits.review if d.review_threshold is None else d.review_threshold
        assert d.decision == (
            "block" if d.score >= limits.block else "review" if d.score >= review else "approve"
        )


def test_without_a_budget_nothing_is_said_and_nothing_moves(artefact: Path) -> None:
    assert {d.review_threshold for d in decisions(artefact, alerts_per_day=0)} == {None}
