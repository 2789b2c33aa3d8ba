"""Columns: rows held as a few packed arrays, the form every reader fills and every batch is cut from.

All columns with a fixed number of ids stand side by side in one matrix, so that a batch of 40 columns costs one
gather and not 40.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tfdlrm.schema import CategoricalColumn, FeatureSpec

Array = np.ndarray

# Tensors that share NumPy's memory must begin on this many bytes: Eigen's vectorised kernels abort otherwise.
TENSOR_ALIGNMENT_BYTES = 64

FRAME_NAME = "frame"  # of rows that come from no file, for messages


@dataclass(frozen=True, kw_only=True)
class RaggedColumn:
    """Bags of varying length: bag r is `values[row_splits[r]:row_splits[r + 1]]`.

    Args:
        values: ids, [total].
        row_splits: int64 [rows + 1], from 0 to total, never falling.
        weights: float32 [total], one a value, or None.
    """

    values: Array
    row_splits: Array
    weights: Array | None = None

    @property
    def num_rows(self) -> int:
        """Number of bags."""
        return len(self.row_splits) - 1

    def slice(self, start: int, stop: int) -> RaggedColumn:
        """Bags [start, stop), without copying values."""
        low, high = self.row_splits[start], self.row_splits[stop]
        return RaggedColumn(
            values=self.values[low:high],
            row_splits=self.row_splits[start : stop + 1] - low,
            weights=None if self.weights is None else self.weights[low:high],
        )

    def take(self, rows: Array) -> RaggedColumn:
        """The bags at `rows`, in that order."""
        starts = self.row_splits[:-1][rows]
        lengths = self.row_splits[1:][rows] - starts
        splits = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        positions = np.arange(splits[-1]) + np.repeat(starts - splits[:-1], lengths)
        return RaggedColumn(
            values=self.values[positions],
            row_splits=splits,
            weights=None if self.weights is None else self.weights[positions],
        )


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Rows of a dataset in packed arrays.

    Args:
        dense: float32 [N, num_dense], transformed.
        labels: float32 [N, tasks]; NaN where the file holds no label.
        ids: int32 or int64 [N, sum of fixed hotness]: the fixed-hotness columns side by side, in schema order.
        weights: float32 [N, sum of fixed hotness of weighted columns], in schema order.
        ragged: name -> bags, for columns without a fixed hotness.
        keys: name -> [N], integers, floats or strings; always has `row_id`.
    """

    dense: Array
    labels: Array
    ids: Array
    weights: Array
    ragged: Mapping[str, RaggedColumn] = field(default_factory=dict)
    keys: Mapping[str, Array] = field(default_factory=dict)

    @property
    def num_rows(self) -> int:
        """Number of rows, N."""
        return len(self.labels)

    def slice(self, start: int, stop: int) -> Columns:
        """Rows [start, stop), as views."""
        return Columns(
            dense=self.dense[start:stop],
            labels=self.labels[start:stop],
            ids=self.ids[start:stop],
            weights=self.weights[start:stop],
            ragged={name: column.slice(start, stop) for name, column in self.ragged.items()},
            keys={name: values[start:stop] for name, values in self.keys.items()},
        )

    def take(self, rows: Array) -> Columns:
        """The rows at `rows`, in that order, copied."""
        return Columns(
            dense=_take(self.dense, rows),
            labels=_take(self.labels, rows),
            ids=_take(self.ids, rows),
            weights=_take(self.weights, rows),
            ragged={name: column.take(rows) for name, column in self.ragged.items()},
            keys={name: values[rows] for name, values in self.keys.items()},
        )


def _take(matrix: Array, rows: Array) -> Array:
    """Whole rows, copied to aligned memory; indexing with an array is 20 times slower for narrow rows."""
    out = aligned_array((len(rows), *matrix.shape[1:]), matrix.dtype)
    if not out.size:
        return out
    if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(matrix):
        raise IndexError(f"rows {rows.min()} to {rows.max()} of {len(matrix)}")
    # "clip" checks nothing, and writes into `out` at once where the default makes a copy first
    return np.take(matrix, rows, axis=0, out=out, mode="clip")


