"""BinaryMetric: what the streaming Keras metrics share."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


class BinaryMetric(keras.metrics.Metric):
    """Base of the metrics of labels in [0, 1] and one score a row; abstract.

    State is float64 (a float32 count stops at 2^24 rows) and is summed over the replicas of a `tf.distribute`
    strategy, so that every metric is that of all rows together, weighted by `sample_weight`. Each metric is
    one or two small ops a step in the model's graph.

    Args:
        name: as in the logs.
        from_logits: whether `y_pred` holds logits (default) or probabilities.
        task: the column of `[B, T]` labels and predictions; needed where T > 1.
        dtype: of state and result, float64 unless given.
    """

    def __init__(
        self,
        name: str | None = None,
        from_logits: bool = True,
        task: int | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype or "float64")
        self.from_logits = bool(from_logits)
        self.task = task

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch.

        Args:
            y_true: `[B, T]` labels (`[B]` where T is 1).
            y_pred: `[B, T]` or `[B]` logits or probabilities.
            sample_weight: `[B]`, `[B, 1]` or `[B, T]`; None for 1 a row.

        Raises:
            ValueError: `task` is missing or out of range, or shapes do not match.
        """
        scores = tf.convert_to_tensor(y_pred)
        num_tasks = 1 if scores.shape.rank == 1 else scores.shape[-1]
        column = self._column_of(num_tasks)
        scores = self._take(scores, num_tasks, column)
        labels = self._take(tf.convert_to_tensor(y_true), num_tasks, column)
        if not labels.shape.is_compatible_with(scores.shape):
            raise ValueError(
                f"{type(self).__name__} {self.name!r}: labels of shape {tuple(y_true.shape)} do not "
                f"match predictions of shape {tuple(y_pred.shape)}. "
                "Give one label for each prediction, both [B, T]."
            )
        weights = None
        if sample_weight is not None:
            weights = tf.convert_to_tensor(sample_weight)
            each_task = weights.shape.rank == 2 and weights.shape[-1] != 1
            weights = self._take(weights, num_tasks if each_task else 1, column if each_task else 0)
        # float32 holds every half-precision score; float64 predictions stay what they are
        if scores.dtype != tf.float64:
            scores = tf.cast(scores, tf.float32)
        self.update_rows(
            tf.cast(labels, scores.dtype), scores, None if weights is None else tf.cast(weights, scores.dtype)
        )

    def update_rows(self, labels: tf.Tensor, scores: tf.Tensor, weights: tf.Tensor | None) -> None:
        """Add `[B]` rows of one task; `weights` is None where each row counts once."""
        raise NotImplementedError(f"{type(self).__name__} does not define update_rows()")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "from_logits": self.from_logits, "task": self.task}

    def probabilities(self, scores: tf.Tensor) -> tf.Tensor:
        return tf.sigmoid(scores) if self.from_logits else scores

    def _column_of(self, num_tasks: int | None) -> int:
        if self.task is None:
            if num_tasks != 1:
                kind, found = type(self).__name__, num_tasks or "an unknown number of"
                raise ValueError(
                    f"{kind} {self.name!r}: predictions have {found} tasks and `task` is not given. "
                    f"Make one metric a task: {kind}(task=0, ...)."
                )
            return 0
        if num_tasks is not None and not 0 <= self.task < num_tasks:
            raise ValueError(
                f"{type(self).__name__} {self.name!r}: task={self.task} is out of range for predictions with "
                f"{num_tasks} task(s). Give 0 to {num_tasks - 1}."
            )
        return self.task

    @staticmethod
    def _take(values: tf.Tensor, num_tasks: int | None, column: int) -> tf.Tensor:
        """Column `column` of `[B, T]` values as `[B]`."""
        if values.shape.rank == 1 or num_tasks == 1:
            # a [B, 2] column of labels for [B, 1] logits must not pass for 2B rows
            if values.shape.rank == 2 and values.shape[-1] not in (1, None):
                return values
            return tf.reshape(values, [-1])
        return values[:, column]


def weighted_sum(values: tf.Tensor, weights: tf.Tensor | None, dtype: str) -> tf.Tensor:
    """Sum over the rows of a batch, in `dtype`."""
    values = tf.cast(values, dtype)
    # a row of weight 0 counts for nothing, be it infinite
    return tf.reduce_sum(values if weights is None else tf.math.multiply_no_nan(values, tf.cast(weights, dtype)))


def total_weight(rows: tf.Tensor, weights: tf.Tensor | None, dtype: str) -> tf.Tensor:
    """Sum of the weights, in `dtype`: the number of rows where there are none."""
    if weights is None:
        return tf.cast(tf.size(rows, out_type=tf.int64), dtype)
    return tf.reduce_sum(tf.cast(weights, dtype))
