"""From packed columns to batches, as graph operations on whole batches: no work is done a row.

The tensors of a dataset are a nest `{"dense", "labels", "ids", "weights", "ragged": {name: {"values",
"row_splits"[, "weights"]}}, "keys": {name}}`. A batch is cut from it by row numbers (shuffled) or by a range.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tfdlrm.data.columns import (
    TENSOR_ALIGNMENT_BYTES,
    Columns,
    RaggedColumn,
    aligned_array,
    fixed_columns,
    id_dtype,
    weighted_columns,
)
from tfdlrm.data.python_calls import python_call
from tfdlrm.schema import FeatureSpec

Nest = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """How the rows of an epoch become batches; the arguments of `Dataset.batches`.

    Raises:
        ValueError: batch_size or max_batches is below 1.
    """

    batch_size: int
    shuffle: bool = False
    seed: int = 0
    drop_remainder: bool = False
    with_keys: bool = False
    max_batches: int | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_batches"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} is not possible. Give 1 or more.")

    def num_batches(self, num_rows: int) -> int:
        """Batches an epoch of `num_rows` rows."""
        whole, rest = divmod(num_rows, self.batch_size)
        total = whole + (rest > 0 and not self.drop_remainder)
        return total if self.max_batches is None else min(total, self.max_batches)


def permutation(seed: int, epoch: int, num_items: int) -> np.ndarray:
    """A permutation of [0, num_items) that depends on (seed, epoch) alone.

    Returns:
        int32 [num_items], or int64 where the numbers need it.
    """
    dtype = np.int32 if num_items <= np.iinfo(np.int32).max else np.int64
    items = np.arange(num_items, dtype=dtype)
    np.random.Generator(np.random.PCG64([seed, epoch])).shuffle(items)
    return items


def permutation_tensor(seed: int, epoch: tf.Tensor, num_items: int) -> tf.Tensor:
    """`permutation` for an epoch known only when the graph runs."""
    dtype = tf.int32 if num_items <= tf.int32.max else tf.int64
    items = python_call(lambda number: permutation(seed, int(number), num_items), [epoch], dtype)
    items.set_shape([num_items])
    return items


def to_tensors(columns: Columns, *, with_keys: bool) -> Nest:
    """The tensors of a dataset. Aligned numeric arrays are shared and not copied.

    Args:
        columns: the rows.
        with_keys: include the key columns; as text they take far more memory than as arrays.
    """
    return {
        "dense": _tensor(columns.dense),
        "labels": _tensor(columns.labels),
        "ids": _tensor(columns.ids),
        "weights": _tensor(columns.weights),
        "ragged": {name: _ragged_tensors(column) for name, column in columns.ragged.items()},
        "keys": {name: _tensor(values) for name, values in columns.keys.items()} if with_keys else {},
    }


def to_arrays(columns: Columns) -> Nest:
    """The same nest of NumPy arrays, for a generator."""
    ragged = {}
    for name, column in columns.ragged.items():
        ragged[name] = {"values": column.values, "row_splits": column.row_splits}
        if column.weights is not None:
            ragged[name]["weights"] = column.weights
    return {
        "dense": columns.dense,
        "labels": columns.labels,
        "ids": columns.ids,
        "weights": columns.weights,
        "ragged": ragged,
        "keys": dict(columns.keys),
    }


def signature(columns: Columns) -> Nest:
    """TensorSpecs of the nest, any number of rows."""

    def spec(array: np.ndarray) -> tf.TensorSpec:
        dtype = tf.string if array.dtype.kind in "OUS" else tf.as_dtype(array.dtype)
        return tf.TensorSpec([None, *array.shape[1:]], dtype)

    return tf.nest.map_structure(spec, to_arrays(columns))


def plain_batch(spec: FeatureSpec, plan: BatchPlan) -> tuple[Nest, tf.TensorSpec]:
    """TensorSpecs of one batch, of a schema without ragged columns and weights."""
    rows = plan.batch_size if plan.drop_remainder else None
    features: Nest = {}
    if spec.num_dense:
        features["dense"] = tf.TensorSpec([rows, spec.num_dense], tf.float32)
    dtype = tf.as_dtype(id_dtype(spec))
    for column in spec.categorical:
        features[column.name] = tf.TensorSpec([rows] if column.hotness == 1 else [rows, column.hotness], dtype)
    return features, tf.TensorSpec([rows, len(spec.labels)], tf.float32)


def plain_arrays(spec: FeatureSpec, columns: Columns) -> tuple[Nest, np.ndarray]:
    """The arrays of `plain_batch`, of any number of rows."""
    features: Nest = {"dense": columns.dense} if spec.num_dense else {}
    fixed = fixed_columns(spec)
    # turned at once: single columns of a packed matrix would each read all of it
    turned = None
    if all(column.hotness == 1 for column in spec.categorical):
        turned = aligned_array(columns.ids.T.shape, columns.ids.dtype)  # TensorFlow shares aligned memory
        turned[:] = columns.ids.T
    for name, place in fixed.items():
        if turned is not None:
            features[name] = turned[place.start]
        else:
            own = np.ascontiguousarray(columns.ids[:, place])
            features[name] = own[:, 0] if own.shape[1] == 1 else own
    return features, columns.labels


def to_columns(spec: FeatureSpec, features: Nest, labels: np.ndarray, keys: Mapping[str, np.ndarray]) -> Columns:
    """The rows of a batch, packed again.

    Args:
        spec: the columns.
        features: of a batch, see `Dataset`.
        labels: [B, tasks].
        keys: name -> [B].
    """
    ids, weights, ragged = [], [], {}
    for column in spec.categorical:
        given = features[column.name]
        values, own = given if isinstance(given, tuple) else (given, None)
        if column.hotness is None:
            ragged[column.name] = RaggedColumn(
                values=values.values.numpy(),
                row_splits=values.row_splits.numpy().astype(np.int64),
                weights=None if own is None else own.values.numpy(),
            )
            continue
        ids.append(np.reshape(values.numpy(), [len(labels), column.hotness]))
        if own is not None:
            weights.append(np.reshape(own.numpy(), [len(labels), column.hotness]))
    nothing = np.zeros([len(labels), 0])
    return Columns(
        dense=features["dense"].numpy() if spec.num_dense else nothing.astype(np.float32),
        labels=labels,
        ids=np.concatenate(ids, axis=1) if ids else nothing.astype(id_dtype(spec)),
        weights=np.concatenate(weights, axis=1) if weights else nothing.astype(np.float32),
        ragged=ragged,
        keys=keys,
    )


def _ragged_tensors(column: RaggedColumn) -> Nest:
    tensors = {"values": _tensor(column.values), "row_splits": _tensor(column.row_splits)}
    if column.weights is not None:
        tensors["weights"] = _tensor(column.weights)
    return tensors


def _tensor(array: np.ndarray) -> tf.Tensor:
    numeric = array.dtype.kind in "iuf"
    aligned = array.ctypes.data % TENSOR_ALIGNMENT_BYTES == 0 and array.flags.c_contiguous and array.flags.writeable
    if numeric and aligned and array.size:
        return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
    return tf.constant(array)


class BatchCutter:
    """Cuts batches from the tensors of one schema.

    Args:
        spec: the columns.
        plan: batch size and what to carry.
    """

    def __init__(self, spec: FeatureSpec, plan: BatchPlan) -> None:
        self._spec = spec
        self._plan = plan
        self._fixed = fixed_columns(spec)
        self._weighted = weighted_columns(spec)

    def take(self, tensors: Nest, rows: tf.Tensor) -> tuple[Any, ...]:
        """The batch of the rows at `rows`, integer [B]."""
        flat = {name: tf.gather(tensors[name], rows) for name in ("dense", "labels", "ids", "weights")}
        ragged = {
            name: _map_ragged(parts, lambda bags: tf.gather(bags, rows)) for name, parts in tensors["ragged"].items()
        }
        keys = (
            {name: tf.gather(values, rows) for name, values in tensors["keys"].items()} if self._plan.with_keys else {}
        )
        return self._batch(flat, ragged, keys)

    def slice(self, tensors: Nest, start: tf.Tensor, stop: tf.Tensor) -> tuple[Any, ...]:
        """The batch of rows [start, stop), which stand together."""
        flat = {name: tensors[name][start:stop] for name in ("dense", "labels", "ids", "weights")}
        ragged = {name: _map_ragged(parts, lambda bags: bags[start:stop]) for name, parts in tensors["ragged"].items()}
        keys = {name: values[start:stop] for name, values in tensors["keys"].items()} if self._plan.with_keys else {}
        return self._batch(flat, ragged, keys)

    def _batch(self, flat: Nest, ragged: Nest, keys: Nest) -> tuple[Any, ...]:
        if self._plan.drop_remainder:
            for name, tensor in flat.items():
                flat[name] = tf.ensure_shape(tensor, [self._plan.batch_size, *tensor.shape[1:]])
        features: dict[str, Any] = {"dense": flat["dense"]} if self._spec.num_dense else {}
        ids = _split(flat["ids"], self._fixed)
        weights = _split(flat["weights"], self._weighted)
        for column in self._spec.categorical:
            if column.hotness is None:
                features[column.name] = ragged[column.name]
            elif column.weights:
                features[column.name] = (ids[column.name], weights[column.name])
            else:
                features[column.name] = ids[column.name]
        return (features, flat["labels"], keys) if self._plan.with_keys else (features, flat["labels"])


def _map_ragged(parts: Nest, cut: Any) -> Any:
    """Cut bags out of one ragged column: ids, or (ids, weights)."""
    ids = cut(tf.RaggedTensor.from_row_splits(parts["values"], parts["row_splits"], validate=False))
    if "weights" not in parts:
        return ids
    weights = cut(tf.RaggedTensor.from_row_splits(parts["weights"], parts["row_splits"], validate=False))
    # one partition for both, so that whoever combines them need not compare row splits
    return ids, ids.with_flat_values(weights.flat_values)


def _split(matrix: tf.Tensor, places: dict[str, slice]) -> dict[str, tf.Tensor]:
    """Columns of `[B, sum of hotness]` by feature: [B] for hotness 1, else [B, H]."""
    if not places:
        return {}
    sizes = [place.stop - place.start for place in places.values()]
    parts = tf.unstack(matrix, axis=1) if max(sizes) == 1 else tf.split(matrix, sizes, axis=1)
    return {
        name: tf.squeeze(part, axis=1) if size == 1 and part.shape.rank == 2 else part
        for name, size, part in zip(places, sizes, parts, strict=True)
    }
