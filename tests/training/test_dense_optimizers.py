"""Dense Adagrad against its formula and Keras, and the optimizer that a TrainConfig names."""

from __future__ import annotations

import doctest

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfdlrm.config import LearningRateConfig, TrainConfig
from tfdlrm.training import dense_optimizers
from tfdlrm.training.dense_optimizers import SGD, Adagrad, dense_optimizer_from_config
from tfdlrm.training.schedules import WarmupPolynomialDecay

STEPS = 6


def gradients(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    g = (rng.standard_normal((STEPS, 4, 3)) * 10.0 ** rng.integers(-6, 3, (STEPS, 4, 3))).astype(np.float32)
    g[:, 0] = 0.0  # a weight that never has a gradient stays finite, and where it is
    return g


def trained(optimizer: keras.optimizers.Optimizer, steps: np.ndarray) -> np.ndarray:
    weight = keras.Variable(np.ones(steps.shape[1:], np.float32))
    for gradient in steps:
        optimizer.apply([tf.constant(gradient)], [weight])
    return weight.numpy()


def adagrad_oracle(steps: np.ndarray, lr: float, start: float, epsilon: float, placement: str) -> np.ndarray:
    w, a = np.ones(steps.shape[1:]), np.full(steps.shape[1:], start)
    for g in steps.astype(np.float64):
        a += g**2
        w -= lr * g / (np.sqrt(a) + epsilon if placement == "outside" else np.sqrt(a + epsilon))
    return w


@pytest.mark.parametrize("placement", ["outside", "inside"])
@pytest.mark.parametrize(("start", "epsilon"), [(0.0, 1e-10), (0.0, 1e-3), (0.1, 1e-7), (2.0, 0.5)])
def test_adagrad_is_the_formula(placement, start, epsilon):
    optimizer = Adagrad(0.1, initial_accumulator_value=start, epsilon=epsilon, epsilon_placement=placement)
    expected = adagrad_oracle(gradients(), 0.1, start, epsilon, placement)
    np.testing.assert_allclose(trained(optimizer, gradients()), expected, rtol=1e-5, atol=1e-6)


def test_epsilon_placement_matters():
    small = np.full((1, 1, 1), 1e-4, np.float32)
    outside, inside = (
        trained(Adagrad(0.1, epsilon=1e-4, epsilon_placement=placement), small) for placement in ("outside", "inside")
    )
    np.testing.assert_allclose(outside, 0.95, rtol=1e-6)  # g / (g + eps) = 1/2
    np.testing.assert_allclose(inside, 1 - 0.1 * 1e-4 / np.sqrt(1e-8 + 1e-4), rtol=1e-6)


def test_inside_is_keras():
    ours = Adagrad(0.1, initial_accumulator_value=0.1, epsilon=1e-7, epsilon_placement="inside")
    theirs = keras.optimizers.Adagrad(0.1)
    np.testing.assert_array_equal(trained(ours, gradients()), trained(theirs, gradients()))


def test_adagrad_options_are_keras_options():
    """Clipping and weight decay act before and beside the update, as in every Keras optimizer."""
    g = gradients()
    norms = np.sqrt((g.astype(np.float64) ** 2).sum((1, 2), keepdims=True))
    clipped = g * np.minimum(1.0, 0.5 / norms)
    np.testing.assert_allclose(
        trained(Adagrad(0.1, global_clipnorm=0.5), g),
        adagrad_oracle(clipped, 0.1, 0.0, 1e-10, "outside"),
        rtol=1e-5,
    )
    accumulated = g.reshape(STEPS // 2, 2, 4, 3).astype(np.float64).mean(1)
    np.testing.assert_allclose(
        trained(Adagrad(0.1, gradient_accumulation_steps=2), g),
        adagrad_oracle(accumulated, 0.1, 0.0, 1e-10, "outside"),
        rtol=1e-5,
    )


def test_adagrad_serialization():
    optimizer = Adagrad(
        WarmupPolynomialDecay(0.5, 4, 6, 5), epsilon=1e-8, epsilon_placement="inside", global_clipnorm=1.0
    )
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is Adagrad
    assert again.get_config() == optimizer.get_config()
    np.testing.assert_array_equal(trained(again, gradients()), trained(optimizer, gradients()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon_placement": "within"}, "'outside'.*'inside'"),
        ({"epsilon": -1e-3}, "epsilon=-0.001 is negative"),
        ({"initial_accumulator_value": -1.0}, "initial_accumulator_value=-1.0 is negative"),
    ],
)
def test_adagrad_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        Adagrad(0.1, **options)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("sgd", SGD), ("adagrad", Adagrad), ("adam", keras.optimizers.Adam)],
)
def test_from_config(name, kind):
    optimizer = dense_optimizer_from_config(TrainConfig(optimizer=name, learning_rate=0.25))
    assert type(optimizer) is kind
    assert float(optimizer.learning_rate) == 0.25
    assert optimizer.global_clipnorm is None
    assert optimizer.gradient_accumulation_steps is None


