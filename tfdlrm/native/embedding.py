"""Python face of the embedding kernels: static layouts, and calls with every attribute filled in."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tfdlrm.native import loader

COMBINERS = {"sum": 0, "mean": 1, "sqrtn": 2}
POLICIES = {"error": 0, "clip": 1, "modulo": 2, "oov": 3, "hash": 0}  # hashed ids are in range


@dataclasses.dataclass(frozen=True)
class BagLayout:
    """What is known of a lookup's bags before it runs.

    Args:
        hotness: ids a bag of each column; 0 where it is ragged.
        combiner: "sum", "mean" or "sqrtn".
    """

    hotness: tuple[int, ...]
    combiner: str


SINGLE_ROWS = BagLayout(hotness=(1,), combiner="sum")
"""One row a bag, one column: gradients `[N, D]` of rows `[N]`."""


class BagIds(NamedTuple):
    """Rows of one stack in bags, feature by feature.

    `rows` `[N]` int32 or int64; `bag_splits` int64 `[columns * B + 1]`, or empty where every column has a fixed
    hotness; `weights` float32 `[N]`, or empty.
    """

    rows: tf.Tensor
    bag_splits: tf.Tensor
    weights: tf.Tensor


class LookupGradient(NamedTuple):
    """The bags of a lookup and the gradient `[B, columns, D]` of its pooled vectors."""

    ids: BagIds
    values: tf.Tensor


class ColumnSpec(NamedTuple):
    """How ids of one column become rows of a stack. `part` is 0 for the id, 1 for id // divisor, 2 for id % divisor."""

    feature: str
    table: str
    hotness: int
    size: int
    offset: int
    part: int
    divisor: int
    policy: str


def single_rows(rows: tf.Tensor) -> BagIds:
    """Rows `[N]` as one bag each."""
    return BagIds(rows, tf.zeros([0], tf.int64), tf.zeros([0], tf.float32))


def check_rows(
    columns: Sequence[ColumnSpec],
    ids: Sequence[tf.Tensor],
    row_splits: Sequence[tf.Tensor],
    row_dtype: tf.DType,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Ids of each column -> (rows, bag_splits, counts); see the op TfdlrmRows.

    Raises:
        tf.errors.InvalidArgumentError: at run time, an id out of range under policy "error", or bad row splits.
    """
    return _ops().tfdlrm_rows(
        ids=list(ids),
        row_splits=list(row_splits),
        Trows=row_dtype,
        hotness=[column.hotness for column in columns],
        offsets=[column.offset for column in columns],
        sizes=[column.size for column in columns],
        divisors=[column.divisor for column in columns],
        parts=[column.part for column in columns],
        policies=[POLICIES[column.policy] for column in columns],
        features=[column.feature for column in columns],
        tables=[column.table for column in columns],
    )


def lookup(
    table: tf.Tensor, pooling: tf.Tensor | None, ids: BagIds, layout: BagLayout, embedding_dim: int
) -> tf.Tensor:
    """Pooled vectors `[B, columns, D]` float32.

    Args:
        table: handle of the rows `[V, D]`.
        pooling: handle of the rows' own weights `[V, 1]`, or None.
        ids: which rows.
        layout: of the bags.
        embedding_dim: D.
    """
    return _ops().tfdlrm_lookup(
        table=table,
        pooling=[] if pooling is None else [pooling],
        rows=ids.rows,
        bag_splits=ids.bag_splits,
        weights=ids.weights,
        hotness=list(layout.hotness),
        combiner=COMBINERS[layout.combiner],
        dim=embedding_dim,
    )


def _group_inputs(groups: Sequence[tuple[BagLayout, LookupGradient]]) -> dict[str, Any]:
    return {
        "rows": [gradient.ids.rows for _, gradient in groups],
        "bag_splits": [gradient.ids.bag_splits for _, gradient in groups],
        "weights": [gradient.ids.weights for _, gradient in groups],
        "gradients": [gradient.values for _, gradient in groups],
        "hotness": [hotness for layout, _ in groups for hotness in layout.hotness],
        "columns": [len(layout.hotness) for layout, _ in groups],
        "combiners": [COMBINERS[layout.combiner] for layout, _ in groups],
    }


def update(
    table: tf.Tensor,
    slots: Sequence[tf.Tensor],
    groups: Sequence[tuple[BagLayout, LookupGradient]],
    *,
    optimizer: Mapping[str, Any],
    learning_rate: tf.Tensor,
    step: tf.Tensor,
    scale: tf.Tensor,
) -> None:
    """Sums the gradients of each touched row, multiplies by `scale`, updates the row once.

    Args:
        table: handle of the rows `[V, D]`.
        slots: handles of the optimizer's slots.
        groups: layout and gradient of each lookup of the table.
        optimizer: attributes of the op TfdlrmUpdate.
        learning_rate: scalar float32.
        step: scalar int64, from 0.
        scale: scalar float32.
    """
    _ops().tfdlrm_update(
        table=table,
        slots=list(slots),
        learning_rate=learning_rate,
        step=step,
        scale=scale,
        **_group_inputs(groups),
        **optimizer,
    )


def sum_rows(
    groups: Sequence[tuple[BagLayout, LookupGradient]], num_rows: int, embedding_dim: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """The touched rows `[U]`, ascending, and the sums `[U, D]` of their gradients."""
    return _ops().tfdlrm_sum_rows(num_rows=tf.constant(num_rows, tf.int64), dim=embedding_dim, **_group_inputs(groups))


def _ops() -> Any:
    ops = loader.library()
    assert ops is not None, "called without the native kernels"
    return ops
