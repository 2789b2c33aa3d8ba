"""Groups of rows: by the values of categorical columns and the bins of numbers, and what such a value is called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tfdlrm.data.columns import Columns, fixed_columns
from tfdlrm.data.preprocessing import Preprocessing
from tfdlrm.data.transforms import bin_edges
from tfdlrm.schema import OOV_ID, TIME_IDS, CategoricalColumn, DenseColumn, FeatureSpec

DENSE_BINS = 10
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_LONGEST_NAME = 60


@dataclass(frozen=True, kw_only=True)
class Grouping:
    """Rows by the values of one column; a row of several ids is in the group of each.

    Args:
        column: its name.
        codes: int64 [M], the value of each (row, id), each pair once.
        rows: int64 [M], numbers of the rows; `codes` is of rows 0 to N - 1 where this is None.
    """

    column: str
    codes: np.ndarray
    rows: np.ndarray | None

    @property
    def row_numbers(self) -> np.ndarray:
        """int64 [M]."""
        return np.arange(len(self.codes)) if self.rows is None else self.rows


def groupings(spec: FeatureSpec, columns: Columns) -> Iterator[Grouping]:
    """Every column's, dense ones first."""
    for place, dense in enumerate(spec.dense):
        values = columns.dense[:, place]
        codes = np.searchsorted(dense_edges(values), values, side="right")
        yield Grouping(column=dense.name, codes=codes.astype(np.int64), rows=None)
    yield from id_groupings(spec, columns)


def id_groupings(spec: FeatureSpec, columns: Columns) -> Iterator[Grouping]:
    """Those of the categorical columns."""
    places = fixed_columns(spec)
    for column in spec.categorical:
        if column.hotness == 1:
            codes, rows = columns.ids[:, places[column.name]][:, 0].astype(np.int64), None
        else:
            codes, rows = _bags(columns, column, places)
        yield Grouping(column=column.name, codes=codes, rows=rows)


def dense_edges(values: np.ndarray) -> np.ndarray:
    """Where tenths of a dense column's values begin, but for the first; equal values stay together."""
    return bin_edges(np.sort(values), DENSE_BINS)


def _bags(columns: Columns, column: CategoricalColumn, places: Mapping[str, slice]) -> tuple[np.ndarray, np.ndarray]:
    if column.hotness is None:
        bags = columns.ragged[column.name]
        rows, ids = np.repeat(np.arange(columns.num_rows), np.diff(bags.row_splits)), bags.values.astype(np.int64)
    else:
        ids = columns.ids[:, places[column.name]].astype(np.int64).ravel()
        rows = np.repeat(np.arange(columns.num_rows), column.hotness)
    order = np.lexsort((ids, rows))
    rows, ids = rows[order], ids[order]
    first = np.concatenate([[True], (rows[1:] != rows[:-1]) | (ids[1:] != ids[:-1])])[: len(rows)]
    return ids[first], rows[first]


class ValueNames:
    """What values are called: raw texts of vocabularies, ranges of numbers, hours and days.

    Args:
        preprocessing: of the model's training rows.
        columns: the rows whose dense columns were cut into bins.
    """

    def __init__(self, preprocessing: Preprocessing, columns: Columns) -> None:
        self._spec, self._vocabularies = preprocessing.spec, preprocessing.vocabularies
        self._columns = columns

    def of(self, column: str, codes: Sequence[int] | np.ndarray) -> list[str]:
        """Names of some values of a column."""
        for place, dense in enumerate(self._spec.dense):
            if dense.name == column:
                return _ranges(dense, self._columns.dense[:, place], codes)
        found = next(each for each in self._spec.categorical if each.name == column)
        return [_shortened(self._id_name(found, int(code))) for code in codes]

    def _id_name(self, column: CategoricalColumn, code: int) -> str:
        if column.encoding in TIME_IDS or column.encoding == "bins":
            if code == 0:
                return "(missing)"
            if column.encoding == "bins":
                edges = [-np.inf, *(column.edges or ()), np.inf]
                return range_name(edges[code - 1], edges[code]) if code < len(edges) else f"bin {code}"
            return _WEEKDAYS[code - 1] if column.encoding == "weekday" else f"{code - 1} h"
        if column.encoding == "integer" and column.id_policy == "oov" and code == OOV_ID:
            return "(unknown)"
        vocabulary = self._vocabularies.get(column.table)
        if vocabulary is None:
            return f"hash {code}" if column.encoding == "hash" else str(code)
        if vocabulary.has_oov and code == OOV_ID:
            return "(unknown)"
        place = code - vocabulary.has_oov
        if not 0 <= place < len(vocabulary.values):
            return str(code)
        value = vocabulary.values[place]
        return value or "(empty)" if isinstance(value, str) else f"{value:08x}"


def range_name(low: float, high: float) -> str:
    """A bin [low, high) in words.

    Example:
        >>> range_name(-np.inf, 3.0), range_name(3.0, 4.5), range_name(4.5, np.inf)
        ('< 3', '3 to 4.5', '>= 4.5')
    """
    if np.isinf(low):
        return "(all)" if np.isinf(high) else f"< {high:.5g}"
    return f">= {low:.5g}" if np.isinf(high) else f"{low:.5g} to {high:.5g}"


def _ranges(column: DenseColumn, values: np.ndarray, codes: Sequence[int] | np.ndarray) -> list[str]:
    edges = [-np.inf, *_raw(column, dense_edges(values)).tolist(), np.inf]
    return [range_name(edges[int(code)], edges[int(code) + 1]) for code in codes]


def _raw(column: DenseColumn, values: np.ndarray) -> np.ndarray:
    """Transformed numbers as they were before."""
    values = values.astype(np.float64)
    if column.transform == "log1p":
        return np.expm1(values)
    if column.transform == "standardize":
        return values * (column.std or 1.0) + (column.mean or 0.0)
    return values


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_NAME else text[: _LONGEST_NAME - 3] + "..."
