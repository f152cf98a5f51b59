"""The commands `simulate` and `replay`."""

import signal
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from time import time_ns
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from simulator.config import DEFAULT_MIX, Drift, SimulationConfig
from simulator.datasets import FORMATS, DatasetError, TimeUnit, mapped_format
from simulator.files import SimulationFiles
from simulator.kafka import Delivery, KafkaSink, KafkaUnavailableError
from simulator.replay import Recording
from simulator.schedule import Batch, Pace, Schedule, ahead
from simulator.simulation import Day, simulate_days

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
_console = Console(stderr=True, soft_wrap=True, highlight=False)

Bootstrap = Annotated[
    str | None,
    typer.Option(envvar="FRAUDSTREAM_BOOTSTRAP", help="Kafka broker, host:port.", show_default=False),
]
Topic = Annotated[str, typer.Option(help="Topic of the transactions.")]
LabelsTopic = Annotated[str, typer.Option(help="Topic of the labels.")]
Tps = Annotated[float | None, typer.Option(min=0.001, help="Send this many transactions a second.")]
Speed = Annotated[
    float | None,
    typer.Option(min=0.001, help="Let event time run this many times as fast as the wall clock."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--kafka-set", help="A librdkafka setting NAME=VALUE, such as security.protocol=SSL; repeatable."
    ),
]
DeliveryTimeout = Annotated[
    float,
    typer.Option(min=1.0, help="Seconds until an unacknowledged record counts as failed and the run ends."),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Stop after this many transactions.")]


@app.command()
def simulate(  # noqa: PLR0913, PLR0917 - each is an option of the command
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write to this .jsonl (wire records), .csv or .parquet (with ground truth); "
            "the labels go to labels.<suffix> beside it."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace existing files.")] = False,
    bootstrap: Bootstrap = None,
    topic: Topic = "transactions",
    labels_topic: LabelsTopic = "labels",
    users: Annotated[int, typer.Option(help="Number of users.")] = 2_000,
    terminals: Annotated[int, typer.Option(help="Number of terminals, at least 20.")] = 1_000,
    days: Annotated[int, typer.Option(help="Number of simulated days.")] = 60,
    start: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="First simulated day.")] = datetime(
        2026, 1, 1
    ),
    seed: Annotated[int, typer.Option(help="Same seed and sizes, same traffic.")] = 0,
    fraud_rate: Annotated[float, typer.Option(help="Share of the transactions that are fraudulent.")] = 0.005,
    transactions_per_user_day: Annotated[float, typer.Option(help="Mean number of transactions.")] = 2.0,
    mix: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Weight of a pattern, PATTERN=WEIGHT; repeatable. Patterns: {', '.join(DEFAULT_MIX)}."
        ),
    ] = None,
    drift: Annotated[
        list[str] | None,
        typer.Option(help="PATTERN:DAY:appears, PATTERN:DAY:disappears or PATTERN:DAY:changes; repeatable."),
    ] = None,
    label_delay: Annotated[float, typer.Option(help="Mean days until a chargeback.")] = 7.0,
    missing_rate: Annotated[float, typer.Option(help="How often an optional field is missing.")] = 0.03,
    tps: Tps = None,
    speed: Speed = None,
    now: Annotated[
        bool | None,
        typer.Option(
            help="Send each transaction with the current time as event_time and an id of its own. "
            "On with --tps unless labels are sent.",
            show_default=False,
        ),
    ] = None,
    labels: Annotated[
        bool | None,
        typer.Option(
            help="Also send labels when event time reaches them. On with --speed.", show_default=False
        ),
    ] = None,
    preload: Annotated[
        bool, typer.Option(help="Make all records before sending the first, for undisturbed measurements.")
    ] = False,
    limit: Limit = None,
    delivery_timeout: DeliveryTimeout = 8.0,
    kafka_set: Settings = None,
) -> None:
    """Simulate card and account traffic with known fraud, into files (--out) or Kafka (--bootstrap)."""
    try:
        config = SimulationConfig(
            users=users,
            terminals=terminals,
            days=days,
            start=start.date(),
            seed=seed,
            fraud_rate=fraud_rate,
            transactions_per_user_day=transactions_per_user_day,
            mix={**DEFAULT_MIX, **_weights(mix or [])},
            drift=tuple(Drift.parse(text) for text in drift or []),
            label_delay_days=label_delay,
            missing_rate=missing_rate,
        )
    except ValidationError as error:
        _fail("; ".join(_reason(detail) for detail in error.errors()))
    except ValueError as error:
        _fail(str(error))

    if out is not None:
        if tps or speed or labels or now or limit:
            _fail("--tps, --speed, --labels, --now and --limit are for Kafka, not for --out")
        _simulate_to_files(config, out, overwrite)
        return
    if bootstrap is None:
        _fail("give --out FILE, or --bootstrap HOST:PORT for Kafka")
    with_labels = labels if labels is not None else speed is not None
    live = now if now is not None else tps is not None and not with_labels
    if live and with_labels:
        _fail("--now and --labels exclude each other: labels follow the simulated event time")
    if live and speed is not None:
        _fail("--now and --speed exclude each other: --speed keeps the simulated event time")

    # Live traffic is new each time: ids of an earlier run would be taken for repeats.
    schedule = _schedule(tps, speed, topic, labels_topic, f"r{time_ns() // 1_000_000:x}-" if live else None)
    days_left = _limited(simulate_days(config), limit)
    batches = schedule.batches((day.transactions, day.labels if with_labels else None) for day in days_left)
    expected = limit or round(users * days * transactions_per_user_day)
    topics = [topic, labels_topic] if with_labels else [topic]
    sink = _sink(bootstrap, kafka_set, delivery_timeout, topics)
    _send(sink, schedule, batches, expected, preload)


