"""StreamingDataset: rows made or read block by block, in memory that does not grow with their number."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import tensorflow as tf

from tfdlrm.data.batching import BatchCutter, BatchPlan, permutation, signature, to_arrays
from tfdlrm.data.columns import Columns, concatenate
from tfdlrm.data.dataset import Books, Dataset
from tfdlrm.data.python_calls import python_call
from tfdlrm.schema import FeatureSpec


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

    def read_blocks(self, blocks: Sequence[int]) -> Columns:
        """The rows of some blocks, one after another."""


class EpochRows:
    """The rows of one epoch in its order, readable at any place.

    Without shuffling that is the order of the source. With it, blocks stand in random order, in windows of
    the source's `shuffle_blocks`, and the rows of a window in random order.

    Args:
        source: where blocks come from.
        shuffle, seed, epoch: the order.
    """

    def __init__(self, source: BlockSource, *, shuffle: bool, seed: int, epoch: int) -> None:
        self._source = source
        self._seeds = [seed, epoch] if shuffle else None
        num_blocks = -(-source.num_rows // source.block_rows)
        order = permutation(seed, epoch, num_blocks) if shuffle else np.arange(num_blocks)
        size = source.shuffle_blocks
        self._windows = [[int(block) for block in order[i : i + size]] for i in range(0, num_blocks, size)]
        rows = np.minimum(order.astype(np.int64) * source.block_rows + source.block_rows, source.num_rows)
        rows -= order.astype(np.int64) * source.block_rows
        self._bounds = np.concatenate([[0], np.cumsum(np.add.reduceat(rows, np.arange(0, num_blocks, size)))])
        # Rows are asked for in order, in pieces that end within windows: the window at hand is kept.
        self._kept: tuple[int, Columns] | None = None

    def read(self, start: int, stop: int) -> Columns:
        """Rows [start, stop) of the epoch, start < stop; other windows are not read."""
        first, last = np.searchsorted(self._bounds, [start, stop - 1], side="right") - 1
        parts = []
        for window in range(int(first), int(last) + 1):
            low, high = self._bounds[window : window + 2]
            parts.append(self._window(window).slice(max(start - low, 0), min(stop, high) - low))
        return concatenate(parts)

    def _window(self, window: int) -> Columns:
        kept = self._kept
        if kept is None or kept[0] != window:
            kept = self._kept = (window, self._read_window(window))
        return kept[1]

    def _read_window(self, window: int) -> Columns:
        rows = self._source.read_blocks(self._windows[window])
        if self._seeds is None:
            return rows
        # Three numbers seed it: the order of blocks, seeded by two, is another stream.
        generator = np.random.Generator(np.random.PCG64([*self._seeds, window + 1]))
        return rows.take(generator.permutation(rows.num_rows))


class StreamingDataset(Dataset):
    """Rows of a `BlockSource`, in the order of `EpochRows`.

    Args:
        source: where blocks come from.
        books: how many rows the source read; by default all were used.
    """

    def __init__(self, source: BlockSource, books: Books | None = None) -> None:
        super().__init__(source.spec, source.num_rows, books)
        self.source = source
        self._epoch_rows = functools.lru_cache(maxsize=1)(functools.partial(EpochRows, source))

    @property
    def num_blocks(self) -> int:
        """Blocks of the source."""
        return -(-self.num_rows // self.source.block_rows)

    def epoch_batches(self, plan: BatchPlan, epoch: tf.Tensor, start_batch: tf.Tensor) -> tf.data.Dataset:
        """See `Dataset.epoch_batches`. Rows come in pieces of about a window, of whole batches."""
        cutter = BatchCutter(self.spec, plan)
        num_batches = plan.num_batches(self.num_rows)
        piece_batches = max(1, self.source.shuffle_blocks * self.source.block_rows // plan.batch_size)
        form = signature(self.source.read_block(0).slice(0, 0))

        def read(epoch: np.ndarray, start: np.ndarray, stop: np.ndarray) -> list[np.ndarray]:
            rows = self._epoch_rows(shuffle=plan.shuffle, seed=plan.seed, epoch=int(epoch))
            return tf.nest.flatten(to_arrays(rows.read(int(start), int(stop))))

        def piece(number: tf.Tensor) -> dict:
            first = tf.maximum(start_batch, number * piece_batches)
            last = tf.minimum((number + 1) * piece_batches, num_batches)
            bounds = [first * plan.batch_size, tf.minimum(last * plan.batch_size, self.num_rows)]
            specs = tf.nest.flatten(form)
            tensors = python_call(read, [epoch, *bounds], [spec.dtype for spec in specs])
            shaped = [tf.ensure_shape(tensor, spec.shape) for tensor, spec in zip(tensors, specs, strict=True)]
            return tf.nest.pack_sequence_as(form, shaped)

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
