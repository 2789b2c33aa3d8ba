"""LogLoss and NormalizedEntropy."""

from __future__ import annotations

import keras
import tensorflow as tf

from tfdlrm.metrics.binary_metric import BinaryMetric, total_weight, weighted_sum

PROBABILITY_EPSILON = 2.0**-23  # float32 resolution at 1: a probability of 1 says no more than 1 - this


def log_loss_of_rows(labels: tf.Tensor, scores: tf.Tensor, from_logits: bool) -> tf.Tensor:
    """Binary cross-entropy of each row, `[B]`."""
    if not from_logits:
        p = tf.clip_by_value(scores, PROBABILITY_EPSILON, 1.0 - PROBABILITY_EPSILON)
        return -(labels * tf.math.log(p) + (1.0 - labels) * tf.math.log1p(-p))
    # a label of 0 or 1 takes one of the two: 0 times an infinite one would be NaN
    missed = tf.math.multiply_no_nan(tf.nn.softplus(-scores), labels)
    return missed + tf.math.multiply_no_nan(tf.nn.softplus(scores), 1.0 - labels)


@keras.saving.register_keras_serializable(package="tfdlrm")
class LogLoss(BinaryMetric):
    """Mean log loss, `sum(w * bce) / sum(w)`, in nats; NaN before the first row.

    Unlike the loss, it has no probability clamp and is divided by the sum of the weights. Probabilities
    (`from_logits=False`) are limited to [2^-23, 1 - 2^-23].

    Args and errors are those of `BinaryMetric`.

    Example:
        >>> metric = LogLoss()
        >>> metric.update_state([[1.0], [0.0]], [[0.0], [0.0]])
        >>> round(float(metric.result()), 6)
        0.693147
    """

    def __init__(
        self,
        name: str | None = "log_loss",
        from_logits: bool = True,
        task: int | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(name=name, from_logits=from_logits, task=task, dtype=dtype)
        self.sums = self.add_variable((2,), "zeros", dtype=self.dtype, name="loss_and_weight")

    def update_rows(self, labels: tf.Tensor, scores: tf.Tensor, weights: tf.Tensor | None) -> None:
        loss = log_loss_of_rows(labels, scores, self.from_logits)
        total = total_weight(scores, weights, self.dtype)
        self.sums.assign_add(tf.stack([weighted_sum(loss, weights, self.dtype), total]))

    def result(self) -> tf.Tensor:
        loss, total = tf.unstack(tf.convert_to_tensor(self.sums))
        return loss / total


@keras.saving.register_keras_serializable(package="tfdlrm")
class NormalizedEntropy(BinaryMetric):
    """Log loss over the entropy of the base rate (He et al., 2014): 1 is what a constant prediction reaches.

        NE = log loss / -(r ln r + (1 - r) ln(1 - r)),   r = sum(w y) / sum(w)

    Lower is better. NaN where every label is the same: the base rate has no entropy then.

    Args and errors are those of `BinaryMetric`.

    Example:
        >>> metric = NormalizedEntropy()
        >>> metric.update_state([[1.0], [0.0]], [[0.0], [0.0]])
        >>> round(float(metric.result()), 6)
        1.0
    """

    def __init__(
        self,
        name: str | None = "normalized_entropy",
        from_logits: bool = True,
        task: int | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(name=name, from_logits=from_logits, task=task, dtype=dtype)
        self.sums = self.add_variable((3,), "zeros", dtype=self.dtype, name="loss_label_and_weight")

    def update_rows(self, labels: tf.Tensor, scores: tf.Tensor, weights: tf.Tensor | None) -> None:
        loss = log_loss_of_rows(labels, scores, self.from_logits)
        total = total_weight(scores, weights, self.dtype)
        sums = [weighted_sum(loss, weights, self.dtype), weighted_sum(labels, weights, self.dtype), total]
        self.sums.assign_add(tf.stack(sums))

    def result(self) -> tf.Tensor:
        loss, positive, total = tf.unstack(tf.convert_to_tensor(self.sums))
        negative = total - positive
        # sum(w) * entropy, without the rate: ln(total / positive) is what a positive costs
        entropy = tf.math.xlogy(positive, total / positive) + tf.math.xlogy(negative, total / negative)
        one_class = tf.logical_or(positive <= 0, negative <= 0)
        return tf.where(one_class, tf.constant(float("nan"), self.dtype), loss / entropy)