@app.command()
def replay(  # noqa: PLR0913, PLR0917 - each is an option of the command
    file: Annotated[
        Path, typer.Argument(help="A .csv (also compressed) or .parquet file.", show_default=False)
    ],
    bootstrap: Bootstrap = None,
    format_name: Annotated[
        str, typer.Option("--format", help=f"One of {', '.join(FORMATS)}.")
    ] = "fraudstream",
    columns: Annotated[
        str | None,
        typer.Option(help="Mapping WIRE=SOURCE,WIRE=SOURCE,... of wire columns to those of the file."),
    ] = None,
    time_unit: Annotated[
        str | None,
        typer.Option(
            help="Unit of a numeric event_time: s, ms, hours (since --epoch), or auto.", show_default=False
        ),
    ] = None,
    epoch: Annotated[
        datetime, typer.Option(formats=["%Y-%m-%d"], help="Day from which hours count, as in PaySim.")
    ] = datetime(2026, 1, 1),
    topic: Topic = "transactions",
    labels_topic: LabelsTopic = "labels",
    tps: Tps = None,
    speed: Speed = None,
    limit: Limit = None,
    start: Annotated[datetime | None, typer.Option(help="Only transactions from this time (UTC) on.")] = None,
    end: Annotated[datetime | None, typer.Option(help="Only transactions before this time (UTC).")] = None,
    labels: Annotated[bool, typer.Option(help="Also send labels when event time reaches them.")] = False,
    label_delay: Annotated[float, typer.Option(min=0, help="Days from a transaction to its label.")] = 7.0,
    check: Annotated[
        bool, typer.Option(help="Read the whole file once before sending the first row.")
    ] = True,
    preload: Annotated[
        bool, typer.Option(help="Make all records before sending the first, for undisturbed measurements.")
    ] = False,
    delivery_timeout: DeliveryTimeout = 8.0,
    kafka_set: Settings = None,
) -> None:
    """Send the transactions of a CSV or parquet file to Kafka, as fast as possible or at a pace."""
    if bootstrap is None:
        _fail("give --bootstrap HOST:PORT")
    try:
        layout = mapped_format(
            format_name, _pairs((columns or "").split(",") if columns else []), _time_unit(time_unit)
        )
        recording = Recording(
            file, layout, epoch.date(), start, end, limit, label_delay_days=label_delay if labels else None
        )
        schedule = _schedule(tps, speed, topic, labels_topic, None)
        expected = None
        if check:
            with _console.status(f"checking {file}") as status:
                expected = recording.check(lambda n: status.update(f"checking {file}: {n:,} transactions"))
        batches = schedule.batches(recording.frames())
        sink = _sink(bootstrap, kafka_set, delivery_timeout, [topic, labels_topic] if labels else [topic])
        _send(sink, schedule, batches, expected, preload)
    except ValueError as error:
        _fail(str(error))


