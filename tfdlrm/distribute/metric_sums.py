"""Metrics of blocks that finish in any order, added up on the coordinator."""

from __future__ import annotations

import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfdlrm.distribute.worker_step import WorkerStep

_LOGS_SECONDS = 0.2


class MetricSums:
    """The state of the metrics, beside their variables, which lie on a server: to read those is slow.

    Args:
        step: whose sums are added.
    """

    def __init__(self, step: WorkerStep):
        self._step = step
        self._model: keras.Model = step.model
        self._variables = step.summed_variables()
        self._num_metrics = len(step._metric_variables)
        self._sums: list[np.ndarray] = []
        self._logs: dict[str, Any] = {}
        self._logs_time = 0.0

    def begin(self) -> None:
        """Goes on from what the variables hold: nothing, or the state of an epoch that is resumed."""
        metrics = self._variables[: self._num_metrics]
        self._sums = [np.asarray(tf.convert_to_tensor(variable)).copy() for variable in metrics]
        self._sums += [np.zeros(v.shape, tf.as_dtype(v.dtype).as_numpy_dtype) for v in self._variables[len(metrics) :]]
        self._logs_time = 0.0

    def add(self, words: Any) -> None:
        """Adds a block's, as `WorkerStep.packed`."""
        sums = self._step.unpacked(np.asarray(words))
        self._sums = [total + one for total, one in zip(self._sums, sums, strict=True)]

    def logs(self, *, fresh: bool = False) -> dict[str, Any]:
        """Metrics so far, at most `_LOGS_SECONDS` old unless `fresh`."""
        now = time.monotonic()
        if fresh or not self._logs or now - self._logs_time > _LOGS_SECONDS:
            metrics = self._variables[: self._num_metrics]
            mapping = list(zip(metrics, map(tf.constant, self._sums), strict=False))
            with tf.device("/job:chief/device:CPU:0"), keras.StatelessScope(mapping):
                result = self._model.get_metrics_result()
            self._logs = {name: float(np.asarray(value)) for name, value in result.items()}
            self._logs_time = now
        return dict(self._logs)

    def flush(self) -> None:
        """Puts the sums into the variables."""
        metrics = self._variables[: self._num_metrics]
        for variable, total in zip(metrics, self._sums, strict=False):
            variable.assign(total)
        for variable, total in zip(self._variables[len(metrics) :], self._sums[len(metrics) :], strict=True):
            if total.any():
                variable.assign_add(total)
                total[...] = 0
