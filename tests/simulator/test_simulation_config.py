import pytest
from pydantic import ValidationError

from simulator.config import Drift, SimulationConfig


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"users": 3}, "users"),
        ({"terminals": 5}, "terminals"),
        ({"days": 0}, "days"),
        ({"fraud_rate": 0.9}, "fraud_rate"),
        ({"fraud_rate": float("nan")}, "fraud_rate"),
        ({"transactions_per_user_day": 0}, "transactions_per_user_day"),
        ({"seed": -1}, "seed"),
        ({"mix": {"phishing": 1.0}}, "phishing"),
        ({"mix": {"card_testing": 0.0}}, "weight above 0"),
        ({"start": "1980-01-01"}, "start"),
        ({"start": "2099-01-01"}, "start"),
        ({"label_delay_days": -1}, "label_delay_days"),
        ({"user": 100}, "user"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, object], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        SimulationConfig.model_validate(settings)


def test_drift_is_read_from_text() -> None:
    assert Drift.parse("card_testing:5:appears") == Drift(pattern="card_testing", day=5, change="appears")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("card_testing:5", "pattern:day:change"),
        ("phishing:5:appears", "unknown pattern"),
        ("card_testing:soon:appears", "day"),
        ("card_testing:-1:appears", "day"),
        ("card_testing:5:vanishes", "change"),
    ],
)
def test_a_wrong_drift_is_refused(text: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Drift.parse(text)
