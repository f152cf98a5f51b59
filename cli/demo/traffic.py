"""The input of the demo: simulated transactions whose truth is known, repeats, and lines that are no good."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from simulator.columns import encode_transactions
from simulator.config import DAY_MS, SimulationConfig
from simulator.simulation import simulate_days

REPEATS = 12
TRUTH = ["transaction_id", "event_time", "amount", "is_fraud", "fraud_scenario"]


class Traffic(NamedTuple):
    """What was written.

    truth: one row per transaction with the columns of TRUTH; spoilt: the lines that must become dead letters;
    repeats: lines that say again what an earlier one said; lines: all of them together.
    """

    truth: pd.DataFrame
    spoilt: list[bytes]
    repeats: int
    lines: int


def write_traffic(config: SimulationConfig, path: Path, day_done: Callable[[], None]) -> Traffic:
    """Write JSON lines; repeats and spoilt lines stand among those of the last day."""
    truth: list[pd.DataFrame] = []
    spoilt: list[bytes] = []
    repeats = lines = 0
    with path.open("wb") as file:
        for day in simulate_days(config):
            records = encode_transactions(day.transactions)
            truth.append(day.transactions[TRUTH])
            if day.day == config.days - 1:
                spoilt = list(_spoilt(records))
                repeated = records[:: max(1, len(records) // REPEATS)][:REPEATS]
                repeats = len(repeated)
                records = [*_with_repeats(records, set(repeated)), *spoilt]
            file.writelines(record + b"\n" for record in records)
            lines += len(records)
            day_done()
    return Traffic(pd.concat(truth, ignore_index=True), spoilt, repeats, lines)


def _with_repeats(records: list[bytes], repeated: set[bytes]) -> Iterator[bytes]:
    for record in records:
        yield record
        if record in repeated:
            yield record


def _spoilt(records: list[bytes]) -> Iterator[bytes]:
    """What goes wrong with records in practice, and what is done to them on purpose."""
    samples = iter(records[::7])
    a_day_ahead = round(time.time() * 1000) + DAY_MS

    def changed(**fields: object) -> bytes:
        return json.dumps({**json.loads(next(samples)), **fields}, separators=(",", ":")).encode()

    whole = next(samples)
    yield whole[: len(whole) // 2]
    yield b""
    yield b"Connection reset by peer"
    yield changed(amount=-12.5)
    yield changed(amount="12,50")
    yield changed(amount=float("nan"))
    yield changed(user_id="u1'; DROP TABLE users;--")
    yield changed(merchant_category="toys\x1b[2J")
    yield changed(country="Deutschland")
    yield changed(event_time="1960-05-01T12:00:00Z")
    yield changed(event_time=a_day_ahead)
    yield changed(user_id=None)
    yield next(samples).replace(b'"user_id":"', b'"user_id":"\xe9\xff')
    yield whole.replace(b"{", b'{"amount":1.0,', 1)
    yield b'{"user_id":' + b"[" * 200 + b"]" * 200 + b"}"
    # A transaction_id that was used before, for another amount.
    yield json.dumps({**json.loads(records[-1]), "amount": 1e6}, separators=(",", ":")).encode()
