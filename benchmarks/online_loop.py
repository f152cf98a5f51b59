"""The online learner in a loop of days or hours, as the jobs run it but without Kafka and Flink."""

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from events.control import ModelUpdate
from events.example import Example, Teacher
from events.feedback import Source
from models.exploration import explored
from models.history import History
from models.online import OFFLINE, OnlinePart
from online_learning.trainer import Tombstone, Trainer, TrainerSettings
from state.contract import CONTRACT_VERSION

PRESUMED: Final = 0.02
"""Of all transactions this share is presumed legitimate at once: about as many as analysts label."""
ANALYSTS: Final = 5

Rows = NDArray[np.int64]


class Decided:
    """What the decisions on n transactions of a history were made with; rows are filled as time goes by.

    features: f4 [n, N_FEATURES]; offline, score: f8 [n], by the ensemble and in the end.
    """

    def __init__(self, features: NDArray[np.float32]) -> None:
        self.features = features
        self.offline = np.zeros(len(features))
        self.score = np.zeros(len(features))


class OnlineLoop:
    """A trainer, and what it has published."""

    def __init__(self, settings: TrainerSettings | None = None) -> None:
        self._trainer = Trainer(settings or TrainerSettings())
        self._part: OnlinePart | None = None
        self.promotions = 0

    def score(self, features: NDArray[np.float32], offline: NDArray[np.float64]) -> NDArray[np.float64]:
        """Final scores f8 [n] from features f4 [n, N_FEATURES] and probabilities of the ensemble f8 [n]."""
        return offline if self._part is None else self._part.score(features, offline)[1]

    def learn(
        self, past: History, told: Mapping[Source, Rows], approved: Rows, decided: Decided, now_ms: int
    ) -> None:
        """What comes within an hour or a day, in any order; what is promoted scores from now on.

        told: i8 [n], rows that each source labels; approved: i8 [n], rows of which a share is presumed
        legitimate.
        """
        lessons: list[tuple[int, Teacher]] = [
            (row, source) for source in told for row in told[source].tolist()
        ]
        lessons += [(row, "presumed") for row in approved.tolist() if explored(f"{row}", PRESUMED, 0)]
        order = np.random.default_rng(now_ms).permutation(len(lessons))
        examples = [_example(past, lessons[i][0], decided, lessons[i][1], now_ms) for i in order]
        for outcome in self._trainer.learn(examples, now_ms):
            if isinstance(outcome, Tombstone):
                self._part = None
            if isinstance(outcome, ModelUpdate) and outcome.online is not None:
                self._part = OnlinePart(outcome.online)
                self.promotions += 1


def _example(past: History, row: int, decided: Decided, source: Teacher, now_ms: int) -> Example:
    """The example that the join would emit with `--keep-sample 1`."""
    name = f"{row}"
    return Example(
        example_id=f"{name}-{source}",
        transaction_id=name,
        user_id=f"{past.user[row]}",
        event_time=int(past.time[row]),
        labelled_at=now_ms,
        is_fraud=bool(past.is_fraud[row]) and source != "presumed",
        source=source,
        analyst_id=f"analyst-{row % ANALYSTS}" if source == "analyst" else None,
        contract_version=CONTRACT_VERSION,
        features=decided.features[row].tobytes(),
        score=float(decided.score[row]),
        parts={OFFLINE: float(decided.offline[row])},
        model_version="static",
        sampled=PRESUMED if source == "presumed" else 1.0,
    )
