"""This project's side of the training-step comparison: `tfdlrm.DLRM` on the shared workload.

    python benchmarks/side_tfdlrm.py rowwise_adagrad          # fit's own step, on batches held as tensors
    python benchmarks/side_tfdlrm.py rowwise_adagrad --fit    # model.fit with metrics, rows held in memory

Row optimizer and dense optimizer: `rowwise_adagrad` beside dense SGD (what the FBGEMM peer does), `sgd` for
both, `adagrad` for both (as TFRS and Keras do; the PyTorch peer's dense part takes the cheaper SGD).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
import tensorflow as tf
from measurement import WARMUP_STEPS, ChunkTimer, SideResult, add_timing_arguments, measure
from profile_step import step_of
from workload import LEARNING_RATE, NUM_DENSE, Workload, add_workload_arguments, workload_from_arguments

import tfdlrm
from tfdlrm.data.columns import Columns
from tfdlrm.data.memory import InMemoryDataset
from tfdlrm.embeddings import optimizers

ROW_OPTIMIZERS = {
    "rowwise_adagrad": optimizers.RowwiseAdagrad,
    "sgd": optimizers.SGD,
    "adagrad": optimizers.Adagrad,
}
DENSE_OPTIMIZERS = {
    "rowwise_adagrad": keras.optimizers.SGD,
    "sgd": keras.optimizers.SGD,
    "adagrad": keras.optimizers.Adagrad,
}


def build_model(workload: Workload, optimizer: str, metrics: Sequence[keras.metrics.Metric] = ()) -> keras.Model:
    """The compiled DLRM of the workload.

    Raises:
        ValueError: `optimizer` is not one of `ROW_OPTIMIZERS`.
    """
    if optimizer not in ROW_OPTIMIZERS:
        raise ValueError(f"no row optimizer {optimizer!r} here. Choose from {', '.join(ROW_OPTIMIZERS)}.")
    tables = tuple(
        tfdlrm.TableConfig(name=name, vocabulary_size=rows, embedding_dim=workload.embedding_dim)
        for name, rows in zip(workload.feature_names, workload.vocabulary_sizes, strict=True)
    )
    config = tfdlrm.DLRMConfig(
        num_dense=NUM_DENSE,
        tables=tables,
        features=tuple(tfdlrm.FeatureConfig(name=table.name, table=table.name) for table in tables),
        embedding_dim=workload.embedding_dim,
        bottom_mlp=workload.bottom_mlp,
        top_mlp=workload.top_mlp,
    )
    model = tfdlrm.DLRM(config, row_optimizer=ROW_OPTIMIZERS[optimizer]())
    model.compile(
        DENSE_OPTIMIZERS[optimizer](LEARNING_RATE),
        keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=list(metrics),
    )
    return model


def tensor_batches(workload: Workload) -> list[tuple[dict[str, tf.Tensor], tf.Tensor]]:
    """The workload's batches as the model takes them: `(features, labels [B, 1])`, ids `[B]` int64."""
    return [
        (
            {
                "dense": tf.constant(batch.dense),
                **{name: tf.constant(batch.ids[:, k]) for k, name in enumerate(workload.feature_names)},
            },
            tf.constant(batch.labels[:, np.newaxis]),
        )
        for batch in workload.batches()
    ]


def in_memory_dataset(workload: Workload) -> InMemoryDataset:
    """The rows of all the workload's batches in the project's own in-memory dataset."""
    batches = workload.batches()
    spec = tfdlrm.FeatureSpec(
        labels=("label",),
        dense=tuple(tfdlrm.DenseColumn(name=f"I{k + 1}", transform="identity") for k in range(NUM_DENSE)),
        categorical=tuple(tfdlrm.CategoricalColumn(name=name) for name in workload.feature_names),
        vocabulary_sizes=dict(zip(workload.feature_names, workload.vocabulary_sizes, strict=True)),
    )
    rows = workload.batch_size * workload.num_batches
    columns = Columns(
        dense=np.concatenate([batch.dense for batch in batches]),
        labels=np.concatenate([batch.labels for batch in batches])[:, np.newaxis],
        ids=np.concatenate([batch.ids for batch in batches]).astype(np.int32),
        weights=np.empty((rows, 0), np.float32),
        keys={"row_id": np.arange(rows)},
    )
    return InMemoryDataset(spec, columns)


class FitTimer(keras.callbacks.Callback):
    """Times the steps of `fit` and stops it after `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.timer = ChunkTimer()
        self.seconds = seconds
        self.last_logs: Mapping[str, Any] = {}
        self._end = float("inf")
        self._warmup_left = WARMUP_STEPS

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


def measure_fit(workload: Workload, optimizer: str, *, seconds: float, versions: Mapping[str, str]) -> SideResult:
    """Times `model.fit` with the metrics one watches during training, over shuffled rows held in memory."""
    from tfdlrm import metrics

    model = build_model(
        workload,
        optimizer,
        metrics=[metrics.BinnedAUC(name="auc"), keras.metrics.BinaryAccuracy(threshold=0.0, name="accuracy")],
    )
    dataset = in_memory_dataset(workload).batches(workload.batch_size, shuffle=True, drop_remainder=True)
    fit_timer = FitTimer(seconds)
    model.fit(dataset.repeat(), epochs=1, steps_per_epoch=10**9, verbose=0, callbacks=[fit_timer])
    result = fit_timer.timer.result("tfdlrm-fit", workload, loss=fit_timer.last_logs["loss"], versions=versions)
    print(result.to_line(), flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("optimizer", choices=tuple(ROW_OPTIMIZERS))
    parser.add_argument("--fit", action="store_true", help="time model.fit with metrics instead of the bare step")
    add_workload_arguments(parser)
    add_timing_arguments(parser)
    arguments = parser.parse_args()
    workload = workload_from_arguments(arguments)
    keras.utils.set_random_seed(0)
    versions = {"tensorflow": tf.__version__, "keras": keras.__version__, "tfdlrm": tfdlrm.__version__}
    if arguments.fit:
        measure_fit(workload, arguments.optimizer, seconds=arguments.seconds, versions=versions)
        return
    step = step_of(build_model(workload, arguments.optimizer), tensor_batches(workload))
    measure(
        f"tfdlrm-{arguments.optimizer}",
        workload,
        lambda index: step(index)["loss"],
        seconds=arguments.seconds,
        versions=versions,
    )


if __name__ == "__main__":
    main()