def _simulate_to_files(config: SimulationConfig, out: Path, overwrite: bool) -> None:
    try:
        transactions = labels = fraud = 0
        with SimulationFiles(out, overwrite) as files, _progress("days") as progress:
            task = progress.add_task("simulating", total=config.days)
            for day in simulate_days(config):
                files.write(day)
                transactions += len(day.transactions)
                labels += len(day.labels)
                fraud += int(day.transactions["is_fraud"].sum())
                progress.advance(task)
    except (ValueError, OSError) as error:
        _fail(str(error))
    except KeyboardInterrupt:
        _fail("interrupted; nothing was written")
    share = fraud / max(transactions, 1)
    _console.print(
        f"{transactions:,} transactions to {files.transactions}, {fraud:,} of them fraud ({share:.2%})"
    )
    _console.print(f"{labels:,} labels to {files.labels}")


def _sink(
    bootstrap: str, settings: list[str] | None, delivery_timeout: float, topics: list[str]
) -> KafkaSink:
    try:
        sink = KafkaSink(bootstrap, _pairs(settings or []), delivery_timeout)
        sink.require(topics)
    except (KafkaUnavailableError, ValueError) as error:
        _fail(str(error))
    return sink


def _send(
    sink: KafkaSink, schedule: Schedule, batches: Iterator[Batch], expected: int | None, preload: bool
) -> None:
    ready = list(batches) if preload else ahead(batches)
    handlers = {
        number: signal.signal(number, lambda *_: sink.stop()) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        with _progress("transactions") as progress:
            task = progress.add_task("sending", total=expected)
            delivery = sink.send(ready, lambda d: progress.update(task, completed=d.transactions))
            progress.update(task, completed=delivery.transactions)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    _summarise(delivery, schedule)


def _summarise(delivery: Delivery, schedule: Schedule) -> None:
    ended = "interrupted: " if delivery.interrupted else ""
    _console.print(
        f"{ended}{delivery.transactions:,} transactions and {delivery.labels:,} labels sent in "
        f"{delivery.seconds:.1f} s ({delivery.rate:,.0f} transactions/s), {delivery.failed:,} failed"
    )
    if schedule.pace != Pace():
        _console.print(f"latest record {delivery.worst_lag_ms:.1f} ms behind its time")
    if schedule.waiting and not delivery.interrupted:
        _console.print(f"{schedule.waiting:,} labels were not yet due")
    if delivery.failed:
        _fail(f"{delivery.failed:,} records were not delivered: {delivery.first_error}")


def _schedule(
    tps: float | None, speed: float | None, topic: str, labels_topic: str, live: str | None
) -> Schedule:
    try:
        return Schedule(Pace(tps, speed), topic, labels_topic, live)
    except ValueError as error:
        _fail(str(error))


def _limited(days: Iterator[Day], limit: int | None) -> Iterator[Day]:
    """The first `limit` transactions, and the labels that belong to them."""
    left = limit
    sent: set[str] = set()
    for day in days:
        if left is None:
            yield day
            continue
        transactions = day.transactions.iloc[:left]
        sent.update(transactions["transaction_id"])
        left -= len(transactions)
        yield Day(day.day, transactions, day.labels[day.labels["transaction_id"].isin(sent)])
        if left == 0:
            return


def _pairs(texts: list[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name.strip() and equals and value.strip()):
            raise DatasetError(f"{text!r} is not NAME=VALUE")
        pairs[name.strip()] = value.strip()
    return pairs


def _weights(texts: list[str]) -> dict[str, float]:
    try:
        return {name: float(weight) for name, weight in _pairs(texts).items()}
    except ValueError as error:
        raise ValueError(f"mix: {error}") from error


def _time_unit(text: str | None) -> TimeUnit | None:
    match text:
        case None | "auto" | "s" | "ms" | "hours":
            return text
    raise DatasetError(f"unknown time unit {text!r}; known are auto, s, ms, hours")


def _reason(detail: Any) -> str:
    name = ".".join(str(part) for part in detail["loc"]) or "simulation"
    return f"{name}: {detail['msg'].removeprefix('Value error, ')} (given {detail['input']!r})"


def _progress(unit: str) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        console=_console,
        transient=True,
        refresh_per_second=4,
    )


def _fail(reason: str) -> NoReturn:
    _console.print(f"[bold red]error:[/] {escape(reason)}")
    raise typer.Exit(1)
