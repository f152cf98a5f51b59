"""`fraudstream rules` without a broker: what is refused before anything is sent, and the test on data."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import pytest

from serving import broker
from tests.cli.commands import fraudstream

RULE: dict[str, Any] = {
    "rule_id": "night-electronics",
    "version": 1,
    "owner": "analyst-7",
    "verdict": "review",
    "all": [{"feature": "amount", "operator": ">=", "value": 1000.0}],
}


def listing(**condition: Any) -> dict[str, Any]:
    return {"all": [condition]}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (listing(feature="amonut", operator=">", value=1), "unknown feature 'amonut'; near are amount"),
        (listing(feature="amount", operator="~", value=1), "all[0].operator"),
        (listing(feature="amount", operator=">", value="high"), "all[0].value"),
        (listing(feature="amount", operator=">", value=1e300), "not a finite float32"),
        (listing(feature="amount", operater=">", value=1), "unknown name operater; near are operator"),
        (listing(field="usr_id", operator="in", values=["u"]), "unknown name usr_id; near are user_id"),
        (listing(field="country", operator="in", values=["France"]), "'France' is no country"),
        (listing(field="user_id", operator="in", values=["u", 4711]), "values: 4711 stands without quotes"),
        ({"shadwo": True}, "unknown name shadwo; near are shadow"),
        ({"rule_id": "a b"}, "rule_id"),
        ({"rule_id": None}, "rule_id"),
        ({"version": 0}, "version"),
        ({"owner": None}, "owner"),
        ({"verdict": "jail"}, "verdict"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at has passed"),
        ({"allow": True}, "allow needs the verdict approve"),
        (
            listing(field="user_id", operator="in", values=["u" * 120 + str(i) for i in range(9_000)]),
            "bytes as JSON, the most are 1,000,000",
        ),
    ],
)  # fmt: skip
def test_rules_that_are_no_good_are_not_sent(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    file = tmp_path / "rule.json"
    file.write_bytes(msgspec.json.encode([RULE | {"rule_id": "good"}, RULE | changes]))
    answer = fraudstream("rules", "put", file)

    assert answer.status == 1
    assert said in answer.text
    assert "broker" not in answer.text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"{", "while parsing a flow node"),
        (b"", "neither a rule nor a list of rules"),
        (b"[]", "neither a rule nor a list of rules"),
        (b"[1]", "neither a rule nor a list of rules"),
        (b"\xff", "utf-8"),
        (b"rule_id: a\nrule_id: b", "rule_id occurs more than once"),
        (b'{"rule_id": "a", "rule_id": "b"}', "rule_id occurs more than once"),
        (b"- rule_id: a\n- rule_id: a", "a: occurs more than once"),
        (b"a: &x [*x]", "aliases are not taken"),
        (b"? [a]\n: b", "is no name"),
        (b"a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        (b"[" * 5_000, "recursion"),
        (b'{"rule_id": "\\ud800"}', "surrogates not allowed"),
        (b'{"value": 1' + b"0" * 5_000 + b"}", "digits"),
        (b'{"value": NaN}', "missing_field"),
        (b'{"all": ' + b"[" * 900 + b"]" * 900 + b"}", "too_deep"),
    ],
)
def test_files_that_hold_no_rules(text: bytes, said: str) -> None:
    answer = fraudstream("rules", "put", "-", stdin=text)
    assert answer.status == 1
    assert said in answer.text


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "No such file" in fraudstream("rules", "put", tmp_path / "none").text
    assert "Is a directory" in fraudstream("rules", "put", tmp_path).text


def test_what_is_good_gets_as_far_as_the_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "TIMEOUT_S", 0.5)
    answer = fraudstream("rules", "put", "-", stdin=msgspec.json.encode(RULE))

    assert answer.status == 1
    assert "no Kafka broker answers at 127.0.0.1:1" in answer.text


YAML = b"""
- rule_id: "0123"
  owner: analyst-7
  verdict: review
  shadow: true
  all: [{field: country, operator: in, values: [NO, FR]}]
- rule_id: large
  owner: analyst-7
  verdict: block
  expires_at: 2020-01-01T00:00:00Z
  all:
    - {feature: amount, operator: ">", value: 1e2}
"""
AMOUNTS = [10.0, 200.0, 300.0, 20.0]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    frame = pd.DataFrame(
        {
            "user_id": ["u-1", "u-1", "u-2", "u-3"],
            "event_time": [1_764_000_000_000 + n * 43_200_000 for n in range(4)],
            "amount": AMOUNTS,
            "country": ["NO", "DE", None, "FR"],
            "is_fraud": [0, 1, 0, 1],
        }
    )
    frame.to_csv(tmp_path / "data.csv", index=False)
    return tmp_path / "data.csv"


def test_a_rule_is_tested_on_recorded_transactions(data: Path) -> None:
    trial = json.loads(fraudstream("rules", "test", "-", "--data", data, "--json", stdin=YAML).text)

    assert (trial["transactions"], trial["days"], trial["frauds"]) == (4, 1.5, 2)
    countries, large = trial["outcomes"]
    assert (countries["rule_id"], countries["hits"], countries["users"]) == ("0123", 2, 2)
    assert (countries["frauds"], countries["precision"], countries["recall"]) == (1, 0.5, 0.5)
    assert (large["hits"], large["hits_per_day"]) == (2, pytest.approx(4 / 3))

    said = fraudstream("rules", "test", "-", "--data", data, stdin=YAML)
    assert "large block 2 1.3 2 1 50.0% 50.0%" in said.text
    assert "4 transactions of 1.5 days, 2 frauds" in said.text


def test_data_that_do_not_say_what_is_fraud(data: Path) -> None:
    frame = pd.read_csv(data).drop(columns="is_fraud")
    frame.to_csv(data, index=False)
    said = fraudstream("rules", "test", "-", "--data", data, stdin=YAML)

    assert said.status == 0
    assert "large block 2 1.3 2 4 transactions of 1.5 days, not known which are fraud" in said.text


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"all": []}, "at least one condition"), (listing(feature="no", operator=">"), "one value")],
)
def test_a_test_of_what_is_no_rule(changes: dict[str, Any], said: str, data: Path) -> None:
    answer = fraudstream("rules", "test", "-", "--data", data, stdin=msgspec.json.encode(RULE | changes))
    assert answer.status == 1
    assert said in answer.text


def test_a_test_on_what_are_no_data(tmp_path: Path) -> None:
    answer = fraudstream("rules", "test", "-", "--data", tmp_path / "none.csv", stdin=YAML)
    assert answer.status == 1
    assert "no such file" in answer.text
