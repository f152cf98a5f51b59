"""The gate: what was learnt scores once it has proved better, and no longer once it proves worse."""

import math
from collections.abc import Callable
from typing import Final

import msgspec

from events.control import OnlineCommand, OnlineWeights
from models.artefact import ModelRefusedError
from models.online import OnlinePart
from online_learning.audit import Audit, Outcome, Tombstone
from online_learning.prequential import ROUND_FRAUDS, Comparison, Foretold, Window, loss
from online_learning.recent import Recent

MAX_PREVIOUS: Final = 8
LOOK_EVERY: Final = 8
"""Labels from one look at the rankings to the next: they take half a millisecond."""
COMMANDS_KEPT: Final = 1_000
SURER: Final = 0.1
ALARMS_TOLD: Final = 500
"""More alarms take back what is live by this share of the error, once as many legitimate labels are known:
with few of them one that scores high makes every fraud seem hard to find.
"""

GATE: Final = "gate"

Candidate = Callable[[str], OnlineWeights]
"""The weights as they are now, under a version."""


class GateSettings(msgspec.Struct, frozen=True, kw_only=True):
    """When the gate promotes.

    min_frauds, min_legitimate: labels of each kind since the last change; error: probability with which
    something that is not better may be promoted, per round; tolerance: by how much average precision and
    recall may seem to fall; report_every: labels from one evaluation in the audit to the next.
    """

    min_frauds: int = 20
    min_legitimate: int = 50
    error: float = 0.1
    tolerance: float = 0.02
    report_every: int = 500

    def suffices(self, told: Comparison) -> bool:
        """Whether there were enough labels of both kinds to judge by."""
        return told.frauds >= self.min_frauds and told.legitimate >= self.min_legitimate


class Round(msgspec.Struct):
    """What the labels since the last change have shown, as far as it is not settled.

    fewer_alarms, gain: of the challenger over what is live, in alarms and in log loss; more_alarms, harm: of
    the ensemble alone over what is live; former: of what was live before over the ensemble alone.
    """

    fewer_alarms: Comparison = msgspec.field(default_factory=Comparison)
    more_alarms: Comparison = msgspec.field(default_factory=Comparison)
    gain: Comparison = msgspec.field(default_factory=Comparison)
    harm: Comparison = msgspec.field(default_factory=Comparison)
    former: Comparison = msgspec.field(default_factory=Comparison)
    window: Window = msgspec.field(default_factory=Window)

    def go_on(self, error: float) -> None:
        """Drop what is settled, so that it does not outweigh what comes."""
        if self.fewer_alarms.is_settled(error, ROUND_FRAUDS):
            self.fewer_alarms = Comparison()
        if self.more_alarms.is_settled(error, ROUND_FRAUDS):
            self.more_alarms = Comparison()
        if self.gain.is_settled(error):
            self.gain, self.window = Comparison(), Window()
        if self.harm.is_settled(error):
            self.harm, self.former = Comparison(), Comparison()

    def learn(self, of: Foretold) -> None:
        """Take in a label and what was foretold of it."""
        alarms = self.window.alarms(of) if of.is_fraud else None
        if alarms is not None:
            by_ensemble, by_live, by_challenger = alarms
            self.fewer_alarms.learn(by_live - by_challenger, True)
            self.more_alarms.learn(by_live - by_ensemble, True)
        offline, live, former, challenger = (loss(p, of.is_fraud) for p in of[2:])
        self.gain.learn(of.weight * (live - challenger), of.is_fraud)
        self.harm.learn(of.weight * (live - offline), of.is_fraud)
        self.former.learn(of.weight * (offline - former), of.is_fraud)
        self.window.learn(of)


