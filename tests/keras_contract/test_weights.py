"""Tables are weights: what Keras says of a model's weights, and what is read from and written to them."""

from __future__ import annotations

import copy
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.keras_contract.twins import (
    IDS,
    LABELS,
    assert_same_weights,
    compile_twin,
    fit,
    keras_twin,
    our_twin,
    scores,
    tfdlrm_twin,
    twins,
)
from tfdlrm.config import FeatureConfig, QuotientRemainderConfig, TableConfig
from tfdlrm.embeddings.optimizers import SGD, Adagrad
from tfdlrm.layers import EmbeddingCollection
from tfdlrm.layers.table_variable import TableVariable, dense_weights
from tfdlrm.models import Model

OURS = [our_twin, tfdlrm_twin]


def tables_of(model: keras.Model):
    return model.get_layer("tables").tables


def counts(model: keras.Model) -> list[str]:
    lines: list[str] = []
    model.summary(print_fn=lambda line, **_: lines.append(line))
    return re.findall(r"(\w[\w-]* params: [\d,]+ \([^)]*\))", "\n".join(lines))


@pytest.mark.parametrize("ours", OURS)
def test_counted_as_weights(ours) -> None:
    theirs, mine = twins(ours)
    assert mine.count_params() == theirs.count_params() == 30 * 4 + 20 * 4 + 9
    assert mine.get_layer("tables").count_params() == 200
    assert counts(mine) == counts(theirs)
    assert "Trainable params: 209 (836.00 B)" in counts(mine)
    for kind in ("weights", "variables", "trainable_weights", "trainable_variables", "non_trainable_weights"):
        assert [tuple(w.shape) for w in getattr(mine, kind)] == [tuple(w.shape) for w in getattr(theirs, kind)], kind
    assert [w.path for w in mine.weights][:2] == ["tables/user", "tables/item"]
    assert [w.dtype for w in mine.weights] == [w.dtype for w in theirs.weights]


@pytest.mark.parametrize("ours", OURS)
def test_values_are_read_and_written(ours) -> None:
    theirs, mine = twins(ours)
    assert_same_weights(mine, theirs, tolerance=0)
    np.testing.assert_array_equal(scores(mine), scores(theirs))
    values = [np.full(w.shape, k, np.float32) for k, w in enumerate(mine.weights)]
    for model in (theirs, mine):
        model.set_weights(values)
    np.testing.assert_array_equal(scores(mine), scores(theirs))
    np.testing.assert_array_equal(tables_of(mine).rows("item"), np.ones((20, 4)))
    weight = mine.weights[1]
    weight.assign_add(np.ones((20, 4)))
    for read in (weight.numpy(), np.asarray(weight), tf.convert_to_tensor(weight), weight + 0.0, weight.value.numpy()):
        np.testing.assert_array_equal(read, np.full((20, 4), 2.0))
    assert (float(keras.ops.sum(weight)), float(weight.value[3, 1]), len(weight.value)) == (160.0, 2.0, 20)


def test_wrong_values_are_refused() -> None:
    for model in (keras_twin(), our_twin()):
        before = model.get_weights()
        with pytest.raises(ValueError, match=r"\(30, 4\)"):
            model.set_weights([np.zeros((31, 4)), *before[1:]])
        with pytest.raises(ValueError, match="length 2"):
            model.set_weights(before[:2])
    weight = our_twin().weights[0]
    for wrong in (np.zeros((30, 5)), np.float32(0), 0.0, np.zeros(0)):
        with pytest.raises(ValueError, match=r"table 'user/rows'.*\[30, 4\].*copy_rows_from"):
            weight.assign(wrong)
    with pytest.raises(ValueError, match="every row"):
        weight.regularizer = keras.regularizers.L2()
    with pytest.raises(ValueError, match="every step"):
        weight.constraint = keras.constraints.NonNeg()


@pytest.mark.parametrize("ours", OURS)
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adagrad", "ftrl", "lion", "adafactor"])
def test_dense_optimizers_keep_no_state_of_tables(ours, optimizer) -> None:
    mine = ours(optimizer=SGD(0.1))
    mine.compile(optimizer, "mse")
    before = mine.get_weights()
    fit(mine, epochs=1)
    assert all(np.abs(a - b).max() > 0 for a, b in zip(before, mine.get_weights(), strict=True))
    assert max(int(np.prod(v.shape)) for v in mine.optimizer.variables) < 50
    assert int(tables_of(mine).iterations) == 4


def test_gradients_are_accumulated_for_dense_weights_only() -> None:
    mine = tfdlrm_twin()
    mine.compile(keras.optimizers.SGD(0.1, gradient_accumulation_steps=2), "mse")
    fit(mine, epochs=1)
    assert max(int(np.prod(v.shape)) for v in mine.optimizer.variables) < 50
    assert int(tables_of(mine).iterations) == 2


