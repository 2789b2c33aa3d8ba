"""StreamingDataset: rows made or read block by block, in memory that does not grow with their number."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from tfdlrm.data.batching import (
    BatchCutter,
    BatchPlan,
    permutation,
    plain_arrays,
    plain_batch,
    signature,
    to_arrays,
)
from tfdlrm.data.columns import Columns, concatenate
from tfdlrm.data.dataset import Books, Dataset, some_of
from tfdlrm.data.python_calls import python_call
from tfdlrm.schema import FeatureSpec

# Rows handed from Python to TensorFlow at once. The rows of a window lie far apart: of more, more share a cache line.
_PIECE_ROWS = 2**17
_SAMPLED_BLOCKS = 16


class BlockSource(Protocol):
    """Rows in blocks that can be read in any order; every block but the last has `block_rows` rows.

    `shuffle_blocks` blocks are shuffled together. Blocks are visited in random order too, so a row meets rows from
    all over the dataset; more blocks mix finer and take more memory.
    """

    spec: FeatureSpec
    num_rows: int
    block_rows: int
    shuffle_blocks: int

    def read_block(self, block: int) -> Columns:
        """The rows of one block; the same each time."""

    def read_blocks(self, blocks: Sequence[int], *, keys: bool = True) -> Columns:
        """The rows of some blocks, one after another; without their keys where nobody asks for them."""


class EpochRows:
    """The rows of one epoch in its order, readable at any place.

    Without shuffling that is the order of the source. With it, blocks stand in random order, in windows of
    the source's `shuffle_blocks`, and the rows of a window in random order.

    Args:
        source: where blocks come from.
        shuffle, seed, epoch: the order.
        keys: read the key columns as well.
    """

    def __init__(self, source: BlockSource, *, shuffle: bool, seed: int, epoch: int, keys: bool = True) -> None:
        self._source, self._keys = source, keys
        self._seeds = [seed, epoch] if shuffle else None
        num_blocks = -(-source.num_rows // source.block_rows)
        order = permutation(seed, epoch, num_blocks) if shuffle else np.arange(num_blocks)
        size = source.shuffle_blocks if shuffle else 1
        self._windows = [[int(block) for block in order[i : i + size]] for i in range(0, num_blocks, size)]
        rows = np.minimum(order.astype(np.int64) * source.block_rows + source.block_rows, source.num_rows)
        rows -= order.astype(np.int64) * source.block_rows
        self._bounds = np.concatenate([[0], np.cumsum(np.add.reduceat(rows, np.arange(0, num_blocks, size)))])
        self._window_numbers = functools.lru_cache(maxsize=2)(self._numbers_of)
        # Rows are asked for in order, in pieces that end within windows: the window at hand is kept.
        self._kept: tuple[int, Columns] | None = None

    def read(self, start: int, stop: int) -> Columns:
        """Rows [start, stop) of the epoch, start < stop; other windows are not read."""
        return concatenate([self._window(window).slice(low, high) for window, low, high in self._places(start, stop)])

    def numbers(self, start: int, stop: int) -> np.ndarray:
        """int64 [stop - start]: which rows of the source these are."""
        parts = [self._window_numbers(window)[low:high] for window, low, high in self._places(start, stop)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _places(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Rows [start, stop) as (window, its first row, its last row + 1)."""
        first, last = np.searchsorted(self._bounds, [start, stop - 1], side="right") - 1
        for window in range(int(first), int(last) + 1):
            low, high = self._bounds[window : window + 2].tolist()
            yield window, max(start - low, 0), min(stop, high) - low

    def _numbers_of(self, window: int) -> np.ndarray:
        size, total = self._source.block_rows, self._source.num_rows
        blocks = self._windows[window]
        rows = np.concatenate([np.arange(block * size, min((block + 1) * size, total)) for block in blocks])
        order = self._permutation(window, len(rows))
        return rows if order is None else rows[order]

    def _permutation(self, window: int, num_rows: int) -> np.ndarray | None:
        if self._seeds is None:
            return None
        # Three numbers seed it: the order of blocks, seeded by two, is another stream.
        return np.random.Generator(np.random.PCG64([*self._seeds, window + 1])).permutation(num_rows)

    def _window(self, window: int) -> Columns:
        kept = self._kept
        if kept is None or kept[0] != window:
            kept = self._kept = (window, self._read_window(window))
        return kept[1]

    def _read_window(self, window: int) -> Columns:
        rows = self._source.read_blocks(self._windows[window], keys=self._keys)
        order = self._permutation(window, rows.num_rows)
        return rows if order is None else rows.take(order)


