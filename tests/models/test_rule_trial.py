"""What rules would have done, against a count made another way."""

import msgspec
import numpy as np
import pandas as pd
import pytest

from events.control import Condition, Rule
from models import rule_trial
from models.history import HistoryError, history
from models.rule_trial import try_rules
from models.sources import simulated
from state.contract import DAY_MS, FEATURE_NAMES
from state.replay import replay

NOW = 1_795_219_200_000
DELAY_DAYS = 2.0

LARGE_ABROAD = Rule(
    rule_id="large-abroad", version=1, owner="o", verdict="review", shadow=True,
    all=[
        Condition(feature="user_amount_ratio", operator=">", value=1.5),
        Condition(field="country", operator="not_in", values=["FR", "DE"]),
    ],
)  # fmt: skip
TERMINAL = Rule(
    rule_id="terminal", version=1, owner="o", verdict="block", enabled=False, expires_at=946_684_800_000,
    all=[Condition(feature="terminal_frauds", operator=">=", value=1)],
)  # fmt: skip


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    found = simulated(users=150, terminals=60, days=20, fraud_rate=0.05, seed=3)
    return found.drop(columns="labelled_at")


@pytest.mark.parametrize("chunk", [101, 1 << 16])
def test_counts_over_the_features_of_the_job(
    frame: pd.DataFrame, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rule_trial, "CHUNK", chunk)
    trial = try_rules([LARGE_ABROAD, TERMINAL], frame.sample(frac=1, random_state=1), DELAY_DAYS, NOW)

    ordered = frame.sort_values("event_time", kind="stable", ignore_index=True)
    past = history(ordered, DELAY_DAYS, NOW)
    features = replay(
        past.transactions, past.user, past.terminal, past.known_labels(), round(DELAY_DAYS * DAY_MS)
    ).features
    column = dict(zip(FEATURE_NAMES, features.T, strict=True))
    abroad = ordered["country"].notna() & ~ordered["country"].isin(["FR", "DE"])
    expected = {
        "large-abroad": (column["user_amount_ratio"] > np.float32(1.5)) & abroad.to_numpy(),
        "terminal": column["terminal_frauds"] >= 1,
    }
    assert (trial.transactions, trial.frauds) == (len(frame), frame["is_fraud"].sum())
    for outcome in trial.outcomes:
        hit = expected[outcome.rule_id]
        assert outcome.hits == hit.sum() > 50
        assert outcome.hits_per_day == pytest.approx(hit.sum() / trial.days)
        assert outcome.users == ordered["user_id"][hit].nunique()
        assert outcome.frauds == ordered["is_fraud"][hit].sum() > 0
        assert outcome.precision == pytest.approx(ordered["is_fraud"][hit].mean())
        assert outcome.recall == pytest.approx(hit[ordered["is_fraud"] == 1].mean())


def test_repeats_get_no_decision_and_no_hit(frame: pd.DataFrame) -> None:
    repeated = frame.loc[frame.index.repeat(2)]
    assert try_rules([LARGE_ABROAD], repeated, DELAY_DAYS, NOW) == try_rules(
        [LARGE_ABROAD], frame, DELAY_DAYS, NOW
    )


def test_without_truth_and_without_hits(frame: pd.DataFrame) -> None:
    never = msgspec.structs.replace(
        LARGE_ABROAD, all=[Condition(field="user_id", operator="in", values=["nobody"])]
    )
    known = try_rules([never], frame, DELAY_DAYS, NOW).outcomes[0]
    assert (known.hits, known.frauds, known.precision, known.recall) == (0, 0, None, 0.0)
    trial = try_rules([LARGE_ABROAD], frame.drop(columns="is_fraud"), DELAY_DAYS, NOW)
    (outcome,) = trial.outcomes
    assert outcome.hits > 50
    assert (trial.frauds, outcome.frauds, outcome.precision, outcome.recall) == (None,) * 4
    legitimate = try_rules([LARGE_ABROAD], frame.assign(is_fraud=0), DELAY_DAYS, NOW).outcomes[0]
    assert (legitimate.frauds, legitimate.precision, legitimate.recall) == (0, 0.0, None)


def test_transactions_that_cannot_be_replayed(frame: pd.DataFrame) -> None:
    with pytest.raises(HistoryError, match="no transactions"):
        try_rules([LARGE_ABROAD], frame[:0], DELAY_DAYS, NOW)
    with pytest.raises(HistoryError, match="amount"):
        try_rules([LARGE_ABROAD], frame.assign(amount=-1.0), DELAY_DAYS, NOW)
