import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.config import DAY_MS, DEFAULT_MIX, Drift, SimulationConfig
from simulator.simulation import simulate, simulate_days
from tests.simulator.simulated import complete_world

small_worlds = st.builds(
    SimulationConfig,
    users=st.integers(10, 60),
    terminals=st.integers(20, 80),
    days=st.integers(1, 6),
    seed=st.integers(0, 2**63 - 1),
    fraud_rate=st.sampled_from([0.0, 0.005, 0.1]),
    transactions_per_user_day=st.sampled_from([0.05, 1.0, 6.0]),
    label_delay_days=st.sampled_from([0.0, 0.5, 3.0]),
    missing_rate=st.sampled_from([0.0, 0.2, 1.0]),
)


@settings(max_examples=20)
@given(small_worlds)
def test_equal_configurations_give_equal_traffic(config: SimulationConfig) -> None:
    first, second = simulate(config), simulate(config)
    pd.testing.assert_frame_equal(first.transactions, second.transactions)
    pd.testing.assert_frame_equal(first.labels, second.labels)


@settings(max_examples=20)
@given(small_worlds)
def test_transactions_are_ordered_unique_and_within_the_days(config: SimulationConfig) -> None:
    transactions = simulate(config).transactions
    times = transactions["event_time"]
    assert times.is_monotonic_increasing
    assert ((times >= config.start_ms) & (times < config.end_ms)).all()
    assert transactions["transaction_id"].is_unique
    assert ((transactions["fraud_scenario"] == "legitimate") == (transactions["is_fraud"] == 0)).all()


@settings(max_examples=20)
@given(small_worlds)
def test_every_transaction_gets_its_label_later(config: SimulationConfig) -> None:
    run = simulate(config)
    assert run.labels["labelled_at"].is_monotonic_increasing
    joined = run.transactions.merge(run.labels, on="transaction_id", suffixes=("", "_label"), validate="1:1")
    assert len(joined) == len(run.transactions)
    assert (joined["is_fraud"] == joined["is_fraud_label"]).all()
    assert (joined["user_id"] == joined["user_id_label"]).all()
    assert (joined["event_time"] == joined["event_time_label"]).all()
    assert (joined["labelled_at"] > joined["event_time"]).all()


def test_another_seed_gives_other_traffic() -> None:
    a, b = (simulate(SimulationConfig(users=20, terminals=20, days=2, seed=seed)) for seed in (1, 2))
    assert not a.transactions["amount"].equals(b.transactions["amount"])


def test_a_change_of_the_fraud_leaves_ordinary_life_as_it_was() -> None:
    base = SimulationConfig(users=100, terminals=60, days=10, seed=4, missing_rate=0.0)
    columns = ["user_id", "event_time", "amount", "terminal_id", "device_id"]
    ordinary = []
    for config in (base, base.model_copy(update={"fraud_rate": 0.05, "mix": {"card_testing": 1.0}})):
        transactions = simulate(config).transactions
        ordinary.append(transactions[transactions["is_fraud"] == 0][columns].reset_index(drop=True))
    pd.testing.assert_frame_equal(ordinary[0], ordinary[1])


def test_days_carry_the_labels_that_become_known_on_them() -> None:
    config = SimulationConfig(users=100, terminals=60, days=8, label_delay_days=2.0)
    days = list(simulate_days(config))
    assert [day.day for day in days] == list(range(8))
    for day in days[:-1]:
        end = config.start_ms + (day.day + 1) * DAY_MS
        assert (day.transactions["event_time"] < end).all()
        assert (day.labels["labelled_at"] < end).all()
    assert (days[-1].labels["labelled_at"] >= config.end_ms).any()


@pytest.mark.parametrize(
    ("users", "days", "rate"), [(300, 20, 0.005), (300, 20, 0.05), (2_000, 7, 0.005), (2_000, 40, 0.002)]
)
def test_fraud_has_the_share_asked_for(users: int, days: int, rate: float) -> None:
    config = SimulationConfig(users=users, terminals=200, days=days, fraud_rate=rate, seed=8)
    transactions = simulate(config).transactions
    # Within a fifth, or within one campaign where there are only a few.
    assert abs(transactions["is_fraud"].sum() - rate * len(transactions)) <= max(
        0.2 * rate * len(transactions), 12
    )


def test_the_volume_is_the_one_asked_for() -> None:
    config = SimulationConfig(users=2_000, terminals=200, days=14, transactions_per_user_day=3.0)
    assert len(simulate(config).transactions) == pytest.approx(2_000 * 14 * 3.0, rel=0.05)


def test_patterns_have_their_weights() -> None:
    counts = complete_world().transactions["fraud_scenario"].value_counts(normalize=True)
    fraudulent = counts.drop("legitimate") / counts.drop("legitimate").sum()
    for pattern, weight in DEFAULT_MIX.items():
        assert fraudulent[pattern] == pytest.approx(weight, abs=0.05)


