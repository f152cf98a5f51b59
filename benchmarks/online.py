"""The online learner on one core: labels a second, the cost of the online part of a score, snapshots.

All in CPU time of the thread, best of `BEST_OF`: what others do on the machine is not counted.
"""

import time
from collections.abc import Callable, Iterator, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray
from river import compose, linear_model, preprocessing

from events.example import Example
from models.online import OnlinePart
from online_learning.trainer import REMEMBERED, Outcome, Trainer, TrainerSettings
from state.contract import CONTRACT_VERSION, FEATURE_NAMES, N_FEATURES

LABELS = 6_000
WARM_UP = 1_000
RIVER_LABELS = 300
BATCH = 500
BATCHES = (1, 16, 64, 500)
BEST_OF = 3
MINUTE_MS = 60_000
START_MS = 1_764_000_000_000


def measure() -> Iterator[str]:
    """The lines of the report."""
    given = list(examples(LABELS))
    yield "| learning | labels/s |"
    yield "|---|---|"
    yield f"| trainer, all included | {_rate(given, Trainer.learn):,.0f} |"
    yield f"| trainer, from JSON and to JSON | {_rate(given, _from_json):,.0f} |"
    yield f"| one learner of River's, with its scaler and a dict per label | {_river_rate(given):,.0f} |"
    yield ""
    yield "| online part of the score, rows in a batch | us per batch | us per row |"
    yield "|---|---|---|"
    trainer = Trainer(TrainerSettings())
    trainer.learn(given, START_MS)
    part = OnlinePart(trainer.candidate("online-1"))
    features = np.frombuffer(b"".join(e.features for e in given), "<f4").reshape(-1, N_FEATURES)
    offline = np.array([e.score for e in given])
    for n in BATCHES:
        us = _score_us(part, features[:n].copy(), offline[:n])
        yield f"| {n} | {us:.1f} | {us / n:.2f} |"
    yield ""
    for i in range(REMEMBERED):
        trainer._state.learnt.put(f"example {i}")
        trainer._state.labelled.put(f"transaction {i}")
    taken = _best(trainer.snapshot)
    data = trainer.snapshot()
    restored = _best(lambda: Trainer.restore(data, TrainerSettings()))
    yield (
        f"A snapshot that remembers {REMEMBERED:,} labels has {len(data) / 1e6:.1f} MB and takes "
        f"{1e3 * taken:.1f} ms; restoring it takes {1e3 * restored:.0f} ms."
    )


def examples(n: int, seed: int = 1) -> Iterator[Example]:
    """Labels of 40 analysts and of chargebacks, a minute apart; three in a hundred are fraud."""
    rng = np.random.default_rng(seed)
    features = rng.lognormal(0, 2, (n, N_FEATURES)).astype("<f4")
    features[rng.random(features.shape) < 0.1] = np.nan
    is_fraud = rng.random(n) < 0.03
    for i in range(n):
        chargeback = i % 3 == 0
        yield Example(
            example_id=f"example-{i}",
            transaction_id=f"tx-{i}",
            user_id=f"user-{i % 1000}",
            event_time=START_MS + i * MINUTE_MS,
            labelled_at=START_MS + i * MINUTE_MS,
            is_fraud=bool(is_fraud[i]),
            source="chargeback" if chargeback else "analyst",
            analyst_id=None if chargeback else f"analyst-{i % 40}",
            contract_version=CONTRACT_VERSION,
            features=features[i].tobytes(),
            score=float(rng.beta(1, 20)),
            model_version="ensemble-1",
        )


def _from_json(trainer: Trainer, part: Sequence[Example], now_ms: int) -> list[Outcome]:
    decode = msgspec.json.Decoder(Example).decode
    outcomes = trainer.learn([decode(msgspec.json.encode(e)) for e in part], now_ms)
    for outcome in outcomes:
        msgspec.json.encode(outcome)
    return outcomes


def _rate(given: Sequence[Example], learn: Callable[[Trainer, Sequence[Example], int], object]) -> float:
    """Labels a second of a trainer that has learnt some before."""

    def run(trainer: Trainer) -> None:
        for start in range(WARM_UP, len(given), BATCH):
            learn(trainer, given[start : start + BATCH], START_MS)

    best = np.inf
    for _ in range(BEST_OF):
        trainer = Trainer(TrainerSettings())
        trainer.learn(given[:WARM_UP], START_MS)
        start = time.thread_time()
        run(trainer)
        best = min(best, time.thread_time() - start)
    return (len(given) - WARM_UP) / float(best)


def _river_rate(given: Sequence[Example]) -> float:
    """Labels a second of River's pipeline: one learner of one speed, a dict per label."""
    rows = [
        dict(zip(FEATURE_NAMES, np.nan_to_num(np.frombuffer(e.features, "<f4")).tolist(), strict=True))
        for e in given[:RIVER_LABELS]
    ]
    model = compose.Pipeline(preprocessing.StandardScaler(), linear_model.LogisticRegression())

    def run() -> None:
        for row, example in zip(rows, given, strict=False):
            model.predict_proba_one(row)
            model.learn_one(row, example.is_fraud)

    return len(rows) / _best(run)


def _score_us(part: OnlinePart, features: NDArray[np.float32], offline: NDArray[np.float64]) -> float:
    repeats = 2_000

    def run() -> None:
        for _ in range(repeats):
            part.score(features, offline)

    return 1e6 * _best(run) / repeats


def _best(run: Callable[[], object]) -> float:
    """CPU seconds of the quickest run."""
    best = np.inf
    for _ in range(BEST_OF):
        start = time.thread_time()
        run()
        best = min(best, time.thread_time() - start)
    return float(best)
