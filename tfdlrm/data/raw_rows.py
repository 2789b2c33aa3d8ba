"""Rows on their way in: raw cells (`FrameBlock`), then parsed and checked ones (`RawRows`), before ids are known."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tfdlrm.data.column_types import plain_types
from tfdlrm.data.polars_extra import pl


@dataclass(frozen=True, kw_only=True)
class FrameBlock:
    """Rows of one block with their raw columns.

    Args:
        load: makes the columns, as text or typed; called once, when they are first asked for.
        lines: int64 [rows], where each row stands in its file.
        numbers: int64 [rows], number of each among all rows read, good and bad, from 0.
        raw: row of the block to its text as found.
        cell: (row, column) to the cell as found; None where the columns are as they were found.
    """

    load: Callable[[], pl.DataFrame]
    lines: np.ndarray
    numbers: np.ndarray
    raw: Callable[[int], bytes]
    cell: Callable[[int, str], str] | None = None

    @functools.cached_property
    def frame(self) -> pl.DataFrame:
        """The columns."""
        return self.load()

    def cell_text(self, row: int, column: str) -> str:
        """One cell, for a message."""
        if self.cell is not None:
            return self.cell(row, column)
        found = self.frame[column][row]
        return "" if found is None else str(found)


def typed_block(
    frame: pl.DataFrame, numbers: np.ndarray, *, missing: Sequence[str] = (), ignored: Sequence[str] = ()
) -> FrameBlock:
    """A block of typed columns, whose rows stand in lines by their number, from 1.

    Args:
        frame: all columns, as they were found.
        numbers: int64 [rows], see `FrameBlock`.
        missing: texts of cells that are read as empty.
        ignored: columns that are passed over.
    """
    return FrameBlock(
        load=functools.partial(plain_types, frame.drop(ignored, strict=False), missing),
        lines=numbers + 1,
        numbers=numbers,
        raw=functools.partial(row_as_text, frame),
    )


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Cells of one categorical column.

    Args:
        values: one token an id: integers (`integer`, `hex`) or strings (`vocabulary`, `hash`).
        lengths: int64 [rows], ids a bag; None where every row has exactly one.
        weights: float32, one a token, or None.
    """

    values: pl.Series
    lengths: np.ndarray | None = None
    weights: np.ndarray | None = None

    def select(self, rows: np.ndarray) -> Tokens:
        """The rows where `rows` (bool) holds."""
        chosen = rows if self.lengths is None else np.repeat(rows, self.lengths)
        return Tokens(
            values=self.values.filter(pl.Series(chosen)),
            lengths=None if self.lengths is None else self.lengths[rows],
            weights=None if self.weights is None else self.weights[chosen],
        )

    def slice(self, start: int, stop: int) -> Tokens:
        """Rows [start, stop)."""
        low, high = start, stop
        if self.lengths is not None:
            low, high = int(self.lengths[:start].sum()), int(self.lengths[:stop].sum())
        return Tokens(
            values=self.values[low:high],
            lengths=None if self.lengths is None else self.lengths[start:stop],
            weights=None if self.weights is None else self.weights[low:high],
        )

    def rows(self) -> np.ndarray:
        """int64, the row of every token."""
        if self.lengths is None:
            return np.arange(len(self.values))
        return np.repeat(np.arange(len(self.lengths)), self.lengths)


@dataclass(frozen=True, kw_only=True)
class RawRows:
    """Parsed rows of one block.

    Args:
        lines: int64 [N].
        labels: float32 [N, tasks].
        dense: float32 [N, num_dense], transformed but for columns in `unscaled`.
        unscaled: float64 [N] raw values of the `standardize` columns, by name.
        tokens: by categorical column.
        keys: series [N] by key column, and `row_id`.
    """

    lines: np.ndarray
    labels: np.ndarray
    dense: np.ndarray
    unscaled: Mapping[str, np.ndarray] = field(default_factory=dict)
    tokens: Mapping[str, Tokens] = field(default_factory=dict)
    keys: Mapping[str, pl.Series] = field(default_factory=dict)

    @property
    def num_rows(self) -> int:
        """Number of rows, N."""
        return len(self.lines)

    def select(self, rows: np.ndarray) -> RawRows:
        """The rows where `rows` (bool) holds; all of them without copying."""
        if rows.all():
            return self
        return RawRows(
            lines=self.lines[rows],
            labels=self.labels[rows],
            dense=self.dense[rows],
            unscaled={name: values[rows] for name, values in self.unscaled.items()},
            tokens={name: tokens.select(rows) for name, tokens in self.tokens.items()},
            keys={name: values.filter(pl.Series(rows)) for name, values in self.keys.items()},
        )

    def slice(self, start: int, stop: int) -> RawRows:
        """Rows [start, stop), as views."""
        return RawRows(
            lines=self.lines[start:stop],
            labels=self.labels[start:stop],
            dense=self.dense[start:stop],
            unscaled={name: values[start:stop] for name, values in self.unscaled.items()},
            tokens={name: tokens.slice(start, stop) for name, tokens in self.tokens.items()},
            keys={name: values[start:stop] for name, values in self.keys.items()},
        )


def row_as_text(frame: pl.DataFrame, row: int) -> bytes:
    """One row with tabs between its cells: the raw text of a row that has no text of its own."""
    return "\t".join("" if cell is None else str(cell) for cell in frame.row(row)).encode()