def test_a_pattern_of_weight_0_is_absent() -> None:
    config = SimulationConfig(users=200, terminals=60, days=10, fraud_rate=0.03, mix={"card_testing": 1.0})
    assert set(simulate(config).transactions["fraud_scenario"]) == {"legitimate", "card_testing"}


def test_patterns_appear_and_disappear_on_their_days() -> None:
    config = SimulationConfig(
        users=400,
        terminals=100,
        days=30,
        fraud_rate=0.03,
        drift=(
            Drift(pattern="card_testing", day=12, change="appears"),
            Drift(pattern="slow_mimicry", day=15, change="disappears"),
        ),
    )
    transactions = simulate(config).transactions
    day = (transactions["event_time"] - config.start_ms) // DAY_MS
    appearing = day[transactions["fraud_scenario"] == "card_testing"]
    disappearing = day[transactions["fraud_scenario"] == "slow_mimicry"]
    assert 12 <= appearing.min() <= 16
    assert 10 <= disappearing.max() < 15
    # The others make up for it: the rate is held throughout.
    for part in (day < 15, day >= 15):
        assert transactions["is_fraud"][part].mean() == pytest.approx(0.03, rel=0.25)


def test_a_changed_pattern_behaves_otherwise_from_its_day_on() -> None:
    config = SimulationConfig(
        users=400,
        terminals=100,
        days=20,
        fraud_rate=0.03,
        mix={"card_testing": 1.0},
        drift=(Drift(pattern="card_testing", day=10, change="changes"),),
    )
    transactions = simulate(config).transactions
    tests = transactions[transactions["is_fraud"] == 1]
    tiny = tests["amount"] <= 3.0
    before = tests["event_time"] < config.start_ms + 10 * DAY_MS
    assert tiny[before].mean() > 0.7
    assert tiny[~before].mean() < 0.2


def test_fraud_without_any_active_pattern_is_none() -> None:
    config = SimulationConfig(
        users=100,
        terminals=60,
        days=10,
        fraud_rate=0.05,
        mix={"card_testing": 1.0},
        drift=(Drift(pattern="card_testing", day=4, change="disappears"),),
    )
    transactions = simulate(config).transactions
    frauds = transactions[transactions["is_fraud"] == 1]
    assert len(frauds) > 0
    assert (frauds["event_time"] < config.start_ms + 4 * DAY_MS).all()


def test_labels_come_after_the_mean_delay() -> None:
    run = complete_world()
    labels, delay_ms = run.labels, run.config.label_delay_days * DAY_MS
    delay = labels["labelled_at"] - labels["event_time"]
    chargebacks = labels["is_fraud"] & (labels["source"] == "chargeback")
    assert delay[chargebacks].mean() == pytest.approx(delay_ms, rel=0.15)
    reports = labels["is_fraud"] & labels["source"].isin(["analyst", "customer"])
    assert delay[reports].mean() == pytest.approx(delay_ms / 7, rel=0.2)
    assert delay[~labels["is_fraud"]].to_numpy() == pytest.approx(delay_ms, abs=60_001)


def test_only_a_share_of_the_legitimate_is_labelled_if_asked() -> None:
    config = SimulationConfig(users=200, terminals=60, days=10, fraud_rate=0.02, legitimate_labels=0.25)
    run = simulate(config)
    fraud = run.labels["is_fraud"]
    assert fraud.sum() == run.transactions["is_fraud"].sum()
    assert (~fraud).sum() / (run.transactions["is_fraud"] == 0).sum() == pytest.approx(0.25, abs=0.03)


def test_balances_follow_from_the_transactions() -> None:
    transactions = complete_world().transactions
    known = transactions[transactions["balance_after"].notna()]
    incoming = known["transaction_type"].isin(["cash_in", "refund"])
    change = np.where(incoming, known["amount"], -known["amount"])
    np.testing.assert_allclose(known["balance_after"] - known["balance_before"], change, atol=0.011)

    # Between two account transactions of a user the balance moves by what happened in between.
    moves = transactions["amount"] * np.where(
        transactions["transaction_type"].isin(["cash_in", "refund"]), 1.0, -1.0
    )
    for user, own in known.groupby("user_id"):
        if len(own) < 5 or (transactions["receiver_id"] == user).any():
            continue
        total = moves[(transactions["user_id"] == user)].loc[own.index[0] : own.index[-1]].sum()
        assert own["balance_after"].iloc[-1] - own["balance_before"].iloc[0] == pytest.approx(total, abs=0.05)


def test_missing_fields_say_nothing_about_fraud() -> None:
    config = SimulationConfig(
        users=500, terminals=100, days=20, fraud_rate=0.1, missing_rate=0.2, mix={"card_testing": 1.0}
    )
    online = simulate(config).transactions
    online = online[online["card_present"].eq(False)]
    missing = online["device_id"].isna()
    by_truth = missing.groupby(online["is_fraud"]).mean()
    assert by_truth[1] == pytest.approx(by_truth[0], abs=0.03)
