"""Ids of every accepted form, id policies, and what is said when an id is wrong."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfdlrm.embeddings.ids import apply_policy, check_range, signed, to_bags
from tfdlrm.hashing import hash_to_buckets

MASK = (1 << 64) - 1


def splitmix64(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) & MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20), st.integers(1, 2**40))
def test_integer_hash_is_splitmix64(values, buckets) -> None:
    hashed = hash_to_buckets(tf.constant(values, tf.int64), buckets).numpy()
    np.testing.assert_array_equal(hashed, [splitmix64(v & MASK) % buckets for v in values])


def test_string_hash_is_stable() -> None:
    # FarmHash fingerprint64, as BigQuery's FARM_FINGERPRINT has it
    hashed = hash_to_buckets(tf.constant(["", "movie", "ünïcode"]), 2**62).numpy()
    np.testing.assert_array_equal(hashed, hash_to_buckets(tf.constant(["", "movie", "ünïcode"]), 2**62).numpy())
    assert len(set(hashed)) == 3


def test_floats_are_not_hashed() -> None:
    with pytest.raises(TypeError, match="float32"):
        hash_to_buckets(tf.constant([1.0]), 10)


@pytest.mark.parametrize("dtype", [tf.int32, tf.int64])
def test_forms_agree(dtype) -> None:
    dense = tf.constant([[1, 2], [3, 4]], dtype)
    weights = tf.constant([[1.0, 0.5], [2.0, 3.0]])
    ragged = (tf.RaggedTensor.from_tensor(dense), tf.RaggedTensor.from_tensor(weights))
    indices = [[0, 0], [0, 1], [1, 0], [1, 1]]
    sparse = (
        tf.SparseTensor(indices, tf.reshape(dense, [-1]), [2, 2]),
        tf.SparseTensor(indices, tf.reshape(weights, [-1]), [2, 2]),
    )
    for form in (ragged, sparse):
        bags = to_bags("f", form, None)
        np.testing.assert_array_equal(bags.ids, [1, 2, 3, 4])
        np.testing.assert_array_equal(bags.row_ids, [0, 0, 1, 1])
        np.testing.assert_array_equal(bags.weights, [1.0, 0.5, 2.0, 3.0])
        assert int(bags.batch_size) == 2
        assert bags.hotness is None
        assert bags.ids.dtype == dtype
    fixed = to_bags("f", (dense, weights), 2)
    assert fixed.hotness == 2
    assert fixed.batch_size == 2


@pytest.mark.parametrize(
    ("value", "hotness", "error", "message"),
    [
        (tf.constant([1.0]), 1, TypeError, "dtype float32; floats corrupt ids"),
        (tf.constant([[1, 2]]), 3, ValueError, "2 ids a row, but its config says hotness=3"),
        (tf.constant([[[1]]]), None, ValueError, r"shape \(1, 1, 1\)"),
        ((tf.constant([[1, 2]]), tf.constant([[1.0]])), None, ValueError, "do not match ids"),
        ((tf.ragged.constant([[1]]), tf.constant([[1.0]])), None, ValueError, "ragged but weights are not"),
        ((tf.constant([[1]]), tf.ragged.constant([[1.0]])), None, ValueError, "ids are dense"),
        ((tf.sparse.from_dense([[1]]), tf.constant([[1.0]])), None, ValueError, "sparse but weights are not"),
        (tf.ragged.constant([[[1]]]), None, ValueError, "ragged_rank=2"),
    ],
)
def test_wrong_forms_are_refused_by_name(value, hotness, error, message) -> None:
    with pytest.raises(error, match=message) as caught:
        to_bags("genre", value, hotness)
    assert "feature 'genre'" in str(caught.value)


def test_different_row_splits_are_refused() -> None:
    ids, weights = tf.ragged.constant([[1, 2], [3]]), tf.ragged.constant([[1.0], [2.0, 3.0]])
    with pytest.raises(tf.errors.InvalidArgumentError, match="feature 'genre': the row splits"):
        to_bags("genre", (ids, weights), None)


@pytest.mark.parametrize(
    ("policy", "expected", "count"),
    [("clip", [0, 3, 9, 9], 2), ("modulo", [9, 3, 0, 5], 3), ("oov", [0, 3, 0, 0], 3)],
)
def test_policies(policy, expected, count) -> None:
    ids = [-1, 3, 10, 25] if policy != "clip" else [-1, 3, 9, 25]
    bags = to_bags("f", tf.constant(ids, tf.int64), 1)
    changed, counted = apply_policy(bags, policy, 10, "f", "t")
    np.testing.assert_array_equal(changed.ids[:, 0], expected)
    assert int(counted) == count


def test_strings_need_hashing() -> None:
    bags = to_bags("f", tf.constant(["a", "b"]), 1)
    hashed, _ = apply_policy(bags, "hash", 10, "f", "t")
    assert hashed.ids.dtype == tf.int64
    with pytest.raises(TypeError, match=r"feature 'f' .table 't'.: ids are strings but id_policy is 'error'"):
        apply_policy(bags, "error", 10, "f", "t")


@pytest.mark.parametrize("bad", [-1, 10, 2**31 - 1])
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", [tf.int32, tf.int64])
def test_out_of_range_names_feature_table_id_and_row(bad, compiled, dtype) -> None:
    columns = [("user", "users", 2**40), ("item", "items", 10)]
    check = tf.function(lambda ids: check_range(ids, columns, None)) if compiled else None
    ids = tf.constant([[5, 9], [11, bad]], dtype)
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        check(ids) if check else check_range(ids, columns, None)
    message = str(caught.value).replace("\\'", "'")
    assert f"feature 'item' (table 'items'): id {bad} in row 1 of the batch is outside [0, 10)" in message
    good = tf.constant([[5, 9]], dtype)
    np.testing.assert_array_equal(check(good) if check else check_range(good, columns, None), [[5, 9]])


def test_out_of_range_in_a_ragged_bag_names_the_row() -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match="id 12 in row 4 of the batch"):
        check_range(tf.constant([1, 12]), [("f", "t", 10)], tf.constant([0, 4]))


@pytest.mark.parametrize("form", ["dense", "ragged", "sparse", "weighted", "numpy"])
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_uint64_ids_keep_every_bit(form, data) -> None:
    size = data.draw(st.integers(1, 2**40))
    edges = st.sampled_from([0, size - 1, size, 2**63 - 1, 2**63, 2**64 - 1])
    ids = data.draw(st.lists(edges | st.integers(0, 2**64 - 1), min_size=1, max_size=8))
    policy = data.draw(st.sampled_from(["clip", "modulo", "oov"]))
    values = np.array(ids, np.uint64)
    given_ids = {
        "numpy": values,
        "dense": tf.constant(values)[:, tf.newaxis],
        "weighted": (tf.constant(values)[:, tf.newaxis], tf.ones([len(ids), 1])),
        "ragged": tf.RaggedTensor.from_row_lengths(tf.constant(values), [len(ids)]),
        "sparse": tf.SparseTensor([[k, 0] for k in range(len(ids))], tf.constant(values), [len(ids), 1]),
    }[form]
    stood_for = signed(given_ids, policy, size, "f", "t")
    bags, changed = apply_policy(to_bags("f", stood_for, None), policy, size, "f", "t")
    expected = {
        "clip": [min(one, size - 1) for one in ids],
        "modulo": [one % size for one in ids],
        "oov": [one if one < size else 0 for one in ids],
    }[policy]
    assert tf.reshape(bags.ids, [-1]).numpy().tolist() == expected
    assert int(changed) == sum(one >= size for one in ids)


def test_a_uint64_id_beyond_int64_is_refused_by_name() -> None:
    for call in (signed, tf.function(signed, autograph=False)):
        assert call(tf.constant([3, 2**63 - 1], tf.uint64), "error", 9, "f", "t").numpy().tolist() == [3, 2**63 - 1]
        with pytest.raises(tf.errors.InvalidArgumentError, match="id 18446744073709551615 is outside"):
            call(tf.constant([3, 2**64 - 1], tf.uint64), "error", 9, "f", "t")