class StreamingDataset(Dataset):
    """Rows of a `BlockSource`, in the order of `EpochRows`.

    Args:
        source: where blocks come from.
        books: how many rows the source read; by default all were used.
        origin: what `tfdlrm.data.origins` opens the same rows by in another process, where that can be done.
    """

    # pieces made at once; rows that come through windows are read one window after another
    _parallel_pieces = 1

    def __init__(
        self, source: BlockSource, books: Books | None = None, *, origin: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(source.spec, source.num_rows, books)
        self.source = source
        self.origin = origin
        self._epoch_rows = functools.lru_cache(maxsize=1)(functools.partial(EpochRows, source))

    @property
    def num_blocks(self) -> int:
        """Blocks of the source."""
        return -(-self.num_rows // self.source.block_rows)

    def sample(self, num_rows: int, seed: int = 0) -> Columns:
        """See `Dataset.sample`; of `_SAMPLED_BLOCKS` blocks drawn at random, or as many as so many rows need."""
        needed = max(_SAMPLED_BLOCKS, -(-num_rows // self.source.block_rows))
        blocks = some_of(self.num_blocks, needed, seed)
        rows = self.source.read_blocks(blocks.tolist())
        return rows.take(some_of(rows.num_rows, num_rows, seed))

    def epoch_batches(self, plan: BatchPlan, epoch: tf.Tensor, start_batch: tf.Tensor) -> tf.data.Dataset:
        """See `Dataset.epoch_batches`."""
        if self._is_plain(plan):
            return self._stacked_batches(plan, epoch, start_batch)
        return self._cut_batches(plan, epoch, start_batch)

    def row_form(self, plan: BatchPlan) -> Any:
        """TensorSpecs of what `read_rows` gives, any number of rows."""
        if self._is_plain(plan):
            return plain_batch(self.spec, replace(plan, drop_remainder=False))
        return signature(self.source.read_blocks([0], keys=plan.with_keys).slice(0, 0))

    def read_rows(self, plan: BatchPlan, epoch: int, start: int, stop: int) -> list[np.ndarray]:
        """Rows [start, stop) of an epoch, as the flat arrays of `row_form`."""
        plain = self._is_plain(plan)
        rows = self._epoch_rows(shuffle=plan.shuffle, seed=plan.seed, epoch=epoch, keys=plan.with_keys)
        return tf.nest.flatten(self._plain_rows(rows, start, stop) if plain else to_arrays(rows.read(start, stop)))

    def to_batch(self, plan: BatchPlan, tensors: Any) -> tuple:
        """The batch that all rows of `row_form` are, in a graph."""
        if self._is_plain(plan):
            return tensors
        return BatchCutter(self.spec, plan).slice(tensors, 0, tf.shape(tensors["labels"], tf.int64)[0])

    def _is_plain(self, plan: BatchPlan) -> bool:
        """Whether a batch is an array a feature, and nothing has to be cut from packed columns."""
        return not plan.with_keys and all(c.hotness is not None and not c.weights for c in self.spec.categorical)

    def _stacked_batches(self, plan: BatchPlan, epoch: tf.Tensor, start_batch: tf.Tensor) -> tf.data.Dataset:
        """Pieces of whole batches, feature by feature: to take them apart needs no operation of a graph."""
        form = tf.nest.map_structure(
            lambda spec: tf.TensorSpec([None, *spec.shape], spec.dtype), plain_batch(self.spec, plan)
        )
        num_batches = plan.num_batches(self.num_rows)
        num_whole = min(num_batches, self.num_rows // plan.batch_size)
        piece_batches = max(1, _PIECE_ROWS // plan.batch_size)

        def read(epoch: np.ndarray, first: np.ndarray, last: np.ndarray) -> list[np.ndarray]:
            bounds = int(first) * plan.batch_size, min(int(last) * plan.batch_size, self.num_rows)
            arrays = self.read_rows(plan, int(epoch), *bounds)
            return [array.reshape(int(last - first), -1, *array.shape[1:]) for array in arrays]

        def piece(first: tf.Tensor) -> tf.data.Dataset:
            # a last batch of fewer rows makes a piece of its own: the batches of a piece are equally long
            end = tf.where(first < num_whole, tf.constant(num_whole, tf.int64), num_batches)
            last = tf.minimum(first + piece_batches, end)
            return _called(read, [epoch, first, last], form)

        whole = tf.data.Dataset.range(start_batch, num_whole, piece_batches)
        rest = tf.data.Dataset.range(tf.maximum(start_batch, num_whole), num_batches)
        # While the batches of one piece are used, the next ones are made, beside each other where the source allows it.
        pieces = whole.concatenate(rest).map(piece, num_parallel_calls=self._parallel_pieces, deterministic=True)
        pieces = pieces.prefetch(1)
        return pieces.flat_map(lambda *batches: tf.data.Dataset.from_tensor_slices(batches))

    def _plain_rows(self, rows: EpochRows, start: int, stop: int) -> tuple:
        """Rows [start, stop) of an epoch as `plain_arrays`."""
        return plain_arrays(self.spec, rows.read(start, stop))

    def _cut_batches(self, plan: BatchPlan, epoch: tf.Tensor, start_batch: tf.Tensor) -> tf.data.Dataset:
        """Batches cut from pieces of about a window, of whole batches; rows of any kind."""
        cutter = BatchCutter(self.spec, plan)
        num_batches = plan.num_batches(self.num_rows)
        piece_batches = max(1, self.source.shuffle_blocks * self.source.block_rows // plan.batch_size)
        form = self.row_form(plan)

        def read(epoch: np.ndarray, start: np.ndarray, stop: np.ndarray) -> list[np.ndarray]:
            return self.read_rows(plan, int(epoch), int(start), int(stop))

        def piece(number: tf.Tensor) -> dict:
            first = tf.maximum(start_batch, number * piece_batches)
            last = tf.minimum((number + 1) * piece_batches, num_batches)
            bounds = [first * plan.batch_size, tf.minimum(last * plan.batch_size, self.num_rows)]
            return _called(read, [epoch, *bounds], form)

        def cut_all(tensors: dict) -> tf.data.Dataset:
            num_rows = tf.shape(tensors["labels"], tf.int64)[0]

            def cut(number: tf.Tensor) -> tuple:
                start = number * plan.batch_size
                return cutter.slice(tensors, start, tf.minimum(start + plan.batch_size, num_rows))

            return tf.data.Dataset.range(-(-num_rows // plan.batch_size)).map(cut)

        # start_batch may be the end: there are no pieces then
        first_piece = tf.where(
            start_batch < num_batches, start_batch // piece_batches, -(-num_batches // piece_batches)
        )
        pieces = tf.data.Dataset.range(first_piece, -(-num_batches // piece_batches)).map(piece)
        # One piece is made while the last is being used.
        return pieces.prefetch(1).flat_map(cut_all)


def _called(read: Callable[..., list[np.ndarray]], inputs: list[tf.Tensor], form: Any) -> Any:
    """What a Python function returns, as tensors in a structure of `TensorSpec`s."""
    return shaped(python_call(read, inputs, [spec.dtype for spec in tf.nest.flatten(form)]), form)


def shaped(tensors: Sequence[tf.Tensor], form: Any) -> Any:
    """Flat tensors of unknown shapes in a structure of `TensorSpec`s."""
    specs = tf.nest.flatten(form)
    known = [tf.ensure_shape(tensor, spec.shape) for tensor, spec in zip(tensors, specs, strict=True)]
    return tf.nest.pack_sequence_as(form, known)
