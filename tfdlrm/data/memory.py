"""InMemoryDataset: rows held in arrays, shuffled by one permutation of all rows."""

from __future__ import annotations

import tensorflow as tf

from tfdlrm.data.batching import BatchCutter, BatchPlan, Nest, permutation_tensor, to_tensors
from tfdlrm.data.columns import Columns
from tfdlrm.data.dataset import Books, Dataset
from tfdlrm.schema import FeatureSpec


class InMemoryDataset(Dataset):
    """Rows in packed arrays; every epoch is a permutation of all of them.

    Args:
        spec: the columns.
        columns: the rows. Do not change the arrays afterwards: tensors share their memory.
        books: how many rows were read for them; by default all were used.
    """

    def __init__(self, spec: FeatureSpec, columns: Columns, books: Books | None = None) -> None:
        super().__init__(spec, columns.num_rows, books)
        self.columns = columns
        self._made: dict[bool, Nest] = {}

    def _tensors(self, with_keys: bool) -> Nest:
        if with_keys not in self._made:
            # Made outside of any graph: they are captured by reference, never embedded as constants.
            with tf.init_scope():
                self._made[with_keys] = to_tensors(self.columns, with_keys=with_keys)
        return self._made[with_keys]

    def epoch_batches(self, plan: BatchPlan, epoch: tf.Tensor, start_batch: tf.Tensor) -> tf.data.Dataset:
        """See `Dataset.epoch_batches`."""
        cutter = BatchCutter(self.spec, plan)
        tensors = self._tensors(plan.with_keys)
        numbers = tf.data.Dataset.range(start_batch, plan.num_batches(self.num_rows))

        def bounds(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            start = number * plan.batch_size
            return start, tf.minimum(start + plan.batch_size, self.num_rows)

        if not plan.shuffle:
            return numbers.map(lambda number: cutter.slice(tensors, *bounds(number)))

        def shuffled(order: tf.Tensor) -> tf.data.Dataset:
            def cut(number: tf.Tensor) -> tuple:
                start, stop = bounds(number)
                return cutter.take(tensors, order[start:stop])

            return numbers.map(cut)

        # The permutation is drawn when the first batch is asked for, once an epoch.
        orders = tf.data.Dataset.from_tensors(epoch).map(
            lambda number: permutation_tensor(plan.seed, number, self.num_rows)
        )
        return orders.flat_map(shuffled)
