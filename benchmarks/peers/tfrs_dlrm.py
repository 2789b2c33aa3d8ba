"""Peer: the DLRM training step with TensorFlow Recommenders' `Ranking` on TF-Keras 2 and its Adagrad."""

from __future__ import annotations

import argparse
import os
from importlib.metadata import version

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["TF_USE_LEGACY_KERAS"] = "1"  # TFRS refuses to import on Keras 3

import tensorflow as tf
import tensorflow_recommenders as tfrs
import tf_keras
from measurement import add_timing_arguments, measure
from workload import Workload, add_workload_arguments, workload_from_arguments


class Tables(tf_keras.layers.Layer):
    """One Embedding a feature; a dict of [B, 1] ids to a dict of [B, 1, D] vectors."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        self.tables = {
            name: tf_keras.layers.Embedding(rows, workload.embedding_dim)
            for name, rows in zip(workload.feature_names, workload.vocabulary_sizes, strict=True)
        }

    def call(self, ids: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {name: table(ids[name]) for name, table in self.tables.items()}


def build_model(workload: Workload) -> tf_keras.Model:
    model = tfrs.experimental.models.Ranking(
        Tables(workload),
        bottom_stack=tfrs.layers.blocks.MLP(list(workload.bottom_mlp), final_activation="relu"),
        top_stack=tfrs.layers.blocks.MLP(list(workload.top_mlp), final_activation="sigmoid"),
        task=tfrs.tasks.Ranking(loss=tf_keras.losses.BinaryCrossentropy(reduction="none"), metrics=[]),
    )
    # Without XLA, as every other side runs.
    model.compile(tf_keras.optimizers.Adagrad(workload.learning_rate, jit_compile=False))
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_workload_arguments(parser)
    add_timing_arguments(parser)
    arguments = parser.parse_args()
    workload = workload_from_arguments(arguments)
    tf.random.set_seed(0)
    model = build_model(workload)
    batches = [
        (
            {
                "dense_features": tf.constant(batch.dense),
                "sparse_features": {
                    name: tf.constant(batch.ids[:, k : k + 1]) for k, name in enumerate(workload.feature_names)
                },
            },
            tf.constant(batch.labels),
        )
        for batch in workload.batches()
    ]
    train_step = tf.function(model.train_step)
    measure(
        "tfrs",
        workload,
        lambda index: train_step(batches[index])["loss"],
        seconds=arguments.seconds,
        versions={
            "tensorflow": tf.__version__,
            "tensorflow-recommenders": version("tensorflow-recommenders"),
            "tf_keras": tf_keras.__version__,
        },
    )


if __name__ == "__main__":
    main()
