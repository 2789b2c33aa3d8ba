"""This project's side of the training-step comparison: `tfdlrm.DLRM` or `DLRMDCNv2` on the shared workload.

    python benchmarks/side_tfdlrm.py rowwise_adagrad          # fit's own train function, on batches held as tensors
    python benchmarks/side_tfdlrm.py rowwise_adagrad --fit    # model.fit on the same batches, with metrics

Both run several small steps a call (`steps_per_execution`) over a `tf.data` iterator, which is how `fit` is at its
best: handing 28 tensors over from Python costs 1.5 ms a step.

Row optimizer and dense optimizer: `rowwise_adagrad` beside dense SGD (what the FBGEMM peer does), `sgd` for
both, `adagrad` for both (as TFRS and Keras do; the PyTorch peer's dense part takes the cheaper SGD).
"""

from __future__ import annotations

import argparse
import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
import tensorflow as tf
from measurement import WARMUP_STEPS, ChunkTimer, SideResult, add_timing_arguments, measure
from workload import (
    CROSS_LAYERS,
    CROSS_RANK,
    NUM_DENSE,
    Workload,
    add_workload_arguments,
    workload_from_arguments,
)

import tfdlrm
from tfdlrm.embeddings import optimizers
from tfdlrm.native import loader
from tfdlrm.training import dense_optimizers

ROW_OPTIMIZERS = {
    "rowwise_adagrad": optimizers.RowwiseAdagrad,
    "sgd": optimizers.SGD,
    "adagrad": optimizers.Adagrad,
}
DENSE_OPTIMIZERS = {
    "rowwise_adagrad": dense_optimizers.SGD,
    "sgd": dense_optimizers.SGD,
    # with the constants of Keras's own, which the Keras peers have
    "adagrad": functools.partial(
        dense_optimizers.Adagrad, initial_accumulator_value=0.1, epsilon=1e-7, epsilon_placement="inside"
    ),
}
# Rows a call of the train function: 32 steps at batch 128, 2 at 2048, at most a fifth of a second either way.
ROWS_PER_EXECUTION = 4096
MAX_STEPS_PER_EXECUTION = 32


def versions() -> dict[str, str]:
    """Of the packages that do the work; whether the native kernels do is part of this project's name."""
    name = "tfdlrm" if loader.library() is not None else "tfdlrm without native kernels"
    return {"tensorflow": tf.__version__, "keras": keras.__version__, name: tfdlrm.__version__}


def features_of(workload: Workload) -> tuple[tfdlrm.FeatureConfig, ...]:
    """One feature a table, in order, which carries the table."""
    return tuple(
        tfdlrm.FeatureConfig(
            name=name,
            table=tfdlrm.TableConfig(name=name, vocabulary_size=rows, embedding_dim=workload.embedding_dim),
            hotness=hotness,
        )
        for name, rows, hotness in zip(
            workload.feature_names, workload.vocabulary_sizes, workload.bag_sizes, strict=True
        )
    )


def build_model(
    workload: Workload,
    optimizer: str,
    metrics: Sequence[keras.metrics.Metric] = (),
    steps_per_execution: int = 1,
) -> keras.Model:
    """The compiled model of the workload.

    Raises:
        ValueError: `optimizer` is not one of `ROW_OPTIMIZERS`.
    """
    if optimizer not in ROW_OPTIMIZERS:
        raise ValueError(f"no row optimizer {optimizer!r} here. Choose from {', '.join(ROW_OPTIMIZERS)}.")
    config = tfdlrm.DLRMConfig(
        architecture=workload.model,
        num_dense=NUM_DENSE,
        features=features_of(workload),
        embedding_dim=workload.embedding_dim,
        bottom_mlp=workload.bottom_mlp,
        top_mlp=workload.top_mlp,
        cross_layers=CROSS_LAYERS,
        cross_rank=CROSS_RANK,
    )
    kind = tfdlrm.DLRMDCNv2 if workload.model == "dcnv2" else tfdlrm.DLRM
    model = kind(config, row_optimizer=ROW_OPTIMIZERS[optimizer]())
    model.compile(
        DENSE_OPTIMIZERS[optimizer](workload.learning_rate),
        keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=list(metrics),
        steps_per_execution=steps_per_execution,
    )
    return model


def feature_ids(workload: Workload, ids: np.ndarray) -> dict[str, tf.Tensor]:
    """Ids [..., ids a row] by feature: [...] of one id, [..., H] of bags."""
    found = {}
    for name, columns, size in zip(workload.feature_names, workload.id_columns, workload.bag_sizes, strict=True):
        found[name] = tf.constant(ids[..., columns.start] if size == 1 else ids[..., columns])
    return found


