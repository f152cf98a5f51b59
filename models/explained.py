"""Decisions explained: what their scores are made of, reasons, and a sentence for an analyst."""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from events.decision import Decision
from events.types import Verdict
from models import heuristic
from models.explanation import (
    Explainer,
    Explanation,
    ExplanationError,
    Explanations,
    explain_heuristic,
)
from models.model import log_odds
from models.online import OFFLINE, ONLINE, of_ensemble
from models.reasons import Reason, leading, listed, reasons, sentence
from models.rules import SHADOW
from models.wording import LanguageModel, WordingError, facts
from state.contract import CONTRACT_VERSION, N_FEATURES


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    """One decision, explained. All of `base`, `calibration`, `parts` and `log_odds` is in log-odds.

    log_odds, before the calibration of the score, is the sum of base, calibration, parts and the `log_odds`
    of all reasons. online: how far the online part moved the log-odds of the score after that; None where
    there was none. review_threshold: as in `Decision`. not_worded: why the sentence is that of the template
    where a language model was asked for it.
    """

    decision_id: str
    transaction_id: str
    verdict: Verdict
    score: float
    model_version: str
    base: float
    calibration: float
    parts: dict[str, float]
    log_odds: float
    online: float | None
    review_threshold: float | None
    reasons: list[Reason]
    rules: list[str]
    sentence: str
    not_worded: str | None = None


def explain_decisions(
    decisions: Sequence[Decision],
    explainers: Mapping[str, Explainer],
    language_model: LanguageModel | None = None,
) -> list[Explained]:
    """Each decision, explained by the model that made it; explainers by version of the model.

    Raises ExplanationError where a decision is of another feature contract or no explainer is of its model.
    """
    features = _features(decisions)
    found: list[tuple[int, Explanation]] = []
    versions = [of_ensemble(d.model_version) for d in decisions]
    for version in dict.fromkeys(versions):
        rows = [i for i, own in enumerate(versions) if own == version]
        made_of = _explanations(version, [decisions[i] for i in rows], features[rows], explainers)
        found += zip(rows, made_of.rows(), strict=True)
    found.sort(key=lambda entry: entry[0])
    return [_explained(decisions[i], features[i], made_of, language_model) for i, made_of in found]


def _features(decisions: Sequence[Decision]) -> NDArray[np.float32]:
    """Features f4 [n, N_FEATURES] that the decisions were made on."""
    for d in decisions:
        if d.contract_version != CONTRACT_VERSION:
            raise ExplanationError(
                f"{d.decision_id}: features of contract {d.contract_version}; "
                f"this program knows {CONTRACT_VERSION}"
            )
        if len(d.features) != 4 * N_FEATURES:
            raise ExplanationError(
                f"{d.decision_id}: {len(d.features)} bytes are not {N_FEATURES} features of float32"
            )
    packed = b"".join(d.features for d in decisions)
    return np.frombuffer(packed, "<f4").reshape(len(decisions), N_FEATURES)


def _explanations(
    version: str,
    decisions: Sequence[Decision],
    features: NDArray[np.float32],
    explainers: Mapping[str, Explainer],
) -> Explanations:
    if version == heuristic.VERSION:
        return explain_heuristic(features)
    if version not in explainers:
        raise ExplanationError(f"{decisions[0].decision_id}: decided by {version}, which is not at hand")
    parts = [{n: p for n, p in d.parts.items() if n not in {OFFLINE, ONLINE}} for d in decisions]
    return explainers[version].explain(features, parts)


def _moved_online(decision: Decision) -> float | None:
    """How far the online part moved the log-odds of a score."""
    if OFFLINE not in decision.parts:
        return None
    after, before = log_odds(np.array([decision.score, decision.parts[OFFLINE]]))
    return float(after - before)


def _explained(
    decision: Decision,
    features: NDArray[np.float32],
    made_of: Explanation,
    language_model: LanguageModel | None,
) -> Explained:
    found = reasons(made_of.features, features, decision.currency)
    rules = [rule for rule in decision.rules if not rule.endswith(SHADOW)]
    told, not_worded = listed(leading(found, decision.decision)), None
    if language_model is not None:
        try:
            told = language_model.word(facts(decision.decision, decision.score, made_of.features, features))
        except WordingError as error:
            not_worded = str(error)
    return Explained(
        decision_id=decision.decision_id,
        transaction_id=decision.transaction_id,
        verdict=decision.decision,
        score=decision.score,
        model_version=decision.model_version,
        review_threshold=decision.review_threshold,
        base=made_of.base,
        calibration=made_of.calibration,
        parts={name: added for name, added in made_of.parts.items() if name in decision.parts},
        log_odds=made_of.log_odds,
        online=_moved_online(decision),
        reasons=found,
        rules=rules,
        sentence=sentence(decision.decision, decision.score, told, rules),
        not_worded=not_worded,
    )
