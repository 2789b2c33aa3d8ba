"""From parsed rows to packed columns, by a fitted `Preprocessing`: the one place where tokens become ids."""

from __future__ import annotations

import numpy as np

from tfdlrm.checks import quoted
from tfdlrm.data.columns import Array, Columns, RaggedColumn, aligned_array, fixed_columns, id_dtype, weighted_columns
from tfdlrm.data.parse import parse_key
from tfdlrm.data.polars_extra import pl
from tfdlrm.data.preprocessing import Preprocessing
from tfdlrm.data.problems import Problems
from tfdlrm.data.quarantine import Quarantine
from tfdlrm.data.raw_rows import RawRows
from tfdlrm.data.transforms import bin_ids, transform_dense
from tfdlrm.data.vocabulary import UNSEEN
from tfdlrm.schema import CategoricalColumn, FeatureSpec

# Strings handed to TensorFlow at once: as Python objects they take about 60 bytes each.
_HASH_BATCH = 2**18


def encode_rows(rows: RawRows, preprocessing: Preprocessing, quarantine: Quarantine) -> Columns:
    """Packed columns of the rows all of whose tokens have an id.

    Args:
        rows: parsed rows.
        preprocessing: vocabularies and statistics of the training part.
        quarantine: where rows with an unseen token go, if the column's policy is not `oov`.

    Raises:
        BadRowError: there is such a row, and the quarantine's mode is `error`.
    """
    problems = Problems(rows.num_rows)
    columns = _pack(rows, preprocessing, problems)
    if problems.bad.any():
        _report(rows, problems, quarantine)
        columns = columns.take(np.flatnonzero(~problems.bad))
    return columns


def _ids(rows: RawRows, column: CategoricalColumn, preprocessing: Preprocessing) -> Array:
    """int64, one a token; `UNSEEN` where there is none."""
    tokens = rows.tokens[column.name].values
    if column.table in preprocessing.vocabularies:
        ids = preprocessing.vocabularies[column.table].ids(tokens)
        if preprocessing.vocabularies[column.table].has_oov and column.id_policy != "oov":
            # Another column of the table keeps an out-of-vocabulary row; this one did not ask for it.
            ids = np.where(ids == 0, UNSEEN, ids)
        return ids
    return ids_without_vocabulary(column, tokens, preprocessing.spec)


def ids_without_vocabulary(column: CategoricalColumn, tokens: pl.Series, spec: FeatureSpec) -> Array:
    """int64, one a token of a column whose table has no vocabulary."""
    if column.encoding == "hash":
        return hashed_texts(tokens, spec.vocabulary_sizes[column.table])
    if column.encoding == "bins":
        return bin_ids(column, tokens.to_numpy())
    return tokens.cast(pl.Int64).to_numpy()


def hashed_texts(tokens: pl.Series, buckets: int) -> Array:
    """int64 [n] in [0, buckets), as `tfdlrm.hashing` gives them."""
    # TensorFlow is slow to import, and few columns are hashed
    import tensorflow as tf

    from tfdlrm.hashing import hash_to_buckets

    ids = np.empty(len(tokens), np.int64)
    for start in range(0, len(tokens), _HASH_BATCH):
        texts = tokens[start : start + _HASH_BATCH].to_list()
        ids[start : start + len(texts)] = hash_to_buckets(tf.constant(texts, tf.string), buckets).numpy()
    return ids


def _mark_outside(
    rows: RawRows, column: CategoricalColumn, ids: Array, preprocessing: Preprocessing, problems: Problems
) -> None:
    """Mark the rows with an id that the table does not have."""
    size = preprocessing.spec.vocabulary_sizes[column.table]
    if column.table in preprocessing.vocabularies:
        wrong = ids == UNSEEN
        reason = "the value was not seen in training"
        fix = "Set id_policy: oov for the column and train again."
    elif column.encoding == "integer" and column.id_policy == "error":
        wrong = (ids < 0) | (ids >= size)
        reason = f"the id is not in [0, {size}), the rows of table {quoted(column.table)}"
        fix = "Correct it, raise vocabulary_sizes, or set id_policy: clip, modulo, oov or hash."
    else:
        return
    if wrong.any():
        bad = np.bincount(rows.tokens[column.name].rows()[wrong], minlength=rows.num_rows) > 0
        problems.mark(bad, column.name, reason, fix)


def _report(rows: RawRows, problems: Problems, quarantine: Quarantine) -> None:
    bad_lines = [int(line) for line in rows.lines[problems.bad]]
    if quarantine.mode == "error":
        bad_lines = bad_lines[:1]
    raw = rows.lookup(bad_lines) if rows.lookup else {}

    def cell(column: str, row: int) -> str:
        return " ".join(str(value) for value in rows.tokens[column].slice(row, row + 1).values)

    quarantine.add_all(problems.bad_rows(rows.file, rows.lines, cell, lambda row: raw.get(int(rows.lines[row]), b"")))


def _pack(rows: RawRows, preprocessing: Preprocessing, problems: Problems) -> Columns:
    spec, num_rows = preprocessing.spec, rows.num_rows
    dense = aligned_array((num_rows, spec.num_dense), np.float32)
    for place, number in enumerate(spec.dense):
        unscaled = rows.unscaled.get(number.name)
        dense[:, place] = rows.dense[:, place] if unscaled is None else transform_dense(number, unscaled)
    labels = aligned_array(rows.labels.shape, np.float32)
    labels[:] = rows.labels
    fixed, weighted = fixed_columns(spec), weighted_columns(spec)
    dtype = id_dtype(spec)
    packed = aligned_array((num_rows, sum(place.stop - place.start for place in fixed.values())), dtype)
    weights = aligned_array((num_rows, sum(place.stop - place.start for place in weighted.values())), np.float32)
    ragged = {}
    for column in spec.categorical:
        tokens = rows.tokens[column.name]
        ids = _ids(rows, column, preprocessing)
        _mark_outside(rows, column, ids, preprocessing, problems)
        if column.hotness is None and tokens.lengths is not None:
            splits = np.concatenate([[0], np.cumsum(tokens.lengths)]).astype(np.int64)
            ragged[column.name] = RaggedColumn(values=ids.astype(dtype), row_splits=splits, weights=tokens.weights)
            continue
        packed[:, fixed[column.name]] = ids.reshape(num_rows, -1)
        if tokens.weights is not None:
            weights[:, weighted[column.name]] = tokens.weights.reshape(num_rows, -1)
    keys = {name: parse_key(values) for name, values in rows.keys.items()}
    return Columns(dense=dense, labels=labels, ids=packed, weights=weights, ragged=ragged, keys=keys)
