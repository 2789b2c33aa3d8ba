"""The Keras side of `ResumableInput`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras

if TYPE_CHECKING:
    from tfdlrm.data.epochs import ResumableInput


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
