"""Input that does not fit: a clear error that names what, nothing written, no crash."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.native import tables
from tfdlrm.embeddings.optimizers import SGD, RowwiseAdagrad
from tfdlrm.embeddings.placement.native import op_attributes
from tfdlrm.native import loader
from tfdlrm.native.embedding import (
    SINGLE_ROWS,
    BagIds,
    BagLayout,
    ColumnSpec,
    LookupGradient,
    check_rows,
    lookup,
    single_rows,
    sum_rows,
    update,
)

V, D = 7, 4
INVALID = tf.errors.InvalidArgumentError


def _column(policy: str = "error", hotness: int = 1, **changes: Any) -> ColumnSpec:
    spec = ColumnSpec("clicked", "item", hotness, V, 10, 0, 1, policy)
    return spec._replace(**changes)


def _rows(values: list[int], policy: str = "error", dtype: tf.DType = tf.int64, **changes: Any) -> tuple:
    rows, _, counts = check_rows([_column(policy, **changes)], [tf.constant(values, dtype)], [], tf.int32)
    return rows.numpy().tolist(), counts.numpy().tolist()


def test_policies() -> None:
    ids = [3, -1, V, 2**62, -(2**62)]
    assert _rows(ids, "clip") == ([13, 10, 16, 16, 10], [4])
    assert _rows(ids, "oov") == ([13, 10, 10, 10, 10], [4])
    assert _rows(ids, "modulo") == ([10 + i % V for i in ids], [4])
    assert _rows([3, -1], "modulo", tf.int32) == ([13, 16], [1])
    assert _rows([5, 6], part=1, divisor=4) == ([11, 11], [0])
    assert _rows([5, 6], part=2, divisor=4) == ([11, 12], [0])


@pytest.mark.parametrize("policy", ["clip", "oov", "modulo"])
def test_policies_of_a_column_that_several_threads_convert(policy: str) -> None:
    ids = np.random.default_rng(0).integers(-V, 2 * V, 200_003)
    rows, counts = _rows(ids.tolist(), policy)
    inside = (ids >= 0) & (ids < V)
    wanted = {"clip": np.clip(ids, 0, V - 1), "oov": np.where(inside, ids, 0), "modulo": ids % V}[policy]
    np.testing.assert_array_equal(rows, 10 + wanted)
    assert counts == [np.count_nonzero(~inside)]


@pytest.mark.parametrize("bad", [[0], [199_999], [70_000, 199_999], [150_000, 199_000]])
def test_the_first_id_out_of_range_of_many_is_the_one_named(bad: list[int]) -> None:
    ids = np.zeros(200_000, np.int64)
    ids[bad] = V + np.arange(len(bad))
    with pytest.raises(INVALID, match=rf"id {V} in row {bad[0]} of the batch"):
        _rows(ids.tolist())


@pytest.mark.parametrize("bad", [V, -1, 2**62])
def test_an_id_out_of_range(bad: int) -> None:
    with pytest.raises(INVALID, match=rf"feature 'clicked' \(table 'item'\): id {bad} in row 1 .* outside \[0, 7\)"):
        _rows([1, bad])
    with pytest.raises(INVALID, match=rf"id {bad} in row 2 of the batch"):
        check_rows(
            [_column(hotness=0)], [tf.constant([1, 2, bad], tf.int64)], [tf.constant([0, 2, 2, 3], tf.int64)], tf.int32
        )


@pytest.mark.parametrize("dtype", [tf.int32, tf.int64], ids=str)
@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ([0, 2, 1, 3], r"'clicked': row_splits\[2\] = 1 after 2"),
        ([1, 2, 3], r"row_splits\[0\] = 1"),
        ([0, 2], "end at 2 but there are 3 ids"),
        ([0, 4], r"row_splits\[1\] = 4"),
        ([0, -1, 3], r"row_splits\[1\] = -1"),
        ([], "shape .0., need"),
    ],
)
def test_row_splits(splits: list[int], message: str, dtype: tf.DType) -> None:
    with pytest.raises(INVALID, match=message):
        check_rows([_column(hotness=0)], [tf.constant([1, 2, 3], tf.int64)], [tf.constant(splits, dtype)], tf.int32)


def test_features_of_different_batch_sizes() -> None:
    with pytest.raises(INVALID, match="feature 'clicked' has 2 rows, feature 'clicked' has 3"):
        check_rows([_column(), _column()], [tf.constant([1, 2, 3]), tf.constant([1, 2])], [], tf.int32)
    with pytest.raises(INVALID, match="3 ids cannot be bags of 2"):
        check_rows([_column(hotness=2)], [tf.constant([1, 2, 3])], [], tf.int32)


def _table(values: Any = None, dtype: tf.DType = tf.float32) -> tf.Variable:
    return tables.variable(np.ones((V, D), np.float32) if values is None else values, dtype)


NO_SPLITS, NO_WEIGHTS = tf.zeros([0], tf.int64), tf.zeros([0])


LOOKUPS: dict[str, tuple[Callable[[], tf.Variable], BagIds, BagLayout, str]] = {
    "row too large": (_table, single_rows(tf.constant([1, V])), SINGLE_ROWS, r"row 7 at position 1 .* \[0, 7\)"),
    "row below zero": (_table, single_rows(tf.constant([-1])), SINGLE_ROWS, "row -1 at position 0"),
    "weights": (
        _table, BagIds(tf.constant([1, 2]), NO_SPLITS, tf.ones([3])), SINGLE_ROWS, "3 weights for 2 ids"),
    "splits fall": (
        _table, BagIds(tf.constant([1, 2]), tf.constant([0, 2, 1], tf.int64), NO_WEIGHTS), BagLayout((0,), "sum"),
        r"bag_splits\[2\] = 1 after 2"),
    "splits end early": (
        _table, BagIds(tf.constant([1, 2]), tf.constant([0, 1], tf.int64), NO_WEIGHTS), BagLayout((0,), "sum"),
        "end at 1 but there are 2"),
    "splits of uneven columns": (
        _table, BagIds(tf.constant([1, 2]), tf.constant([0, 2], tf.int64), NO_WEIGHTS), BagLayout((0, 0), "sum"),
        "1 bags cannot be 2 features"),
    "no splits": (_table, single_rows(tf.constant([1])), BagLayout((0,), "sum"), "ragged but there are no bag_splits"),
    "uneven": (_table, single_rows(tf.constant([1, 2, 3])), BagLayout((1, 1), "sum"), "3 ids cannot be rows of 2"),
    "rank": (lambda: _table(np.ones(V, np.float32)), single_rows(tf.constant([1])), SINGLE_ROWS,
        r"need \[rows, width\]"),
    "width": (
        lambda: _table(np.ones((V, 3), np.float32)), single_rows(tf.constant([1])), SINGLE_ROWS, "is 3 wide, need 4"),
    "dtype": (lambda: _table(dtype=tf.float64), single_rows(tf.constant([1])), SINGLE_ROWS, "dtype double"),
}  # fmt: skip


@pytest.mark.parametrize("name", LOOKUPS)
def test_lookup(name: str) -> None:
    make, ids, layout, message = LOOKUPS[name]
    with pytest.raises(INVALID, match=message):
        lookup(make().handle, None, ids, layout, D)


def test_pooling_weights_of_another_length() -> None:
    with pytest.raises(INVALID, match="do not fit a table of 7 rows"):
        lookup(
            _table().handle,
            tables.variable(np.ones((V - 1, 1), np.float32)).handle,
            single_rows(tf.constant([1])),
            SINGLE_ROWS,
            D,
        )


def _update(table: tf.Variable, slots: list[tf.Variable], ids: BagIds, values: tf.Tensor, optimizer: Any) -> None:
    update(
        table.handle,
        [slot.handle for slot in slots],
        [(SINGLE_ROWS, LookupGradient(ids, values))],
        optimizer=op_attributes(optimizer),
        learning_rate=tf.constant(0.1),
        step=tf.constant(0, tf.int64),
        scale=tf.constant(1.0),
    )


@pytest.mark.parametrize("bad", [V, -1])
def test_an_update_of_a_row_that_is_not_there_writes_nothing(bad: int) -> None:
    table = _table()
    with pytest.raises(INVALID, match=rf"row {bad} at position 2"):
        _update(table, [], single_rows(tf.constant([0, 1, bad])), tf.ones([3, D]), SGD())
    np.testing.assert_array_equal(table.numpy(), np.ones((V, D)))


def test_update() -> None:
    ids = single_rows(tf.constant([0, 1]))
    with pytest.raises(INVALID, match=r"gradient of lookup 0 has shape .3,4., need 2 bags of width 4"):
        _update(_table(), [], ids, tf.ones([3, D]), SGD())
    with pytest.raises(INVALID, match=r"slot .* does not fit table"):
        _update(_table(), [tables.variable(np.zeros((V, D), np.float32))], ids, tf.ones([2, D]), RowwiseAdagrad())
    with pytest.raises(INVALID, match="rowwise_adagrad has 1 slots, got 0"):
        _update(_table(), [], ids, tf.ones([2, D]), RowwiseAdagrad())
    with pytest.raises(INVALID, match="int8 rows, which are for inference"):
        _update(tables.variable(np.zeros((V, D + 8)), tf.uint8), [], ids, tf.ones([2, D]), SGD())
    with pytest.raises(INVALID, match="row 9 at position 0"):
        sum_rows([(SINGLE_ROWS, LookupGradient(single_rows(tf.constant([9])), tf.ones([1, D])))], V, D)


def test_a_table_that_was_never_made() -> None:
    handle = tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=[V, D], shared_name="never_made")
    with pytest.raises((tf.errors.NotFoundError, tf.errors.FailedPreconditionError, INVALID), match="never_made"):
        lookup(handle, None, single_rows(tf.constant([1])), SINGLE_ROWS, D)


@pytest.mark.parametrize(
    ("x", "e", "width", "message"),
    [
        ((2, 3), (2, 4, 5), 20, r"need \[B, D\] and \[B, F, D\]"),
        ((2, 3), (3, 4, 3), 20, "need"),
        ((2, 3), (2, 3), 20, "need"),
        ((2, 3), (2, 4, 3), 5, "width 5 is below the 13 values"),
    ],
)
def test_interaction(x: tuple, e: tuple, width: int, message: str) -> None:
    ops = loader.library()
    assert ops is not None
    with pytest.raises(INVALID, match=message):
        ops.tfdlrm_interact(x=tf.ones(x), e=tf.ones(e), head=True, itself=False, width=width)
    with pytest.raises(INVALID):
        ops.tfdlrm_interact_gradient(
            x=tf.ones(x), e=tf.ones(e), upstream=tf.ones((x[0], width)), head=True, itself=False
        )


@pytest.mark.parametrize(
    ("changed", "shape", "message"),
    [
        ("product", (2, 4), r"the product has shape \[2,4\], x0 \[2,3\]"),
        ("x", (3, 3), r"x has shape \[3,3\]"),
        ("x0", (2, 3, 1), "both are"),
        ("bias", (4,), r"the bias has shape \[4\]"),
        ("bias", (1, 3), "the bias has shape"),
    ],
)
def test_cross(changed: str, shape: tuple, message: str) -> None:
    ops = loader.library()
    assert ops is not None
    tensors = {"x0": tf.ones([2, 3]), "product": tf.ones([2, 3]), "bias": tf.ones([3]), "x": tf.ones([2, 3])}
    with pytest.raises(INVALID, match=message):
        ops.tfdlrm_cross(**{**tensors, changed: tf.ones(shape)})
    gradient = {("upstream" if name == "x" else name): value for name, value in tensors.items()}
    wrong = "upstream" if changed == "x" else changed
    with pytest.raises(INVALID):
        ops.tfdlrm_cross_gradient(**{**gradient, wrong: tf.ones(shape)}, more=[])
    with pytest.raises(INVALID, match="1 more tensors"):
        ops.tfdlrm_cross_gradient(**gradient, more=[tf.ones([2, 3])])
    with pytest.raises(INVALID, match="what is added has shape"):
        ops.tfdlrm_cross_gradient(**gradient, more=[tf.ones([2, 3]), tf.ones([2, 4])])


def test_activation_gradient() -> None:
    ops = loader.library()
    assert ops is not None
    with pytest.raises(INVALID, match=r"both are \[B, out\]"):
        ops.tfdlrm_activation_gradient(upstream=tf.ones((2, 3)), y=tf.ones((2, 4)), relu=True)
