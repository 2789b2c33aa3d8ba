"""ResumableInput: one `tf.data.Dataset` for a whole run of epochs, which can begin at any batch of any epoch.

Keras makes a new iterator for every epoch (and one more, never read, after each; under a strategy also one
that it peeks into). So an epoch begins when an iterator is first *read*, not when it is made: that read takes the
position and moves it to the next epoch. `callback()` sets the position at `on_epoch_begin`, which makes it
right whatever Keras reads in between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from tfdlrm.data.batching import BatchPlan
from tfdlrm.data.dataset import PREFETCH_BATCHES, Dataset, check_start_batch
from tfdlrm.data.python_calls import python_call

if TYPE_CHECKING:
    import keras


_INPUT = "_tfdlrm_input"


def input_of(batches: tf.data.Dataset) -> ResumableInput | None:
    """The input whose batches these are, all of them as they are; None for any other."""
    return getattr(batches, _INPUT, None)


class ResumableInput:
    """Training input of several epochs, each in its own order of rows.

    Args:
        rows: what batches are made of.
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
        rows: Dataset,
        batch_size: int,
        *,
        shuffle: bool = True,
        seed: int = 0,
        position: tuple[int, int] = (0, 0),
        batches_per_epoch: int | None = None,
        drop_remainder: bool = False,
    ) -> None:
        self.rows = rows
        self.plan = BatchPlan(
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            drop_remainder=drop_remainder,
            max_batches=batches_per_epoch,
        )
        self.num_batches = self.plan.num_batches(rows.num_rows)
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

    def begin_epoch(self) -> tuple[int, int]:
        """The position, which is the beginning of the next epoch from now on."""
        position = self._position
        self._position = (position[0] + 1, 0)
        return position

    def dataset(self) -> tf.data.Dataset:
        """Batches `(features, labels)`; every iterator that is read delivers one epoch, the first what is left of it.

        Its cardinality is that of a whole epoch, also when the first is shorter: Keras fixes the number of steps
        an epoch by it. `callback()` ends a shorter first epoch without Keras's warning of missing data.
        """

        # plain TensorFlow all through: converting it by AutoGraph would take seconds
        @tf.autograph.experimental.do_not_convert
        def begin(_: tf.Tensor) -> tf.Tensor:
            position = python_call(lambda: np.asarray(self.begin_epoch(), np.int64), [], tf.int64)
            return tf.ensure_shape(position, [2])

        @tf.autograph.experimental.do_not_convert
        def read(position: tf.Tensor) -> tf.data.Dataset:
            return self.rows.epoch_batches(self.plan, position[0], position[1])

        batches = tf.data.Dataset.range(1).map(begin).flat_map(read).prefetch(PREFETCH_BATCHES)
        batches.cardinality = lambda: tf.constant(self.num_batches, tf.int64)
        return self.mark(batches)

    def mark(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """Makes `input_of` find this input by its batches; for what a dataset that is derived leaves as it is."""
        setattr(batches, _INPUT, self)
        return batches

    def callback(self) -> keras.callbacks.Callback:
        """A Keras callback that ties the position to Keras's epochs. Start `fit` with `initial_epoch=position[0]`."""

        return EpochPosition(self)


# True to Keras, and told apart from another callback's True.
_END_OF_EPOCH = "end of a resumed epoch"


class EpochPosition(keras.callbacks.Callback):
    """Sets the position at the start of every epoch, and ends a resumed first epoch where its batches end.

    Args:
        resumable: the input that `fit` is given.
    """

    def __init__(self, resumable: ResumableInput) -> None:
        super().__init__()
        self._input = resumable
        self._first = resumable.position
        self._last_step: int | None = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Point the input at this epoch."""
        start = self._first[1] if epoch == self._first[0] else 0
        self._input.position = (epoch, start)
        self._last_step = self._input.num_batches - start - 1 if start else None

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Leave Keras's loop over the epoch at the last batch there is."""
        if self._last_step is not None and batch >= self._last_step and not self.model.stop_training:
            self.model.stop_training = _END_OF_EPOCH

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Take back the stop, which was of the epoch and not of the training; anyone else's stays."""
        if self.model.stop_training is _END_OF_EPOCH:
            self.model.stop_training = False