def permuted(spec: FeatureSpec, rows: Columns, names: Iterable[str], order: Array) -> Columns:
    """The rows with some columns as they stand in other rows.

    Args:
        spec: the columns.
        rows: N of them.
        names: dense or categorical columns; ids go with their weights.
        order: int [N], the row that each takes them from.
    """
    dense, ids, weights, ragged = rows.dense.copy(), rows.ids.copy(), rows.weights.copy(), dict(rows.ragged)
    numbers = {column.name: place for place, column in enumerate(spec.dense)}
    places, weighted = fixed_columns(spec), weighted_columns(spec)
    for name in names:
        if name in numbers:
            dense[:, numbers[name]] = dense[order, numbers[name]]
        elif name in ragged:
            ragged[name] = ragged[name].take(order)
        else:
            ids[:, places[name]] = ids[order, places[name]]
            if name in weighted:
                weights[:, weighted[name]] = weights[order, weighted[name]]
    return replace(rows, dense=dense, ids=ids, weights=weights, ragged=ragged)


def concatenate(parts: Sequence[Columns]) -> Columns:
    """The rows of all parts, one after another."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    return Columns(
        dense=np.concatenate([part.dense for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        ids=np.concatenate([part.ids for part in parts]),
        weights=np.concatenate([part.weights for part in parts]),
        ragged={name: concatenate_ragged([part.ragged[name] for part in parts]) for name in first.ragged},
        keys={name: np.concatenate([part.keys[name] for part in parts]) for name in first.keys},
    )


def concatenate_ragged(parts: Sequence[RaggedColumn]) -> RaggedColumn:
    """The bags of all parts, one after another."""
    ends = np.cumsum([0] + [part.row_splits[-1] for part in parts])
    splits = [part.row_splits[1:] + end for part, end in zip(parts, ends[:-1], strict=True)]
    weights = [part.weights for part in parts if part.weights is not None]
    return RaggedColumn(
        values=np.concatenate([part.values for part in parts]),
        row_splits=np.concatenate([[0], *splits]).astype(np.int64),
        weights=np.concatenate(weights) if weights else None,
    )


def fixed_columns(spec: FeatureSpec) -> dict[str, slice]:
    """Where each fixed-hotness feature stands in `Columns.ids`."""
    return _stack(column for column in spec.categorical if column.hotness is not None)


def weighted_columns(spec: FeatureSpec) -> dict[str, slice]:
    """Where each weighted fixed-hotness feature stands in `Columns.weights`."""
    return _stack(column for column in spec.categorical if column.hotness is not None and column.weights)


def _stack(columns: Iterable[CategoricalColumn]) -> dict[str, slice]:
    places: dict[str, slice] = {}
    start = 0
    for column in columns:
        stop = start + (column.hotness or 0)
        places[column.name] = slice(start, stop)
        start = stop
    return places


def id_dtype(spec: FeatureSpec) -> np.dtype:
    """int32 unless a column may hold larger ids.

    Raw ids reach the engine under every policy but `error`, so they may then be any int64. The dtype follows
    from the schema and not from the rows, so that all parts of a dataset have one.
    """
    raw = any(column.encoding == "integer" and column.id_policy != "error" for column in spec.categorical)
    large = any(size > np.iinfo(np.int32).max for size in spec.vocabulary_sizes.values())
    return np.dtype(np.int64 if raw or large else np.int32)


def aligned_array(shape: Sequence[int], dtype: np.dtype | type) -> Array:
    """An uninitialised array that TensorFlow can use without copying it."""
    dtype = np.dtype(dtype)
    num_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    buffer = np.empty(num_bytes + TENSOR_ALIGNMENT_BYTES, np.uint8)
    start = -buffer.ctypes.data % TENSOR_ALIGNMENT_BYTES
    return buffer[start : start + num_bytes].view(dtype).reshape(shape)
