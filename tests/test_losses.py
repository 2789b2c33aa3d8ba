"""Losses against NumPy oracles and the reference's stored runs."""

from __future__ import annotations

import doctest
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import reference_losses as oracle
from tests.golden_files import golden_runs
from tfdlrm import losses

CLAMPS = [0.0, 1e-6, 0.1, 0.399, 0.5, 0.7, 1.0, -0.5]
WEIGHTS = (0.4, 1.6)
LOSSES = {
    "bce": (lambda clamp: losses.BinaryCrossentropy(clamp), oracle.bce),
    "mse": (lambda clamp: losses.MeanSquaredError(clamp), oracle.mse),
    "wbce": (
        lambda clamp: losses.WeightedBinaryCrossentropy(WEIGHTS, clamp),
        lambda x, y, clamp: oracle.wbce(x, y, WEIGHTS, clamp),
    ),
}


def value_and_gradient(loss: keras.losses.Loss, y, x, weights=None) -> tuple[float, np.ndarray]:
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = loss(y, x, sample_weight=weights)
    gradient = tape.gradient(value, x)
    assert value.dtype == tf.float32
    assert gradient.dtype == x.dtype
    return float(value), np.asarray(tf.cast(gradient, tf.float64))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("clamp", CLAMPS)
@settings(max_examples=12)  # times 24 losses
@given(
    entries=st.lists(
        st.tuples(st.floats(-60, 60, width=32, allow_subnormal=False), st.sampled_from([0.0, 1.0])),
        min_size=1,
        max_size=40,
    ),
    num_tasks=st.integers(1, 3),
)
def test_value_and_gradient_are_the_oracles(name, clamp, entries, num_tasks):
    build, reference = LOSSES[name]
    x = np.array([[logit] * num_tasks for logit, _ in entries], np.float32)
    y = np.array([[label] * num_tasks for _, label in entries], np.float32)
    value, gradient = value_and_gradient(build(clamp), y, x)
    expected, expected_gradient = reference(x, y, clamp)
    np.testing.assert_allclose(value, expected.mean(), rtol=2e-6, atol=1e-12)
    # sigmoid(x) - y loses e^-|x| in float32; the reference does too
    np.testing.assert_allclose(gradient * x.size, expected_gradient, rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize("clamp", [0.05, 0.25, 0.399, 0.5, 0.8])
def test_clamp_is_that_of_the_probability(clamp):
    """min(max(p, t), 1 - t): also where t > 1/2 turns the interval around, which gives 1 - t everywhere."""
    p = np.linspace(0.001, 0.999, 999)
    logits = tf.constant(np.log(p / (1 - p)), tf.float32)
    clamped = tf.sigmoid(losses.clamp_logits(logits, clamp)).numpy()
    np.testing.assert_allclose(clamped, np.minimum(np.maximum(p, clamp), 1 - clamp), rtol=2e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_of_the_clamp_is_full_on_its_ends_and_zero_outside(name):
    build, reference = LOSSES[name]
    end = np.float32(np.log(3.0))  # t = 1/4
    outside = np.nextafter(end, np.float32(9))
    x = np.array([[-outside], [-end], [end], [outside]], np.float32)
    y = np.array([[1], [1], [0], [0]], np.float32)
    _, gradient = value_and_gradient(build(0.25), y, x)
    assert (gradient != 0).ravel().tolist() == [False, True, True, False]
    np.testing.assert_allclose(gradient * 4, reference(x, y, 0.25)[1], rtol=1e-6)


@pytest.mark.parametrize("clamp", [0.0, 0.01])
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_extreme_logits_are_finite_in_every_precision(name, dtype, clamp):
    build, reference = LOSSES[name]
    x = np.array([[1e4], [-1e4], [1e4], [-1e4], [0.0], [0.5]])
    y = np.array([[1.0], [0.0], [0.0], [1.0], [1.0], [0.0]])
    x = np.asarray(tf.cast(tf.constant(x), dtype).numpy().astype(np.float64))  # what the dtype can hold
    value, gradient = value_and_gradient(build(clamp), y, tf.cast(tf.constant(x), dtype))
    expected, expected_gradient = reference(x, y, clamp)
    np.testing.assert_allclose(value, expected.mean(), rtol=1e-6)  # computed in float32, whatever the logits are
    resolution = {"bfloat16": 2**-8, "float16": 2**-11}.get(dtype, 1e-6)
    np.testing.assert_allclose(gradient, expected_gradient / len(x), rtol=resolution, atol=1e-8)


def test_golden_losses():
    """The loss that the reference stored, from the probability and the config that it stored."""
    for path in golden_runs():
        with np.load(path, allow_pickle=False) as stored:
            config = json.loads(str(stored["config"]))
            weights = tuple(float(weight) for weight in config["loss_weights"].split("-"))
            loss = losses.loss_from_config(config["loss"], weights, config["threshold"])
            for step in range(config["steps"]):
                p = stored[f"step_{step}/probability"].astype(np.float64)
                logits = np.log(p) - np.log1p(-p)
                got = float(loss(stored[f"step_{step}/label"], tf.constant(logits, tf.float32)))
                np.testing.assert_allclose(got, stored[f"step_{step}/loss"], rtol=1e-5, err_msg=path.name)


def test_weights_are_of_rows_or_of_entries():
    x, y = np.array([[0.5, -1.0], [2.0, 0.0]], np.float32), np.array([[1, 0], [0, 1]], np.float32)
    loss, each = losses.BinaryCrossentropy(), oracle.bce(x, y)[0]
    rows = np.array([3.0, 1.0], np.float32)
    expected = (each * rows[:, None]).mean()
    assert float(loss(y, tf.constant(x), sample_weight=rows)) == pytest.approx(expected, rel=1e-6)
    assert float(loss(y, tf.constant(x), sample_weight=rows[:, None])) == pytest.approx(expected, rel=1e-6)
    entries = np.array([[1.0, 0.0], [2.0, 5.0]], np.float32)
    assert float(loss(y, tf.constant(x), sample_weight=entries)) == pytest.approx((each * entries).mean(), rel=1e-6)
    _, gradient = value_and_gradient(loss, y, x, rows)
    np.testing.assert_allclose(gradient, oracle.bce(x, y)[1] * rows[:, None] / 4, rtol=1e-6)


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "none"])
def test_reduction(reduction):
    x, y = np.array([[0.5], [2.0]], np.float32), np.array([[1], [0]], np.float32)
    got = losses.BinaryCrossentropy(reduction=reduction)(y, tf.constant(x)).numpy()
    each = oracle.bce(x, y)[0]
    expected = {"sum_over_batch_size": each.mean(), "sum": each.sum(), "none": each}[reduction]
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_labels_without_the_task_axis_line_up_with_the_logits():
    x, y = np.array([[0.5], [2.0]], np.float32), np.array([1, 0], np.float32)
    expected = oracle.bce(x, y[:, None])[0].mean()
    loss = losses.BinaryCrossentropy()
    assert float(loss(y, tf.constant(x))) == pytest.approx(expected, rel=1e-6)
    assert float(loss(y[:, None], tf.constant(x[:, 0]))) == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ValueError, match=r"labels of shape \(3, 1\) and logits of shape \(2, 1\)"):
        loss(np.zeros((3, 1), np.float32), tf.constant(x))
    with pytest.raises(ValueError, match="do not match"):
        loss(y, tf.zeros((2, 3)))


