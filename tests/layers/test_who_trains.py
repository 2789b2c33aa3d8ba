"""Tables train wherever a model does, or an error says what is missing."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.forked import Forked
from tests.layers.collection_models import (
    FEATURES,
    IDS,
    LABELS,
    assert_same,
    find,
    fit,
    functional,
    sequential,
    subclassed,
    weights_of,
)
from tfdlrm.models import Model


@pytest.fixture(scope="module")
def expected() -> list[np.ndarray]:
    return fit(functional(Model))


def own_tape(model: keras.Model, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """The usual recipe: all gradients that the tape has of the model's weights."""
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(model(x, training=True) - y))
    gradients = tape.gradient(loss, model.trainable_variables)
    model.optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
    return loss


@pytest.mark.parametrize(
    ("make", "cls"),
    [
        (functional, Model),
        (subclassed, Model),
        (functional, keras.Model),
        (subclassed, keras.Model),
        (sequential, keras.Model),
    ],
)
@pytest.mark.parametrize("in_graph", [True, False])
def test_a_tape_of_ones_own_is_told_to_record(make, cls, in_graph) -> None:
    model = make(cls)
    model.compile("sgd", "mse")
    model(IDS[:2])
    before = weights_of(model)
    step = tf.function(own_tape) if in_graph else own_tape
    with pytest.raises(ValueError, match=r"layer 'embeddings': a GradientTape .* own") as caught:
        step(model, tf.constant(IDS), tf.constant(LABELS))
    assert "record_lookups(tape) as recorder" in str(caught.value)
    assert_same(weights_of(model), before, tolerance=0)
    find(model).trainable = False  # then its tables are to stay
    step = tf.function(own_tape) if in_graph else own_tape
    step(model, tf.constant(IDS), tf.constant(LABELS))
    assert_same(weights_of(model)[: 2 * FEATURES], before[: 2 * FEATURES], tolerance=0)


@pytest.mark.parametrize("cls", [Model, keras.Model])
@pytest.mark.parametrize("run_eagerly", [True, False])
def test_a_train_step_of_ones_own_is_told_to_record(cls, run_eagerly) -> None:
    base = type(subclassed(cls))

    class Own(base):
        def train_step(self, data):
            return {"loss": own_tape(self, *data)}

    model = Own()
    model.compile("sgd", "mse", run_eagerly=run_eagerly)
    with pytest.raises(ValueError, match="record_lookups"):
        model.fit(IDS, LABELS, verbose=0)


@pytest.mark.parametrize("cls", [Model, keras.Model])
def test_a_train_step_that_calls_the_one_above_trains(cls, expected) -> None:
    base = type(subclassed(cls))

    class Own(base):
        def train_step(self, data):
            return super().train_step(data)

    assert_same(fit(Own()), expected)


PLAIN = """
import sys
import keras
import numpy as np
from tfdlrm import EmbeddingCollection, FeatureConfig, TableConfig, optimizers
from tfdlrm.embeddings.initializers import Constant

table = TableConfig(name="t", vocabulary_size=5, embedding_dim=1, initializer=Constant(value=0.0))
layer = EmbeddingCollection([FeatureConfig(name="f", table=table)], optimizer=optimizers.SGD(0.5))
flatten, dense = keras.layers.Flatten(), keras.layers.Dense(1, kernel_initializer="ones")
kind, way = sys.argv[1:]
if kind == "sequential":
    model = keras.Sequential([keras.Input((1,), dtype="int64"), layer, flatten, dense])
elif kind == "functional":
    ids = keras.Input((1,), dtype="int64")
    model = keras.Model(ids, dense(flatten(layer(ids))))
else:
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.parts = [layer, flatten, dense]

        def call(self, ids, training=None):
            return dense(flatten(layer(ids, training=training)))

    model = Subclassed()
model.compile("sgd", "mse")
ids, y = np.array([[0], [1], [2], [2]]), np.array([[1.0], [2.0], [3.0], [5.0]], np.float32)
if way == "fit":
    model.fit(ids, y, batch_size=4, epochs=1, verbose=0)
else:
    model.train_on_batch(ids, y)
expected = np.zeros(5)
np.add.at(expected, ids[:, 0], 0.5 * 2 * y[:, 0] / 4)
np.testing.assert_allclose(layer.tables.rows("t").numpy()[:, 0], expected, rtol=1e-6)
assert "tfdlrm.models" not in sys.modules
"""


@pytest.mark.multiprocess
@pytest.mark.parametrize("kind", ["sequential", "functional", "subclassed"])
@pytest.mark.parametrize("way", ["fit", "train_on_batch"])
def test_a_plain_model_trains_by_the_imports_of_the_readme_alone(kind: str, way: str) -> None:
    done = Forked(PLAIN, kind, way).wait()
    assert done.returncode == 0, done.stderr
