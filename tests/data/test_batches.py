"""Contract of every dataset: order by (seed, epoch), resumption at any batch, remainders, and the form of a batch."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tests.data.sample_rows import columns_of_every_kind, plain_columns
from tfdlrm.data import Books, Dataset, InMemoryDataset, StreamingDataset
from tfdlrm.data.batching import permutation, to_tensors
from tfdlrm.data.columns import Columns, aligned_array, concatenate, id_dtype
from tfdlrm.data.streaming import EpochRows
from tfdlrm.schema import CategoricalColumn, FeatureSpec


class ArrayBlocks:
    """A `BlockSource` over rows in memory that notes which blocks were read."""

    def __init__(self, spec: FeatureSpec, columns: Columns, block_rows: int) -> None:
        self.spec = spec
        self.columns = columns
        self.num_rows = columns.num_rows
        self.block_rows = block_rows
        self.shuffle_blocks = 4
        self.read: list[int] = []

    def read_block(self, block: int) -> Columns:
        self.read.append(block)
        return self.columns.slice(block * self.block_rows, min((block + 1) * self.block_rows, self.num_rows))

    def read_blocks(self, blocks: Sequence[int], *, keys: bool = True) -> Columns:
        rows = concatenate([self.read_block(block) for block in blocks])
        return rows if keys else replace(rows, keys={})


def in_memory(spec: FeatureSpec, columns: Columns) -> Dataset:
    return InMemoryDataset(spec, columns)


def streaming(block_rows: int) -> Callable[[FeatureSpec, Columns], Dataset]:
    return lambda spec, columns: StreamingDataset(ArrayBlocks(spec, columns, block_rows))


MAKERS = {"in memory": in_memory, "streaming": streaming(4)}
every_dataset = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())


def _rows(batches: tf.data.Dataset) -> list[list[int]]:
    """Numbers of the rows of each batch."""
    return [features["dense"].numpy()[:, 0].astype(int).tolist() for features, *_ in batches]


def _to_python(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _to_python(item) for name, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_to_python(item) for item in value)
    return value.to_list() if isinstance(value, tf.RaggedTensor) else value.numpy().tolist()


@every_dataset
@pytest.mark.parametrize("shuffle", [False, True])
def test_every_row_comes_once_with_its_own_cells(make: Callable, shuffle: bool) -> None:
    spec, columns = columns_of_every_kind(23)
    batches = list(make(spec, columns).batches(5, shuffle=shuffle, seed=3, with_keys=True))
    assert [labels.shape[0] for _, labels, _ in batches] == [5, 5, 5, 5, 3]
    seen = []
    for features, labels, keys in batches:
        assert list(features) == ["dense", "z_item", "pair", "tags", "seen", "a_item"]
        rows = keys["row_id"].numpy()
        seen.extend(rows.tolist())
        expected = columns.take(rows)
        np.testing.assert_array_equal(features["dense"], expected.dense)
        np.testing.assert_array_equal(labels, expected.labels)
        np.testing.assert_array_equal(features["z_item"], expected.ids[:, 0])
        np.testing.assert_array_equal(features["pair"][0], expected.ids[:, 1:3])
        np.testing.assert_array_equal(features["pair"][1], expected.weights[:, :2])
        np.testing.assert_array_equal(features["a_item"][0], expected.ids[:, 3])
        np.testing.assert_array_equal(features["a_item"][1], expected.weights[:, 2])
        np.testing.assert_array_equal(features["tags"].values, expected.ragged["tags"].values)
        np.testing.assert_array_equal(features["tags"].row_splits, expected.ragged["tags"].row_splits)
        ids, weights = features["seen"]
        np.testing.assert_array_equal(ids.values, expected.ragged["seen"].values)
        np.testing.assert_array_equal(weights.values, expected.ragged["seen"].weights)
        np.testing.assert_array_equal(weights.row_splits, expected.ragged["seen"].row_splits)
        assert keys["user"].numpy().tolist() == [user.encode() for user in expected.keys["user"]]
    assert sorted(seen) == list(range(23))
    assert (seen == list(range(23))) is not shuffle


@every_dataset
def test_dtypes_and_shapes(make: Callable) -> None:
    spec, columns = columns_of_every_kind(7)
    features, labels = make(spec, columns).batches(4).element_spec
    assert features["dense"] == tf.TensorSpec([None, 2], tf.float32)
    assert labels == tf.TensorSpec([None, 2], tf.float32)
    assert features["z_item"] == tf.TensorSpec([None], tf.int32)
    assert features["pair"][0] == tf.TensorSpec([None, 2], tf.int32)
    assert features["tags"].dtype == tf.int32
    assert features["tags"].shape.as_list() == [None, None]
    assert features["seen"][1].dtype == tf.float32
    features, labels = make(spec, columns).batches(4, drop_remainder=True).element_spec
    assert features["dense"].shape == [4, 2]
    assert labels.shape == [4, 2]
    assert features["z_item"].shape == [4]
    assert features["pair"][1].shape == [4, 2]


@every_dataset
@pytest.mark.parametrize("shuffle", [False, True])
def test_an_epoch_resumes_at_every_batch(make: Callable, shuffle: bool) -> None:
    dataset = make(*plain_columns(18))
    options = {"shuffle": shuffle, "seed": 7, "epoch": 2}
    whole = _rows(dataset.batches(5, **options))
    assert len(whole) == dataset.num_batches(5) == 4
    for start in range(5):
        rest = dataset.batches(5, start_batch=start, **options)
        assert int(rest.cardinality()) == 4 - start
        assert _rows(rest) == whole[start:]


@given(
    num_rows=st.integers(1, 60),
    block_rows=st.integers(1, 20),
    shuffle=st.booleans(),
    bounds=st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), max_size=10),
)
def test_a_stream_can_be_read_anywhere(
    num_rows: int, block_rows: int, shuffle: bool, bounds: list[tuple[int, int]]
) -> None:
    epoch = EpochRows(ArrayBlocks(*plain_columns(num_rows), block_rows), shuffle=shuffle, seed=3, epoch=1)
    whole = epoch.read(0, num_rows).dense[:, 0].astype(int).tolist()
    assert sorted(whole) == list(range(num_rows))
    assert shuffle or whole == sorted(whole)
    for start, stop in bounds:
        if start % num_rows < stop % num_rows:
            piece = epoch.read(start % num_rows, stop % num_rows)
            assert piece.dense[:, 0].astype(int).tolist() == whole[start % num_rows : stop % num_rows]


@every_dataset
def test_every_kind_of_column_resumes(make: Callable) -> None:
    dataset = make(*columns_of_every_kind(23))
    options = {"shuffle": True, "seed": 7, "with_keys": True}
    whole = [_to_python(batch) for batch in dataset.batches(5, **options)]
    assert [_to_python(batch) for batch in dataset.batches(5, start_batch=2, **options)] == whole[2:]


@every_dataset
@pytest.mark.parametrize(("num_rows", "batch_size"), [(20, 5), (1, 1), (5, 1), (3, 100)])
def test_sizes(make: Callable, num_rows: int, batch_size: int) -> None:
    dataset = make(*plain_columns(num_rows))
    rows = _rows(dataset.batches(batch_size, shuffle=True))
    assert len(rows) == dataset.num_batches(batch_size) == -(-num_rows // batch_size)
    assert [len(batch) for batch in rows[:-1]] == [batch_size] * (len(rows) - 1)
    assert sorted(row for batch in rows for row in batch) == list(range(num_rows))


@every_dataset
def test_the_order_is_that_of_seed_and_epoch(make: Callable) -> None:
    dataset = make(*plain_columns(60))

    def order(**options: Any) -> list[list[int]]:
        return _rows(dataset.batches(7, shuffle=True, **options))

    assert order(seed=1, epoch=0) == order(seed=1, epoch=0)
    others = [order(seed=1, epoch=1), order(seed=2, epoch=0), order(seed=0, epoch=1), order(seed=0, epoch=0)]
    assert all(other != order(seed=1, epoch=0) for other in others)
    assert _rows(dataset.batches(7, seed=1)) == _rows(dataset.batches(7, seed=2, epoch=5))
    again = dataset.batches(7, shuffle=True, seed=1)
    assert _rows(again) == _rows(again)  # a dataset may be iterated any number of times


@every_dataset
def test_remainders_and_limits(make: Callable) -> None:
    dataset = make(*plain_columns(23))
    whole = _rows(dataset.batches(5, shuffle=True))
    assert _rows(dataset.batches(5, shuffle=True, drop_remainder=True)) == whole[:4]
    assert _rows(dataset.batches(5, shuffle=True, max_batches=2)) == whole[:2]
    assert _rows(dataset.batches(5, shuffle=True, max_batches=3, start_batch=1)) == whole[1:3]
    assert _rows(dataset.batches(5, shuffle=True, max_batches=99)) == whole
    assert dataset.num_batches(5, drop_remainder=True) == 4
    assert dataset.num_batches(50, drop_remainder=True) == 0
    assert _rows(dataset.batches(50, drop_remainder=True)) == []


@every_dataset
def test_impossible_requests_are_refused(make: Callable) -> None:
    dataset = make(*plain_columns(10))
    with pytest.raises(ValueError, match="batch_size=0 is not possible"):
        dataset.batches(0)
    with pytest.raises(ValueError, match="max_batches=-1 is not possible"):
        dataset.batches(2, max_batches=-1)
    with pytest.raises(ValueError, match="start_batch=6 is not within the epoch of 5 batches"):
        dataset.batches(2, start_batch=6)


def test_a_resumed_stream_does_not_read_what_it_skips() -> None:
    source = ArrayBlocks(*plain_columns(100), block_rows=10)
    dataset = StreamingDataset(source)
    source.read.clear()
    assert len(list(dataset.batches(5, start_batch=14))) == 6
    assert sorted(set(source.read) - {0}) == [7, 8, 9]  # block 0 is read for its dtypes


def test_shuffled_streams_mix_blocks() -> None:
    dataset = streaming(16)(*plain_columns(16 * 32))
    first = [row for batch in _rows(dataset.batches(16, shuffle=True, seed=1, max_batches=4)) for row in batch]
    assert len({row // 16 for row in first}) == 4
    assert first != sorted(first)


@given(num_items=st.integers(0, 200), seed=st.integers(0, 2**31), epoch=st.integers(0, 1000))
def test_permutations(num_items: int, seed: int, epoch: int) -> None:
    order = permutation(seed, epoch, num_items)
    assert sorted(order.tolist()) == list(range(num_items))
    assert order.dtype == np.int32
    np.testing.assert_array_equal(order, permutation(seed, epoch, num_items))


def test_permutations_are_uniform() -> None:
    """Chi-square over all 24 orders of 4 items; 99.99th percentile for 23 degrees of freedom: 58.6."""
    counts: dict[tuple[int, ...], int] = {}
    for epoch in range(2400):
        order = tuple(permutation(0, epoch, 4).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 24
    assert sum((count - 100) ** 2 / 100 for count in counts.values()) < 58.6


def test_the_tensors_share_the_memory_of_aligned_arrays() -> None:
    spec, columns = columns_of_every_kind(8)
    dense = aligned_array((8, 2), np.float32)
    dense[:] = columns.dense
    dataset = InMemoryDataset(spec, Columns(**{**vars(columns), "dense": dense}))
    tensors = to_tensors(dataset.columns, with_keys=False)
    dense[0, 0] = 77.0
    assert float(tensors["dense"][0, 0]) == 77.0


def test_ids_are_int64_where_they_may_be_large() -> None:
    def spec(size: int, **column: Any) -> FeatureSpec:
        return FeatureSpec(
            labels=("y",), categorical=(CategoricalColumn(name="a", **column),), vocabulary_sizes={"a": size}
        )

    assert id_dtype(spec(10)) == np.int32
    assert id_dtype(spec(2**31)) == np.int64
    assert id_dtype(spec(10, id_policy="modulo")) == np.int64
    assert id_dtype(spec(10, id_policy="oov", encoding="vocabulary")) == np.int32


@given(st.lists(st.integers(0, 6), min_size=1, max_size=6), st.data())
def test_columns_taken_and_sliced(sizes: list[int], data: st.DataObject) -> None:
    total = sum(sizes)
    _, columns = columns_of_every_kind(total)
    parts, start = [], 0
    for size in sizes:
        parts.append(columns.slice(start, start + size))
        start += size
    joined = concatenate(parts)
    rows = np.array(data.draw(st.lists(st.integers(0, max(total - 1, 0)), max_size=8 if total else 0)), np.int64)
    taken = joined.take(rows)
    for name, column in columns.ragged.items():
        np.testing.assert_array_equal(joined.ragged[name].values, column.values)
        np.testing.assert_array_equal(joined.ragged[name].row_splits, column.row_splits)
        bags = [column.values[column.row_splits[row] : column.row_splits[row + 1]].tolist() for row in rows]
        splits = taken.ragged[name].row_splits
        found = [taken.ragged[name].values[low:high].tolist() for low, high in itertools.pairwise(splits)]
        assert found == bags
        assert taken.ragged[name].num_rows == len(rows)
    np.testing.assert_array_equal(taken.ids, columns.ids[rows])


def test_books_must_balance() -> None:
    assert str(Books(read=1200, used=1199, set_aside=1)) == "1,200 rows read = 1,199 used + 1 set aside"
    with pytest.raises(ValueError, match="read=3 is not used=1"):
        Books(read=3, used=1, set_aside=1)
