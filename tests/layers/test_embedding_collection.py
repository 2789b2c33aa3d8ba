"""EmbeddingCollection trains alike in every kind of Keras model, and only when the model trains."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.devices import two_devices
from tests.layers.collection_models import (
    FEATURES,
    IDS,
    LABELS,
    ROWS,
    WIDTH,
    assert_differs,
    assert_same,
    collection,
    features,
    find,
    fit,
    functional,
    head,
    sequential,
    subclassed,
    tables,
    weights_of,
)
from tfdlrm.config import FeatureConfig, QuotientRemainderConfig, TableConfig
from tfdlrm.embeddings.optimizers import SGD, Adagrad
from tfdlrm.embeddings.recording import record_lookups
from tfdlrm.layers import EmbeddingCollection
from tfdlrm.models import Model


@pytest.fixture(scope="module")
def expected() -> list[np.ndarray]:
    return fit(functional(Model))


@pytest.mark.parametrize("make", [functional, sequential, subclassed])
@pytest.mark.parametrize("cls", [Model, keras.Model])
def test_every_model_trains_to_the_same_weights(make, cls, expected) -> None:
    assert_same(fit(make(cls)), expected)


@pytest.mark.parametrize("cls", [Model, keras.Model])
@pytest.mark.parametrize("options", [{"run_eagerly": True}, {"steps_per_execution": 3}], ids=str)
def test_ways_to_run_agree(cls, options, expected) -> None:
    assert_same(fit(functional(cls), **options), expected)


@pytest.mark.parametrize("cls", [Model, keras.Model])
def test_two_mirrored_devices_equal_one(cls, expected) -> None:
    strategy = two_devices()
    with strategy.scope():
        model = functional(cls)
    assert_same(fit(model), expected)
    assert int(find(model).tables.iterations.numpy()) == 6


def test_mirrored_clipping_and_loss_scaling_equal_one_device() -> None:
    def make(clip):
        return keras.optimizers.LossScaleOptimizer(
            keras.optimizers.SGD(0.1, global_clipnorm=clip), initial_scale=2.0**10
        )

    single = fit(functional(Model), make(0.05))
    with two_devices().scope():
        model = functional(Model)
        optimizer = make(0.05)
    # Keras clips each replica's dense gradient once more by the same limit, which is then no limit
    assert_same(fit(model, optimizer), single, tolerance=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.optimizers.SGD(0.1, loss_scale_factor=512.0),
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=2.0**12),
        lambda: keras.optimizers.SGD(0.1, global_clipnorm=1e6),
    ],
    ids=["loss_scale_factor", "LossScaleOptimizer", "global_clipnorm far away"],
)
def test_scaling_changes_nothing(make, expected) -> None:
    assert_same(fit(functional(Model), make()), expected)


def test_a_step_that_is_not_finite_is_skipped_for_tables_too() -> None:
    model = functional(Model)
    before = fit(model, keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=2.0**127))
    tables_before = list(before[:3])
    fresh = functional(Model)
    fresh.build((None, FEATURES))
    for table, rows in zip(("t0", "t1", "t2"), tables_before, strict=True):
        np.testing.assert_array_equal(find(fresh).tables.rows(table).numpy(), rows)


def micro_batches(k: int) -> list[np.ndarray]:
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=k)
    model = functional(Model, optimizer=SGD(0.1))
    model.compile(optimizer, keras.losses.BinaryCrossentropy(from_logits=True))
    model.fit(IDS, LABELS, batch_size=48 // k, epochs=3, shuffle=False, verbose=0)
    return weights_of(model)


def whole_batches(**options) -> list[np.ndarray]:
    model = functional(Model, optimizer=SGD(0.1))
    model.compile(keras.optimizers.SGD(0.1, **options), keras.losses.BinaryCrossentropy(from_logits=True))
    model.fit(IDS, LABELS, batch_size=48, epochs=3, shuffle=False, verbose=0)
    return weights_of(model)


@pytest.mark.parametrize("k", [2, 3])
def test_accumulated_micro_batches_equal_one_batch(k) -> None:
    assert_same(micro_batches(k), whole_batches(), tolerance=1e-6)


def test_accumulation_with_global_clipping_equals_one_clipped_batch() -> None:
    model = functional(Model, optimizer=SGD(0.1))
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=3, global_clipnorm=0.02)
    model.compile(optimizer, keras.losses.BinaryCrossentropy(from_logits=True))
    model.fit(IDS, LABELS, batch_size=16, epochs=3, shuffle=False, verbose=0)
    assert_same(weights_of(model), whole_batches(global_clipnorm=0.02), tolerance=1e-6)


def test_global_clipping_uses_the_norm_of_dense_and_tables_together() -> None:
    options = {"optimizer": SGD(0.1)}
    reference = functional(Model, **options)
    reference.compile(keras.optimizers.SGD(0.1), keras.losses.BinaryCrossentropy(from_logits=True))
    before = weights_of(reference)
    reference.train_on_batch(IDS, LABELS)
    steps = [after - start for after, start in zip(weights_of(reference), before, strict=True)]
    norm = float(np.sqrt(sum(np.sum(step.astype(np.float64) ** 2) for step in steps)) / 0.1)
    clipped = functional(Model, **options)
    clipped.compile(
        keras.optimizers.SGD(0.1, global_clipnorm=norm / 4), keras.losses.BinaryCrossentropy(from_logits=True)
    )
    clipped.train_on_batch(IDS, LABELS)
    for after, start, step in zip(weights_of(clipped), before, steps, strict=True):
        np.testing.assert_allclose(after - start, step / 4, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: keras.optimizers.SGD(0.1, gradient_accumulation_steps=2), "gradient_accumulation_steps=2"),
        (lambda: keras.optimizers.SGD(0.1, global_clipnorm=1.0), "global_clipnorm=1.0"),
        (lambda: keras.optimizers.SGD(0.1, loss_scale_factor=8.0), "loss_scale_factor=8.0"),
        (lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1)), "LossScaleOptimizer"),
    ],
)
@pytest.mark.parametrize("make_model", [functional, sequential, subclassed])
def test_a_plain_model_refuses_what_it_cannot_do(make, named, make_model) -> None:
    with pytest.raises(ValueError, match=named) as caught:
        make_model(keras.Model).compile(make(), "mse")
    assert "tfdlrm.Model" in str(caught.value)


def test_a_plain_model_refuses_mixed_float16_at_compile() -> None:
    keras.config.set_dtype_policy("mixed_float16")
    with pytest.raises(ValueError, match="mixed_float16"):
        functional(keras.Model).compile("sgd", "mse")


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_leaves_rows_in_float32(policy) -> None:
    keras.config.set_dtype_policy(policy)
    model = functional(Model)
    weights = fit(model)
    assert find(model)(tf.constant(IDS)).dtype.name == policy.removeprefix("mixed_")
    assert all(weight.dtype == np.float32 for weight in weights)


def two_lookups(cls: type[keras.Model], shared: bool) -> keras.Model:
    ids = keras.Input((FEATURES,), dtype="int64")
    first = collection()
    second = EmbeddingCollection(features(), share_tables_with=first, name="second") if shared else first
    joined = keras.layers.Concatenate(axis=1)([first(ids), second(ids[:, ::-1])])
    return cls(ids, head()(keras.layers.Flatten()(joined)))


def test_collections_on_one_table_update_it_once_together() -> None:
    shared, called_twice = fit(two_lookups(Model, shared=True)), fit(two_lookups(Model, shared=False))
    assert_same(shared, called_twice)
    model = two_lookups(Model, shared=True)
    fit(model, epochs=1)
    assert int(find(model).tables.iterations.numpy()) == 3


@pytest.mark.parametrize("shared", [True, False])
def test_a_plain_model_refuses_two_lookups_of_one_table(shared) -> None:
    with pytest.raises(ValueError, match="look the same tables up"):
        fit(two_lookups(keras.Model, shared))


@pytest.mark.parametrize("cls", [Model, keras.Model])
def test_only_training_updates(cls) -> None:
    model = functional(cls)
    model.compile("sgd", "mse")
    before = weights_of(model)
    model.evaluate(IDS, LABELS, verbose=0)
    model.predict(IDS, verbose=0)
    model.test_on_batch(IDS, LABELS)
    model(tf.constant(IDS), training=True)  # with dropout, say, and no tape
    assert_same(weights_of(model), before, tolerance=0)


@pytest.mark.parametrize("cls", [Model, keras.Model])
def test_a_frozen_collection_is_not_updated(cls) -> None:
    model = functional(cls)
    find(model).trainable = False
    before = weights_of(model)[: 2 * FEATURES]
    assert_same(fit(model)[: 2 * FEATURES], before, tolerance=0)


def test_a_frozen_table_stays_beside_one_that_learns() -> None:
    frozen, learned = tables()[0], tables()[1]
    configs = [
        FeatureConfig(name="a", table=dataclasses.replace(frozen, trainable=False)),
        FeatureConfig(name="b", table=learned),
    ]
    layer = EmbeddingCollection(configs, optimizer=SGD(0.1))
    ids = keras.Input((2,), dtype="int64")
    model = Model(ids, head()(keras.layers.Flatten()(layer(ids))))
    before = [layer.tables.rows(name).numpy() for name in ("t0", "t1")]
    model.compile("sgd", "mse")
    model.train_on_batch(IDS[:, :2], LABELS)
    np.testing.assert_array_equal(layer.tables.rows("t0"), before[0])
    assert np.abs(layer.tables.rows("t1").numpy() - before[1]).max() > 0
    assert not any(piece.name.startswith("t0/accumulator") for piece in layer.tables.slices())


def test_a_loop_of_ones_own(expected) -> None:
    model = functional(keras.Model)
    layer, loss_fn = find(model), keras.losses.BinaryCrossentropy(from_logits=True)
    optimizer = keras.optimizers.SGD(0.1)
    for start in [0, 16, 32] * 2:
        x, y = tf.constant(IDS[start : start + 16]), tf.constant(LABELS[start : start + 16])
        with tf.GradientTape() as tape, record_lookups(tape) as recorder:
            loss = loss_fn(y, model(x, training=True))
        weights = model.trainable_weights
        dense, pooled = tape.gradient(loss, [weights, recorder.leaves])
        recorder.update(pooled)
        optimizer.apply(dense, weights)
    assert int(layer.tables.iterations.numpy()) == 6
    assert_same(weights_of(model), expected)


def test_learning_rate_follows_the_dense_optimizer() -> None:
    following = fit(functional(Model, optimizer=Adagrad()), keras.optimizers.SGD(0.1))
    own = fit(functional(Model, optimizer=Adagrad(0.1)), keras.optimizers.SGD(0.1))
    stock = fit(functional(keras.Model, optimizer=Adagrad()), keras.optimizers.SGD(0.1))
    assert_same(following, own, tolerance=0)
    assert_same(stock, own)
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
    scheduled = fit(functional(Model, optimizer=Adagrad()), keras.optimizers.SGD(schedule))
    explicit = fit(functional(Model, optimizer=Adagrad(schedule)), keras.optimizers.SGD(schedule))
    assert_same(scheduled, explicit, tolerance=0)
    assert_differs(scheduled, own)


@pytest.mark.parametrize("operation", ["mult", "add", "concat"])
def test_config_round_trip(operation) -> None:
    split = QuotientRemainderConfig(collisions=3, operation=operation, threshold=0)
    table = TableConfig(name="t", vocabulary_size=30, embedding_dim=8, quotient_remainder=split)
    layer = EmbeddingCollection([FeatureConfig(name="f", table=table, hotness=None)], optimizer=SGD(0.5))
    again = EmbeddingCollection.from_config(layer.get_config())
    ids = {"f": tf.ragged.constant([[1, 29], [], [7]])}
    np.testing.assert_array_equal(again(ids), layer(ids))
    assert again.get_config() == layer.get_config()


def test_packed_ids_equal_a_dict() -> None:
    layer = EmbeddingCollection(features())
    by_name = {f"f{k}": IDS[:, k] for k in range(FEATURES)}
    np.testing.assert_array_equal(layer(tf.constant(IDS)), layer(by_name))


@pytest.mark.parametrize("rows", [1, 2])
def test_small_batches(rows) -> None:
    layer = EmbeddingCollection(features())
    assert layer(tf.constant(IDS[:rows])).shape == (rows, FEATURES, WIDTH)


def test_missing_feature_and_packed_width_are_named() -> None:
    layer = EmbeddingCollection(features())
    with pytest.raises(ValueError, match="feature 'f2' is missing from the inputs"):
        layer({"f0": IDS[:, 0], "f1": IDS[:, 1]})
    with pytest.raises(ValueError, match=r"need \[B, 3\]"):
        layer(tf.constant(IDS[:, :2]))


def test_different_widths_need_the_dict_form() -> None:
    wide = dataclasses.replace(tables()[1], embedding_dim=8)
    configs = [FeatureConfig(name="a", table=tables()[0]), FeatureConfig(name="b", table=wide)]
    with pytest.raises(ValueError, match=r"vectors differ in width: \{'a': 4, 'b': 8\}"):
        EmbeddingCollection(configs)
    out = EmbeddingCollection(configs, output="dict")({"a": tf.constant([1]), "b": tf.constant([2])})
    assert {name: vector.shape for name, vector in out.items()} == {"a": (1, 4), "b": (1, 8)}


def test_policy_counts() -> None:
    layer = EmbeddingCollection(features(id_policy="clip"), optimizer=SGD(0.1))
    ids = keras.Input((FEATURES,), dtype="int64")
    model = Model(ids, head()(keras.layers.Flatten()(layer(ids))))
    model.compile("sgd", "mse")
    bad = IDS.copy()
    bad[0, 1], bad[3, 1], bad[5, 2] = -1, ROWS, 10**12
    model.train_on_batch(bad, LABELS)
    model.predict(bad, verbose=0)
    assert layer.id_policy_counts == {"f0": 0, "f1": 2, "f2": 1}
