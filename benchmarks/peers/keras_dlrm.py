"""Peer: the DLRM training step with Keras 3's own layers and optimizers and keras-rs's DotInteraction."""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import keras_rs
import tensorflow as tf
from measurement import add_timing_arguments, measure
from workload import NUM_DENSE, Workload, add_workload_arguments, workload_from_arguments


def build_model(workload: Workload, optimizer: str) -> keras.Model:
    dense = keras.Input((NUM_DENSE,))
    ids = [keras.Input((), dtype="int64") for _ in range(workload.num_features)]
    vectors = [
        keras.layers.Embedding(rows, workload.embedding_dim)(feature)
        for rows, feature in zip(workload.vocabulary_sizes, ids, strict=True)
    ]
    x = dense
    for width in workload.bottom_mlp:
        x = keras.layers.Dense(width, activation="relu")(x)
    pairs = keras_rs.layers.DotInteraction()([x, *vectors])
    y = keras.layers.Concatenate()([x, pairs])
    for width in workload.top_mlp[:-1]:
        y = keras.layers.Dense(width, activation="relu")(y)
    probability = keras.layers.Dense(workload.top_mlp[-1], activation="sigmoid")(y)
    model = keras.Model([dense, *ids], probability)
    optimizers = {"sgd": keras.optimizers.SGD, "adagrad": keras.optimizers.Adagrad}
    # Without XLA, as every other side runs.
    model.compile(optimizers[optimizer](workload.learning_rate), "binary_crossentropy", jit_compile=False)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("optimizer", choices=("sgd", "adagrad"))
    add_workload_arguments(parser)
    add_timing_arguments(parser)
    arguments = parser.parse_args()
    workload = workload_from_arguments(arguments)
    keras.utils.set_random_seed(0)
    model = build_model(workload, arguments.optimizer)
    batches = [
        (
            [tf.constant(batch.dense), *(tf.constant(batch.ids[:, k]) for k in range(workload.num_features))],
            tf.constant(batch.labels[:, None]),
        )
        for batch in workload.batches()
    ]
    train_step = tf.function(model.train_step)
    measure(
        f"keras-{arguments.optimizer}",
        workload,
        lambda index: train_step(batches[index])["loss"],
        seconds=arguments.seconds,
        versions={
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "keras-rs": keras_rs.__version__,
        },
    )


if __name__ == "__main__":
    main()
