"""From a config to a model that is ready for `fit`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import keras
import numpy as np
import tensorflow as tf

from tfdlrm.config import ExperimentConfig, TrainConfig
from tfdlrm.data.dataset import Dataset
from tfdlrm.embeddings import optimizers as row_optimizers
from tfdlrm.losses import loss_from_config
from tfdlrm.metrics import Accuracy, BinnedAUC
from tfdlrm.models.dcnv2 import DLRMDCNv2
from tfdlrm.models.dlrm import DLRM
from tfdlrm.schema import FeatureSpec
from tfdlrm.training.dense_optimizers import dense_optimizer_from_config

# Rows that make a call of the compiled function worth its overhead, about 1 ms of Python in `fit`.
_ROWS_PER_EXECUTION = 2048
_MAX_STEPS_PER_EXECUTION = 16

# of rows whose labels say what the base rate is
_RATE_BATCH, _RATE_BATCHES = 4096, 64

_ROW_FORMS = {
    "sgd": row_optimizers.SGD(),
    "adagrad": row_optimizers.Adagrad(),
    "adam": row_optimizers.LazyAdam(),
}


def resolve_config(config: ExperimentConfig, spec: FeatureSpec) -> ExperimentConfig:
    """The config with the model's tables, features and tasks as the data has them."""
    return replace(config, model=config.model.with_schema(spec))


def build_model(
    config: ExperimentConfig, spec: FeatureSpec, *, output_bias: Sequence[float] | None = None
) -> keras.Model:
    """A DLRM or DLRM-DCNv2, compiled and built: every variable exists, so that a checkpoint can be read into it.

    Args:
        config: model and training.
        spec: the columns of the data, vocabulary sizes included.
        output_bias: first logit of each task, where weights are not read from a checkpoint; see `DLRM`.

    Returns:
        The model, with losses, cheap metrics for every step, dense and row optimizer, schedule and precision policy.

    Raises:
        ValueError: config and schema do not fit together.

    Example:
        >>> model = build_model(load_config("criteo-kaggle"), spec)
        >>> model.fit(batches)
    """
    config = resolve_config(config, spec)
    train = config.train
    kind = DLRMDCNv2 if config.model.architecture == "dcnv2" else DLRM
    model = kind(
        config.model,
        row_optimizer=train.row_optimizer or _ROW_FORMS[train.optimizer],
        name=config.model.architecture,
        output_bias=output_bias,
        dtype=keras.DTypePolicy(train.precision),
    )
    model.compile(
        optimizer=dense_optimizer_from_config(train),
        loss=loss_from_config(train.loss, train.loss_weights, train.probability_clamp),
        metrics=step_metrics(config.model.tasks),
        steps_per_execution=steps_per_execution(train),
        jit_compile=False,
    )
    model.build()
    model.optimizer.build(model.trainable_variables)
    _build_metrics(model, len(config.model.tasks))
    return model


def first_logits(train: TrainConfig, rows: Dataset) -> list[float]:
    """The best constant on the training part, a task: ln(r / (1 - r)), r the rate of labels as the loss weighs them.

    Args:
        train: its loss and seed.
        rows: of which `_RATE_BATCHES` batches, drawn by chance, are looked at.
    """
    batches = rows.batches(_RATE_BATCH, shuffle=True, seed=train.seed).take(_RATE_BATCHES)
    labels = np.concatenate([np.asarray(batch[1], np.float64) for batch in batches])
    negative, positive = train.loss_weights if train.loss == "wbce" else (1.0, 1.0)
    # half a row each, so that a part with one kind of label has a logit
    ones, zeros = (positive * ((labels > 0).sum(axis=0) + 0.5), negative * ((labels <= 0).sum(axis=0) + 0.5))
    return [float(logit) for logit in np.log(np.maximum(ones, 1e-9)) - np.log(np.maximum(zeros, 1e-9))]


def step_metrics(tasks: tuple[str, ...]) -> list[keras.metrics.Metric]:
    """Metrics that are cheap enough for every training step; of several tasks, each under the task's name."""
    if len(tasks) == 1:
        return [BinnedAUC(name="auc"), Accuracy(name="accuracy")]
    return [
        metric
        for k, task in enumerate(tasks)
        for metric in (BinnedAUC(name=f"{task}_auc", task=k), Accuracy(name=f"{task}_accuracy", task=k))
    ]


def steps_per_execution(train: TrainConfig) -> int:
    """Training steps a call of the compiled function.

    "auto" takes as many as make up `_ROWS_PER_EXECUTION` rows, in whole updates where gradients are accumulated, and a
    divisor of `checkpoint_every_steps`; 1 under a strategy of several replicas, where Keras supports no more.
    """
    if train.steps_per_execution != "auto":
        return int(train.steps_per_execution)
    if tf.distribute.get_strategy().num_replicas_in_sync > 1:
        return 1
    steps = min(_MAX_STEPS_PER_EXECUTION, max(1, _ROWS_PER_EXECUTION // train.global_batch_size))
    accumulate = train.gradient_accumulation_steps or 1
    if train.checkpoint_every_steps:
        # a checkpoint falls on the end of an execution
        every = train.checkpoint_every_steps
        steps = max(count for count in range(1, min(steps, every) + 1) if every % count == 0)
    return max(1, steps // accumulate) * accumulate


def _build_metrics(model: keras.Model, num_tasks: int) -> None:
    """Makes the metrics' variables, which Keras would make in the first step: too late to restore them."""
    with tf.init_scope():
        rows = tf.zeros([1, num_tasks])
        model.compute_metrics(None, rows, rows)
    model.reset_metrics()
