"""The lookup kernel against NumPy: widths, types of ids and rows, bags, weights, combiners."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.native import tables
from tfdlrm.embeddings import row_types
from tfdlrm.native.embedding import BagLayout, lookup

WIDTHS = (1, 3, 4, 15, 16, 17, 31, 32, 64, 100, 128, 1024)
V = 23


def _table(width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(V, width)).astype(np.float32)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", [tf.int32, tf.int64], ids=str)
def test_widths(width: int, dtype: tf.DType) -> None:
    table = _table(width)
    ids = np.random.default_rng(1).integers(0, V, (3, 5, 4))
    out = lookup(tables.variable(table).handle, None, tables.fixed(ids, dtype), BagLayout((4, 4, 4), "sum"), width)
    assert out.shape == (5, 3, width)
    np.testing.assert_allclose(out.numpy(), table[ids].sum(axis=2).transpose(1, 0, 2), rtol=1e-5, atol=1e-5)


@settings(max_examples=60)
@given(
    bags=st.lists(st.lists(st.integers(0, V - 1), max_size=6), min_size=2, max_size=8).filter(
        lambda b: len(b) % 2 == 0
    ),
    combiner=st.sampled_from(["sum", "mean", "sqrtn"]),
    weighted=st.booleans(),
    pooling=st.booleans(),
    width=st.sampled_from([1, 5, 16, 48]),
    seed=st.integers(0, 99),
)
def test_any_bags(bags: list[list[int]], combiner: str, weighted: bool, pooling: bool, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = _table(width, seed)
    weights = [list(rng.uniform(0.1, 2, len(bag)).astype(np.float32)) for bag in bags] if weighted else None
    row_weights = rng.uniform(-1, 1, (V, 1)).astype(np.float32)
    own = tables.variable(row_weights) if pooling else None
    out = lookup(
        tables.variable(table).handle,
        None if own is None else own.handle,
        tables.ragged(bags, weights=weights),
        BagLayout((0, 0), combiner),
        width,
    )
    # the row's own weight is no part of the combiner's scale
    expected = tables.pooled(table * row_weights if pooling else table, bags, combiner, weights)
    np.testing.assert_allclose(out.numpy(), expected.reshape(2, -1, width).transpose(1, 0, 2), rtol=1e-5, atol=1e-5)


def test_a_bag_longer_than_a_piece_of_weights() -> None:
    table, rng = _table(7), np.random.default_rng(3)
    bags = [list(rng.integers(0, V, 700)), [], list(rng.integers(0, V, 256)), [1]]
    weights = [list(rng.uniform(0, 1, len(bag)).astype(np.float32)) for bag in bags]
    out = lookup(tables.variable(table).handle, None, tables.ragged(bags, weights=weights), BagLayout((0,), "mean"), 7)
    np.testing.assert_allclose(out.numpy()[:, 0], tables.pooled(table, bags, "mean", weights), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch", [0, 1, 3000])
def test_batch_sizes(batch: int) -> None:
    table = _table(16)
    ids = np.random.default_rng(2).integers(0, V, (2, batch, 1))
    out = lookup(tables.variable(table).handle, None, tables.fixed(ids), BagLayout((1, 1), "sum"), 16)
    np.testing.assert_array_equal(out.numpy(), table[ids[..., 0]].transpose(1, 0, 2))


def test_weights_of_a_bag_that_sum_to_zero_give_zeros() -> None:
    out = lookup(
        tables.variable(_table(4)).handle,
        None,
        tables.ragged([[1, 2], [3]], weights=[[1.0, -1.0], [2.0]]),
        BagLayout((0,), "mean"),
        4,
    ).numpy()
    assert not out[0].any()
    np.testing.assert_allclose(out[1, 0], _table(4)[3], rtol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int8"])
@pytest.mark.parametrize("width", [1, 16, 17, 130])
def test_rows_in_fewer_bytes(dtype: str, width: int) -> None:
    stored = row_types.narrow(tf.constant(_table(width)), dtype)
    wide = row_types.widen(stored, dtype).numpy()
    ids = np.random.default_rng(5).integers(0, V, (1, 6, 3))
    weights = np.random.default_rng(6).uniform(0, 1, (1, 6, 3)).astype(np.float32)
    table = tables.variable(stored.numpy(), stored.dtype)
    out = lookup(table.handle, None, tables.fixed(ids, weights=weights), BagLayout((3,), "sum"), width)
    expected = np.einsum("fbhd,fbh->bfd", wide[ids].astype(np.float64), weights)
    np.testing.assert_allclose(out.numpy(), expected, rtol=1e-5, atol=1e-5)


def test_every_float16_is_widened_exactly() -> None:
    every = np.arange(2**16, dtype=np.uint16).view(np.float16).reshape(-1, 16)
    ids = np.arange(len(every)).reshape(1, -1, 1)
    out = lookup(
        tables.variable(every, tf.float16).handle, None, tables.fixed(ids), BagLayout((1,), "sum"), 16
    ).numpy()[:, 0]
    np.testing.assert_array_equal(out, every.astype(np.float32))