@pytest.mark.parametrize("ours", OURS)
def test_trained_as_keras_trains_them(ours) -> None:
    theirs, mine = twins(ours)
    for model in (theirs, mine):
        fit(compile_twin(model), validated=True)
    assert_same_weights(mine, theirs)


@pytest.mark.parametrize("way", ["clone", "pickle", "deepcopy", "config"])
@pytest.mark.parametrize("ours", OURS)
def test_copies(ours, way) -> None:
    mine = compile_twin(ours(optimizer=Adagrad(0.3)))
    fit(mine)
    if way == "clone":
        other = keras.models.clone_model(mine)
        assert np.abs(scores(other) - scores(mine)).max() > 0  # initial values
        other.set_weights(mine.get_weights())
    elif way == "config":
        other = type(mine).from_config(mine.get_config())
        other.set_weights(mine.get_weights())
    else:
        restore, arguments = mine.__reduce__()  # what pickle calls
        other = restore(*arguments) if way == "pickle" else copy.deepcopy(mine)
    np.testing.assert_array_equal(scores(other), scores(mine))
    if way in ("pickle", "deepcopy"):  # with the state of both optimizers
        fit(mine, epochs=1)
        fit(other, epochs=1)
        assert_same_weights(other, mine, tolerance=0)
    else:  # and they do not share rows
        mine.weights[0].assign(np.zeros((30, 4)))
        assert np.abs(other.weights[0].numpy()).max() > 0


@pytest.mark.parametrize("when", ["before compile", "after compile", "one by one"])
@pytest.mark.parametrize("ours", OURS)
def test_freezing(ours, when) -> None:
    theirs, mine = twins(ours)
    for model in (theirs, mine):
        if when == "after compile":
            compile_twin(model)
        layers = [layer for layer in model.layers if layer.weights and layer.name != "head"]
        for layer in layers:
            if when == "one by one":
                for weight in layer.weights:
                    weight.trainable = False
            else:
                layer.trainable = False
        if when != "after compile":
            compile_twin(model)
        fit(model)
    assert_same_weights(mine, theirs)
    assert len(mine.trainable_weights) == len(theirs.trainable_weights) == 2
    assert counts(mine)[:3] == counts(theirs)[:3]
    for model in (theirs, mine):
        for layer in model.layers:
            layer.trainable = True
            for weight in layer.weights:
                weight.trainable = True
        fit(compile_twin(model))
    assert_same_weights(mine, theirs)
    assert np.abs(mine.get_weights()[0] - keras_twin().get_weights()[0]).max() > 0


@pytest.mark.parametrize("ours", OURS)
def test_one_of_several_tables_frozen(ours) -> None:
    model = ours()
    model.weights[0].trainable = False
    with pytest.raises(ValueError, match=r"\['user'\] were frozen.*TableConfig\(trainable=False\)"):
        fit(compile_twin(model))
    frozen = ours(trainable=False)
    assert [w.trainable for w in frozen.weights] == [False, False, True, True]
    before = frozen.get_weights()
    fit(compile_twin(frozen))
    for table in (0, 1):
        np.testing.assert_array_equal(frozen.get_weights()[table], before[table])


def test_moving_averages_of_rows_are_refused() -> None:
    for ours in OURS:
        with pytest.raises(ValueError, match=r"SGD\(use_ema=True\) would average every row"):
            ours().compile(keras.optimizers.SGD(0.1, use_ema=True), "mse")
        frozen = ours(trainable=False)  # then there is nothing to average
        frozen.compile(keras.optimizers.SGD(0.1, use_ema=True), "mse")
        fit(frozen, epochs=1, validated=True, callbacks=[keras.callbacks.SwapEMAWeights()])


def test_a_loss_of_whole_tables_is_refused() -> None:
    model = our_twin()

    def loss() -> tf.Tensor:
        return tf.reduce_sum(tf.square(model.weights[0]))

    for call in (loss, tf.function(loss)):
        assert float(call()) > 0
        with tf.GradientTape() as tape, pytest.raises(ValueError, match=r"table 'user/rows'.*every row"):
            tape.gradient(call(), model.trainable_weights)


def test_a_layer_in_two_models() -> None:
    theirs, mine = twins(our_twin)
    for model in (theirs, mine):
        kept = [layer for layer in model.layers if layer.name != "head"]
        second = keras.Model(model.inputs, keras.layers.Dense(1, kernel_initializer="ones")(kept[-1].output))
        fit(compile_twin(second))
        assert len(second.weights) == 4
        np.testing.assert_array_equal(second.get_weights()[0], model.get_weights()[0])
    assert_same_weights(mine, theirs)


