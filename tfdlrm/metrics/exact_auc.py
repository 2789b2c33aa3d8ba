"""ExactAUC and ExactPRAUC: exact rank metrics as Keras metrics, with their rows counted on the host."""

from __future__ import annotations

import threading
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfdlrm.metrics.binned_auc import DEFAULT_NUM_BINS, ScoreHistogram
from tfdlrm.metrics.exact_auc_accumulator import ExactAUCAccumulator
from tfdlrm.metrics.score_counts import DEFAULT_MEMORY_BYTES


class HostCountedMetric(ScoreHistogram):
    """A binned metric that also hands every row to an `ExactAUCAccumulator`; abstract.

    Inside a graph `result()` is the binned value (what the progress bar shows); outside, where Keras asks at
    the end of `evaluate` and of each epoch of `fit`, it is the exact one. Rows reach the host through
    `tf.numpy_function`:

    - compile the model with `jit_compile=False` (models of this library do): XLA refuses the op;
    - works under the default strategy and under MirroredStrategy (one process; all replicas together);
    - refused in a cluster of several processes, where each would see its own rows only: use the binned
      metric, or an accumulator in each process, `save`d and `merge`d;
    - the rows on the host are no variables: a checkpoint has the binned counts only.

    In `fit` every training row is kept as well, sorted runs going to disk beyond `memory_bytes`; to measure a
    validation set only, evaluate with it instead. With `run_eagerly=True` each step computes the exact value.

    Args:
        memory_bytes: limit of the accumulator's memory.
        num_bins, name, from_logits, task, dtype: as in `ScoreHistogram`.
    """

    def __init__(
        self,
        memory_bytes: int = DEFAULT_MEMORY_BYTES,
        num_bins: int = DEFAULT_NUM_BINS,
        name: str | None = None,
        from_logits: bool = True,
        task: int | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(num_bins=num_bins, name=name, from_logits=from_logits, task=task, dtype=dtype)
        self.accumulator = ExactAUCAccumulator(memory_bytes=memory_bytes)
        self._lock = threading.Lock()  # replicas call in from threads of their own

    def update_rows(self, labels: tf.Tensor, scores: tf.Tensor, weights: tf.Tensor | None) -> None:
        self._refuse_clusters()
        super().update_rows(labels, scores, weights)
        columns = [labels, scores] if weights is None else [labels, scores, weights]
        tf.numpy_function(self._accumulate, columns, Tout=[], stateful=True)

    def result(self) -> tf.Tensor:
        if tf.inside_function():
            return self.binned_result()
        with self._lock:
            return tf.constant(self.exact_result(), tf.float64)

    def binned_result(self) -> tf.Tensor:
        raise NotImplementedError(f"{type(self).__name__} does not define binned_result()")

    def exact_result(self) -> float:
        raise NotImplementedError(f"{type(self).__name__} does not define exact_result()")

    def reset_state(self) -> None:
        super().reset_state()
        with self._lock:
            self.accumulator.clear()

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "memory_bytes": self.accumulator.memory_bytes}

    def _accumulate(self, labels: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None) -> None:
        with self._lock:
            self.accumulator.update(labels, scores, weights)

    def _refuse_clusters(self) -> None:
        resolver = tf.distribute.get_strategy().cluster_resolver
        tasks = resolver.cluster_spec().as_dict() if resolver is not None else {}
        num_processes = sum(len(addresses) for addresses in tasks.values())
        if num_processes > 1:
            raise ValueError(
                f"{type(self).__name__} {self.name!r}: this is one of {num_processes} processes and would "
                "see its own rows only. "
                "Use the binned metric, or merge an ExactAUCAccumulator of each process."
            )


@keras.saving.register_keras_serializable(package="tfdlrm")
class ExactAUC(HostCountedMetric):
    """Exact, tie-correct ROC AUC in `evaluate`, over any number of rows; see `HostCountedMetric` for where it
    works.

    NaN where either class is absent. A NaN score raises an error with the count.

    Args:
        memory_bytes, num_bins, name, from_logits, task, dtype: as in `HostCountedMetric`.

    Example:
        >>> metric = ExactAUC()
        >>> metric.update_state([[0.0], [1.0], [1.0], [0.0]], [[-1.0], [0.5], [2.0], [0.5]])
        >>> float(metric.result())
        0.875
    """

    def __init__(
        self,
        memory_bytes: int = DEFAULT_MEMORY_BYTES,
        num_bins: int = DEFAULT_NUM_BINS,
        name: str | None = "exact_auc",
        from_logits: bool = True,
        task: int | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(memory_bytes, num_bins, name, from_logits, task, dtype)

    def binned_result(self) -> tf.Tensor:
        return self.binned_auc()

    def exact_result(self) -> float:
        return self.accumulator.result()


@keras.saving.register_keras_serializable(package="tfdlrm")
class ExactPRAUC(HostCountedMetric):
    """Exact average precision in `evaluate`; see `HostCountedMetric` for where it works.

    NaN where there is no positive. A NaN score raises an error with the count.

    Args:
        memory_bytes, num_bins, name, from_logits, task, dtype: as in `HostCountedMetric`.

    Example:
        >>> metric = ExactPRAUC()
        >>> metric.update_state([[0.0], [1.0], [1.0]], [[1.0], [0.0], [2.0]])
        >>> round(float(metric.result()), 6)
        0.833333
    """

    def __init__(
        self,
        memory_bytes: int = DEFAULT_MEMORY_BYTES,
        num_bins: int = DEFAULT_NUM_BINS,
        name: str | None = "exact_pr_auc",
        from_logits: bool = True,
        task: int | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(memory_bytes, num_bins, name, from_logits, task, dtype)

    def binned_result(self) -> tf.Tensor:
        return self.binned_average_precision()

    def exact_result(self) -> float:
        return self.accumulator.average_precision()
