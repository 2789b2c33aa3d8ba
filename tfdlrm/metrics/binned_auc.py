"""BinnedAUC and PRAUC: rank metrics from a histogram of scores, cheap enough for every step."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfdlrm.metrics.binary_metric import BinaryMetric

# Bins are of equal width in x / (SOFTNESS + |x|), x the logit: finest at 0, and no logit is out of range.
# With 4096 bins one is 0.002 wide at x = 0, 0.007 at -3.5 (a click rate of 3 %) and 0.05 at 16.
SOFTNESS = 4.0
DEFAULT_NUM_BINS = 4096
_BLOCK = 16
_LARGE_LOGIT = 1e9  # infinity would give inf / inf


def prefix_sum(values: tf.Tensor) -> tf.Tensor:
    """`tf.cumsum` of a `[N]` tensor of static length.

    The kernel of tf.cumsum takes 12 ns an element on a CPU; a product with a triangle does 16 elements at once.
    """
    length = values.shape[0]
    blocks = tf.reshape(tf.pad(values, [[0, -length % _BLOCK]]), [-1, _BLOCK])
    inside = tf.matmul(blocks, tf.constant(np.triu(np.ones((_BLOCK, _BLOCK))), values.dtype))
    before = tf.cumsum(inside[:, -1], exclusive=True)
    return tf.reshape(inside + before[:, tf.newaxis], [-1])[:length]


class ScoreHistogram(BinaryMetric):
    """Weight of positives and negatives in each bin of the logit; abstract.

    Rows of one bin count as tied. `counts` is `[2 * (num_bins + 1)]`: positives, then negatives, and the last bin
    of each counts NaN scores, one of which makes the result NaN.

    Args:
        num_bins: of the logit, 2 or more; work and memory a step grow with it.
        name, from_logits, task, dtype: as in `BinaryMetric`.

    Raises:
        ValueError: `num_bins` below 2.
    """

    def __init__(
        self,
        num_bins: int = DEFAULT_NUM_BINS,
        name: str | None = None,
        from_logits: bool = True,
        task: int | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(name=name, from_logits=from_logits, task=task, dtype=dtype)
        if num_bins < 2:
            raise ValueError(f"{type(self).__name__}: num_bins={num_bins!r} is too small. Give 2 or more.")
        self.num_bins = int(num_bins)
        self.counts = self.add_variable((2 * (self.num_bins + 1),), "zeros", dtype=self.dtype, name="counts")

    def update_rows(self, labels: tf.Tensor, scores: tf.Tensor, weights: tf.Tensor | None) -> None:
        logits = scores if self.from_logits else tf.math.log(scores) - tf.math.log1p(-scores)
        not_a_number = tf.math.is_nan(logits)
        logits = tf.clip_by_value(logits, -_LARGE_LOGIT, _LARGE_LOGIT)
        half = self.num_bins / 2
        position = half + half * (logits / (SOFTNESS + tf.abs(logits)))
        bins = tf.minimum(tf.cast(position, tf.int32), self.num_bins - 1)
        bins = tf.where(not_a_number, self.num_bins, bins)
        positive, negative = labels, 1.0 - labels
        if weights is not None:
            positive, negative = positive * weights, negative * weights
        # One flat sum for both classes is half the time of a [B, 2] one. It is added densely: the on-read
        # variables of a strategy have no scatter.
        added = tf.cast(tf.concat([positive, negative], axis=0), self.dtype)
        both = tf.concat([bins, bins + (self.num_bins + 1)], axis=0)
        self.counts.assign_add(tf.math.unsorted_segment_sum(added, both, 2 * (self.num_bins + 1)))

    def histogram(self) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Positives and negatives of each bin, ascending, both `[num_bins]`, and the weight of NaN scores."""
        counts = tf.convert_to_tensor(self.counts)
        positives, negatives = tf.split(counts, 2)
        return positives[:-1], negatives[:-1], positives[-1] + negatives[-1]

    def binned_auc(self) -> tf.Tensor:
        """ROC AUC of the binned scores."""
        positives, negatives, num_nan = self.histogram()
        won = tf.reduce_sum(positives * (prefix_sum(negatives) - 0.5 * negatives))
        auc = won / (tf.reduce_sum(positives) * tf.reduce_sum(negatives))
        return tf.where(num_nan > 0, tf.constant(float("nan"), self.dtype), auc)

    def binned_average_precision(self) -> tf.Tensor:
        """Average precision of the binned scores."""
        positives, negatives, num_nan = self.histogram()
        positives, negatives = tf.reverse(positives, [0]), tf.reverse(negatives, [0])  # from the highest score
        true, false = prefix_sum(positives), prefix_sum(negatives)
        precision = tf.math.divide_no_nan(true, true + false)
        average_precision = tf.reduce_sum(positives * precision) / tf.reduce_sum(positives)
        return tf.where(num_nan > 0, tf.constant(float("nan"), self.dtype), average_precision)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_bins": self.num_bins}


@keras.saving.register_keras_serializable(package="tfdlrm")
class BinnedAUC(ScoreHistogram):
    """ROC AUC from a histogram of logits, ties (same bin) counting half.

    The exact AUC is within `error_bound()` of the result: half the share of pairs of a positive and a
    negative that fell into one bin, p_b n_b / 2PN summed over the bins b. NaN where either class is absent,
    or a score was NaN.

    Args:
        num_bins, name, from_logits, task, dtype: as in `ScoreHistogram`.

    Example:
        >>> metric = BinnedAUC()
        >>> metric.update_state([[0.0], [1.0], [1.0], [0.0]], [[-1.0], [0.5], [2.0], [0.5]])
        >>> float(metric.result()), float(metric.error_bound())
        (0.875, 0.125)
    """

    def __init__(
        self,
        num_bins: int = DEFAULT_NUM_BINS,
        name: str | None = "auc",
        from_logits: bool = True,
        task: int | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(num_bins=num_bins, name=name, from_logits=from_logits, task=task, dtype=dtype)

    def result(self) -> tf.Tensor:
        return self.binned_auc()

    def error_bound(self) -> tf.Tensor:
        """Largest possible distance between the result and the exact AUC of the rows so far."""
        positives, negatives, _ = self.histogram()
        return 0.5 * tf.reduce_sum(positives * negatives) / (tf.reduce_sum(positives) * tf.reduce_sum(negatives))


@keras.saving.register_keras_serializable(package="tfdlrm")
class PRAUC(ScoreHistogram):
    """Average precision (area under the precision-recall steps) from a histogram of logits.

    AP = sum over bins b of p_b / P * precision(scores in b or above): the exact average precision of the
    binned scores, so a little below that of the scores (by 2.4e-4 for 200,000 rows at a click rate of 5 %, 4096
    bins). `ExactPRAUC` does not bin. NaN where there is no positive, or a score was NaN.

    Args:
        num_bins, name, from_logits, task, dtype: as in `ScoreHistogram`.

    Example:
        >>> metric = PRAUC()
        >>> metric.update_state([[0.0], [1.0], [1.0]], [[1.0], [0.0], [2.0]])
        >>> round(float(metric.result()), 6)
        0.833333
    """

    def __init__(
        self,
        num_bins: int = DEFAULT_NUM_BINS,
        name: str | None = "pr_auc",
        from_logits: bool = True,
        task: int | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(num_bins=num_bins, name=name, from_logits=from_logits, task=task, dtype=dtype)

    def result(self) -> tf.Tensor:
        return self.binned_average_precision()
