"""The reference's losses, on logits: binary cross-entropy, weighted or not, squared error of the probability.

Every loss takes logits, so that no probability is rounded to 0 or 1 on the way, and computes in float32
whatever the precision of the model. `probability_clamp` t limits the probability p = sigmoid(x) to
[t, 1 - t]. As sigmoid is monotone that is a limit on the logit, c = ln((1 - t) / t):

    clamp(p, t, 1 - t) = sigmoid(min(max(x, -c), c))

with no gradient outside the interval and the full gradient on its ends. t > 0.5, where the ends cross, gives
the constant 1 - t and no gradient, as in the reference.

Shapes: B batch, T tasks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


def clamp_logits(logits: tf.Tensor, probability_clamp: float) -> tf.Tensor:
    """Limit the probability of `logits` to [t, 1 - t], t = `probability_clamp`, without leaving the logits.

    Args:
        logits: float tensor of any shape.
        probability_clamp: t; nothing is limited unless 0 < t < 1.

    Returns:
        A tensor of the shape and dtype of `logits`, whose gradient is 1 where -c <= logit <= c, else 0.

    Example:
        >>> tf.sigmoid(clamp_logits(tf.constant([-9.0, 0.0, 9.0]), 0.25)).numpy().tolist()
        [0.25, 0.5, 0.75]
    """
    if not 0.0 < probability_clamp < 1.0:
        return logits
    limit = math.log1p(-probability_clamp) - math.log(probability_clamp)
    # tf.clip_by_value gives the lower end where the ends cross (t > 0.5); the reference gives the upper one.
    return tf.minimum(tf.maximum(logits, tf.cast(-limit, logits.dtype)), tf.cast(limit, logits.dtype))


class _LogitLoss(keras.losses.Loss):
    """What the losses share: shapes, weights, the clamp; the subclass gives the loss of each entry."""

    def __init__(
        self,
        probability_clamp: float = 0.0,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        if not (isinstance(probability_clamp, (int, float)) and math.isfinite(probability_clamp)):
            raise ValueError(
                f"{type(self).__name__}: probability_clamp={probability_clamp!r} is not a finite number. "
                "Give t of the interval [t, 1 - t], or 0 for no clamp."
            )
        # a half-precision sum over a batch of 65536 overflows, so the policy of the model is not taken over
        super().__init__(name=name, reduction=reduction, dtype=dtype or "float32")
        self.probability_clamp = float(probability_clamp)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> tf.Tensor:
        if sample_weight is not None:
            sample_weight = tf.convert_to_tensor(sample_weight)
            # Keras would line a [B] weight up with the tasks of a [B, T] loss
            if sample_weight.shape.rank == 1 and len(y_pred.shape) == 2:
                sample_weight = sample_weight[:, tf.newaxis]
        return super().__call__(y_true, y_pred, sample_weight=sample_weight)

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Loss of every entry.

        Args:
            y_true: `[B, T]` labels (`[B]` where T is 1).
            y_pred: `[B, T]` or `[B]` logits.

        Returns:
            `[B, T]` or `[B]`, the shape of `y_pred`.
        """
        logits = tf.convert_to_tensor(y_pred)
        labels = tf.cast(tf.convert_to_tensor(y_true), logits.dtype)
        if labels.shape.rank is not None and labels.shape.rank + 1 == logits.shape.rank:
            labels = labels[..., tf.newaxis]
        elif logits.shape.rank is not None and logits.shape.rank + 1 == labels.shape.rank:
            logits = logits[..., tf.newaxis]
        if not labels.shape.is_compatible_with(logits.shape):
            raise ValueError(
                f"{type(self).__name__}: labels of shape {tuple(y_true.shape)} and logits of shape "
                f"{tuple(y_pred.shape)} do not match. Give one label for each logit, both [B, T]."
            )
        return self.entry_loss(labels, clamp_logits(logits, self.probability_clamp))

    def entry_loss(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        raise NotImplementedError(f"{type(self).__name__} does not define entry_loss()")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "dtype": self.dtype, "probability_clamp": self.probability_clamp}


