"""The demo's own parts; with the real job behind them they are run by `make demo`."""

from datetime import date
from pathlib import Path

import msgspec
import pandas as pd
import pytest

from cli.demo.job import LineCounter, Run
from cli.demo.outcome import Decided, caught, highest_of_each_day, outcome, reconcile, speed
from cli.demo.picture import draw
from cli.demo.traffic import REPEATS, Traffic, write_traffic
from events.codec import Decoder, Invalid
from events.control import Thresholds
from events.decision import DeadLetter
from events.transaction import Transaction
from simulator.config import SimulationConfig
from tests.cli.commands import fraudstream, write_lines

CONFIG = SimulationConfig(users=60, terminals=40, days=4, seed=3, fraud_rate=0.1, start=date(2026, 1, 1))


@pytest.fixture(scope="module")
def traffic_and_lines(tmp_path_factory: pytest.TempPathFactory) -> tuple[Traffic, list[bytes]]:
    path = tmp_path_factory.mktemp("demo") / "transactions.jsonl"
    traffic = write_traffic(CONFIG, path, lambda: None)
    return traffic, path.read_bytes().split(b"\n")[:-1]


def answers(traffic: Traffic) -> tuple[list[Decided], list[DeadLetter]]:
    """What a faultless job answers, with the truth as its score."""
    truth = zip(traffic.truth["transaction_id"], traffic.truth["is_fraud"], strict=True)
    decided = [
        Decided(name, "block" if fraud else "approve", float(fraud), 1000 + i // 10, "m")
        for i, (name, fraud) in enumerate(truth)
    ]
    letters = [DeadLetter("empty", "", "transactions.jsonl", 0, 0, payload) for payload in traffic.spoilt]
    return decided, letters


def test_lines_are_transactions_repeats_and_rubbish(traffic_and_lines: tuple[Traffic, list[bytes]]) -> None:
    traffic, lines = traffic_and_lines
    latest = CONFIG.end_ms + 1
    records = Decoder(Transaction).decode(lines, latest)
    invalid = [line for line, record in zip(lines, records, strict=True) if isinstance(record, Invalid)]
    valid = [record.transaction_id for record in records if not isinstance(record, Invalid)]

    assert len(lines) == traffic.lines == len(traffic.truth) + len(traffic.spoilt) + traffic.repeats
    assert traffic.repeats == REPEATS
    assert set(valid) == set(traffic.truth["transaction_id"])
    # The last one is readable: that it contradicts an earlier one only the profile tells.
    assert invalid == traffic.spoilt[:-1]
    assert len({r.reason for r in records if isinstance(r, Invalid)}) >= 9


def test_a_faultless_run_reconciles(traffic_and_lines: tuple[Traffic, list[bytes]]) -> None:
    traffic, _ = traffic_and_lines

    assert reconcile(traffic, *answers(traffic)).holds


def test_whatever_is_missing_or_too_much_is_found(traffic_and_lines: tuple[Traffic, list[bytes]]) -> None:
    traffic, _ = traffic_and_lines
    decided, letters = answers(traffic)
    stranger = Decided("stranger", "approve", 0.0, 0, "m")
    changed = msgspec.structs.replace(letters[0], payload=b"other bytes")
    for faulty in (
        (decided[1:], letters),
        ([*decided, decided[0]], letters),
        ([*decided[1:], decided[1]], letters),
        ([*decided, stranger], letters),
        ([*decided[1:], stranger], letters),
        (decided, letters[1:]),
        (decided, [*letters, letters[0]]),
        (decided, [changed, *letters[1:]]),
    ):
        assert not reconcile(traffic, *faulty).holds


def test_outcome_of_a_perfect_model(traffic_and_lines: tuple[Traffic, list[bytes]], tmp_path: Path) -> None:
    traffic, _ = traffic_and_lines
    decided, letters = answers(traffic)
    for name, records in (("decisions", decided), ("dead_letter", letters)):
        (tmp_path / name).mkdir()
        write_lines(tmp_path / name / "part-0", *records)
    found = outcome(traffic, tmp_path, Run(0.0, 9.0), warm_up=1, alerts_per_day=5)

    assert found.reconciliation.holds
    assert (found.blocked.precision, found.blocked.recall, found.blocked.value_recall) == (1, 1, 1)
    assert found.budget.alerts == 5 * (CONFIG.days - 1)
    assert found.frauds == sum(p.frauds for p in found.patterns) == sum(p.blocked for p in found.patterns)
    assert found.frauds < traffic.truth["is_fraud"].sum()
    draw(found, Thresholds(0.1, 0.9), tmp_path / "demo.png")
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")


def test_alert_budget_is_kept_each_day() -> None:
    scored = pd.DataFrame(
        {
            "day": [0, 0, 0, 1, 1],
            "score": [0.2, 0.9, 0.9, 0.1, 0.0],
            "is_fraud": [1, 1, 0, 0, 1],
            "amount": [10.0, 30.0, 1.0, 1.0, 20.0],
        }
    )
    alert = highest_of_each_day(scored, 1)

    assert alert.tolist() == [False, True, False, True, False]
    assert caught(scored, alert) == (2, 0.5, 1 / 3, 0.5)


def test_speed_leaves_the_start_out() -> None:
    decided = [Decided(str(i), "approve", 0.0, 5_000 + 100 * (i // 50), "m") for i in range(200)]
    measured = speed(decided, Run(started=1.0, ended=6.0))

    assert (measured.start_s, measured.scoring_s, measured.total_s) == (4.0, 0.3, 5.0)
    assert measured.rate == pytest.approx(200 / 0.3)
    assert (measured.batch_size, measured.batch_ms) == (50, (100, 100))


def test_lines_are_counted_once_while_files_grow_and_change_their_name(tmp_path: Path) -> None:
    folder = tmp_path / "decisions"
    counter = LineCounter(folder)
    assert counter.count() == 0
    folder.mkdir()
    growing = folder / ".part-0.inprogress"
    with growing.open("wb") as file:
        file.write(b"one\ntwo\nhal")
        file.flush()
        assert counter.count() == 2
        file.write(b"f\n")
    assert counter.count() == 3
    growing.rename(folder / "part-0")
    (folder / ".part-1.inprogress").write_bytes(b"four\n")
    assert counter.count() == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--days", "5", "--warm-up", "5"), "leave nothing of 5"),
        (("--users", "1"), "--users: Input should be greater"),
        (("--days", "3000"), "reach into the future"),
        (("--model", "nowhere"), "manifest.json is missing"),
        (("--folder", "full"), "holds something else"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_written(
    arguments: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "diary").touch()
    answer = fraudstream("demo", *arguments)

    assert answer.status == 1
    assert said in answer.text
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["diary"]
