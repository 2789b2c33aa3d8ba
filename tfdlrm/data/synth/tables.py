"""Synthetic rows as Arrow tables, for Parquet, and as CSV text."""

from __future__ import annotations

import io

import numpy as np

from tfdlrm.data.columns import Columns, fixed_columns
from tfdlrm.data.polars_extra import pl
from tfdlrm.data.pyarrow_extra import pa
from tfdlrm.data.synth.rows import EmptyCells
from tfdlrm.schema import ROW_ID, FeatureSpec


def arrow_table(spec: FeatureSpec, rows: Columns, empty: EmptyCells | None = None) -> pa.Table:
    """Typed columns in the schema's order: labels int8, counts int32, ids or lists of ids, keys.

    Args:
        spec: of the rows.
        rows: n rows, dense columns transformed by log1p from whole counts.
        empty: dense cells to leave empty. Ids have no empty cells: they are the id 0 or an empty bag.
    """
    columns: dict[str, pa.Array] = {
        name: pa.array(rows.labels[:, task].astype(np.int8)) for task, name in enumerate(spec.labels)
    }
    for place, dense in enumerate(spec.dense):
        counts = np.rint(np.expm1(rows.dense[:, place])).astype(np.int32)
        columns[dense.name] = pa.array(counts, mask=None if empty is None else empty.dense[:, place])
    fixed = fixed_columns(spec)
    for column in spec.categorical:
        if column.hotness is None:
            bags = rows.ragged[column.name]
            # offsets of a slice do not begin at 0
            values, splits = bags.values, bags.row_splits - bags.row_splits[0]
            columns[column.name] = _lists(values, splits)
        elif column.hotness == 1:
            columns[column.name] = pa.array(np.ascontiguousarray(rows.ids[:, fixed[column.name].start]))
        else:
            ids = rows.ids[:, fixed[column.name]]
            columns[column.name] = _lists(ids.reshape(-1), np.arange(len(ids) + 1) * column.hotness)
    for name in spec.keys:
        if name != ROW_ID:
            columns[name] = pa.array(rows.keys[name])
    return pa.table(columns)


def _lists(values: np.ndarray, splits: np.ndarray) -> pa.Array:
    return pa.LargeListArray.from_arrays(pa.array(splits, pa.int64()), pa.array(values))


def csv_text(spec: FeatureSpec, rows: Columns, empty: EmptyCells | None = None, *, header: bool) -> bytes:
    """The rows of `arrow_table` as CSV text; the ids of a bag stand in one cell, a blank between them."""
    frame = pl.DataFrame(pl.from_arrow(arrow_table(spec, rows, empty)))
    lists = [name for name, dtype in frame.schema.items() if dtype == pl.List]
    frame = frame.with_columns(pl.col(name).cast(pl.List(pl.String)).list.join(" ") for name in lists)
    stream = io.BytesIO()
    frame.write_csv(stream, include_header=header)
    return stream.getvalue()
