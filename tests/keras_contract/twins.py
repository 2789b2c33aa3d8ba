"""The same model twice: with `keras.layers.Embedding`, and with an `EmbeddingCollection` of the same tables."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np

from tfdlrm.config import FeatureConfig, TableConfig
from tfdlrm.embeddings.optimizers import SGD
from tfdlrm.layers import EmbeddingCollection
from tfdlrm.models import Model

SIZES = {"user": (30, 4), "item": (20, 4)}
RNG = np.random.default_rng(5)
IDS = {name: RNG.integers(0, rows, 64) for name, (rows, _) in SIZES.items()}
# a click has to do with the item, so that training gets somewhere before it overfits
LABELS = (RNG.random((64, 1)) < 0.2 + 0.6 * (IDS["item"][:, None] % 2)).astype(np.float32)
VALIDATION_IDS = {name: RNG.integers(0, rows, 64) for name, (rows, _) in SIZES.items()}
VALIDATION_LABELS = (RNG.random((64, 1)) < 0.2 + 0.6 * (VALIDATION_IDS["item"][:, None] % 2)).astype(np.float32)

Make = Callable[..., keras.Model]


def _head() -> list[keras.layers.Layer]:
    return [keras.layers.Dense(1, kernel_initializer=keras.initializers.GlorotUniform(seed=1), name="head")]


def keras_twin(sizes: dict[str, tuple[int, int]] = SIZES) -> keras.Model:
    """What Keras users write: an `Embedding` a table."""
    inputs = {name: keras.Input((), dtype="int64", name=name) for name in sizes}
    vectors = [keras.layers.Embedding(*size, name=f"{name}_table")(inputs[name]) for name, size in sizes.items()]
    x = keras.layers.Concatenate()(vectors)
    for layer in _head():
        x = layer(x)
    return keras.Model(inputs, x)


def our_twin(
    sizes: dict[str, tuple[int, int]] = SIZES, cls: type[keras.Model] = keras.Model, optimizer=None, **table
) -> keras.Model:
    """The same with tables of ours, all in one layer, trained by plain gradient descent as the dense weights are."""
    inputs = {name: keras.Input((), dtype="int64", name=name) for name in sizes}
    features = [
        FeatureConfig(name=name, table=TableConfig(name=name, vocabulary_size=rows, embedding_dim=width, **table))
        for name, (rows, width) in sizes.items()
    ]
    x = keras.layers.Flatten()(EmbeddingCollection(features, optimizer=optimizer or SGD(), name="tables")(inputs))
    for layer in _head():
        x = layer(x)
    return cls(inputs, x)


def tfdlrm_twin(sizes: dict[str, tuple[int, int]] = SIZES, **options) -> keras.Model:
    """`our_twin` as a `tfdlrm.Model`."""
    return our_twin(sizes, cls=Model, **options)


def twins(ours: Make, **options) -> tuple[keras.Model, keras.Model]:
    """(Keras's, ours), with the same weights."""
    theirs, mine = keras_twin(), ours(**options)
    mine.set_weights(theirs.get_weights())
    return theirs, mine


def compile_twin(model: keras.Model, rate: float = 0.5, **options) -> keras.Model:
    model.compile(keras.optimizers.SGD(rate), keras.losses.BinaryCrossentropy(from_logits=True), **options)
    return model


def fit(model: keras.Model, epochs: int = 3, validated: bool = False, **options) -> keras.callbacks.History:
    if validated:  # which traces another function
        options["validation_data"] = (VALIDATION_IDS, VALIDATION_LABELS)
    return model.fit(IDS, LABELS, batch_size=16, epochs=epochs, shuffle=False, verbose=0, **options)


def scores(model: keras.Model) -> np.ndarray:
    return model.predict(VALIDATION_IDS, verbose=0)


def assert_same_weights(one: keras.Model, other: keras.Model, tolerance: float = 1e-6) -> None:
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)
