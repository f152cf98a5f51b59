"""Replaying recorded transactions: frames for the schedule, checked before the first one is sent."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Final

import pandas as pd

from simulator.columns import maturity_labels
from simulator.datasets import DatasetError, Format, read_transactions

ROWS_PER_CHUNK: Final = 20_000
"""Small, because parsing a chunk holds up the sender."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A file of transactions and the part of it that is replayed; see `read_transactions`."""

    path: Path
    layout: Format
    epoch: date = date(2026, 1, 1)
    start: datetime | None = None
    end: datetime | None = None
    limit: int | None = None
    label_delay_days: float | None = None
    """Days until the label of each transaction; None for no labels."""

    def check(self, progress: Callable[[int], None] | None = None) -> int:
        """Read everything once without sending; returns the number of transactions.

        Raises DatasetError for the first row that is no valid transaction, if there is none at all, or
        if labels are asked for and there is no `is_fraud`.
        """
        count = 0
        for chunk in self._chunks():
            count += len(chunk)
            if progress is not None:
                progress(count)
        if count == 0:
            raise DatasetError(f"{self.path}: no transactions (within the given dates)")
        return count

    def frames(self) -> Iterator[tuple[pd.DataFrame, pd.DataFrame | None]]:
        """Transactions and, with a delay, their labels. Raises DatasetError."""
        for chunk in self._chunks():
            delay = self.label_delay_days
            yield chunk, None if delay is None else maturity_labels(chunk, delay)

    def _chunks(self) -> Iterator[pd.DataFrame]:
        for chunk in read_transactions(
            self.path,
            self.layout,
            epoch=self.epoch,
            start=self.start,
            end=self.end,
            limit=self.limit,
            chunk_rows=ROWS_PER_CHUNK,
        ):
            if self.label_delay_days is not None and "is_fraud" not in chunk:
                raise DatasetError(f"{self.path}: no is_fraud column, so there are no labels to send")
            yield chunk
