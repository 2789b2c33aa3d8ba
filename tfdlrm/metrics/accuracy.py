"""Accuracy at probability one half."""

from __future__ import annotations

import keras
import tensorflow as tf

from tfdlrm.metrics.binary_metric import BinaryMetric, total_weight, weighted_sum


@keras.saving.register_keras_serializable(package="tfdlrm")
class Accuracy(BinaryMetric):
    """Share of rows whose rounded probability is the label, `sum(w * [round(p) = y]) / sum(w)`.

    As the reference rounds, p = 0.5 (logit 0) is a 0, and a logit above 0 a 1. NaN before the first row. For
    click data it says little: at a base rate of 3 % a constant model has 97 %.

    Args and errors are those of `BinaryMetric`.

    Example:
        >>> metric = Accuracy()
        >>> metric.update_state([[1.0], [0.0], [1.0]], [[2.0], [0.0], [-1.0]])
        >>> round(float(metric.result()), 6)
        0.666667
    """

    def __init__(
        self,
        name: str | None = "accuracy",
        from_logits: bool = True,
        task: int | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(name=name, from_logits=from_logits, task=task, dtype=dtype)
        self.sums = self.add_variable((2,), "zeros", dtype=self.dtype, name="correct_and_weight")

    def update_rows(self, labels: tf.Tensor, scores: tf.Tensor, weights: tf.Tensor | None) -> None:
        predicted = tf.cast(scores > (0.0 if self.from_logits else 0.5), labels.dtype)
        # a NaN score is neither class
        correct = tf.logical_and(predicted == labels, scores == scores)
        total = total_weight(scores, weights, self.dtype)
        self.sums.assign_add(tf.stack([weighted_sum(correct, weights, self.dtype), total]))

    def result(self) -> tf.Tensor:
        correct, total = tf.unstack(tf.convert_to_tensor(self.sums))
        return correct / total
