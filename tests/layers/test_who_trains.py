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
from tfdlrm.layers.table_variable import dense_weights
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


@pytest.mark.parametrize("training", [None, False, True])
@pytest.mark.parametrize("in_graph", [True, False])
def test_a_tape_trains_tables_by_no_other_way(training, in_graph) -> None:
    """Whatever is said of training; what does not concern tables passes."""
    model = functional(keras.Model)
    model.compile("sgd", "mse")
    model(IDS[:2])
    before = weights_of(model)
    head = dense_weights(model.trainable_weights)

    def step(apply, of_head=False):
        weights = head if of_head else model.trainable_weights
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(tf.constant(IDS), training=training) - LABELS))
        gradients = tape.gradient(loss, weights)
        if apply == "optimizer":
            model.optimizer.apply(gradients, weights)
        elif apply == "clipped":
            model.optimizer.apply(tf.clip_by_global_norm(gradients, 1.0)[0], weights)
        elif apply == "by hand":
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.assign_sub(0.1 * gradient)
        return loss

    for apply in ("optimizer", "clipped", "by hand"):
        with pytest.raises(ValueError, match=r"(?s)layer 'embeddings': .*record_lookups"):
            (tf.function(step) if in_graph else step)(apply)
    assert_same(weights_of(model)[: 2 * FEATURES], before[: 2 * FEATURES], tolerance=0)
    (tf.function(step) if in_graph else step)("by hand", of_head=True)
    (tf.function(step) if in_graph else step)(None)
    assert_same(weights_of(model)[: 2 * FEATURES], before[: 2 * FEATURES], tolerance=0)


def test_a_whole_function_that_is_differentiated() -> None:
    model = functional(keras.Model)
    model.compile("sgd", "mse")
    model(IDS[:2])
    score = tf.function(lambda ids: model(ids))
    with tf.GradientTape(persistent=True) as tape:
        loss = tf.reduce_sum(score(tf.constant(IDS)))
    head = dense_weights(model.trainable_weights)
    assert all(gradient is not None for gradient in tape.gradient(loss, head))
    gradients = tape.gradient(loss, model.trainable_weights)
    with pytest.raises(ValueError, match=r"(?s)layer 'embeddings': .*record_lookups"):
        model.optimizer.apply(gradients, model.trainable_weights)

    @tf.function
    def outer():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(score(tf.constant(IDS)))
        model.optimizer.apply(tape.gradient(loss, model.trainable_weights), model.trainable_weights)

    with pytest.raises(ValueError, match=r"(?s)layer 'embeddings': .*record_lookups"):
        outer()


@pytest.mark.parametrize("cls", [Model, keras.Model])
@pytest.mark.parametrize("way", ["not taken", "nested", "nested, not taken", "nested, False"])
def test_tables_train_whatever_a_call_says_of_training(cls, way, expected) -> None:
    """As keras.layers.Embedding does, also where a part is called with training=False, as a base model is."""
    inner = subclassed(cls)

    class NotTaken(type(inner)):
        def call(self, ids):
            return self.head(self.flatten(self.embeddings(ids)))

    class Outer(cls):
        def __init__(self):
            super().__init__()
            self.inner = NotTaken() if way.endswith("not taken") else inner

    class Passes(Outer):
        def call(self, ids, training=None):
            return self.inner(ids, training=False if way.endswith("False") else training)

    class Takes(Outer):
        def call(self, ids):
            return self.inner(ids)

    model = NotTaken() if way == "not taken" else (Takes() if way.endswith("not taken") else Passes())
    assert_same(fit(model), expected)


def test_a_condition_of_the_graph_is_no_place_for_a_lookup() -> None:
    class Chooses(type(subclassed(keras.Model))):
        def call(self, ids):
            return tf.cond(tf.reduce_sum(ids) > 0, lambda: super(Chooses, self).call(ids), lambda: tf.zeros([16, 1]))

    with pytest.raises(ValueError, match=r"layer 'embeddings': looks up within tf.cond"):
        fit(Chooses())


@pytest.mark.parametrize(
    ("options", "instead"),
    [({"clipnorm": 0.1}, "row optimizer"), ({"clipvalue": 0.1}, "by norm"), ({"weight_decay": 0.1}, "exclude_from")],
)
def test_what_keras_does_to_each_weight_is_refused_of_a_plain_model(options, instead) -> None:
    optimizer = keras.optimizers.SGD(0.1, **options)
    for made in (subclassed(keras.Model), sequential(keras.Model)):
        with pytest.raises(ValueError, match=f"SGD\\({next(iter(options))}=0.1\\) does not reach .*{instead}"):
            fit(made, optimizer)
    model = sequential(keras.Model)
    find(model).trainable = False
    fit(model, keras.optimizers.SGD(0.1, **options))  # there is nothing to reach
    fit(functional(Model), keras.optimizers.SGD(0.1, **options))  # of dense weights


def test_a_plain_model_decays_what_is_not_excluded() -> None:
    model = sequential(keras.Model)
    expected = fit(sequential(keras.Model))
    optimizer = keras.optimizers.SGD(0.1, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(find(model).trainable_weights)
    found = fit(model, optimizer)
    assert np.abs(found[-1] - expected[-1]).max() > 0
    later = subclassed(keras.Model)  # not built when it is compiled
    optimizer = keras.optimizers.SGD(0.1, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["t0", "t1", "t2"])
    assert_same(fit(later, optimizer), found)


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
