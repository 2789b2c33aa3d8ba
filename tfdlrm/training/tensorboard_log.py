"""TensorBoard event files, written without TensorBoard: that is needed to look at them only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tfdlrm.training.run_state import RunState

EVERY_STEPS = 100


class TensorBoardLog(keras.callbacks.Callback):
    """Training metrics every 100 steps and validation metrics every epoch, by global step.

    A resumed run marks where it begins, and TensorBoard drops what an earlier one had written beyond that step.

    Args:
        folder: of the event files.
        state: of the run, at its first batch.
    """

    def __init__(self, folder: Path, state: RunState) -> None:
        super().__init__()
        self._folder = folder
        self._state = state
        self._last_step = state.step
        self._writer: Any = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._writer = tf.summary.create_file_writer(str(self._folder))
        start = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
        event = tf.compat.v1.Event(step=self._state.step + 1, session_log=start)
        tf.raw_ops.ImportEvent(writer=self._writer._resource, event=event.SerializeToString())

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        step = self._state.step
        if step // EVERY_STEPS > self._last_step // EVERY_STEPS:
            self._last_step = step
            rate = keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)
            self._write({**(logs or {}), "learning_rate": float(rate)}, "train")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if not self._state.has_ended(epoch):
            return
        validation = {name.removeprefix("val_"): v for name, v in (logs or {}).items() if name.startswith("val_")}
        self._write(validation, "validation")
        self._writer.flush()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._writer.close()

    def _write(self, values: dict[str, float], group: str) -> None:
        metadata = tf.compat.v1.SummaryMetadata(
            plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars"), data_class="DATA_CLASS_SCALAR"
        )
        with self._writer.as_default():
            for name, value in values.items():
                value = tf.constant(value, tf.float32)
                tf.summary.write(f"{group}/{name}", value, step=self._state.step, metadata=metadata)
