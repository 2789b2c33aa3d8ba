"""TensorBoard event files, written without TensorBoard: that is needed to look at them only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfdlrm.layers.table_variable import dense_weights
from tfdlrm.training.epoch_end import Validation
from tfdlrm.training.evaluation import NUM_THRESHOLDS
from tfdlrm.training.run_state import RunState

EVERY_STEPS = 100
WEIGHT_BINS = 30

_Metadata = tf.compat.v1.SummaryMetadata


class TensorBoardLog(keras.callbacks.Callback):
    """What a run looks like, by global step.

    Scalars: training metrics every 100 steps and validation metrics every epoch. Every epoch as well: curves of
    precision and recall and histograms of the probabilities by label, of the validation part, and histograms of the
    dense weights (tables are left out: no step reads all of their rows).

    A resumed run marks where it begins, and TensorBoard drops what an earlier one had written beyond that step.

    Args:
        folder: of the event files.
        state: of the run, at its first batch.
        validation: has what was scored last.
    """

    def __init__(self, folder: Path, state: RunState, validation: Validation | None = None) -> None:
        super().__init__()
        self._folder = folder
        self._state = state
        self._validation = validation
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
            self._write_scalars({**(logs or {}), "learning_rate": float(rate)}, "train")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if not self._state.has_ended(epoch):
            return
        validation = {name.removeprefix("val_"): v for name, v in (logs or {}).items() if name.startswith("val_")}
        self._write_scalars(validation, "validation")
        for task, scored in ({} if self._validation is None else self._validation.scored).items():
            self._write(f"validation/{task}", "pr_curves", precision_recall(scored), _PR_CURVES)
            for label, weights in zip(("negative", "positive"), scored[::-1], strict=True):
                self._write(f"probability/{task}/{label}", "histograms", probability_histogram(weights))
        for weight in dense_weights(self.model.trainable_weights):
            self._write(f"weights/{weight.path}", "histograms", histogram(weight.numpy()))
        self._writer.flush()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._writer.close()

    def _write_scalars(self, values: dict[str, float], group: str) -> None:
        for name, value in values.items():
            self._write(f"{group}/{name}", "scalars", np.float32(value), data_class="DATA_CLASS_SCALAR")

    def _write(
        self, tag: str, plugin: str, value: Any, content: bytes = b"", data_class: str = "DATA_CLASS_TENSOR"
    ) -> None:
        data = _Metadata.PluginData(plugin_name=plugin, content=content)
        with self._writer.as_default():
            metadata = _Metadata(plugin_data=data, data_class=data_class)
            tf.summary.write(tag, tf.constant(value), step=self._state.step, metadata=metadata)


# TensorBoard's PrCurvePluginData: field 2, the number of thresholds
_PR_CURVES = bytes([2 << 3, NUM_THRESHOLDS])


def precision_recall(scored: np.ndarray) -> np.ndarray:
    """TensorBoard's form of a curve.

    Args:
        scored: of one task; see `Evaluator`.

    Returns:
        float32 `[6, NUM_THRESHOLDS]`: true and false positives, true and false negatives, precision, recall, of the
        rows whose probability is at least the threshold.
    """
    true, false = np.cumsum(scored[:, ::-1], axis=1)[:, ::-1]
    positives, negatives = scored.sum(axis=1)
    precision = true / np.maximum(true + false, 1e-12)
    recall = true / max(positives, 1e-12)
    return np.stack([true, false, negatives - false, positives - true, precision, recall]).astype(np.float32)


def probability_histogram(weights: np.ndarray) -> np.ndarray:
    """TensorBoard's form of a histogram, `[NUM_THRESHOLDS, 3]`: left, right, weight."""
    edges = np.linspace(0.0, 1.0, NUM_THRESHOLDS)
    return np.stack([edges, np.append(edges[1:], 1.0), weights], axis=1)


def histogram(values: np.ndarray) -> np.ndarray:
    """As `probability_histogram`, of any values; those that are not finite are left out."""
    finite = values[np.isfinite(values)].astype(np.float64)
    counts, edges = np.histogram(finite, WEIGHT_BINS)
    return np.stack([edges[:-1], edges[1:], counts], axis=1)