class Gate(msgspec.Struct):
    """What is live, what was before, and the round.

    promotions: so far; versions are numbered by them. evaluated: labels. commands: those that were done.
    """

    live: OnlineWeights | None = None
    previous: list[OnlineWeights] = []
    frozen: bool = False
    promotions: int = 0
    evaluated: int = 0
    round: Round = msgspec.field(default_factory=Round)
    commands: Recent = msgspec.field(default_factory=lambda: Recent(COMMANDS_KEPT))

    def judge(self, of: Foretold, candidate: Candidate, settings: GateSettings, log: Audit) -> list[Outcome]:
        """Take in a label, and promote or roll back where that is due."""
        self.round.learn(of)
        self.evaluated += 1
        outcomes: list[Outcome] = []
        if self.evaluated % settings.report_every == 0:
            outcomes.append(
                log.note("evaluated", GATE, "labels foretold", self.version, self._shown(settings))
            )
        if self._is_harmful(settings):
            return outcomes + self._back(GATE, "foretells worse than the ensemble", settings, log)
        if self._is_better(settings):
            return outcomes + self._promote(candidate, GATE, "foretells better", settings, log)
        self.round.go_on(settings.error)
        return outcomes

    def start_over(self) -> None:
        """Drop the evidence for promotion: it is of a time that is over."""
        self.round.fewer_alarms, self.round.gain = Comparison(), Comparison()
        self.round.window = Window()

    def command(
        self, command: OnlineCommand, candidate: Candidate, settings: GateSettings, log: Audit
    ) -> list[Outcome]:
        """Do what a person says; nothing where it was done before."""
        if self.commands.get(command.command_id) is not None:
            return []
        self.commands.put(command.command_id)
        actor, why = command.issued_by, command.reason or "no reason given"
        if command.command == "promote":
            return self._promote(candidate, actor, why, settings, log)
        if command.command == "rollback":
            if self.live is None:
                return [log.note("refused", actor, "rollback: nothing is live but the ensemble", None)]
            return self._back(actor, why, settings, log)
        self.frozen = command.command == "freeze"
        return [log.note("frozen" if self.frozen else "unfrozen", actor, why, self.version)]

    @property
    def version(self) -> str | None:
        """Of what is live; None for the ensemble alone."""
        return self.live.version if self.live is not None else None

    def _is_better(self, settings: GateSettings) -> bool:
        gain = self.round.gain
        if self.frozen or gain.labels % LOOK_EVERY or not settings.suffices(gain):
            return False
        if not self._has_gained(settings):
            return False
        found = self.round.window.figures()
        return all(
            found[f"{figure}_challenger"] >= found[f"{figure}_live"] - settings.tolerance
            for figure in ("average_precision", "recall")
        )

    def _has_gained(self, settings: GateSettings) -> bool:
        """Whether the challenger surely takes fewer alarms, or foretells better: each with half the error."""
        alarms, error = self.round.fewer_alarms, settings.error / 2
        is_sharper = alarms.frauds >= settings.min_frauds and alarms.at_least(error) > 0
        return is_sharper or self.round.gain.at_least(error) > 0

    def _is_harmful(self, settings: GateSettings) -> bool:
        harm, alarms, error = self.round.harm, self.round.more_alarms, settings.error / 2
        if self.live is None or not settings.suffices(harm):
            return False
        is_duller = harm.legitimate >= ALARMS_TOLD and alarms.at_least(SURER * error) > 0
        return is_duller or harm.at_least(error) > 0

    def _promote(
        self, candidate: Candidate, actor: str, why: str, settings: GateSettings, log: Audit
    ) -> list[Outcome]:
        weights = candidate(f"online-{self.promotions + 1}")
        figures = self._shown(settings)
        before, self.round = self.version, Round()
        try:
            OnlinePart(weights)
        except ModelRefusedError as error:
            return [log.note("refused", actor, str(error), before, figures)]
        self.promotions += 1
        if self.live is not None:
            self.previous = [*self.previous, self.live][-MAX_PREVIOUS:]
        self.live = weights
        told = f"{self.version} for {before or 'the ensemble alone'}: {why}"
        return [log.published(weights, actor), log.note("promoted", actor, told, self.version, figures)]

    def _back(self, actor: str, why: str, settings: GateSettings, log: Audit) -> list[Outcome]:
        """Back to what was live before; the gate does so only where that does better than the ensemble."""
        figures, before = self._shown(settings), self.version
        if actor == GATE and self.round.former.mean <= 0:
            self.previous = []
        self.live = self.previous[-1] if self.previous else None
        self.previous = self.previous[:-1]
        self.round = Round()
        told = f"{before} back to {self.version or 'the ensemble alone'}: {why}"
        update = Tombstone() if self.live is None else log.published(self.live, actor)
        return [update, log.note("rolled_back", actor, told, self.version, figures)]

    def _shown(self, settings: GateSettings) -> dict[str, float]:
        """The figures of the round."""
        gain = self.round.gain
        figures: dict[str, float] = {"labels": gain.labels, "frauds": gain.frauds}
        for name in ("fewer_alarms", "more_alarms", "gain", "harm"):
            comparison: Comparison = getattr(self.round, name)
            figures[name] = comparison.mean
            figures[f"{name}_at_least"] = comparison.at_least(settings.error / 2)
        return {n: float(f) for n, f in (figures | self.round.window.figures()).items() if math.isfinite(f)}
