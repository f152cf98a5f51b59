"""`fraudstream feedback`."""

import csv
import io
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import typer

from cli import kafka
from cli.records import lines_of
from cli.terminal import UserError, err, out, printable
from events.codec import Decoder
from events.feedback import Feedback
from events.invalid import Invalid, refuse
from serving import broker

AHEAD_MS = 3_600_000  # as the learning job takes it by default

Line = tuple[str, bytes | Invalid]
"""Where a record stands, and its JSON, or why there is none."""

app = typer.Typer(no_args_is_help=True)


@app.callback()
def feedback() -> None:
    """What is known of decisions: verdicts of analysts, chargebacks, words of customers."""


@app.command()
def send(  # noqa: PLR0913, PLR0917 - each is an option of the command
    file: Annotated[
        Path | None,
        typer.Argument(
            help="JSON lines or CSV with the fields as header; - for standard input.", show_default=False
        ),
    ] = None,
    transaction_id: Annotated[str | None, typer.Option(help="What it is about.", show_default=False)] = None,
    anomaly_id: Annotated[str | None, typer.Option(help="The same.", show_default=False)] = None,
    label: Annotated[
        str | None,
        typer.Option(help="fraud, legitimate, true_positive or false_positive.", show_default=False),
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="analyst, chargeback or customer.", show_default=False)
    ] = None,
    labelled_at: Annotated[
        str | None,
        typer.Option(help="Milliseconds since 1970 or RFC 3339; by default now.", show_default=False),
    ] = None,
    analyst_id: Annotated[str | None, typer.Option(help="Who says so.", show_default=False)] = None,
    notes: Annotated[str | None, typer.Option(help="Why.", show_default=False)] = None,
    form: Annotated[
        Literal["json", "csv"] | None,
        typer.Option("--format", help="Of the file; by default as its name ends.", show_default="json"),
    ] = None,
    bootstrap: kafka.Bootstrap = kafka.LOCAL_BROKER,
    topic_prefix: kafka.TopicPrefix = "",
    kafka_set: kafka.ClientSettings = None,
) -> None:
    """Send one piece of feedback by options, or all of a file; the exit code is 1 where one was not sent."""
    given = {
        "transaction_id": transaction_id,
        "anomaly_id": anomaly_id,
        "label": label,
        "source": source,
        "labelled_at": labelled_at,
        "analyst_id": analyst_id,
        "notes": notes,
    }
    single = any(value is not None for value in given.values())
    if single == (file is not None):
        raise UserError("give either FILE or the fields of one piece of feedback as options")
    config, topic = kafka.client_config(bootstrap, kafka_set), f"{topic_prefix}feedback"
    if file is None:
        lines = iter([("options", _json(given | {"labelled_at": labelled_at or str(_now())}))])
    else:
        as_csv = form == "csv" or (form is None and file.suffix == ".csv")
        lines = _csv(file) if as_csv else iter(lines_of(file))
    refused: list[str] = []
    sent, failures = broker.send_all(config, topic, _checked(lines, refused))
    for failure in failures:
        _complain(failure)
    out.print(f"{sent:,} sent, {len(refused):,} refused, {len(failures):,} not acknowledged", highlight=False)
    if refused or failures or not sent:
        raise typer.Exit(1)


def _checked(lines: Iterator[Line], refused: list[str]) -> Iterator[tuple[str, str, bytes]]:
    """The good records: where each stands, its key and value. The others are told of, and noted."""
    decoder = Decoder(Feedback)
    for place, value in lines:
        record = value if isinstance(value, Invalid) else decoder.decode([value], _now() + AHEAD_MS)[0]
        if isinstance(record, Feedback):
            yield place, str(record.transaction_id or record.anomaly_id), msgspec.json.encode(record)
            continue
        refused.append(place)
        _complain(f"{place}: {record}")


def _complain(text: str) -> None:
    err.print(printable(text), style="red", highlight=False, markup=False, soft_wrap=True)


def _csv(path: Path) -> Iterator[Line]:
    """The rows of a CSV file. Raises UserError where it has no header or cannot be read."""
    try:
        text = (
            io.TextIOWrapper(sys.stdin.buffer, errors="surrogateescape", newline="")
            if str(path) == "-"
            else path.open(errors="surrogateescape", newline="")
        )
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    with text:
        rows = csv.DictReader(text, strict=True)
        fields = rows.fieldnames or []
        if not set(fields) & {"transaction_id", "anomaly_id"}:
            raise UserError(f"{path}: the first line names neither transaction_id nor anomaly_id")
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                yield f"{path}:{rows.reader.line_num}", refuse("malformed_csv", str(error))
            else:
                yield f"{path}:{rows.line_num}", _of_row(row)


def _of_row(row: dict[str | Any, Any]) -> bytes | Invalid:
    if None in row:
        return refuse("malformed_csv", "there are more cells than the header names")
    return _json(row)


def _json(values: dict[str, str | None]) -> bytes | Invalid:
    """The record in texts; an empty one is missing, and a time in digits is a number."""
    members: dict[str, Any] = {name: values[name] for name in Feedback.__struct_fields__ if values.get(name)}
    time_ = members.get("labelled_at", "")
    if time_.isascii() and time_.isdigit():
        members["labelled_at"] = int(time_[:20])
    try:
        return msgspec.json.encode(members)
    except UnicodeEncodeError:
        name = next(n for n, v in members.items() if isinstance(v, str) and not _is_unicode(v))
        return refuse("invalid_utf8", "bytes that are not UTF-8", name)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _now() -> int:
    return round(time.time() * 1000)