def test_from_config_adagrad_is_the_references():
    optimizer = dense_optimizer_from_config(TrainConfig(optimizer="adagrad", learning_rate=0.1))
    assert (optimizer.epsilon, optimizer.epsilon_placement, optimizer.initial_accumulator_value) == (
        1e-10,
        "outside",
        0,
    )


def test_from_config_takes_schedule_clipping_and_accumulation():
    """The schedule advances once an update, though Keras calls it once a micro-batch."""
    schedule = LearningRateConfig(warmup_steps=4, decay_start_step=6, num_decay_steps=5)
    config = TrainConfig(learning_rate=0.5, schedule=schedule, global_clipnorm=2.0, gradient_accumulation_steps=2)
    optimizer = dense_optimizer_from_config(config)
    assert (optimizer.global_clipnorm, optimizer.gradient_accumulation_steps) == (2.0, 2)
    weight, seen = keras.Variable([0.0]), []
    for _ in range(8):
        optimizer.apply([tf.constant([-1.0])], [weight])
        seen.append(float(weight.numpy()[0]))
    np.testing.assert_allclose(seen, [0, 0.125, 0.125, 0.375, 0.375, 0.75, 0.75, 1.125], rtol=1e-6)


def test_from_config_takes_accumulation_over_one_step_for_none():
    config = TrainConfig(learning_rate=0.5, gradient_accumulation_steps=1)
    assert dense_optimizer_from_config(config).gradient_accumulation_steps is None


def test_from_config_refuses_an_unknown_optimizer():
    class Fields:
        optimizer, learning_rate, schedule = "lion", 0.1, None
        global_clipnorm = gradient_accumulation_steps = None

    with pytest.raises(ValueError, match="optimizer='lion'"):
        dense_optimizer_from_config(Fields())


def test_examples():
    assert doctest.testmod(dense_optimizers).failed == 0


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("in_graph", [False, True])
def test_sgd_is_keras_sgd(momentum: float, in_graph: bool) -> None:
    found = []
    for kind in (SGD, keras.optimizers.SGD):
        optimizer, weight = kind(0.3, momentum=momentum), keras.Variable(np.ones((4, 3), np.float32))
        optimizer.build([weight])

        def apply(gradient: tf.Tensor) -> None:
            optimizer.apply([gradient], [weight])  # noqa: B023

        step = tf.function(apply) if in_graph else apply
        for gradient in gradients():
            step(tf.constant(gradient))
        found.append(weight.numpy())
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)


def test_one_op_updates_a_weight() -> None:
    for optimizer, op in ((SGD(0.3), "ResourceApplyGradientDescent"), (Adagrad(0.3), "ResourceApplyAdagradV2")):
        weight = keras.Variable(np.ones((4, 3), np.float32))
        optimizer.build([weight])
        function = tf.function(lambda: optimizer.apply([tf.ones((4, 3))], [weight]))  # noqa: B023
        assert op in {node.type for node in function.get_concrete_function().graph.get_operations()}


def test_half_precision_weights_take_keras_own_way() -> None:
    weight = keras.Variable(np.ones(2, np.float32), dtype="bfloat16")
    SGD(0.5).apply([tf.constant([1.0, 0.0], tf.bfloat16)], [weight])
    assert keras.ops.cast(weight, "float32").numpy().tolist() == [0.5, 1.0]
