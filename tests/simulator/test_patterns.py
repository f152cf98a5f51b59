from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from simulator.config import DEFAULT_MIX, SCENARIOS
from simulator.geography import distance_km
from simulator.patterns import AIRLINER_KMH, CHANGED, PATTERNS
from tests.simulator.simulated import complete_world, fraud, ordinary

HOUR_MS = 3_600_000


class Transfer(NamedTuple):
    """The columns of a transfer that matter here."""

    user_id: str
    receiver_id: str
    event_time: int
    amount: float


def bursts(frame: pd.DataFrame, gap_hours: float) -> list[pd.DataFrame]:
    """Transactions of one user that follow each other within the gap."""
    found = []
    for _, own in frame.groupby("user_id"):
        number = (own["event_time"].diff() > gap_hours * HOUR_MS).cumsum()
        found += [burst for _, burst in own.groupby(number)]
    return found


def hour_of(frame: pd.DataFrame) -> "pd.Series[int]":
    """Hour of the day, UTC."""
    return frame["event_time"] // HOUR_MS % 24


def own_mean() -> "pd.Series[float]":
    purchases = ordinary()[ordinary()["transaction_type"] == "purchase"]
    return purchases.groupby("user_id")["amount"].median()


def speeds(frame: pd.DataFrame) -> "pd.Series[float]":
    """km/h from the previous known place of the same user, by row."""
    placed = frame[frame["latitude"].notna()]
    before = placed.groupby("user_id")[["latitude", "longitude", "event_time"]].shift()
    distance = distance_km(before["latitude"], before["longitude"], placed["latitude"], placed["longitude"])
    return pd.Series(distance / ((placed["event_time"] - before["event_time"]) / HOUR_MS), index=placed.index)


def test_every_pattern_has_a_usual_and_a_changed_manner() -> None:
    assert PATTERNS.keys() == CHANGED.keys() == DEFAULT_MIX.keys() == set(SCENARIOS[1:])
    assert all(PATTERNS[name] != CHANGED[name] for name in PATTERNS)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_campaigns_are_about_as_large_as_they_say(pattern: str) -> None:
    sizes = [len(burst) for burst in bursts(fraud(pattern), 24 * 14)]
    assert sum(sizes) > 50
    if pattern not in ("compromised_terminal", "transfer_then_cash_out"):  # spread over several users
        assert np.mean(sizes) == pytest.approx(PATTERNS[pattern].usual_size, rel=0.4)


def test_amount_spikes_are_far_above_the_owners_amounts() -> None:
    spikes = fraud("amount_spike")
    ratio = spikes["amount"] / spikes["user_id"].map(own_mean())
    assert ratio.median() > 3


def test_cards_of_a_compromised_terminal_are_misused_there() -> None:
    world = complete_world()
    misuse = fraud("compromised_terminal")
    purchases = ordinary()[ordinary()["transaction_type"] == "purchase"]
    customers = purchases.groupby("terminal_id")["user_id"].agg(set)
    pairs = zip(misuse["user_id"], misuse["terminal_id"], strict=True)
    known_there = [user in customers[terminal] for user, terminal in pairs]
    assert np.mean(known_there) > 0.8  # a favourite may go unvisited for 60 days
    for terminal, own in misuse.groupby("terminal_id"):
        assert own["event_time"].max() - own["event_time"].min() <= 60 * 24 * HOUR_MS
        assert own["user_id"].nunique() <= 0.9 * max(len(customers[terminal]), 2) + 2
    by_campaign = misuse.groupby("terminal_id").size()
    assert by_campaign.median() >= 3
    assert len(by_campaign) < 0.3 * world.config.terminals


def test_a_taken_over_account_is_used_from_one_unknown_device_elsewhere() -> None:
    world = complete_world().transactions
    owners_places = (
        ordinary()[ordinary()["channel"] == "pos"].groupby("user_id")["country"].agg(pd.Series.mode)
    )
    for burst in bursts(fraud("account_takeover"), 8):
        assert len(burst) >= 2
        user = burst["user_id"].iloc[0]
        for device in burst["device_id"].unique():
            earlier = world[
                (world["device_id"] == device) & (world["event_time"] < burst["event_time"].min())
            ]
            assert earlier.empty
            assert set(world[world["device_id"] == device]["user_id"]) == {user}
    at_till = fraud("account_takeover")
    at_till = at_till[at_till["channel"] == "pos"]
    usual = at_till["user_id"].map(owners_places)
    elsewhere = [
        country not in np.atleast_1d(home) for country, home in zip(at_till["country"], usual, strict=True)
    ]
    assert np.mean(elsewhere) > 0.6  # another city may lie in the same country


