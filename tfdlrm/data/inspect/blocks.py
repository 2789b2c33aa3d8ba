"""InspectBlock: rows of any input in one form, what an input must offer, and the days that rows are of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tfdlrm.checks import quoted
from tfdlrm.data.cells import Tokens, parse_numbers
from tfdlrm.data.polars_extra import pl
from tfdlrm.data.times import seconds_of_cells
from tfdlrm.schema import FeatureSpec


@dataclass(frozen=True, kw_only=True)
class InspectBlock:
    """Usable rows of one part.

    Args:
        part: its name.
        sections: int64 [N], which group of contiguous rows each belongs to, an index of `section_names`.
        labels: float32 [N, tasks], 0, 1 or NaN.
        dense: name -> float64 [N], NaN where the cell is empty.
        ids: name -> tokens of N rows.
        empty: name -> bool [N], the cell of a categorical column is empty.
        days: text [N], null where unknown; None if there is no column of time.
    """

    part: str
    sections: np.ndarray
    labels: np.ndarray
    dense: Mapping[str, np.ndarray]
    ids: Mapping[str, Tokens]
    empty: Mapping[str, np.ndarray]
    days: pl.Series | None = None

    @property
    def num_rows(self) -> int:
        """Number of rows, N."""
        return len(self.labels)

    def select(self, part: str, rows: np.ndarray) -> InspectBlock:
        """The rows where `rows` (bool) holds, as rows of `part`."""
        return InspectBlock(
            part=part,
            sections=self.sections[rows],
            labels=self.labels[rows],
            dense={name: values[rows] for name, values in self.dense.items()},
            ids={name: tokens.select(rows) for name, tokens in self.ids.items()},
            empty={name: cells[rows] for name, cells in self.empty.items()},
            days=None if self.days is None else self.days.filter(pl.Series(rows)),
        )


class InspectInput(Protocol):
    """Raw files or a prepared folder.

    Attributes:
        data_format: `criteo`, `csv`, `parquet`, `movielens` or `prepared`.
        spec: the columns.
        parts: name -> which rows these are; the first is what the others are compared with.
        section_names: of the groups of contiguous rows, in order.
        day_column: the column of time, "" for none; known once blocks are read.
        is_prepared: cells are encoded and missing ones filled.
        unseen_ids: column -> the id that stands for every value unseen in training.
    """

    data_format: str
    spec: FeatureSpec
    parts: Mapping[str, str]
    section_names: tuple[str, ...]
    day_column: str
    is_prepared: bool
    unseen_ids: Mapping[str, int]

    @property
    def rows_read(self) -> int:
        """Rows found so far, good and bad."""

    def blocks(self) -> Iterator[InspectBlock]:
        """The usable rows, in order."""

    def names(self, column: str) -> Callable[[list[object]], list[str]]:
        """How ids of a column are written for people."""


# Looked for in this order where no column is named.
DAY_COLUMNS = ("day", "date", "timestamp", "time", "datetime")

_SECONDS_PER_DAY = 86_400
# From here on a number is a time that cannot be read as one, or none at all: the digits of a date are eight.
_MOST_DAYS = 10**7


def find_day_column(wanted: str | None, columns: Sequence[str], file: str) -> str:
    """The column of time, "" if there is none.

    Args:
        wanted: its name; None to look for one of `DAY_COLUMNS`.
        columns: of the file.
        file: for messages.

    Raises:
        ValueError: `wanted` is not among them.
    """
    if wanted is not None:
        if wanted not in columns:
            raise ValueError(
                f"{file}: day_column={quoted(wanted)} is not there. Columns: {', '.join(columns)}. Name one of them, "
                "or leave it out for equal parts of the file."
            )
        return wanted
    return next((name for name in DAY_COLUMNS if name in columns), "")


def days_of(cells: pl.Series) -> pl.Series:
    """Text [N]: `2019-05-31` (UTC) of times, see `tfdlrm.data.times`, else the number of the day.

    Args:
        cells: dates, times, numbers, or any of them as text; null and unreadable cells give null.
    """
    if cells.dtype != pl.String and not cells.dtype.is_numeric() and cells.dtype not in (pl.Date, pl.Datetime):
        return pl.Series([None] * len(cells), dtype=pl.String)
    seconds, is_time = seconds_of_cells(cells)
    days = pl.Series(seconds // _SECONDS_PER_DAY).cast(pl.Int32, strict=False).cast(pl.Date)
    dates = days.cast(pl.String).set(pl.Series(~is_time), None)
    if is_time.all() or cells.dtype in (pl.Date, pl.Datetime):
        return dates
    numbers = parse_numbers(cells)
    floors = np.floor(numbers.values)
    is_day = ~is_time & ~numbers.empty & ~numbers.wrong & (np.abs(floors) < _MOST_DAYS)
    named = pl.Series(np.where(is_day, floors, 0).astype(np.int64)).cast(pl.String)
    return dates.zip_with(pl.Series(~is_day), named)


def in_order(days: Sequence[str]) -> list[str]:
    """Days in the order of time: numbers by value, dates as text."""

    def key(day: str) -> tuple[bool, int, str]:
        is_number = day.lstrip("-").isdigit()
        return (not is_number, int(day) if is_number else 0, day)

    return sorted(days, key=key)
