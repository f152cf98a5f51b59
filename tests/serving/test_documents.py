import json
import math

import bson
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from events.topics import TOPICS
from models.explained import explain_decisions
from serving import documents
from serving.documents import INDEXES, of_case, of_decision, of_label, of_user
from serving.users import User
from state.contract import FEATURE_NAMES, N_FEATURES
from tests.serving.samples import decided, known, label


def no_names_from_outside(value: object) -> bool:
    """Whether no key holds what MongoDB reads as a path or an operator."""
    if isinstance(value, dict):
        return all("." not in k and "$" not in k and no_names_from_outside(v) for k, v in value.items())
    return all(map(no_names_from_outside, value)) if isinstance(value, list) else True


def finite(value: object) -> bool:
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    if isinstance(value, list):
        return all(map(finite, value))
    return not isinstance(value, float) or math.isfinite(value)


@given(st.binary(min_size=4 * N_FEATURES, max_size=4 * N_FEATURES), st.floats(0, 1))
def test_no_document_holds_what_a_server_cannot_take(features: bytes, score: float) -> None:
    """Any bits are a feature vector here, NaN and infinity among them."""
    decision = decided(score=score, decision="block", features=features, parts={"a.$b": 0.5})
    user = User()
    judged = user.decide(decision)

    assert judged is not None
    assert judged.case is not None
    for body in (
        of_decision(decision, judged, "not at hand", known()),
        of_user(decision, user, known()),
        of_case(judged.case, known()),
    ):
        assert finite(body)
        assert no_names_from_outside(body)
        assert bson.decode(bson.encode(body))["_id"] == body["_id"]


def test_a_decision_holds_its_explanation_findings_and_case() -> None:
    values = np.full(N_FEATURES, np.nan, "<f4")
    values[FEATURE_NAMES.index("user_count_5m")] = 9
    decision = decided(decision="block", score=0.93, features=values.tobytes())
    judged = User().decide(decision)
    (explained,) = explain_decisions([decision], {})

    assert judged is not None
    body = of_decision(decision, judged, explained, known())

    assert body["_id"] == decision.decision_id
    assert body["case_id"] == f"case-{decision.decision_id}"
    assert [f["kind"] for f in body["findings"]] == ["score", "velocity"]
    assert body["explanation"]["sentence"] == explained.sentence
    assert finite(body)
    assert body["features"] == decision.features


def test_a_decision_holds_the_correlation_id_that_it_came_with() -> None:
    decision = decided(correlation_id="c-1")
    judged = User().decide(decision)

    assert judged is not None
    assert of_decision(decision, judged, None, known())["correlation_id"] == "c-1"


def test_a_label_has_the_id_of_the_decision_it_is_about() -> None:
    assert of_label(label(7), None, known())["_id"] == decided(7).decision_id


def test_unknown_habits_are_none() -> None:
    body = of_user(decided(contract_version=1), User(), known())

    assert body["user_amount_mean"] is None
    assert body["_id"] == f"user_id~u1@{body['day']}"


def test_names_of_figures_are_values() -> None:
    (event,) = (topic.example for topic in TOPICS if topic.name == "audit")
    body = documents.of_audit(event)  # type: ignore[arg-type]

    assert {"name": "gain", "value": 0.21} in body["figures"]
    assert json.dumps(body)


def test_every_collection_has_its_indexes() -> None:
    assert set(INDEXES) == {"decisions", "cases", "labels", "profiles", "audit"}
