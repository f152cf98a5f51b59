"""Recorded data sets as chunks of columns with wire names: reading, mapping and checking.

`read_transactions` serves replay, training and evaluation alike. A ready `Format` exists for the
files of `fraudstream simulate`, the card-fraud handbook, PaySim and Sparkov; any other CSV or
parquet file is read with a mapping of its columns.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from events.transaction import TransactionType
from events.types import (
    EARLIEST_MS,
    IDENTIFIER_PATTERN,
    LABEL_PATTERN,
    LATEST_MS,
    MAX_AMOUNT,
    is_ip_address,
)
from simulator.columns import TRUTH_COLUMNS, WIRE_COLUMNS

TimeUnit = Literal["auto", "s", "ms", "hours"]

REQUIRED: Final = ("user_id", "event_time", "amount")
"""`transaction_id` is required on the wire, but the row number serves where a file has none."""
IDENTIFIERS: Final = ("transaction_id", "user_id", "terminal_id", "device_id", "receiver_id")
LABELS_64: Final = ("merchant_category", "channel")
LONGEST_IDENTIFIER: Final = 128
LONGEST_LABEL: Final = 64
CODES: Final = {"currency": "[A-Z]{3}", "country": "[A-Z]{2}"}
NUMBERS: Final[dict[str, tuple[float, float]]] = {
    "amount": (0.0, MAX_AMOUNT),
    "latitude": (-90.0, 90.0),
    "longitude": (-180.0, 180.0),
    "balance_before": (-MAX_AMOUNT, MAX_AMOUNT),
    "balance_after": (-MAX_AMOUNT, MAX_AMOUNT),
}
MS_FROM: Final = 1e11
"""With unit `auto`, numbers from here on are milliseconds, smaller ones seconds (until the year 5138)."""
TRUTH_VALUES: Final = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}


class DatasetError(ValueError):
    """A file that cannot be read as transactions; the message names the column and the row."""


@dataclass(frozen=True, slots=True)
class Format:
    """How the columns of a kind of file become wire columns."""

    columns: Mapping[str, tuple[str, ...]]
    """Wire column (or is_fraud, fraud_scenario) to the names that it may have in the file, best first."""
    optional: frozenset[str] = frozenset()
    """Wire columns that the file may lack."""
    constants: Mapping[str, str | bool] = field(default_factory=dict)
    time_unit: TimeUnit = "auto"
    transaction_types: Mapping[str, TransactionType] = field(default_factory=dict)
    """Values of transaction_type in the file to those of the wire."""
    card_present_from_category: bool = False
    """Categories end in `_net` for purchases over the internet; all others are at the till."""


FORMATS: Final[dict[str, Format]] = {
    "fraudstream": Format(
        columns={name: (name,) for name in (*WIRE_COLUMNS, *TRUTH_COLUMNS)},
        optional=frozenset((*WIRE_COLUMNS, *TRUTH_COLUMNS)) - {*REQUIRED},
    ),
    # Le Borgne et al., Reproducible Machine Learning for Credit Card Fraud Detection.
    "handbook": Format(
        columns={
            "transaction_id": ("transaction_id", "TRANSACTION_ID"),
            "event_time": ("event_time", "TX_DATETIME"),
            "user_id": ("customer_id", "CUSTOMER_ID"),
            "terminal_id": ("terminal_id", "TERMINAL_ID"),
            "amount": ("amount", "TX_AMOUNT"),
            "is_fraud": ("is_fraud", "TX_FRAUD"),
            "fraud_scenario": ("fraud_scenario", "TX_FRAUD_SCENARIO"),
        },
        optional=frozenset({"transaction_id", "is_fraud", "fraud_scenario"}),
    ),
    # Lopez-Rojas et al., PaySim. Senders hardly ever recur, receivers do: the receiving account also
    # takes the place of the terminal.
    "paysim": Format(
        columns={
            "event_time": ("step",),
            "transaction_type": ("type",),
            "amount": ("amount",),
            "user_id": ("nameOrig",),
            "receiver_id": ("nameDest",),
            "terminal_id": ("nameDest",),
            "balance_before": ("oldbalanceOrg",),
            "balance_after": ("newbalanceOrig",),
            "is_fraud": ("isFraud",),
        },
        optional=frozenset({"is_fraud"}),
        time_unit="hours",
        transaction_types={
            "TRANSFER": "transfer",
            "CASH_OUT": "cash_out",
            "CASH-OUT": "cash_out",
            "CASH_IN": "cash_in",
            "CASH-IN": "cash_in",
            "PAYMENT": "payment",
            "DEBIT": "debit",
        },
    ),
    # Harris, Sparkov_Data_Generation. The place is the merchant's.
    "sparkov": Format(
        columns={
            "transaction_id": ("trans_num",),
            "event_time": ("trans_date_trans_time",),
            "user_id": ("cc_num",),
            "terminal_id": ("merchant",),
            "merchant_category": ("category",),
            "amount": ("amt",),
            "latitude": ("merch_lat",),
            "longitude": ("merch_long",),
            "is_fraud": ("is_fraud",),
        },
        optional=frozenset({"is_fraud"}),
        constants={"currency": "USD", "country": "US", "transaction_type": "purchase"},
        card_present_from_category=True,
    ),
}


def mapped_format(
    name: str = "fraudstream", columns: Mapping[str, str] | None = None, time_unit: TimeUnit | None = None
) -> Format:
    """The format called `name`, with `columns` (wire column to source column) put over it.

    With a mapping and the default format the file is read by the mapping alone. Raises DatasetError
    for an unknown format or wire column.
    """
    if name not in FORMATS:
        raise DatasetError(f"unknown format {name!r}; known are {', '.join(FORMATS)}")
    base = FORMATS[name]
    if time_unit is not None:
        base = replace(base, time_unit=time_unit)
    if not columns:
        return base
    known = (*WIRE_COLUMNS, *TRUTH_COLUMNS)
    unknown = [wire for wire in columns if wire not in known]
    if unknown:
        raise DatasetError(f"unknown wire column {unknown[0]!r}; known are {', '.join(known)}")
    over = {wire: (source,) for wire, source in columns.items()}
    kept = {} if name == "fraudstream" else base.columns
    missing = [wire for wire in REQUIRED if wire not in {**kept, **over}]
    if missing:
        raise DatasetError(f"the mapping lacks {missing[0]}: give {missing[0]}=SOURCE")
    return replace(base, columns={**kept, **over}, optional=base.optional - over.keys())


def read_transactions(  # noqa: PLR0913 - the last five are independent choices, by name
    path: Path | str,
    layout: str | Format = "fraudstream",
    columns: Mapping[str, str] | None = None,
    *,
    epoch: date = date(2026, 1, 1),
    start: datetime | None = None,
    end: datetime | None = None,
    limit: int | None = None,
    chunk_rows: int = 100_000,
) -> Iterator[pd.DataFrame]:
    """Chunks of a CSV or parquet file, in the order of the file, with wire column names.

    `event_time` is int64 milliseconds since 1970 UTC, identifiers are strings that fit the wire
    contract, missing values are None or NaN; `is_fraud` (0 or 1) and `fraud_scenario` are there when
    the file has them. Times without a zone are UTC. `epoch` is the day from which a format with time
    unit `hours` counts. Only rows with start <= event_time < end are kept, at most `limit` of them.

    Never holds more than a chunk of CSV or a row group of parquet. Raises DatasetError naming the
    column, and the row counted from 1 without the header.
    """
    if isinstance(layout, str):
        layout = mapped_format(layout, columns)
    low = EARLIEST_MS if start is None else _ms(start)
    high = LATEST_MS + 1 if end is None else _ms(end)
    remaining = np.iinfo(np.int64).max if limit is None else limit
    for first_row, sources, raw in _chunks(Path(path), layout, chunk_rows):
        chunk = _mapped(raw, sources, layout, first_row, epoch)
        times = chunk["event_time"].to_numpy()
        chunk = chunk[(times >= low) & (times < high)].iloc[:remaining].reset_index(drop=True)
        remaining -= len(chunk)
        if len(chunk):
            yield chunk
        if remaining <= 0:
            return


def _ms(time: datetime) -> int:
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1000)


def _sources(present: list[str], layout: Format, path: Path) -> dict[str, str]:
    """Wire column to the column of this file."""
    sources = {}
    for wire, names in layout.columns.items():
        found = next((name for name in names if name in present), None)
        if found is not None:
            sources[wire] = found
        elif wire not in layout.optional:
            raise DatasetError(
                f"{path}: no column {' or '.join(map(repr, names))} for {wire}; "
                f"the file has {', '.join(present)}"
            )
    return sources


def _chunks(
    path: Path, layout: Format, chunk_rows: int
) -> Iterator[tuple[int, dict[str, str], pd.DataFrame]]:
    """(number of the first row, wire column to column of the file, chunk as it is in the file)."""
    if not path.is_file():
        raise DatasetError(f"{path}: no such file")
    kind = "".join(path.suffixes[-2:]) if path.suffix in (".gz", ".zst", ".bz2", ".xz") else path.suffix
    read = _parquet_chunks if kind == ".parquet" else _csv_chunks if kind.startswith(".csv") else None
    if read is None:
        raise DatasetError(f"{path}: the suffix must be .csv (or .csv.gz and the like) or .parquet")
    row = 1
    try:
        for sources, raw in read(path, layout, chunk_rows):
            yield row, sources, raw
            row += len(raw)
    except (
        pd.errors.ParserError,
        pd.errors.EmptyDataError,
        UnicodeDecodeError,
        pa.ArrowException,
        OSError,
    ) as error:
        raise DatasetError(f"{path}: unreadable after row {row - 1}: {error}") from error


def _csv_chunks(path: Path, layout: Format, chunk_rows: int) -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
    sources = _sources(list(pd.read_csv(path, nrows=0).columns), layout, path)
    # Everything is read as text: ids keep leading zeros and all their digits, and every bad cell
    # can be shown as it stands in the file. An empty cell is a missing value, "NA" is a name.
    with pd.read_csv(
        path,
        usecols=sorted(set(sources.values())),
        dtype=str,
        keep_default_na=False,
        na_values=[""],
        chunksize=chunk_rows,
    ) as reader:
        for chunk in reader:
            yield sources, chunk


def _parquet_chunks(
    path: Path, layout: Format, chunk_rows: int
) -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
    with pq.ParquetFile(path) as file:
        sources = _sources(file.schema_arrow.names, layout, path)
        for batch in file.iter_batches(chunk_rows, columns=sorted(set(sources.values()))):
            yield sources, batch.to_pandas()


def _mapped(
    raw: pd.DataFrame, sources: Mapping[str, str], layout: Format, first_row: int, epoch: date
) -> pd.DataFrame:
    raw = raw.reset_index(drop=True)
    out: dict[str, Any] = {}
    if "transaction_id" not in sources:
        out["transaction_id"] = np.arange(first_row, first_row + len(raw)).astype(str).astype(object)
    for wire, source in sources.items():
        out[wire] = _column(raw[source], wire, layout, first_row, epoch)
    for wire, value in layout.constants.items():
        out[wire] = np.full(len(raw), value, dtype=object)
    if layout.card_present_from_category and "merchant_category" in sources:
        present = ~raw[sources["merchant_category"]].astype(str).str.endswith("_net")
        out["card_present"] = present.astype(object)
        out["channel"] = np.where(present, "pos", "online").astype(object)
    frame = pd.DataFrame(out)
    return frame[[name for name in (*WIRE_COLUMNS, *TRUTH_COLUMNS) if name in frame]]


def _column(values: pd.Series, wire: str, layout: Format, first_row: int, epoch: date) -> Any:
    missing = values.isna().to_numpy()
    if wire in REQUIRED or wire in ("transaction_id", "is_fraud"):
        _refuse(missing, values, wire, first_row, "is missing")
    if wire == "event_time":
        return _times(values, layout.time_unit, first_row, epoch)
    if wire in NUMBERS:
        return _numbers(values, wire, first_row)
    if wire in ("is_fraud", "card_present"):
        truth = _text(values).str.lower().map(TRUTH_VALUES)
        _refuse(truth.isna().to_numpy() & ~missing, values, wire, first_row, "is not 0, 1, true or false")
        return truth.astype(np.int8) if wire == "is_fraud" else _present(truth == 1, missing)
    return _present(_texts(values, wire, layout, first_row), missing)


def _texts(values: pd.Series, wire: str, layout: Format, first_row: int) -> pd.Series:
    """Checked and, for identifiers and labels, changed where needed; missing values are any text."""
    missing = values.isna().to_numpy()
    text = _text(values)
    if wire in IDENTIFIERS:
        text = _distinct(text, _identifier)
    if wire in LABELS_64:
        text = _distinct(text, _label)
    if wire in CODES:
        wrong = ~text.str.fullmatch(CODES[wire]).to_numpy() & ~missing
        _refuse(wrong, values, wire, first_row, f"does not match {CODES[wire]}")
    if wire == "ip":
        wrong = ~_distinct(text, is_ip_address).to_numpy(dtype=bool) & ~missing
        _refuse(wrong, values, wire, first_row, "is no IP address")
    if wire == "transaction_type":
        known = {**{name: name for name in get_args(TransactionType)}, **layout.transaction_types}
        mapped = text.map(known)
        _refuse(
            mapped.isna().to_numpy() & ~missing, values, wire, first_row, f"is none of {', '.join(known)}"
        )
        text = mapped
    return text


def _present(values: pd.Series, missing: npt.NDArray[np.bool_]) -> Any:
    """As objects, None where missing."""
    objects = values.to_numpy(dtype=object, copy=True)
    objects[missing] = None
    return objects


def _refuse(wrong: npt.NDArray[np.bool_], values: pd.Series, wire: str, first_row: int, reason: str) -> None:
    """Raise DatasetError for the first wrong row, if any."""
    if wrong.any():
        at = int(wrong.argmax())
        mapped = "" if values.name == wire else f" (for {wire})"
        value = "the value" if pd.isna(values.iloc[at]) else repr(str(values.iloc[at])[:80])
        raise DatasetError(f"column {values.name}{mapped}, row {first_row + at}: {value} {reason}")


def _numbers(values: pd.Series, wire: str, first_row: int) -> npt.NDArray[np.float64]:
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(np.float64)
    missing = values.isna().to_numpy()
    _refuse(np.isnan(numbers) & ~missing, values, wire, first_row, "is not a number")
    low, high = NUMBERS[wire]
    with np.errstate(invalid="ignore"):
        _refuse(
            (numbers < low) | (numbers > high), values, wire, first_row, f"is not within {low:g} to {high:g}"
        )
    return numbers


def _times(values: pd.Series, unit: TimeUnit, first_row: int, epoch: date) -> npt.NDArray[np.int64]:
    if _is_numeric(values, unit):
        ms = _numeric_times(pd.to_numeric(values, errors="coerce"), unit, epoch)
        _refuse(np.isnan(ms), values, "event_time", first_row, "is not a number")
    else:
        stamps = pd.to_datetime(values, errors="coerce", utc=True, format="ISO8601")
        _refuse(stamps.isna().to_numpy(), values, "event_time", first_row, "is no ISO 8601 time")
        ms = stamps.dt.as_unit("ms").astype(np.int64).to_numpy().astype(np.float64)
    outside = (ms < EARLIEST_MS) | (ms > LATEST_MS)
    _refuse(outside, values, "event_time", first_row, "is not between the years 2000 and 2100")
    return ms.astype(np.int64)


def _is_numeric(values: pd.Series, unit: TimeUnit) -> bool:
    """Whether times are numbers; with unit `auto` the first value decides."""
    if unit != "auto":
        return True
    if pd.api.types.is_datetime64_any_dtype(values):
        return False
    return bool(pd.to_numeric(values.iloc[:1], errors="coerce").notna().all())


def _numeric_times(numbers: pd.Series, unit: TimeUnit, epoch: date) -> npt.NDArray[np.float64]:
    plain = numbers.to_numpy(np.float64)
    if unit == "hours":
        begin = (epoch.toordinal() - date(1970, 1, 1).toordinal()) * 86_400_000
        return np.round(plain * 3_600_000 + begin)
    if unit == "auto":
        with np.errstate(invalid="ignore"):
            return np.round(np.where(plain >= MS_FROM, plain, plain * 1000))
    return np.round(plain * 1000 if unit == "s" else plain)


def _text(values: pd.Series) -> pd.Series:
    """As text, whole floating-point numbers (integers with gaps) without their decimal point."""
    if pd.api.types.is_float_dtype(values):
        whole = values.dropna()
        if (whole % 1 == 0).all():
            return values.astype("Int64").astype(str)
    return values.astype(str)


def _distinct(text: pd.Series, change: Any) -> pd.Series:
    codes, distinct = pd.factorize(text)
    return pd.Series(np.array([change(value) for value in distinct], dtype=object)[codes], index=text.index)


_IDENTIFIER = re.compile(IDENTIFIER_PATTERN)
_LABEL = re.compile(LABEL_PATTERN)


def _identifier(name: str) -> str:
    """The name itself if it is an identifier; else what fits of it and a hash of the whole."""
    if len(name) <= LONGEST_IDENTIFIER and _IDENTIFIER.fullmatch(name):
        return name
    fitting = re.sub(r"[^A-Za-z0-9._:@/+=-]+", "_", name).strip("_.:@/+=-")[:100]
    return f"{fitting or 'x'}-{xxhash.xxh64_hexdigest(name.encode())}"


def _label(name: str) -> str:
    if len(name) <= LONGEST_LABEL and _LABEL.fullmatch(name):
        return name
    fitting = re.sub(r"[^A-Za-z0-9 ._:@/+=&,()-]+", "_", name).strip(" _.:@/+=&,()-")[:47]
    return f"{fitting or 'x'}-{xxhash.xxh64_hexdigest(name.encode())}"
