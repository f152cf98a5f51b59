"""Records of the jobs, from files of JSON lines or from their topic."""

import sys
from collections import deque
from collections.abc import Callable, Iterator
from heapq import nlargest
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
import typer

from cli.terminal import UserError
from serving import broker

Record = TypeVar("Record", bound=msgspec.Struct)

FileOrTopic = Annotated[
    Path | None,
    typer.Argument(
        help="File or folder of JSON lines, - for standard input; without one the topic is read.",
        show_default=False,
    ),
]
Limit = Annotated[int, typer.Option(min=1, help="Show this many, the newest.")]


def lines_of(path: Path) -> Iterator[tuple[str, bytes]]:
    """Every line that is not empty, and where it stands as FILE:LINE; of a folder, of all its visible files.

    Files the job has not finished are hidden. Raises UserError where nothing can be read.
    """
    if str(path) == "-":
        yield from ((f"line {i}", line) for i, line in enumerate(sys.stdin.buffer, 1) if line.strip())
        return
    try:
        files = (
            sorted(f for f in path.iterdir() if f.is_file() and f.name[0] not in "._")
            if path.is_dir()
            else [path]
        )
        for file in files:
            with file.open("rb") as lines:
                yield from ((f"{file}:{i}", line) for i, line in enumerate(lines, 1) if line.strip())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error


def newest_in_file(
    path: Path, record_type: type[Record], limit: int, wanted: Callable[[Record], bool]
) -> tuple[list[Record], int]:
    """The last `limit` wanted records, and how many are wanted in all.

    Raises UserError naming the line that is no such record.
    """
    decode = msgspec.json.Decoder(record_type).decode
    last: deque[Record] = deque(maxlen=limit)
    total = 0
    for place, line in lines_of(path):
        record = _decoded(decode, line, place)
        if wanted(record):
            last.append(record)
            total += 1
    return list(last), total


def newest_in_topic(
    config: dict[str, str],
    topic: str,
    record_type: type[Record],
    limit: int,
    wanted: Callable[[Record], bool] | None,
) -> list[Record]:
    """The `limit` newest records by the broker's time; with `wanted` the whole topic is read for them.

    Raises BrokerError as `broker.stored` does, UserError for a value that is no such record.
    """
    decode = msgspec.json.Decoder(record_type).decode
    held = broker.stored(config, topic, limit if wanted is None else None)
    # The running number keeps the order within a partition, and records from being compared.
    records = ((time, i, _decoded(decode, value, topic)) for i, (time, value) in enumerate(held))
    newest = nlargest(limit, (entry for entry in records if wanted is None or wanted(entry[2])))
    return [record for _, _, record in reversed(newest)]


def _decoded(decode: Callable[[bytes], Record], data: bytes, place: str) -> Record:
    try:
        return decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{place}: {error}") from error