def test_wbce_takes_the_weight_of_the_labels_integer_part():
    loss = losses.WeightedBinaryCrossentropy((0.5, 2.0), reduction="none")
    labels = np.array([[0.0], [0.75], [1.0]], np.float32)
    each = losses.BinaryCrossentropy(reduction="none")(labels, tf.zeros((3, 1))).numpy()
    np.testing.assert_array_equal(loss(labels, tf.zeros((3, 1))), each * [[0.5], [0.5], [2.0]])


@pytest.mark.parametrize(
    "loss",
    [
        losses.BinaryCrossentropy(0.1, reduction="sum", name="mine"),
        losses.MeanSquaredError(0.2),
        losses.WeightedBinaryCrossentropy((0.3, 1.7), 0.05),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_serialization(loss):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert type(again) is type(loss)
    assert again.get_config() == loss.get_config()
    y, x = np.array([[1.0], [0.0]], np.float32), tf.constant([[0.3], [4.0]])
    assert float(again(y, x)) == float(loss(y, x))


def test_from_config():
    assert isinstance(losses.loss_from_config("bce"), losses.BinaryCrossentropy)
    assert isinstance(losses.loss_from_config("mse", probability_clamp=0.1), losses.MeanSquaredError)
    weighted = losses.loss_from_config("wbce", (0.25, 4.0), 0.1)
    assert isinstance(weighted, losses.WeightedBinaryCrossentropy)
    assert (weighted.weights, weighted.probability_clamp) == ((0.25, 4.0), 0.1)
    with pytest.raises(ValueError, match=r"loss='hinge'.*bce, mse, wbce"):
        losses.loss_from_config("hinge")


@pytest.mark.parametrize("weights", [(1.0,), (1.0, -1.0), (1.0, float("nan")), (1.0, 2.0, 3.0)])
def test_bad_weights(weights):
    with pytest.raises(ValueError, match="Give two finite numbers"):
        losses.WeightedBinaryCrossentropy(weights)


@pytest.mark.parametrize("clamp", [float("nan"), float("inf"), "0.1", None])
def test_bad_clamp(clamp):
    with pytest.raises(ValueError, match="probability_clamp"):
        losses.BinaryCrossentropy(clamp)


def test_trains_in_keras_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.5), losses.BinaryCrossentropy())
    x = np.array([[1.0, 0.0], [0.0, 1.0]] * 8, np.float32)
    history = model.fit(x, x[:, :1], epochs=5, verbose=0).history["loss"]
    assert history[-1] < history[0]


def test_examples():
    assert doctest.testmod(losses).failed == 0
