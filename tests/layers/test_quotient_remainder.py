"""The quotient-remainder split and combination, against the oracle."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tests import reference as oracle
from tfdlrm.layers.quotient_remainder import combine, quotient_remainder_rows, split_ids


@given(
    ids=st.lists(st.integers(0, 2**62), min_size=1, max_size=9),
    collisions=st.integers(1, 2**31),
)
def test_split_is_exact_and_invertible(ids: list[int], collisions: int) -> None:
    array = np.array(ids, np.int64)
    for given_ids in (array, tf.constant(array)):
        quotient, remainder = split_ids(given_ids, collisions)
        np.testing.assert_array_equal(np.asarray(quotient) * collisions + np.asarray(remainder), array)
        assert np.asarray(remainder).max() < collisions
        bags = oracle.split_bags(oracle.Bags(array, np.array([0, len(ids)])), collisions)
        np.testing.assert_array_equal(quotient, bags[0].ids)
        np.testing.assert_array_equal(remainder, bags[1].ids)


def test_ids_above_the_floats_are_kept_apart() -> None:
    quotient, _ = split_ids(np.array([2**24 * 4, 2**24 * 4 + 4], np.int64), 4)
    assert quotient.tolist() == [2**24, 2**24 + 1]


def test_float_ids_are_refused() -> None:
    with pytest.raises(ValueError, match="ids of dtype float32 are not integers"):
        split_ids(np.array([1.0], np.float32), 4)


@given(rows=st.integers(1, 10**9), collisions=st.integers(1, 10**4))
def test_every_id_has_rows(rows: int, collisions: int) -> None:
    quotient_rows, remainder_rows = quotient_remainder_rows(rows, collisions)
    assert (rows - 1) // collisions == quotient_rows - 1
    assert remainder_rows == collisions


@pytest.mark.parametrize("operation", ["mult", "add", "concat"])
def test_combination_and_its_gradient(operation: str) -> None:
    rng = np.random.default_rng(0)
    vectors = [rng.normal(size=(3, 4)).astype(np.float32) for _ in range(2)]
    tensors = [tf.constant(vector) for vector in vectors]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        combined = combine(operation, *tensors)
    np.testing.assert_allclose(combined.numpy(), oracle.combine(operation, *vectors), rtol=1e-6)
    upstream = rng.normal(size=combined.shape).astype(np.float32)
    found = tape.gradient(combined, tensors, output_gradients=tf.constant(upstream))
    for gradient, expected in zip(found, oracle.combine_backward(upstream, operation, *vectors), strict=True):
        np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-6)


def test_an_unknown_operation_is_refused() -> None:
    with pytest.raises(ValueError, match=r"operation='max' is unknown\. Use one of 'mult', 'add' and 'concat'"):
        combine("max", tf.ones([1, 2]), tf.ones([1, 2]))
