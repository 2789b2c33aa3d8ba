"""A model with every kind of table and every row optimizer, small enough to train in a second."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfdlrm
from tfdlrm import EmbeddingCollection, FeatureConfig, QuotientRemainderConfig, TableConfig, optimizers
from tfdlrm.layers.table_variable import dense_weights
from tfdlrm.models.base import tables_of

BATCH_SIZE, NUM_STEPS = 24, 50


def build_model() -> keras.Model:
    tables = {
        "sgd": TableConfig(name="sgd", vocabulary_size=300, embedding_dim=8, optimizer=optimizers.SGD(0.1)),
        "tiny": TableConfig(name="tiny", vocabulary_size=2, embedding_dim=8, optimizer=optimizers.SGD(0.1)),
        "adagrad": TableConfig(
            name="adagrad", vocabulary_size=200, embedding_dim=8, optimizer=optimizers.Adagrad(epsilon=1e-3)
        ),
        "rowwise": TableConfig(
            name="rowwise",
            vocabulary_size=150,
            embedding_dim=8,
            pooling_weights="learned",
            optimizer=optimizers.RowwiseAdagrad(epsilon=1e-3),
        ),
        "adam": TableConfig(
            name="adam", vocabulary_size=90, embedding_dim=8, optimizer=optimizers.LazyAdam(0.01, epsilon=1e-3)
        ),
        "ftrl": TableConfig(name="ftrl", vocabulary_size=80, embedding_dim=8, optimizer=optimizers.FTRL(0.05)),
        "quotient": TableConfig(
            name="quotient",
            vocabulary_size=120,
            embedding_dim=8,
            quotient_remainder=QuotientRemainderConfig(collisions=4, operation="mult", threshold=0),
            optimizer=optimizers.SGD(0.05, weight_decay=0.01),
        ),
        "weighted": TableConfig(
            name="weighted",
            vocabulary_size=70,
            embedding_dim=8,
            combiner="sqrtn",
            pooling_weights="fixed",
            optimizer=optimizers.Adagrad(0.05, epsilon=1e-3),
        ),
        "half": TableConfig(
            name="half",
            vocabulary_size=90,
            embedding_dim=8,
            row_dtype="bfloat16",
            optimizer=optimizers.RowwiseAdagrad(0.1, epsilon=1e-3),
        ),
        "frozen": TableConfig(name="frozen", vocabulary_size=40, embedding_dim=8, trainable=False),
        "narrow": TableConfig(
            name="narrow",
            vocabulary_size=60,
            embedding_dim=4,
            output_dim=8,
            combiner="mean",
            optimizer=optimizers.Adagrad(0.05, epsilon=1e-3, clipnorm=0.5),
        ),
    }
    features = [
        FeatureConfig(name="sgd_one", table=tables["sgd"]),
        FeatureConfig(name="sgd_many", table=tables["sgd"], hotness=3),
        FeatureConfig(name="tiny", table=tables["tiny"]),
        FeatureConfig(name="adagrad", table=tables["adagrad"], hotness=2),
        FeatureConfig(name="rowwise", table=tables["rowwise"], hotness=None),
        FeatureConfig(name="adam", table=tables["adam"], id_policy="clip"),
        FeatureConfig(name="ftrl", table=tables["ftrl"], hotness=2),
        FeatureConfig(name="quotient", table=tables["quotient"]),
        FeatureConfig(name="weighted", table=tables["weighted"], hotness=None),
        FeatureConfig(name="half", table=tables["half"], hotness=2),
        FeatureConfig(name="frozen", table=tables["frozen"]),
        FeatureConfig(name="narrow", table=tables["narrow"], hotness=None),
    ]

    @keras.saving.register_keras_serializable(package="tests")
    class EveryOption(tfdlrm.Model):
        def __init__(self) -> None:
            super().__init__()
            self.embeddings = EmbeddingCollection(features)
            self.flatten = keras.layers.Flatten()
            self.hidden = keras.layers.Dense(
                8, activation="tanh", kernel_initializer=keras.initializers.GlorotUniform(seed=1)
            )
            self.last = keras.layers.Dense(1, kernel_initializer=keras.initializers.GlorotUniform(seed=2))

        def call(self, inputs: Any, training: bool | None = None) -> Any:
            return self.last(self.hidden(self.flatten(self.embeddings(inputs, training=training))))

    model = EveryOption()
    model.compile(
        keras.optimizers.Adagrad(keras.optimizers.schedules.ExponentialDecay(0.05, 10, 0.9), epsilon=1e-3),
        keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[tfdlrm.metrics.BinnedAUC(name="auc")],
    )
    return model


def rows(num_rows: int, seed: int = 0) -> tuple[dict[str, Any], np.ndarray]:
    random = np.random.default_rng(seed)

    def ids(size: int, shape: Any) -> np.ndarray:
        # a power law, so that batches have duplicates
        return np.minimum((random.pareto(1.0, shape) * 3).astype(np.int64), size - 1)

    def bags(size: int) -> tf.RaggedTensor:
        lengths = random.integers(0, 4, num_rows)
        return tf.RaggedTensor.from_row_lengths(ids(size, lengths.sum()), lengths)

    def weighted(size: int) -> tuple[tf.RaggedTensor, tf.RaggedTensor]:
        values = bags(size)
        weights = random.uniform(0.5, 1.5, values.flat_values.shape[0]).astype(np.float32)
        return values, values.with_flat_values(tf.constant(weights))

    x = {
        "sgd_one": ids(300, num_rows),
        "sgd_many": ids(300, (num_rows, 3)),
        "tiny": ids(2, num_rows),
        "adagrad": ids(200, (num_rows, 2)),
        "rowwise": bags(150),
        "adam": ids(100, num_rows),
        "ftrl": ids(80, (num_rows, 2)),
        "quotient": ids(120, num_rows),
        "weighted": weighted(70),
        "half": ids(90, (num_rows, 2)),
        "frozen": ids(40, num_rows),
        "narrow": bags(60),
    }
    label = (x["sgd_one"] + x["quotient"] + random.integers(0, 2, num_rows)) % 3 == 0
    return x, label.astype(np.float32)[:, None]


def dataset(num_steps: int = NUM_STEPS) -> tf.data.Dataset:
    """Batches; the last one has fewer rows than there may be workers."""
    x, y = rows(BATCH_SIZE * num_steps - BATCH_SIZE + 2)
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH_SIZE)


def arrays(model: keras.Model) -> dict[str, np.ndarray]:
    """Every row, slot and dense weight."""
    return {
        **table_arrays(model),
        **{f"dense/{number}": w.numpy() for number, w in enumerate(dense_weights(model.weights))},
    }


def table_arrays(model: keras.Model) -> dict[str, np.ndarray]:
    """Every row and slot."""
    pieces: dict[str, list] = {}
    for tables in tables_of(model):
        for piece in tables.slices():
            rows = np.asarray(piece.read(0, piece.stop - piece.start))
            pieces.setdefault(piece.name, []).append((piece.start, rows))
    found = {}
    for name, parts in pieces.items():
        found[name] = np.concatenate([rows for _, rows in sorted(parts, key=lambda part: part[0])])
    return found
