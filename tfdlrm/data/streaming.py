"""StreamingDataset: rows made or read block by block, in memory that does not grow with their number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import tensorflow as tf

from tfdlrm.data.batching import BatchCutter, BatchPlan, Nest, permutation, signature, to_arrays
from tfdlrm.data.columns import Columns, concatenate
from tfdlrm.data.dataset import Books, Dataset
from tfdlrm.schema import FeatureSpec

# Blocks whose rows are shuffled together. Blocks are visited in random order too, so a row meets rows from
# all over the dataset; more blocks mix finer and take more memory.
SHUFFLE_BLOCKS = 4


class BlockSource(Protocol):
    """Rows in blocks that can be read in any order; every block but the last has `block_rows` rows."""

    spec: FeatureSpec
    num_rows: int
    block_rows: int

    def read_block(self, block: int) -> Columns:
        """The rows of one block; the same each time."""


class StreamingDataset(Dataset):
    """Rows of a `BlockSource`, shuffled in windows of `SHUFFLE_BLOCKS` blocks taken in random order.

    Args:
        source: where blocks come from.
        books: how many rows the source read; by default all were used.
    """

    def __init__(self, source: BlockSource, books: Books | None = None) -> None:
        super().__init__(source.spec, source.num_rows, books)
        self.source = source
        self.num_blocks = -(-source.num_rows // source.block_rows)

    def _rows_of(self, block: int) -> int:
        return min(self.source.block_rows, self.num_rows - block * self.source.block_rows)

    def chunks(self, plan: BatchPlan, epoch: int, start_batch: int) -> Iterator[Columns]:
        """The rows of the epoch from `start_batch` on, in order, in pieces of whole batches (but for the last).

        Windows that end before `start_batch` are not read.
        """
        order = permutation(plan.seed, epoch, self.num_blocks) if plan.shuffle else np.arange(self.num_blocks)
        skip = start_batch * plan.batch_size
        left = min(plan.num_batches(self.num_rows) * plan.batch_size, self.num_rows) - skip
        if left <= 0:
            return
        carried: list[Columns] = []
        num_carried = 0
        for window, blocks in enumerate(_groups(order, SHUFFLE_BLOCKS if plan.shuffle else 1)):
            size = sum(self._rows_of(block) for block in blocks)
            if skip >= size:
                skip -= size
                continue
            rows = self._read_window(plan, epoch, window, blocks).slice(skip, size)
            skip = 0
            carried.append(rows)
            num_carried += rows.num_rows
            ready = min(num_carried - num_carried % plan.batch_size, left)
            if ready:
                piece = concatenate(carried)
                yield piece.slice(0, ready)
                left -= ready
                carried, num_carried = [piece.slice(ready, num_carried)], num_carried - ready
            if not left:
                return
        if left:
            yield concatenate(carried).slice(0, left)

    def _read_window(self, plan: BatchPlan, epoch: int, window: int, blocks: list[int]) -> Columns:
        rows = concatenate([self.source.read_block(block) for block in blocks])
        if not plan.shuffle:
            return rows
        # Three numbers seed it: the order of blocks, seeded by two, is another stream.
        generator = np.random.Generator(np.random.PCG64([plan.seed, epoch, window + 1]))
        return rows.take(generator.permutation(rows.num_rows))

    def epoch_batches(self, plan: BatchPlan, epoch: tf.Tensor, start_batch: tf.Tensor) -> tf.data.Dataset:
        """See `Dataset.epoch_batches`."""
        cutter = BatchCutter(self.spec, plan)

        def generate(epoch: np.ndarray, start_batch: np.ndarray) -> Iterator[Nest]:
            return (to_arrays(rows) for rows in self.chunks(plan, int(epoch), int(start_batch)))

        def cut_all(tensors: Nest) -> tf.data.Dataset:
            num_rows = tf.shape(tensors["labels"], tf.int64)[0]

            def cut(number: tf.Tensor) -> tuple:
                start = number * plan.batch_size
                return cutter.slice(tensors, start, tf.minimum(start + plan.batch_size, num_rows))

            return tf.data.Dataset.range(-(-num_rows // plan.batch_size)).map(cut)

        pieces = tf.data.Dataset.from_generator(
            generate, args=(epoch, start_batch), output_signature=signature(self.source.read_block(0).slice(0, 0))
        )
        # One chunk is made while the last is being used.
        return pieces.prefetch(1).flat_map(cut_all)


def _groups(items: np.ndarray, size: int) -> Iterator[list[int]]:
    for start in range(0, len(items), size):
        yield [int(item) for item in items[start : start + size]]
