"""From a batch's features to checked bags of rows, one op a stack: what placements with native kernels take.

`lookup.LookupPlan.groups` does the same with TensorFlow's own ops, one group a hotness.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tfdlrm.config import FeatureConfig
from tfdlrm.embeddings.ids import check_dtype
from tfdlrm.embeddings.planner import QUOTIENT
from tfdlrm.hashing import hash_to_buckets
from tfdlrm.native import embedding as kernels
from tfdlrm.native.embedding import BagIds, BagLayout, ColumnSpec

if TYPE_CHECKING:
    from tfdlrm.embeddings.lookup import Column


@dataclasses.dataclass(frozen=True, kw_only=True)
class BagGroup:
    """Checked rows of one stack: all its columns that share a combiner, in bags feature by feature.

    Args:
        stack: index of the stack.
        ids: rows, splits and weights.
        layout: hotness of each column, and the combiner.
    """

    stack: int
    ids: BagIds
    layout: BagLayout


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlatBags:
    """Ids of one feature as `[N]`, in the order of the batch; `row_splits` `[B + 1]` where bags differ in length."""

    ids: tf.Tensor
    row_splits: tf.Tensor | None
    weights: tf.Tensor | None
    hotness: int


def flat_bags(feature: FeatureConfig, value: Any) -> FlatBags | None:
    """One feature's input without a copy, or None for a form that needs one: sparse, weighted, small integers.

    Raises:
        TypeError: ids are neither integers nor strings.
        ValueError: a rank or hotness that does not fit.
    """
    if isinstance(value, (tuple, list, tf.SparseTensor)):
        return None
    if isinstance(value, tf.RaggedTensor):
        if value.ragged_rank != 1 or value.flat_values.shape.rank != 1 or feature.hotness is not None:
            return None
        return FlatBags(ids=value.flat_values, row_splits=value.row_splits, weights=None, hotness=0)
    ids = check_dtype(feature.name, tf.convert_to_tensor(value))
    if ids.shape.rank not in (1, 2) or (ids.shape.rank == 2 and ids.shape[1] is None):
        return None
    hotness = 1 if ids.shape.rank == 1 else ids.shape[1]
    if feature.hotness not in (None, hotness) or hotness == 0:
        return None
    return FlatBags(ids=ids, row_splits=None, weights=None, hotness=hotness)


def in_order(value: Any) -> Any:
    """The input with its sparse tensors in the order of the batch, which bags one after the other need."""
    if isinstance(value, (tuple, list)):
        return type(value)(in_order(part) for part in value)
    return tf.sparse.reorder(value) if isinstance(value, tf.SparseTensor) else value


def from_bags(bags: Any) -> FlatBags:
    """The same from `ids.Bags`, which has taken every form apart."""
    if bags.row_ids is None:
        return FlatBags(ids=bags.ids, row_splits=None, weights=bags.weights, hotness=bags.ids.shape[1])
    lines = tf.range(tf.cast(bags.batch_size, tf.int64) + 1, dtype=tf.int64)
    splits = tf.searchsorted(tf.cast(bags.row_ids, tf.int64), lines, out_type=tf.int64)
    return FlatBags(ids=bags.ids, row_splits=splits, weights=bags.weights, hotness=0)


def bag_group(columns: Sequence[Column], inputs: Sequence[FlatBags]) -> tuple[BagGroup, tf.Tensor]:
    """Columns of one stack and combiner -> their rows, and `[columns]` counts of ids that a policy changed."""
    specs, ids, splits, hotness = [], [], [], []
    for column, one in zip(columns, inputs, strict=True):
        specs.append(_spec(column, one.hotness))
        values = one.ids
        if column.feature.id_policy == "hash":
            values = hash_to_buckets(values, column.table.vocabulary_size)
        ids.append(values)
        hotness.append(one.hotness)
        if one.row_splits is not None:
            splits.append(one.row_splits)
    if any(values.dtype != ids[0].dtype for values in ids):
        ids = [tf.cast(values, tf.int64) for values in ids]
    if any(one.dtype != splits[0].dtype for one in splits):
        splits = [tf.cast(one, tf.int64) for one in splits]
    dtype = tf.int64 if columns[0].stack_rows > tf.int32.max else tf.int32
    rows, bag_splits, counts = kernels.check_rows(specs, ids, splits, dtype)
    weights = tf.zeros([0], tf.float32)
    if any(one.weights is not None for one in inputs):
        weights = tf.concat([_weights(one) for one in inputs], axis=0)
    layout = BagLayout(hotness=tuple(hotness), combiner=columns[0].table.combiner)
    return BagGroup(stack=columns[0].stack, ids=BagIds(rows, bag_splits, weights), layout=layout), counts


def _weights(one: FlatBags) -> tf.Tensor:
    if one.weights is None:
        return tf.ones([tf.size(one.ids)], tf.float32)
    return tf.reshape(one.weights, [-1])


def _spec(column: Column, hotness: int) -> ColumnSpec:
    compression = column.table.split
    part, divisor = 0, 1
    if column.part and compression is not None:
        part, divisor = (1 if column.part == QUOTIENT else 2), compression.collisions
    return ColumnSpec(
        feature=column.feature.name,
        table=column.table.name,
        hotness=hotness,
        size=column.table.vocabulary_size,
        offset=column.offset,
        part=part,
        divisor=divisor,
        policy=column.feature.id_policy,
    )