def tensor_batches(workload: Workload) -> list[tuple[dict[str, tf.Tensor], tf.Tensor]]:
    """The workload's batches as the model takes them: `(features, labels [B, 1])`, ids `[B]` or `[B, H]` int64."""
    return [
        (
            {"dense": tf.constant(batch.dense), **feature_ids(workload, batch.ids)},
            tf.constant(batch.labels[:, np.newaxis]),
        )
        for batch in workload.batches()
    ]


def stacked_batches(workload: Workload) -> tf.data.Dataset:
    """The same batches as an endless dataset that cuts them from tensors."""
    stacked = tf.nest.map_structure(lambda *tensors: tf.stack(tensors), *tensor_batches(workload))
    return tf.data.Dataset.from_tensor_slices(stacked).repeat()


def steps_per_execution(workload: Workload) -> int:
    """Training steps a call of the train function."""
    if workload.model == "dcnv2":
        return 1  # a step of it takes longer than the quarter second of a timed chunk
    return max(1, min(MAX_STEPS_PER_EXECUTION, ROWS_PER_EXECUTION // workload.batch_size))


class FitTimer(keras.callbacks.Callback):
    """Times the steps of `fit` and stops it after `seconds`.

    Args:
        seconds: Time to measure for, after warm-up.
        steps_per_call: Training steps between two calls of `on_train_batch_end`.
    """

    def __init__(self, seconds: float, steps_per_call: int) -> None:
        super().__init__()
        self.timer = ChunkTimer(steps_per_lap=steps_per_call)
        self.seconds = seconds
        self.last_logs: Mapping[str, Any] = {}
        self._end = float("inf")
        self._warmup_left = WARMUP_STEPS

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        if not self._warmup_left:
            self.timer.resume()  # what `fit` does between epochs is no step

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        if self._warmup_left:
            self._warmup_left -= 1
            if not self._warmup_left:
                self._end = self.timer.now() + self.seconds
                self.timer.start()
            return
        if self.timer.lap():
            self.last_logs = {name: float(value) for name, value in (logs or {}).items()}
        if self.timer.is_done(self._end):
            self.model.stop_training = True


def measure_fit(workload: Workload, optimizer: str, *, seconds: float) -> SideResult:
    """Times `model.fit` on the batches of the bare step, with the metrics one watches during training."""
    from tfdlrm import metrics

    steps = steps_per_execution(workload)
    model = build_model(
        workload,
        optimizer,
        metrics=[metrics.BinnedAUC(name="auc"), keras.metrics.BinaryAccuracy(threshold=0.0, name="accuracy")],
        steps_per_execution=steps,
    )
    fit_timer = FitTimer(seconds, steps)
    model.fit(stacked_batches(workload), steps_per_epoch=10**9, shuffle=False, verbose=0, callbacks=[fit_timer])
    result = fit_timer.timer.result("tfdlrm-fit", workload, loss=fit_timer.last_logs["loss"], versions=versions())
    print(result.to_line(), flush=True)
    return result


def measure_step(workload: Workload, optimizer: str, *, seconds: float) -> SideResult:
    """Times `fit`'s own train function without what `fit` does around it."""
    steps = steps_per_execution(workload)
    model = build_model(workload, optimizer, steps_per_execution=steps)
    return measure_train_function(
        f"tfdlrm-{optimizer}", workload, model, stacked_batches(workload), steps=steps, seconds=seconds
    )


def measure_train_function(
    side: str, workload: Workload, model: keras.Model, batches: tf.data.Dataset, *, steps: int, seconds: float
) -> SideResult:
    """Times the train function of a compiled model on an endless dataset, `steps` training steps a call."""
    model.make_train_function()
    iterator = iter(batches)
    return measure(
        side,
        workload,
        lambda index: model.train_function(iterator)["loss"],
        seconds=seconds,
        versions=versions(),
        steps_per_call=steps,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("optimizer", choices=tuple(ROW_OPTIMIZERS))
    parser.add_argument("--fit", action="store_true", help="time model.fit with metrics instead of the bare step")
    add_workload_arguments(parser)
    add_timing_arguments(parser)
    arguments = parser.parse_args()
    workload = workload_from_arguments(arguments)
    keras.utils.set_random_seed(0)
    run = measure_fit if arguments.fit else measure_step
    run(workload, arguments.optimizer, seconds=arguments.seconds)


if __name__ == "__main__":
    main()
