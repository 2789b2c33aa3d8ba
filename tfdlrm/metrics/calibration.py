"""Calibration: predicted over observed positives."""

from __future__ import annotations

import keras
import tensorflow as tf

from tfdlrm.metrics.binary_metric import BinaryMetric, weighted_sum


@keras.saving.register_keras_serializable(package="tfdlrm")
class Calibration(BinaryMetric):
    """Predicted over observed positives, `sum(w * p) / sum(w * y)`: 1 is calibrated, 1.1 predicts 10 % too
    many.

    NaN where no positive was observed.

    Args and errors are those of `BinaryMetric`.

    Example:
        >>> metric = Calibration()
        >>> metric.update_state([[1.0], [0.0], [0.0]], [[0.0], [0.0], [0.0]])
        >>> float(metric.result())
        1.5
    """

    def __init__(
        self,
        name: str | None = "calibration",
        from_logits: bool = True,
        task: int | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(name=name, from_logits=from_logits, task=task, dtype=dtype)
        self.sums = self.add_variable((2,), "zeros", dtype=self.dtype, name="predicted_and_observed")

    def update_rows(self, labels: tf.Tensor, scores: tf.Tensor, weights: tf.Tensor | None) -> None:
        predicted = weighted_sum(self.probabilities(scores), weights, self.dtype)
        self.sums.assign_add(tf.stack([predicted, weighted_sum(labels, weights, self.dtype)]))

    def result(self) -> tf.Tensor:
        predicted, observed = tf.unstack(tf.convert_to_tensor(self.sums))
        return tf.where(observed > 0, predicted / observed, tf.constant(float("nan"), self.dtype))