def test_a_collection_that_shares_tables_shows_them_once() -> None:
    table = TableConfig(name="item", vocabulary_size=20, embedding_dim=4)
    first = EmbeddingCollection([FeatureConfig(name="a", table=table)], name="first")
    second = EmbeddingCollection([FeatureConfig(name="b", table="item")], share_tables_with=first, name="second")
    a, b = keras.Input((), dtype="int64", name="a"), keras.Input((), dtype="int64", name="b")
    vectors = keras.layers.Concatenate()([second({"b": b}), first({"a": a})])  # the second is built first
    model = Model({"a": a, "b": b}, keras.layers.Flatten()(vectors))
    assert [w.name for w in model.weights] == ["item"]
    assert model.count_params() == 80


def test_every_kind_of_table() -> None:
    split = QuotientRemainderConfig(collisions=3, threshold=1)
    configs = [
        TableConfig(name="a b/c", vocabulary_size=6, embedding_dim=2, row_dtype="bfloat16"),
        TableConfig(name="a b|c", vocabulary_size=5, embedding_dim=2, pooling_weights="learned"),
        TableConfig(name="fixed", vocabulary_size=5, embedding_dim=2, trainable=False),
        TableConfig(name="qr", vocabulary_size=7, embedding_dim=2, quotient_remainder=split),
        TableConfig(name="narrow", vocabulary_size=4, embedding_dim=1, output_dim=2),
    ]
    layer = EmbeddingCollection([FeatureConfig(name=f"f{k}", table=t) for k, t in enumerate(configs)], name="tables")
    layer.build()
    found = {w.name: (tuple(w.shape), w.dtype, w.trainable) for w in layer.weights}
    assert found == {
        "a b|c": ((6, 2), "bfloat16", True),
        "a b|c_": ((5, 2), "float32", True),
        "a b|c|pooling_weights": ((5, 1), "float32", True),
        "fixed": ((5, 2), "float32", False),
        "qr|quotient": ((3, 2), "float32", True),
        "qr|remainder": ((3, 2), "float32", True),
        "narrow": ((4, 1), "float32", True),
        "narrow_projection": ((1, 2), "float32", True),
    }
    values = [np.random.default_rng(k).integers(-8, 8, w.shape).astype(np.float32) for k, w in enumerate(layer.weights)]
    layer.set_weights(values)
    for weight, value in zip(layer.weights, values, strict=True):
        np.testing.assert_array_equal(weight.numpy().astype(np.float32), value)
        assert weight.numpy().dtype == tf.as_dtype(weight.dtype).as_numpy_dtype
    assert len(dense_weights(layer.weights)) == 1
    assert repr(layer.weights[0]) == "<TableVariable path=tables/a b|c, shape=(6, 2), dtype=bfloat16>"


def test_a_larger_vocabulary_takes_rows_and_slots_over() -> None:
    old = compile_twin(our_twin(optimizer=Adagrad(0.3)))
    fit(old)
    new = our_twin({"user": (40, 4), "item": (20, 4)}, optimizer=Adagrad(0.3))
    with pytest.raises(ValueError, match=r"\(40, 4\)"):
        new.set_weights(old.get_weights())
    initial = new.get_weights()[0]
    assert tables_of(new).copy_rows_from(tables_of(old)) == [
        "user/rows",
        "item/rows",
        "user/accumulator",
        "item/accumulator",
    ]
    np.testing.assert_array_equal(new.get_weights()[0], np.concatenate([old.get_weights()[0], initial[30:]]))
    new.get_layer("head").set_weights(old.get_layer("head").get_weights())
    for model in (old, compile_twin(new)):
        fit(model, epochs=1)
    np.testing.assert_allclose(new.get_weights()[0][:30], old.get_weights()[0], atol=1e-6)

    def refused(match: str, sizes: dict, optimizer=None) -> None:
        other = our_twin(sizes, optimizer=optimizer or Adagrad(0.3))
        before = other.get_weights()
        with pytest.raises(ValueError, match=match):
            tables_of(other).copy_rows_from(tables_of(old))
        for one, value in zip(other.weights, before, strict=True):
            np.testing.assert_array_equal(one.numpy(), value)

    refused("no table in common", {"other": (30, 4)})
    refused(r"item/rows: \[20, 4\] cannot be copied into \[19, 4\]", {"user": (40, 4), "item": (19, 4)})
    refused(r"user/rows: \[30, 4\] cannot be copied into \[40, 5\]", {"user": (40, 5)})
    refused("user/accumulator: only one of the two", {"user": (40, 4)}, SGD(0.1))


@pytest.mark.parametrize("ours", OURS)
def test_reading_in_a_step_costs_nothing_unless_asked(ours, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a whole table was read")

    monkeypatch.setattr(TableVariable, "_read", refuse)
    monkeypatch.setattr(TableVariable, "numpy", refuse)
    model = compile_twin(ours())
    fit(model, validated=True)
    model.evaluate(IDS, LABELS, verbose=0)
    model.summary(print_fn=lambda *_, **__: None)
