"""Dataset: rows that can be delivered as batches, the books of how many were read, and rows held in arrays."""

from __future__ import annotations

import abc
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from tfdlrm.data.batching import BatchCutter, BatchPlan, Nest, permutation_tensor, to_tensors
from tfdlrm.data.columns import Columns
from tfdlrm.schema import FeatureSpec

# Batches held ready. Enough to ride out a slow chunk, small beside the tables (330 kB each at 2048 x 40 columns).
PREFETCH_BATCHES = 8


@dataclass(frozen=True, kw_only=True)
class Books:
    """Where every row went: read = used + set aside, always.

    Args:
        read: rows found in the source.
        used: rows that became examples.
        set_aside: bad rows, counted and kept out.

    Raises:
        ValueError: the books do not balance.
    """

    read: int
    used: int
    set_aside: int

    def __post_init__(self) -> None:
        if self.read != self.used + self.set_aside:
            raise ValueError(
                f"Books: read={self.read} is not used={self.used} + set_aside={self.set_aside}. "
                "A reader lost or doubled rows; this is a defect of the reader."
            )

    def __str__(self) -> str:
        return f"{self.read:,} rows read = {self.used:,} used + {self.set_aside:,} set aside"


class Dataset(abc.ABC):
    """Rows of one schema, delivered as `tf.data` batches.

    A batch is `(features, labels)`, or `(features, labels, keys)`: features is a dict in schema order, `"dense"`
    float32 [B, num_dense] (if there are dense columns) and each categorical column: int [B] for hotness 1, [B, H]
    for a fixed hotness, a RaggedTensor [B, None] otherwise, or a pair `(ids, weights)` where ids are weighted;
    labels are float32 [B, tasks]; keys is a dict of [B].

    The order of rows depends on (seed, epoch) alone, so that training can continue at any batch.

    Attributes:
        spec: the columns.
        num_rows: rows an epoch.
        books: rows read, used and set aside.

    Example:
        >>> dataset = synthetic_dataset(SyntheticConfig(num_rows=1000, vocabulary_sizes=(10, 20)))
        >>> features, labels = next(iter(dataset.batches(32, shuffle=True, seed=1)))
        >>> list(features), labels.shape
        (['dense', 'cat_1', 'cat_2'], TensorShape([32, 1]))
    """

    def __init__(self, spec: FeatureSpec, num_rows: int, books: Books | None = None) -> None:
        self.spec = spec
        self.num_rows = num_rows
        self.books = books or Books(read=num_rows, used=num_rows, set_aside=0)

    @abc.abstractmethod
    def epoch_batches(self, plan: BatchPlan, epoch: tf.Tensor, start_batch: tf.Tensor) -> tf.data.Dataset:
        """Batches `start_batch` to `plan.num_batches(self.num_rows)` of one epoch.

        Args:
            plan: how rows become batches.
            epoch, start_batch: int64 scalars, known only when the dataset is iterated.
        """

    @abc.abstractmethod
    def sample(self, num_rows: int, seed: int = 0) -> Columns:
        """Some rows, from all over the dataset, in its order.

        Args:
            num_rows: at most.
            seed: of the draw.
        """

    def num_batches(self, batch_size: int, drop_remainder: bool = False) -> int:
        """Batches an epoch."""
        return BatchPlan(batch_size=batch_size, drop_remainder=drop_remainder).num_batches(self.num_rows)

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        epoch: int = 0,
        start_batch: int = 0,
        drop_remainder: bool = False,
        with_keys: bool = False,
        max_batches: int | None = None,
    ) -> tf.data.Dataset:
        """One epoch of batches, or what is left of it from `start_batch` on.

        Args:
            batch_size: rows a batch; the last batch may have fewer.
            shuffle: permute all rows, by (seed, epoch).
            seed, epoch: which permutation.
            start_batch: leave out the first so many batches, without reading them.
            drop_remainder: leave out a last batch of fewer rows; batches then have a static size.
            with_keys: carry the key columns and `row_id`.
            max_batches: end the epoch (counted from its first batch) after so many batches.

        Raises:
            ValueError: batch_size is below 1, or start_batch beyond the end of the epoch.
        """
        plan = BatchPlan(
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            drop_remainder=drop_remainder,
            with_keys=with_keys,
            max_batches=max_batches,
        )
        total = plan.num_batches(self.num_rows)
        check_start_batch(start_batch, total)
        batches = self.epoch_batches(plan, tf.constant(epoch, tf.int64), tf.constant(start_batch, tf.int64))
        return batches.apply(tf.data.experimental.assert_cardinality(total - start_batch)).prefetch(PREFETCH_BATCHES)


def check_start_batch(start_batch: int, num_batches: int) -> None:
    """Refuse a position that is not within the epoch or at its end."""
    if not 0 <= start_batch <= num_batches:
        raise ValueError(
            f"start_batch={start_batch} is not within the epoch of {num_batches} batches. "
            f"Give 0 to {num_batches}, and the batch size the position was counted in."
        )


def some_of(count: int, most: int, seed: int) -> np.ndarray:
    """int64, ascending: `most` of the numbers [0, count), drawn without replacement; all, where there are no more."""
    if most >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False, shuffle=False))


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

    def sample(self, num_rows: int, seed: int = 0) -> Columns:
        """See `Dataset.sample`; rows are drawn one by one."""
        return self.columns.take(some_of(self.num_rows, num_rows, seed))

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
