import json
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

from simulator.columns import maturity_labels
from simulator.config import DAY_MS
from simulator.schedule import ROWS_PER_BATCH, Batch, Pace, Schedule, ahead

START = 1_780_000_000_000


def recorded(times: list[int]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "transaction_id": [str(i) for i in range(len(times))],
            "user_id": [f"u{i % 3}" for i in range(len(times))],
            "event_time": times,
            "amount": 1.0,
            "is_fraud": 0,
        }
    )


def test_tps_spaces_transactions_evenly() -> None:
    frame = recorded([START + i for i in range(ROWS_PER_BATCH + 10)])
    batches = list(Schedule(Pace(tps=50.0), "t", "l").batches([(frame, None)]))
    assert [len(batch.records) for batch in batches] == [ROWS_PER_BATCH, 10]
    due = np.concatenate([batch.due for batch in batches])
    np.testing.assert_allclose(due, np.arange(len(frame)) / 50.0)


def test_speed_follows_event_time() -> None:
    frame = recorded([START, START + 1_000, START + 61_000])
    (batch,) = Schedule(Pace(speed=10.0), "t", "l").batches([(frame, None)])
    np.testing.assert_allclose(batch.due, [0.0, 0.1, 6.1])


def test_without_a_pace_all_is_due_at_once() -> None:
    (batch,) = Schedule(Pace(), "t", "l").batches([(recorded([START, START + DAY_MS]), None)])
    assert batch.due.tolist() == [0.0, 0.0]


def test_labels_follow_when_event_time_has_reached_them() -> None:
    frame = recorded([START + i * DAY_MS for i in range(6)])
    schedule = Schedule(Pace(speed=86_400.0), "t", "l")
    frames = [(frame.iloc[i : i + 2], maturity_labels(frame.iloc[i : i + 2], 2.5)) for i in (0, 2, 4)]
    batches = list(schedule.batches(frames))
    records = [record for batch in batches for record in batch.records]
    sent = [(record.topic, json.loads(record.value)["transaction_id"]) for record in records]
    expected = [
        ("t", "0"),
        ("t", "1"),
        ("t", "2"),
        ("l", "0"),
        ("t", "3"),
        ("l", "1"),
        ("t", "4"),
        ("l", "2"),
        ("t", "5"),
    ]
    assert sent == expected
    assert schedule.waiting == 3
    due = np.concatenate([batch.due for batch in batches])
    np.testing.assert_allclose(due, [0, 1, 2, 2.5, 3, 3.5, 4, 4.5, 5])
    assert np.concatenate([b.is_transaction for b in batches]).sum() == 6


def test_late_transactions_keep_their_place_in_the_file() -> None:
    frame = recorded([START, START + 9_000, START + 2_000, START + 10_000])
    (batch,) = Schedule(Pace(speed=1.0), "t", "l").batches([(frame, None)])
    assert [json.loads(record.value)["transaction_id"] for record in batch.records] == ["0", "1", "2", "3"]
    np.testing.assert_allclose(batch.due, [0, 9, 9, 10])


def test_live_records_take_the_time_of_sending() -> None:
    (batch,) = Schedule(Pace(tps=1.0), "t", "l", live="r1-").batches([(recorded([START]), None)])
    (record,) = batch.records
    assert record.tail is not None
    value = json.loads(record.value + b"1790000000000" + record.tail)
    assert value["event_time"] == 1_790_000_000_000
    assert value["transaction_id"] == "r1-0"
    assert value["user_id"] == "u0"


def test_records_are_keyed_by_user() -> None:
    frame = recorded([START, START + 3 * DAY_MS])
    (batch,) = Schedule(Pace(), "t", "l").batches([(frame, maturity_labels(frame, 1.0))])
    assert all(record.key.decode() == json.loads(record.value)["user_id"] for record in batch.records)


@pytest.mark.parametrize(
    "pace", [{"tps": 0.0}, {"tps": -1.0}, {"speed": float("nan")}, {"tps": 1.0, "speed": 1.0}]
)
def test_an_impossible_pace_is_refused(pace: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"tps|speed"):
        Pace(**pace)


def batches_of(count: int) -> Iterator[Batch]:
    for i in range(count):
        yield Batch(np.array([float(i)]), [], np.array([True]))


@pytest.mark.parametrize("count", [0, 3, 50])
def test_batches_prepared_ahead_come_in_order(count: int) -> None:
    assert [batch.due[0] for batch in ahead(batches_of(count), depth=4)] == list(range(count))


def test_an_error_while_preparing_reaches_the_sender() -> None:
    def failing() -> Iterator[Batch]:
        yield from batches_of(2)
        raise ValueError("row 3")

    ready = ahead(failing())
    assert [batch.due[0] for batch in (next(ready), next(ready))] == [0.0, 1.0]
    with pytest.raises(ValueError, match="row 3"):
        next(ready)
