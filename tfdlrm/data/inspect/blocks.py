"""InspectBlock: rows of any input in one form, and what an input must offer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tfdlrm.data.polars_extra import pl
from tfdlrm.data.raw_rows import Tokens
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
