"""Exact metrics of a model on a dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfdlrm.checks import quoted
from tfdlrm.data.dataset import Dataset
from tfdlrm.data.unknown_ids import UnknownIds
from tfdlrm.metrics import EvaluationAccumulator
from tfdlrm.models.base import training_loop_of
from tfdlrm.native.scope import native_kernels
from tfdlrm.schema import ROW_ID

NUM_THRESHOLDS = 127  # TensorBoard's own for curves of precision and recall
with np.errstate(divide="ignore"):
    _LOGIT_EDGES = -np.log(1.0 / np.linspace(0.0, 1.0, NUM_THRESHOLDS)[1:] - 1.0)


class Evaluator:
    """Computes all exact metrics of all rows in bounded memory (but for groups: see `metrics.GroupedAUC`).

    Changes nothing in the model: neither its weights nor the metrics that `fit` has under way. May be asked again
    after more training, with the same graph.

    Args:
        model: gives logits `[B, T]`.
        dataset: labelled rows.
        batch_size: rows a batch; no metric depends on it.
        group_by: key column of the grouped AUC, or None.
        keep_scored: fill `scored`, which takes one more pass over the scores.

    Attributes:
        unknown_ids: share of unknown ids of each column that may have such, after `metrics`; see `UnknownIds`.
        scored: of each task, after `metrics`: weight of the positives and of the negatives by probability, float64
            `[2, NUM_THRESHOLDS]`; column k is of probabilities from k / (NUM_THRESHOLDS - 1) to the next.

    Raises:
        ValueError: `group_by` is no key column of the dataset.

    Example:
        >>> evaluator = Evaluator(model, splits.validation, batch_size=2048)
        >>> evaluator.metrics()["auc"]
        0.8025
    """

    def __init__(
        self,
        model: keras.Model,
        dataset: Dataset,
        *,
        batch_size: int,
        group_by: str | None = None,
        keep_scored: bool = False,
    ) -> None:
        check_group_by(dataset, group_by)
        self._keep_scored = keep_scored
        self._spec = dataset.spec
        self._tasks = dataset.spec.labels
        self.unknown_ids: dict[str, float] = {}
        self.scored: dict[str, np.ndarray] = {}
        self._group_by = group_by
        self._batches = dataset.batches(batch_size, with_keys=group_by is not None)
        self._scorer = Scorer(model, self._batches)

    def metrics(self, should_stop: Callable[[], bool] = lambda: False) -> dict[str, float] | None:
        """As `metrics.EvaluationAccumulator.result`; of several tasks, each name after its task's: `click_auc`.

        Args:
            should_stop: asked before each batch; True ends the evaluation, and the result is None.
        """
        accumulators = [EvaluationAccumulator() for _ in self._tasks]
        unknown = None if self.unknown_ids else UnknownIds(self._spec)  # the rows are the same each time
        for (features, labels, *keys), logits in self._scorer.scored():
            if should_stop():
                return None
            if unknown is not None:
                unknown.update(features)
            groups = None if self._group_by is None else keys[0][self._group_by].numpy()
            for task, accumulator in enumerate(accumulators):
                accumulator.update(labels[:, task].numpy(), logits[:, task], groups)
        if unknown is not None:
            self.unknown_ids = unknown.shares()
        if self._keep_scored:
            by_task = zip(self._tasks, accumulators, strict=True)
            self.scored = {task: accumulator.auc.between(_LOGIT_EDGES) for task, accumulator in by_task}
        return _joined(self._tasks, [accumulator.result() for accumulator in accumulators])


class Scorer:
    """The model's logits for batches: computed in this process, or by all workers of a cluster.

    Args:
        model: gives logits `[B, T]`.
        batches: `(features, ...)`.
        traced: what earlier scorers of this model have traced, by the form of a batch; None to trace anew.
    """

    def __init__(
        self, model: keras.Model, batches: tf.data.Dataset, traced: MutableMapping[str, Any] | None = None
    ) -> None:
        self._batches = batches
        self._loop = training_loop_of(model)
        form, traced = batches.element_spec[0], {} if traced is None else traced
        if self._loop is None and repr(form) not in traced:
            traced[repr(form)] = scoring_function(model, form)
        self._logits_of = traced.get(repr(form))

    def scored(self) -> Iterator[tuple[Any, np.ndarray]]:
        """Every batch with its logits, float32 `[B, T]`, in order; with the same graph each time."""
        if self._loop is not None:
            yield from self._loop.scored(self._batches)
        else:
            assert self._logits_of is not None
            for batch in self._batches:
                yield batch, self._logits_of(batch[0]).numpy()


def scoring_function(model: keras.Model, features: Any) -> Any:
    """A `tf.function` from a batch's features to the model's logits, float32 `[B, T]`, by the native kernels.

    One graph serves all batches, the last and smaller one included.

    Args:
        model: gives logits.
        features: the specs of a batch's features.
    """

    @tf.function(input_signature=[features], autograph=False)
    def logits_of(batch: Any) -> tf.Tensor:
        with native_kernels():
            return tf.cast(model(batch, training=False), tf.float32)

    return logits_of


def evaluate_dataset(
    model: keras.Model, dataset: Dataset, *, batch_size: int, group_by: str | None = None
) -> dict[str, float]:
    """`Evaluator(...).metrics()`: the exact metrics of a dataset, once."""
    metrics = Evaluator(model, dataset, batch_size=batch_size, group_by=group_by).metrics()
    assert metrics is not None
    return metrics


def metric_names(tasks: Sequence[str], group_by: str | None) -> list[str]:
    """Names of the metrics of an `Evaluator`."""
    accumulator = EvaluationAccumulator()
    accumulator.update([0, 1], [0.0, 1.0], None if group_by is None else np.array([0, 0]))
    return list(_joined(tasks, [accumulator.result()] * len(tasks)))


def check_group_by(dataset: Dataset, group_by: str | None) -> None:
    """Refuses a group column that the dataset does not carry."""
    keys = [*dataset.spec.keys, ROW_ID]
    if group_by is not None and group_by not in keys:
        raise ValueError(
            f"TrainConfig: group_by={quoted(group_by)} is no key column of the data, whose keys are {keys}. "
            "Name one of them, or add the column to the schema's keys."
        )


def _joined(tasks: Sequence[str], results: list[dict[str, float]]) -> dict[str, float]:
    if len(tasks) == 1:
        return dict(results[0])
    by_task = zip(tasks, results, strict=True)
    return {f"{task}_{name}": value for task, result in by_task for name, value in result.items()}
