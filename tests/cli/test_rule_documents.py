"""The rules in docs/rules.md, the README and rules/starter.yaml: jobs take them, and they hit as is meant."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.rule_files import Draft, drafts
from cli.rules import app
from events.control import Rule
from events.transaction import Transaction
from models.rules import Ruleset
from state.contract import FEATURE_NAMES, N_FEATURES

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "rules.md").read_text()
STARTER = ROOT / "rules" / "starter.yaml"
NOW = 1_795_219_200_000
"""2026-11-21, when the page was written: its dates lie ahead."""

Values = dict[str, float | str]

# By rule: what it hits, and changes of that which it does not hit.
CASES: dict[str, tuple[Values, list[Values]]] = {
    "velocity-online": (
        {"user_count_5m": 6, "card_not_present": 1},
        [{"user_count_5m": 5}, {"card_not_present": 0}],
    ),
    "amount": ({"amount": 3001}, [{"amount": 3000}]),
    "large-amount": ({"amount": 3001}, [{"amount": 3000}]),
    "five-times-the-mean": (
        {"user_amount_ratio": 5.1, "amount": 201},
        [{"user_amount_ratio": 5}, {"amount": 200}, {"user_amount_ratio": math.nan}],
    ),
    "velocity-count": ({"user_count_5m": 6}, [{"user_count_5m": 5}]),
    "velocity-amount": (
        {"user_sum_1h": 2001, "user_count_1h": 2},
        [{"user_sum_1h": 2000}, {"user_count_1h": 1}],
    ),
    "card-testing": (
        {"amount": 5, "user_count_5m": 4, "card_not_present": 1},
        [{"amount": 5.5}, {"user_count_5m": 3}, {"card_not_present": 0}],
    ),
    "impossible-travel": (
        {"speed_kmh": 901, "distance_km": 51, "new_country": 1},
        [{"speed_kmh": 900}, {"distance_km": 50}, {"speed_kmh": math.nan}],
    ),
    "country-change": (
        {"country_change": 1, "seconds_since_last": 3600, "card_not_present": 0},
        [{"country_change": 0}, {"seconds_since_last": 3601}, {"card_not_present": 1}],
    ),
    "new-device": ({"new_device": 1, "amount": 501}, [{"new_device": 0}, {"amount": 500}]),
    "new-device-abroad": (
        {"new_device": 1, "amount": 501, "country": "US"},
        [{"new_device": 0}, {"amount": 500}, {"country": "FR"}],
    ),
    "new-device-large-amount": (
        {"new_device": 1, "amount": 151, "user_amount_ratio": 2.1},
        [{"new_device": 0}, {"amount": 150}, {"user_amount_ratio": 2}],
    ),
    "account-takeover": (
        {"transfer": 1, "new_receiver": 1, "balance_share": 0.81},
        [{"transfer": 0}, {"new_receiver": 0}, {"balance_share": 0.8}],
    ),
    "compromised-terminal": (
        {"terminal_frauds": 2, "terminal_risk_30d": 0.11},
        [{"terminal_frauds": 1}, {"terminal_risk_30d": 0.1}],
    ),
    "defrauded-lately": (
        {"days_since_user_fraud": 30, "card_not_present": 1},
        [{"days_since_user_fraud": 31}, {"days_since_user_fraud": math.nan}, {"card_not_present": 0}],
    ),
    "blocked-users": ({"user_id": "4711"}, [{"user_id": "user-1"}]),
    "blocked-devices": ({"device_id": "device-77"}, [{"device_id": "device-7"}]),
    "blocked-terminals": ({"terminal_id": "terminal-004712"}, [{"terminal_id": "terminal-004713"}]),
    "high-risk-countries": ({"country": "KP", "amount": 101}, [{"country": "FR"}, {"amount": 100}]),
    "outside-the-region": ({"country": "US"}, [{"country": "NO"}]),
    "travelling-executive": (
        {"user_id": "user-0000042", "amount": 4999},
        [{"user_id": "user-0000043"}, {"amount": 5000}],
    ),
}
CASES["country-change-within-the-hour"] = CASES["country-change"]
IN_THE_PAGE = CASES | {"night-electronics": ({"user_sum_1h": 1000}, [{"user_sum_1h": 999}])}
IN_THE_FILE = CASES | {
    "night-electronics": (
        {"night": 1, "amount": 400, "merchant_category": "electronics"},
        [{"night": 0}, {"amount": 399}, {"merchant_category": "groceries"}],
    )
}


def in_the_page(folder: Path) -> list[Draft]:
    found = []
    for n, (kind, text) in enumerate(
        re.findall(r"^```(yaml|json)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    ):
        file = folder / f"{n}.{kind}"
        file.write_text(text)
        found += drafts(file)
    return found


def hits(rule: Rule, values: Values) -> bool:
    features = np.full((1, N_FEATURES), np.nan, np.float32)
    row: list[Any] = [None] * len(Transaction.__struct_fields__)
    for name, value in values.items():
        if isinstance(value, str):
            row[Transaction.__struct_fields__.index(name)] = value
        else:
            features[0, FEATURE_NAMES.index(name)] = value
    ruleset = Ruleset()
    ruleset.apply(rule, NOW)
    return ruleset.evaluate(features, [row], NOW) is not None


def check(rule: Rule, cases: dict[str, tuple[Values, list[Values]]]) -> None:
    hit, misses = cases[rule.rule_id]
    assert hits(rule, hit), rule.rule_id
    for change in misses:
        assert not hits(rule, hit | change), (rule.rule_id, change)


def test_rules_of_the_page_are_taken_and_do_what_it_says(tmp_path: Path) -> None:
    found = [draft.rule(1) for draft in in_the_page(tmp_path)]

    assert len({rule.rule_id for rule in found}) == len(found) >= 15
    for rule in found:
        check(rule, IN_THE_PAGE)


def test_the_rule_in_the_readme(tmp_path: Path) -> None:
    found = re.search(r"^```yaml\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    (tmp_path / "readme.yaml").write_text(found[1])
    (draft,) = drafts(tmp_path / "readme.yaml")
    check(draft.rule(1), CASES)


def test_rules_of_the_starter_set_are_taken_and_do_what_they_say() -> None:
    found = [draft.rule(1) for draft in drafts(STARTER)]

    assert all(rule.shadow and rule.description for rule in found)
    for rule in found:
        check(rule, IN_THE_FILE)
    figures = re.findall(r"^\| ([a-z-]+) \| [0-9.]+ \| [0-9.]+ % \| [0-9.]+ % \|", PAGE, re.MULTILINE)
    assert figures == [rule.rule_id for rule in found]


@pytest.mark.parametrize("name", sorted(set(re.findall(r"fraudstream rules ([a-z]+)", PAGE))))
def test_commands_of_the_page_exist(name: str) -> None:
    assert name in {command.name or command.callback.__name__ for command in app.registered_commands}  # type: ignore[union-attr]
