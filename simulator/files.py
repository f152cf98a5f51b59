"""Simulated runs as files: JSON lines, CSV or parquet, with the labels in a second file beside them."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, Protocol, Self

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from simulator.columns import encode_labels, encode_transactions
from simulator.simulation import Day

TEXT, MS = pa.string(), pa.int64()
TRANSACTION_SCHEMA: Final = pa.schema(
    [
        ("transaction_id", TEXT),
        ("user_id", TEXT),
        ("event_time", MS),
        ("amount", pa.float64()),
        ("terminal_id", TEXT),
        ("currency", TEXT),
        ("merchant_category", TEXT),
        ("transaction_type", TEXT),
        ("channel", TEXT),
        ("country", TEXT),
        ("latitude", pa.float64()),
        ("longitude", pa.float64()),
        ("device_id", TEXT),
        ("ip", TEXT),
        ("card_present", pa.bool_()),
        ("receiver_id", TEXT),
        ("balance_before", pa.float64()),
        ("balance_after", pa.float64()),
        ("is_fraud", pa.int8()),
        ("fraud_scenario", TEXT),
    ]
)
LABEL_SCHEMA: Final = pa.schema(
    [
        ("transaction_id", TEXT),
        ("user_id", TEXT),
        ("event_time", MS),
        ("is_fraud", pa.bool_()),
        ("source", TEXT),
        ("labelled_at", MS),
        ("terminal_id", TEXT),
        ("amount", pa.float64()),
    ]
)


class TableWriter(Protocol):
    """Appends tables of one schema to a file."""

    def write(self, frame: pd.DataFrame) -> None:
        """Append the rows of a frame."""

    def close(self) -> None:
        """Finish the file."""


class JsonLines:
    """One wire record a line, without the ground truth."""

    def __init__(self, path: Path, encode: Callable[[pd.DataFrame], list[bytes]]) -> None:
        """Open the file; `encode` makes one line of each row."""
        self._file = path.open("wb")
        self._encode = encode

    def write(self, frame: pd.DataFrame) -> None:
        """Append the rows of a frame."""
        self._file.writelines(line + b"\n" for line in self._encode(frame))

    def close(self) -> None:
        """Finish the file."""
        self._file.close()


class Csv:
    """A header line, then one row each; missing fields are empty."""

    def __init__(self, path: Path) -> None:
        """Open the file; the first frame brings the header."""
        self._file = path.open("w", encoding="utf-8", newline="")
        self._header = True

    def write(self, frame: pd.DataFrame) -> None:
        """Append the rows of a frame."""
        frame.to_csv(self._file, index=False, header=self._header)
        self._header = False

    def close(self) -> None:
        """Finish the file."""
        self._file.close()


class Parquet:
    """Row groups of at least `group_rows` rows, zstd-compressed."""

    def __init__(self, path: Path, schema: pa.Schema, group_rows: int = 100_000) -> None:
        """Open the file; every frame must fit the schema."""
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")
        self._schema = schema
        self._group_rows = group_rows
        self._pending: list[pa.Table] = []

    def write(self, frame: pd.DataFrame) -> None:
        """Append the rows of a frame."""
        self._pending.append(pa.Table.from_pandas(frame, schema=self._schema, preserve_index=False))
        if sum(table.num_rows for table in self._pending) >= self._group_rows:
            self._flush()

    def close(self) -> None:
        """Finish the file."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._pending:
            self._writer.write_table(pa.concat_tables(self._pending))
            self._pending = []


class SimulationFiles:
    """Writes days to `path`, whose suffix decides the format, and labels to `labels<suffix>` beside it.

    The files appear under their names only when the block ends without an exception. Raises
    ValueError for an unknown suffix, and FileExistsError unless `overwrite`.
    """

    def __init__(self, path: Path, overwrite: bool = False) -> None:
        """Check the names; nothing is written yet."""
        if path.suffix not in (".jsonl", ".csv", ".parquet"):
            raise ValueError(f"{path}: the suffix must be .jsonl, .csv or .parquet")
        if path.stem == "labels":
            raise ValueError(f"{path}: this is the name of the labels' own file; choose another one")
        self.transactions = path
        self.labels = path.with_name(f"labels{path.suffix}")
        for target in (self.transactions, self.labels):
            if target.exists() and not overwrite:
                raise FileExistsError(f"{target} exists already")

    def __enter__(self) -> Self:
        """Open both files under provisional names."""
        self.transactions.parent.mkdir(parents=True, exist_ok=True)
        self._transactions = self._open(_partial(self.transactions), TRANSACTION_SCHEMA, encode_transactions)
        self._labels = self._open(_partial(self.labels), LABEL_SCHEMA, encode_labels)
        return self

    def write(self, day: Day) -> None:
        """Append a day's transactions and labels."""
        self._transactions.write(day.transactions)
        self._labels.write(day.labels)

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """Give both files their names or, after an exception, remove them."""
        self._transactions.close()
        self._labels.close()
        for target in (self.transactions, self.labels):
            if error is None:
                _partial(target).rename(target)
            else:
                _partial(target).unlink()

    @staticmethod
    def _open(path: Path, schema: pa.Schema, encode: Callable[[pd.DataFrame], list[bytes]]) -> TableWriter:
        # The last suffix but one is the format; the last one marks an unfinished file.
        if path.suffixes[-2] == ".jsonl":
            return JsonLines(path, encode)
        if path.suffixes[-2] == ".csv":
            return Csv(path)
        return Parquet(path, schema)


def write_files(days: Iterable[Day], path: Path, overwrite: bool = False) -> int:
    """Write all days; returns the number of transactions. Raises as SimulationFiles."""
    count = 0
    with SimulationFiles(path, overwrite) as files:
        for day in days:
            files.write(day)
            count += len(day.transactions)
    return count


def _partial(path: Path) -> Path:
    return path.with_name(path.name + ".partial")