def test_card_testing_is_a_burst_of_tiny_amounts_then_a_large_one() -> None:
    for burst in bursts(fraud("card_testing"), 1.5):
        tests, last = burst.iloc[:-1], burst.iloc[-1]
        if len(bursts(burst, 0.02)) == 1 and len(tests) < 5:
            continue  # cut by the end of the run
        assert len(tests) >= 5
        assert (tests["amount"] <= 3.0).all()
        assert last["amount"] > tests["amount"].max()
        assert tests["event_time"].max() - tests["event_time"].min() <= 20 * 60_000
        assert tests["terminal_id"].nunique() == 1
        assert burst["device_id"].nunique() == 1
        assert burst["channel"].isin(["online", "mobile"]).all()


def test_impossible_travel_is_faster_than_an_airliner() -> None:
    speed = speeds(complete_world().transactions)
    campaigns = bursts(fraud("impossible_travel"), 4)
    assert len(campaigns) > 30
    first = pd.concat([campaign.iloc[:1] for campaign in campaigns])
    assert (speed[first.index] > AIRLINER_KMH).all()


def test_owners_travel_at_a_plausible_speed() -> None:
    placed = ordinary()[ordinary()["latitude"].notna()]
    speed = speeds(placed)
    abroad = placed["country"] != placed.groupby("user_id")["country"].transform(lambda c: c.mode().iloc[0])
    assert abroad.mean() > 0.02
    # What remains are cards shared with a relative in another city.
    assert (speed > AIRLINER_KMH).mean() < 0.005
    assert placed["user_id"][speed.index][speed > AIRLINER_KMH].nunique() < 0.05 * placed["user_id"].nunique()


def test_a_drained_account_loses_most_of_its_balance_to_a_new_receiver_who_takes_cash() -> None:
    world = complete_world().transactions
    frauds = fraud("transfer_then_cash_out")
    transfers = frauds[frauds["transaction_type"] == "transfer"]
    cash_outs = frauds[frauds["transaction_type"] == "cash_out"]
    assert len(transfers) + len(cash_outs) == len(frauds)
    share = transfers["amount"] / transfers["balance_before"].clip(lower=1)
    assert share.median() > 0.6
    complete = 0
    for transfer in map(Transfer._make, transfers[list(Transfer._fields)].to_numpy().tolist()):
        earlier = world[(world["user_id"] == transfer.user_id) & (world["event_time"] < transfer.event_time)]
        # Only a second campaign against the same victim may meet the same mule.
        assert transfer.receiver_id not in set(earlier[earlier["is_fraud"] == 0]["receiver_id"])
        taken = cash_outs[
            (cash_outs["user_id"] == transfer.receiver_id)
            & cash_outs["event_time"].between(transfer.event_time, transfer.event_time + 6 * HOUR_MS)
        ]
        complete += taken["amount"].sum() >= 0.75 * transfer.amount
    assert complete >= 0.9 * len(transfers)


def test_slow_mimicry_looks_much_like_the_owner() -> None:
    frauds = fraud("slow_mimicry")
    ratio = frauds["amount"] / frauds["user_id"].map(own_mean())
    assert 0.7 < ratio.median() < 3.0
    assert (frauds["card_present"] == False).all()  # noqa: E712 - a column of objects
    lasting = [burst["event_time"].max() - burst["event_time"].min() for burst in bursts(frauds, 24 * 10)]
    assert np.median(lasting) > 7 * 24 * HOUR_MS
    users = frauds["user_id"].unique()
    expected = hour_of(ordinary()[ordinary()["user_id"].isin(users)]).value_counts(normalize=True)
    actual = hour_of(frauds).value_counts(normalize=True)
    assert (
        actual.reindex(range(24), fill_value=0) - expected.reindex(range(24), fill_value=0)
    ).abs().sum() < 0.6