@keras.saving.register_keras_serializable(package="tfdlrm")
class BinaryCrossentropy(_LogitLoss):
    """Mean binary cross-entropy of logits.

    `loss(x, y) = y ln(1 + e^-x) + (1 - y) ln(1 + e^x)`, mean over `[B, T]`; `reduction` as in Keras.

    Args:
        probability_clamp: t; the probability is limited to [t, 1 - t] if 0 < t < 1.
        reduction, name, dtype: as in `keras.losses.Loss`; the dtype is float32 unless given.

    Raises:
        ValueError: `probability_clamp` is not a finite number; labels and logits differ in shape.

    Example:
        >>> round(float(BinaryCrossentropy()([[1.0], [0.0]], tf.constant([[0.0], [0.0]]))), 6)
        0.693147
    """

    def entry_loss(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        # tf.nn.sigmoid_cross_entropy_with_logits is eight ops and several times slower
        return labels * tf.nn.softplus(-logits) + (1.0 - labels) * tf.nn.softplus(logits)


@keras.saving.register_keras_serializable(package="tfdlrm")
class MeanSquaredError(_LogitLoss):
    """Mean squared error of the probability: `(sigmoid(x) - y)^2`, mean over `[B, T]`.

    Args and errors are those of `BinaryCrossentropy`.

    Example:
        >>> float(MeanSquaredError()([[1.0]], tf.constant([[0.0]])))
        0.25
    """

    def entry_loss(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        return tf.square(tf.sigmoid(logits) - labels)


@keras.saving.register_keras_serializable(package="tfdlrm")
class WeightedBinaryCrossentropy(BinaryCrossentropy):
    """Binary cross-entropy with one weight a class: `mean(w[int(y)] * bce(x, y))`.

    The mean is over all entries: it is not divided by the sum of the weights.

    Args:
        weights: of labels 0 and 1.
        probability_clamp, reduction, name, dtype: as in `BinaryCrossentropy`.

    Raises:
        ValueError: not two finite weights of 0 or more.

    Example:
        >>> round(float(WeightedBinaryCrossentropy((0.5, 2.0))([[1.0]], tf.constant([[0.0]]))), 6)
        1.386294
    """

    def __init__(
        self,
        weights: Sequence[float] = (1.0, 1.0),
        probability_clamp: float = 0.0,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(probability_clamp=probability_clamp, reduction=reduction, name=name, dtype=dtype)
        weights = tuple(float(weight) for weight in weights)
        if len(weights) != 2 or not all(math.isfinite(weight) and weight >= 0 for weight in weights):
            raise ValueError(
                f"WeightedBinaryCrossentropy: weights={list(weights)} is not valid. "
                "Give two finite numbers of 0 or more: the weight of label 0, then of label 1."
            )
        self.weights = weights

    def entry_loss(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        weight_0, weight_1 = (tf.constant(weight, logits.dtype) for weight in self.weights)
        return tf.where(labels >= 1, weight_1, weight_0) * super().entry_loss(labels, logits)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "weights": list(self.weights)}


def loss_from_config(
    loss: str, loss_weights: Sequence[float] = (1.0, 1.0), probability_clamp: float = 0.0
) -> keras.losses.Loss:
    """The loss that `TrainConfig` names.

    Args:
        loss: `bce`, `mse` or `wbce`.
        loss_weights: of labels 0 and 1; used by `wbce` only.
        probability_clamp: t of the interval [t, 1 - t]; 0 for no clamp.

    Raises:
        ValueError: `loss` is none of the three, or an argument that the loss refuses.

    Example:
        >>> type(loss_from_config("mse")).__name__
        'MeanSquaredError'
    """
    if loss == "bce":
        return BinaryCrossentropy(probability_clamp)
    if loss == "mse":
        return MeanSquaredError(probability_clamp)
    if loss == "wbce":
        return WeightedBinaryCrossentropy(loss_weights, probability_clamp)
    raise ValueError(f"loss={loss!r} is not known. Choose one of: bce, mse, wbce.")
