"""From a config to a model that is ready for `fit`."""

from __future__ import annotations

from dataclasses import replace

import keras
import tensorflow as tf

from tfdlrm.config import ExperimentConfig, TrainConfig
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

_ROW_FORMS = {
    "sgd": row_optimizers.SGD(),
    "adagrad": row_optimizers.Adagrad(),
    "adam": row_optimizers.LazyAdam(),
}


def resolve_config(config: ExperimentConfig, spec: FeatureSpec) -> ExperimentConfig:
    """The config with the model's tables, features and tasks as the data has them."""
    return replace(config, model=config.model.with_schema(spec))


def build_model(config: ExperimentConfig, spec: FeatureSpec) -> keras.Model:
    """A DLRM or DLRM-DCNv2, compiled and built: every variable exists, so that a checkpoint can be read into it.

    Args:
        config: model and training.
        spec: the columns of the data, vocabulary sizes included.

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
