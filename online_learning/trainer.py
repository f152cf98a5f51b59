"""The online learner: labelled examples in, promoted weights and their record out."""

from collections.abc import Sequence
from typing import Final, Self

import msgspec
import numpy as np
from numpy.typing import NDArray
from river.drift import PageHinkley

from events.control import OnlineCommand, OnlineWeights
from events.example import Example, Teacher
from models.artefact import FEATURES_SHA256
from models.online import OFFLINE as OFFLINE_PART
from models.online import OnlinePart
from online_learning import drift, snapshot
from online_learning.audit import Audit, Outcome, Tombstone
from online_learning.averaging import Averaging
from online_learning.balance import Balance
from online_learning.dynamic import Dynamic
from online_learning.gate import Gate, GateSettings
from online_learning.inputs import BIAS, LIMIT, NAMES, OFFLINE, Inputs, ensemble_alone, probability
from online_learning.level import Level
from online_learning.logistic import Logistic
from online_learning.prequential import Foretold, loss
from online_learning.recent import Recent
from online_learning.sources import BY_SCORES, PRESUMED, Sources, Verdict, plain, weight_of_comparison
from online_learning.sources import Source as Labeller
from state.contract import CONTRACT_VERSION, N_FEATURES

__all__ = ["Outcome", "Tombstone", "Trainer", "TrainerSettings"]

MODELS: Final = 5
"""The ensemble alone, and two learners for each speed."""
SPEEDS: Final[dict[Teacher, tuple[int, ...]]] = {
    "analyst": (0,), "customer": (0,), "chargeback": (1,), "presumed": (0, 1),
}  # fmt: skip
"""Whose labels teach the learners of verdicts, and whose those of chargebacks."""
MAX_IMPORTANCE: Final = 3.0
"""A decision taken with less than the inverse as its probability counts no more than this."""
REMEMBERED: Final = 200_000
LEARNER: Final = "learner"


class TrainerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """gate: when what was learnt is promoted; labels_per_day: how many of one analyst, or of all customers,
    count.
    """

    gate: GateSettings = GateSettings()
    labels_per_day: float = 1_000.0


class Speed(msgspec.Struct):
    """The learners of labels that come at one speed: verdicts within the day, or chargebacks after weeks.

    What analysts see is what scored high, what chargebacks tell is all of it but old; learners of their own
    keep the one from drowning the other (Dal Pozzolo, Boracchi, Caelen, Alippi and Bontempi, Credit Card
    Fraud Detection and Concept-Drift Adaptation with Delayed Supervised Information, 2015).
    """

    balance: Balance = msgspec.field(default_factory=Balance)
    logistic: Logistic = msgspec.field(default_factory=Logistic)
    dynamic: Dynamic = msgspec.field(default_factory=Dynamic)
    losses: PageHinkley = msgspec.field(default_factory=drift.detector)

    def learn(self, inputs: NDArray[np.float64], is_fraud: bool, weight: float) -> None:
        """Learn a label of some weight on inputs f8 [WIDTH]."""
        balanced, offset = self.balance.weigh(is_fraud, weight)
        self.logistic.learn(inputs, is_fraud, balanced, offset)
        self.dynamic.learn(inputs, is_fraud, balanced, offset)

    def drifted(self, loss_before: float) -> bool:
        """Take in the loss on a label before it is learnt; whether the losses have risen for good."""
        if not drift.detects(self.losses, loss_before):
            return False
        self.logistic.hasten()
        self.dynamic.hasten()
        return True


class State(msgspec.Struct):
    """All that a trainer knows.

    learnt: ids of examples; labelled: transactions, each with its latest verdict; refused: examples that were
    no good; steps: of the audit.
    """

    inputs: Inputs = msgspec.field(default_factory=Inputs)
    speeds: list[Speed] = msgspec.field(default_factory=lambda: [Speed(), Speed()])
    averaging: Averaging = msgspec.field(default_factory=lambda: Averaging(np.zeros(MODELS)))
    level: Level = msgspec.field(default_factory=lambda: Level.of(MODELS))
    sources: Sources = msgspec.field(default_factory=Sources)
    gate: Gate = msgspec.field(default_factory=Gate)
    learnt: Recent = msgspec.field(default_factory=lambda: Recent(REMEMBERED))
    labelled: Recent = msgspec.field(default_factory=lambda: Recent(REMEMBERED))
    refused: int = 0
    steps: int = 0

    def weights(self) -> NDArray[np.float64]:
        """Weights f8 [MODELS, WIDTH] of the models, each at the level of the ensemble."""
        learners = [learner.weight for s in self.speeds for learner in (s.logistic, s.dynamic)]
        weights: NDArray[np.float64] = np.stack([ensemble_alone(), *learners])
        weights[:, BIAS] += self.level.shift
        return weights


