import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import HttpUrl

from events.decision import Decision
from models import heuristic
from models.artefact import load_model
from models.explained import explain_decisions
from models.explanation import Explainer, ExplanationError, load_explainer
from models.scorer import Scorer
from models.wording import LanguageModel, LanguageModelSettings, WordingError
from state.contract import CONTRACT_VERSION
from tests.models.online_weights import online_update
from tests.models.small_models import UNSIGNED, random_features, write_small_artefact


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_artefact(tmp_path_factory.mktemp("models") / "small", {"gbt": 0.7, "net": 0.3})


@pytest.fixture(scope="module")
def explainers(folder: Path) -> dict[str, Explainer]:
    explainer = load_explainer(folder, UNSIGNED)
    return {explainer.version: explainer}


def decided(scorer: Scorer, rows: int, **fields: Any) -> list[Decision]:
    """Decisions of a scorer on random features."""
    features = random_features(rows, 11)
    scores = scorer.score(features)
    known: dict[str, Any] = {
        "user_id": "user-1", "event_time": 1_764_000_000_000, "amount": 12.5, "currency": "EUR",
        "contract_version": CONTRACT_VERSION, "decided_at": 1_764_000_000_100,
        "model_version": scores.model_version, "degraded": scores.degraded,
    }  # fmt: skip
    return [
        Decision(
            **known
            | {
                "transaction_id": f"tx-{i}",
                "decision_id": f"d-{scores.model_version}-{i}",
                "decision": verdict,
                "score": float(scores.score[i]),
                "features": features[i].tobytes(),
                "parts": {name: float(part[i]) for name, part in scores.parts.items()},
            }
            | fields
        )
        for i, verdict in enumerate(scorer.verdicts(scores.score, scores.degraded))
    ]


def test_decisions_of_model_and_heuristic_are_explained_in_their_order(
    folder: Path, explainers: dict[str, Explainer]
) -> None:
    by_model = decided(Scorer(load_model(folder, UNSIGNED), UNSIGNED), 40)
    by_heuristic = decided(Scorer(None, UNSIGNED), 40)
    mixed = [d for pair in zip(by_heuristic, by_model, strict=True) for d in pair]
    explained = explain_decisions(mixed, explainers)

    assert [e.decision_id for e in explained] == [d.decision_id for d in mixed]
    for e, d in zip(explained, mixed, strict=True):
        assert (e.verdict, e.score, e.transaction_id) == (d.decision, d.score, d.transaction_id)
        total = e.base + e.calibration + sum(e.parts.values()) + sum(r.log_odds for r in e.reasons)
        assert total == pytest.approx(e.log_odds, abs=1e-9)
        assert set(e.parts) == (set() if d.degraded else {"net"})
        assert "user-1" not in e.sentence
    assert {e.model_version for e in explained} == {"small-1", heuristic.VERSION}


def test_rules_are_named_but_not_those_in_the_shadow(explainers: dict[str, Explainer]) -> None:
    (decision,) = decided(Scorer(None, UNSIGNED), 1, rules=["night", "test (shadow)"])
    (explained,) = explain_decisions([decision], explainers)

    assert explained.rules == ["night"]
    assert explained.sentence.endswith("Rules that hit: night.")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"contract_version": CONTRACT_VERSION + 1}, "features of contract"),
        ({"features": b"1234"}, "4 bytes are not"),
        ({"model_version": "gone-1"}, "decided by gone-1, which is not at hand"),
    ],
)
def test_decisions_that_cannot_be_explained(
    explainers: dict[str, Explainer], fields: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ExplanationError, match=reason):
        explain_decisions(decided(Scorer(None, UNSIGNED), 1, **fields), explainers)


def test_no_decisions(explainers: dict[str, Explainer]) -> None:
    assert explain_decisions([], explainers) == []


class Mute(LanguageModel):
    """Gives the text that it is made with, and no answer without one."""

    def __init__(self, text: str | None) -> None:
        super().__init__(LanguageModelSettings(url=HttpUrl("http://127.0.0.1:1"), model="none", timeout_s=1))
        self._text = text

    def word(self, told: Any) -> str:  # noqa: ARG002 - says the same of everything
        if self._text is None:
            raise WordingError("no answer")
        return self._text


def test_the_template_stands_where_the_language_model_gives_nothing(explainers: dict[str, Explainer]) -> None:
    decisions = decided(Scorer(None, UNSIGNED), 1, rules=["night"])
    (template,) = explain_decisions(decisions, explainers)
    (mute,) = explain_decisions(decisions, explainers, Mute(None))
    (worded,) = explain_decisions(decisions, explainers, Mute("It was late."))

    assert mute.sentence == template.sentence
    assert (template.not_worded, mute.not_worded, worded.not_worded) == (None, "no answer", None)
    assert worded.sentence.endswith(": It was late. Rules that hit: night.")


def test_what_the_online_part_moved_is_told_beside_the_rest(
    folder: Path, explainers: dict[str, Explainer]
) -> None:
    scorer = Scorer(load_model(folder, UNSIGNED), UNSIGNED)
    alone = explain_decisions(decided(scorer, 20), explainers)
    scorer.apply(online_update())
    pooled = decided(scorer, 20)
    explained = explain_decisions(pooled, explainers)

    for before, after, decision in zip(alone, explained, pooled, strict=True):
        assert before.online is None
        assert (after.log_odds, after.parts, after.base) == (before.log_odds, before.parts, before.base)
        assert after.model_version == f"{before.model_version}+online-7"
        odds = [p / (1 - p) for p in (decision.score, decision.parts["offline"])]
        assert after.online == pytest.approx(math.log(odds[0] / odds[1]))
