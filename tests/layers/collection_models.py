"""The same model with an embedding collection, made in each of Keras's ways."""

from __future__ import annotations

import keras
import numpy as np

from tfdlrm.config import FeatureConfig, TableConfig
from tfdlrm.embeddings.optimizers import RowwiseAdagrad
from tfdlrm.layers import EmbeddingCollection
from tfdlrm.layers.table_variable import dense_weights
from tfdlrm.models import Model

ROWS, WIDTH, FEATURES = 40, 4, 3
RNG = np.random.default_rng(3)
IDS = RNG.integers(0, ROWS, (48, FEATURES))
LABELS = (RNG.random((48, 1)) < 0.5).astype(np.float32)


def tables() -> list[TableConfig]:
    return [TableConfig(name=f"t{k}", vocabulary_size=ROWS, embedding_dim=WIDTH) for k in range(FEATURES)]


def features(**options) -> list[FeatureConfig]:
    return [FeatureConfig(name=f"f{k}", table=table, **options) for k, table in enumerate(tables())]


def collection(**options) -> EmbeddingCollection:
    options.setdefault("optimizer", RowwiseAdagrad(0.1))
    return EmbeddingCollection(features(), seed=1, name="embeddings", **options)


def head() -> keras.layers.Dense:
    return keras.layers.Dense(1, kernel_initializer=keras.initializers.GlorotUniform(seed=2), name="head")


def functional(cls: type[keras.Model], **options) -> keras.Model:
    ids = keras.Input((FEATURES,), dtype="int64")
    return cls(ids, head()(keras.layers.Flatten()(collection(**options)(ids))))


def subclassed(cls: type[keras.Model], **options) -> keras.Model:
    class Subclassed(cls):
        def __init__(self):
            super().__init__()
            self.embeddings = collection(**options)
            self.flatten = keras.layers.Flatten()
            self.head = head()

        def call(self, ids, training=None):
            return self.head(self.flatten(self.embeddings(ids, training=training)))

    return Subclassed()


def sequential(cls: type[keras.Model], **options) -> keras.Model:
    layers = [keras.Input((FEATURES,), dtype="int64"), collection(**options), keras.layers.Flatten(), head()]
    model = keras.Sequential(layers)
    return cls(model.inputs, model.outputs) if cls is Model else model


def find(model: keras.Model) -> EmbeddingCollection:
    return next(layer for layer in model._flatten_layers() if isinstance(layer, EmbeddingCollection))


def weights_of(model: keras.Model) -> list[np.ndarray]:
    stored = [piece.read(0, piece.total).numpy() for piece in find(model).tables.slices()]
    return [*stored, *(weight.numpy() for weight in dense_weights(model.trainable_weights))]


def fit(model: keras.Model, optimizer=None, epochs: int = 2, **options) -> list[np.ndarray]:
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(optimizer or keras.optimizers.SGD(0.1), loss, **options)
    model.fit(IDS, LABELS, batch_size=16, epochs=epochs, shuffle=False, verbose=0)
    return weights_of(model)


def assert_same(actual: list[np.ndarray], expected: list[np.ndarray], tolerance: float = 2e-7) -> None:
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance)


def assert_differs(actual: list[np.ndarray], other: list[np.ndarray]) -> None:
    assert max(np.abs(a - b).max() for a, b in zip(actual, other, strict=True)) > 1e-4
