"""ResumableInput: one `tf.data.Dataset` for a whole run of epochs, which can begin at any batch of any epoch.

Keras makes a new iterator for every epoch (and one more, never read, after each; under a strategy also one
that it peeks into). So an epoch begins when an iterator is first *read*, not when it is made: that read takes the
position and moves it to the next epoch. `callback()` sets the position at `on_epoch_begin`, which makes it
right whatever Keras reads in between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from tfdlrm.data.batching import BatchPlan
from tfdlrm.data.dataset import PREFETCH_BATCHES, Dataset, check_start_batch
from tfdlrm.data.python_calls import python_call

if TYPE_CHECKING:
    import keras


class ResumableInput:
    """Training input of several epochs, each in its own order of rows.

    Args:
        dataset: the rows.
        batch_size: rows a batch.
        shuffle, seed: a new permutation each epoch, by (seed, epoch).
        position: (epoch, batch) of the first batch to deliver.
        batches_per_epoch: end epochs after so many batches; None for all rows.
        drop_remainder: leave out a last batch of fewer rows.

    Raises:
        ValueError: the position is not within the epoch.

    Example:
        >>> resumable = ResumableInput(train, 2048, shuffle=True, seed=0, position=(2, 100))
        >>> model.fit(resumable.dataset(), initial_epoch=2, epochs=5, callbacks=[resumable.callback()])
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        *,
        shuffle: bool = True,
        seed: int = 0,
        position: tuple[int, int] = (0, 0),
        batches_per_epoch: int | None = None,
        drop_remainder: bool = False,
    ) -> None:
        self._dataset = dataset
        self._plan = BatchPlan(
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            drop_remainder=drop_remainder,
            max_batches=batches_per_epoch,
        )
        self.num_batches = self._plan.num_batches(dataset.num_rows)
        self.position = position

    @property
    def position(self) -> tuple[int, int]:
        """(epoch, batch) at which the next iterator to be read begins."""
        return self._position

    @position.setter
    def position(self, position: tuple[int, int]) -> None:
        epoch, batch = int(position[0]), int(position[1])
        check_start_batch(batch, self.num_batches)
        # The end of an epoch is the beginning of the next: an epoch without batches would stall Keras.
        self._position = (epoch, batch) if batch < self.num_batches else (epoch + 1, 0)

    def _begin_epoch(self) -> np.ndarray:
        position = self._position
        self._position = (position[0] + 1, 0)
        return np.asarray(position, np.int64)

    def dataset(self) -> tf.data.Dataset:
        """Batches `(features, labels)`; every iterator that is read delivers one epoch, the first what is left of it.

        Its cardinality is that of a whole epoch, also when the first is shorter: Keras fixes the number of steps
        an epoch by it. `callback()` ends a shorter first epoch without Keras's warning of missing data.
        """

        # plain TensorFlow all through: converting it by AutoGraph would take seconds
        @tf.autograph.experimental.do_not_convert
        def begin(_: tf.Tensor) -> tf.Tensor:
            position = python_call(self._begin_epoch, [], tf.int64)
            return tf.ensure_shape(position, [2])

        @tf.autograph.experimental.do_not_convert
        def read(position: tf.Tensor) -> tf.data.Dataset:
            return self._dataset.epoch_batches(self._plan, position[0], position[1])

        batches = tf.data.Dataset.range(1).map(begin).flat_map(read).prefetch(PREFETCH_BATCHES)
        batches.cardinality = lambda: tf.constant(self.num_batches, tf.int64)
        return batches

    def callback(self) -> keras.callbacks.Callback:
        """A Keras callback that ties the position to Keras's epochs. Start `fit` with `initial_epoch=position[0]`."""
        from tfdlrm.data.epoch_callback import EpochPosition

        return EpochPosition(self)