class Trainer:
    """Learns from labels in their order and publishes what has proved better.

    What is learnt depends on the examples and their order alone: not on how they are cut into calls, on the
    clock, or on commands.
    """

    def __init__(self, settings: TrainerSettings, state: State | None = None) -> None:
        """A trainer that knows nothing yet, or what `state` says."""
        self._settings = settings
        self._state = state or State()
        self._parts: dict[str, OnlinePart] = {}

    def learn(self, examples: Sequence[Example], now_ms: int) -> list[Outcome]:
        """Learn from examples in order; what follows from them, in order.

        now_ms: milliseconds since the epoch, which date it. An example that was learnt before does nothing;
        one that cannot be learnt from is counted, and the audit says why.
        """
        log = Audit(self._state.steps, now_ms)
        outcomes: list[Outcome] = []
        for example in examples:
            log.cause = example.example_id
            outcomes += self._begin(log)
            outcomes += self._take(example, log)
        self._state.steps = log.steps
        return outcomes

    def command(self, command: OnlineCommand, now_ms: int) -> list[Outcome]:
        """Do what a person says, once."""
        log = Audit(self._state.steps, now_ms)
        log.cause = command.command_id
        outcomes = self._begin(log)
        outcomes += self._state.gate.command(command, self.candidate, self._settings.gate, log)
        self._state.steps = log.steps
        return outcomes

    def snapshot(self) -> bytes:
        """All that the trainer knows, as msgpack; up to 5 MB."""
        return snapshot.encode(self._state)

    @classmethod
    def restore(cls, data: bytes, settings: TrainerSettings) -> Self:
        """The trainer of a snapshot, which goes on as if nothing had happened.

        Raises SnapshotRefusedError where the bytes are none, or of another version or feature contract.
        """
        return cls(settings, snapshot.decode(data, State))

    def candidate(self, version: str) -> OnlineWeights:
        """What was learnt so far as one linear model, under a version: that of all learners together."""
        state = self._state
        ensemble, *learners = state.averaging.weights()
        share = 1 - ensemble
        mean = np.array(learners) @ state.weights()[1:] / share
        return OnlineWeights(
            version=version,
            features_sha256=FEATURES_SHA256,
            features=list(NAMES),
            centre=state.inputs.mean.tolist(),
            scale=state.inputs.scale.tolist(),
            limit=LIMIT,
            weight=mean[:OFFLINE].tolist(),
            offline=float(mean[OFFLINE]),
            bias=float(mean[BIAS]),
            share=float(share),
        )

    def _begin(self, log: Audit) -> list[Outcome]:
        """A trainer without a past does not know what another one may have left live, so it ends that."""
        if log.steps:
            return []
        return [Tombstone(), log.note("rolled_back", LEARNER, "begins anew, with the ensemble alone", None)]

    def _take(self, example: Example, log: Audit) -> list[Outcome]:
        state = self._state
        if state.learnt.get(example.example_id) is not None:
            return []
        state.learnt.put(example.example_id)
        fault = _fault(example)
        if fault is not None:
            return self._refuse(fault, log)

        source = state.sources.of(example, self._settings.labels_per_day)
        outcomes = self._admit(source, log)
        if source.silenced:
            return outcomes

        features = np.frombuffer(example.features, "<f4")
        offline = example.parts.get(OFFLINE_PART, example.score)
        if not source.distrusted:
            state.inputs.learn(features)
        inputs = state.inputs.vector(features, offline)
        log_odds = state.weights() @ inputs
        challenger = probability(float(log_odds @ state.averaging.weights()))
        earlier = state.labelled.get(example.transaction_id)
        if example.source != PRESUMED:
            outcomes += self._hear(example, source, earlier, plain(offline, challenger), log)
        if source.distrusted or (example.source == PRESUMED and earlier is not None):
            return outcomes

        weight = min(1 / example.sampled, MAX_IMPORTANCE)
        if earlier is None:
            live, former = self._live(features, offline)
            foretold = Foretold(example.is_fraud, weight, offline, live, former, challenger)
            outcomes += self._surprise(example, foretold, log)
            outcomes += self._evaluate(foretold, log_odds, log)
        for speed in SPEEDS[example.source]:
            state.speeds[speed].learn(inputs, example.is_fraud, weight)
        return outcomes

    def _admit(self, source: Labeller, log: Audit) -> list[Outcome]:
        """Silence a source that has given all the labels of its day."""
        before = source.silenced
        source.silenced = not self._state.sources.admit(source, self._settings.labels_per_day)
        if before or not source.silenced:
            return []
        detail = f"{source.name} has given {self._settings.labels_per_day:g} labels within a day"
        return [log.note("source_silenced", LEARNER, detail, self._state.gate.version)]

    def _hear(
        self, example: Example, source: Labeller, earlier: int | None, truth: bool | None, log: Audit
    ) -> list[Outcome]:
        """Remember what somebody says of a transaction, having judged by it."""
        outcomes = self._compare(example, source, earlier, truth, log)
        if earlier is None or not source.distrusted:
            verdict = Verdict(source.number, example.is_fraud)
            self._state.labelled.put(example.transaction_id, verdict.packed())
        return outcomes

    def _compare(
        self, example: Example, source: Labeller, earlier: int | None, truth: bool | None, log: Audit
    ) -> list[Outcome]:
        """Hold an earlier label of the transaction against this one, else this one against what is plain."""
        if earlier is not None:
            verdict = Verdict.of(earlier)
            judged = self._state.sources.known[verdict.source]
            judged.compare(verdict.is_fraud, example.is_fraud, weight_of_comparison(source, judged))
        elif truth is not None:
            judged = source
            judged.compare(example.is_fraud, truth, BY_SCORES)
        else:
            return []
        if not judged.reconsider():
            return []
        error, deviation = judged.error()
        figures = {"error": error, "deviation": deviation, "compared": sum(judged.seen)}
        version = self._state.gate.version
        if judged.distrusted:
            return [log.note("source_distrusted", LEARNER, judged.name, version, figures)]
        return [log.note("source_trusted", LEARNER, judged.name, version, figures)]

    def _surprise(self, example: Example, foretold: Foretold, log: Audit) -> list[Outcome]:
        """Drift, where what somebody said surprises more than before."""
        if example.source == PRESUMED:
            return []
        state, (number, *_) = self._state, SPEEDS[example.source]
        if not state.speeds[number].drifted(loss(foretold.challenger, foretold.is_fraud)):
            return []
        state.gate.start_over()
        detail = f"{('verdicts', 'chargebacks')[number]} surprise more than before"
        return [log.note("drift", LEARNER, detail, state.gate.version)]

    def _evaluate(self, foretold: Foretold, log_odds: NDArray[np.float64], log: Audit) -> list[Outcome]:
        """What follows from how well a label was foretold, by each model and by what they say together."""
        state = self._state
        losses = np.array([loss(probability(x), foretold.is_fraud) for x in log_odds.tolist()])
        state.averaging.learn(losses, foretold.weight)
        if not foretold.is_fraud:
            state.level.learn(foretold.offline, log_odds - state.level.shift, foretold.weight)
        return state.gate.judge(foretold, self.candidate, self._settings.gate, log)

    def _live(self, features: NDArray[np.float32], offline: float) -> tuple[float, float]:
        """What is live gives, and what was live before it; the ensemble where there is none."""
        gate = self._state.gate
        weights = [gate.live, gate.previous[-1] if gate.previous else None]
        versions = [w.version for w in weights if w is not None]
        if versions != list(self._parts):
            self._parts = {w.version: OnlinePart(w) for w in weights if w is not None}
        row, prior = features[np.newaxis], np.array([offline])
        live, former = (
            float(self._parts[w.version].score(row, prior)[1][0]) if w is not None else offline
            for w in weights
        )
        return live, former

    def _refuse(self, fault: str, log: Audit) -> list[Outcome]:
        """Tell of the 1st, 2nd, 4th, 8th ... example refused: a flood of them is no flood of events."""
        state = self._state
        state.refused += 1
        if state.refused & (state.refused - 1):
            return []
        detail = f"{fault}; {state.refused} examples refused so far"
        return [log.note("refused", LEARNER, detail, state.gate.version)]


def _fault(example: Example) -> str | None:
    """Why nothing can be learnt from an example; None where it can."""
    if example.contract_version != CONTRACT_VERSION:
        return f"feature contract {example.contract_version}, this trainer knows {CONTRACT_VERSION}"
    if len(example.features) != 4 * N_FEATURES:
        return f"{len(example.features)} bytes are not {N_FEATURES} features of float32"
    return None
