"""DotInteraction: the order of the pairs, and the gradient, by the native kernels and by TensorFlow's own ops."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import tfdlrm
from tests import reference as oracle
from tests.devices import two_devices
from tests.kernels import NATIVE, TENSORFLOW, kernels
from tfdlrm.layers import MLP, DotInteraction
from tfdlrm.layers.pair_products import num_pairs, pair_indices, pair_products, picked_by_slices
from tfdlrm.native.scope import native_kernels


def _inputs(batch: int, features: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x, e = rng.normal(size=(batch, width)), rng.normal(size=(batch, features, width))
    return x.astype(np.float32), e.astype(np.float32)


def test_order_of_the_pairs() -> None:
    # vectors of powers of ten on one axis: each product tells who made it
    x, e = np.float32([[1, 0]]), np.float32([[[10, 0], [100, 0], [1000, 0]]])
    assert DotInteraction()([x, e]).numpy().tolist() == [[1, 0, 10, 100, 1000, 1000, 10000, 100000]]
    assert DotInteraction(interact_itself=True)([x, e]).numpy().tolist() == [
        [1, 0, 1, 10, 100, 100, 1000, 10000, 1000, 10000, 100000, 1000000]
    ]
    assert DotInteraction(concat_dense=False, padding=4)([x, e]).numpy().tolist() == [
        [10, 100, 1000, 1000, 10000, 100000, 0, 0]
    ]


@pytest.mark.parametrize("itself", [False, True])
def test_pairs_are_row_major_below_the_diagonal(itself: bool) -> None:
    assert list(zip(*pair_indices(5, itself), strict=True)) == oracle.pairs_of(5, itself)
    assert num_pairs(5, itself) == len(oracle.pairs_of(5, itself))


@settings(max_examples=8)
@given(
    batch=st.integers(1, 5),
    features=st.integers(1, 6),
    width=st.integers(1, 5),
    itself=st.booleans(),
    padding=st.sampled_from([1, 3, 8]),
    seed=st.integers(0, 99),
)
def test_any_shape_is_the_oracles(batch: int, features: int, width: int, itself: bool, padding: int, seed: int) -> None:
    x, e = _inputs(batch, features, width, seed)
    expected = oracle.dot_interaction(x, e, itself, padding)
    layer = DotInteraction(itself, padding)
    assert layer.compute_output_shape([x.shape, e.shape]) == expected.shape
    upstream = np.random.default_rng(seed).normal(size=expected.shape).astype(np.float32)
    gradients = oracle.dot_interaction_backward(upstream, x, e, itself)
    for native in (False, True):
        tensors = [tf.constant(x), tf.constant(e)]
        with native_kernels(native), tf.GradientTape() as tape:
            tape.watch(tensors)
            output = layer(tensors)
        np.testing.assert_allclose(output.numpy(), expected, rtol=1e-5, atol=1e-5)
        found = tape.gradient(output, tensors, output_gradients=tf.constant(upstream))
        for gradient, right in zip(found, gradients, strict=True):
            np.testing.assert_allclose(gradient.numpy(), right, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "form", [lambda x, e: [x, e], lambda x, e: [x, tf.unstack(e, axis=1)], lambda x, e: [x, *tf.unstack(e, axis=1)]]
)
def test_the_forms_of_the_input_agree_to_the_bit(form: Any) -> None:
    x, e = map(tf.constant, _inputs(4, 3, 5))
    np.testing.assert_array_equal(DotInteraction()(form(x, e)).numpy(), DotInteraction()([x, e]).numpy())


def test_no_feature_gives_the_dense_vector() -> None:
    x = np.float32([[1, 2]])
    for native in (False, True):
        with native_kernels(native):
            assert DotInteraction()([x]).numpy().tolist() == [[1, 2]]


def _ops_of(layer: DotInteraction, inputs: list[tf.Tensor]) -> set[str]:
    function = tf.function(lambda: layer(inputs), autograph=False)
    return {op.type for op in function.get_concrete_function().graph.get_operations()}


def test_the_kernel_runs_inside_steps_and_nowhere_else() -> None:
    inputs = [tf.ones([2, 3]), tf.ones([2, 2, 3])]
    with native_kernels():
        assert "TfdlrmInteract" in _ops_of(DotInteraction(), inputs)
    assert not any(op.startswith("Tfdlrm") for op in _ops_of(DotInteraction(), inputs))


def test_half_precision_takes_stock_ops() -> None:
    inputs = [tf.ones([2, 3], tf.bfloat16), tf.ones([2, 2, 3], tf.bfloat16)]
    with native_kernels():
        assert DotInteraction(dtype="bfloat16")(inputs).numpy().tolist() == [[1, 1, 1, 3, 3, 3]] * 2


def _model(seed: int = 1) -> tfdlrm.Model:
    dense, e = keras.Input((3,), name="dense"), keras.Input((5, 8), name="e")
    x = MLP([8, 8], final_activation="relu", seed=seed)(dense)
    vectors = keras.layers.Dense(8, kernel_initializer=keras.initializers.GlorotUniform(seed), name="vectors")(e)
    z = DotInteraction()([x, vectors])
    return tfdlrm.Model({"dense": dense, "e": e}, MLP([8, 1], seed=seed + 1, dtype="float32")(z))


def _fitted(which: str, **compile_arguments: Any) -> np.ndarray:
    """Weights after two epochs, whose last batches are smaller than the others."""
    model = _model()
    model.compile(keras.optimizers.SGD(0.1), keras.losses.BinaryCrossentropy(from_logits=True), **compile_arguments)
    rng = np.random.default_rng(0)
    data = {
        "dense": rng.normal(size=(40, 3)).astype(np.float32),
        "e": rng.normal(size=(40, 5, 8)).astype(np.float32),
    }
    labels = (rng.random((40, 1)) < 0.5).astype(np.float32)
    with kernels(which):
        model.fit(data, labels, batch_size=16, epochs=2, shuffle=False, verbose=0)
    return np.concatenate([weight.numpy().ravel() for weight in model.trainable_weights])


@pytest.fixture(scope="module")
def plain_weights() -> np.ndarray:
    return _fitted(TENSORFLOW, jit_compile=False)


@pytest.mark.parametrize(
    "compile_arguments",
    [{"jit_compile": False}, {"run_eagerly": True}, {"steps_per_execution": 3}, {"jit_compile": True}],
    ids=lambda arguments: ",".join(arguments),
)
def test_fit_is_the_same_by_the_kernel(compile_arguments: dict[str, Any], plain_weights: np.ndarray) -> None:
    np.testing.assert_allclose(_fitted(NATIVE, **compile_arguments), plain_weights, rtol=1e-5, atol=1e-7)


def test_fit_under_two_devices_is_the_same(plain_weights: np.ndarray) -> None:
    with two_devices().scope():
        weights = _fitted(NATIVE, jit_compile=False)
    np.testing.assert_allclose(weights, plain_weights, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([(2, 4), (2, 3, 5)], r"dense vector has width 4, the features \[5\].*embedding_dim equal"),
        ([(2, 4), (2, 4), (2, 3)], "dense vector has width 4"),
        ([(2, 4), (2, 3, 4, 1)], "cannot be combined"),
        ([(2, 4), (2, None, 4)], "only B may be unknown"),
        ([(2, 3, 4)], "cannot be combined"),
    ],
)
def test_inputs_that_do_not_fit(inputs: list[tuple], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DotInteraction(name="interaction").build(inputs)
    with pytest.raises(ValueError, match="layer 'interaction'"):
        DotInteraction(name="interaction").compute_output_shape(inputs)


def test_arguments_that_are_not_valid() -> None:
    with pytest.raises(ValueError, match=r"layer 'i': padding=0 .* Give 1"):
        DotInteraction(padding=0, name="i")
    with pytest.raises(ValueError, match="layer 'i': one vector has no pairs"):
        DotInteraction(concat_dense=False, name="i").build([(2, 4)])


@pytest.mark.parametrize("num_vectors", [1, 2, 5])
@pytest.mark.parametrize("itself", [False, True])
@pytest.mark.parametrize("extra", [0, 3])
def test_cutting_pairs_out_row_by_row_gives_the_same_numbers(num_vectors: int, itself: bool, extra: int) -> None:
    rows = tf.random.stateless_normal([4, num_vectors, 3], [1, 2])
    width = 3 + num_pairs(num_vectors, itself) + extra
    gathered = pair_products(rows, rows[:, 0], itself, width)
    with picked_by_slices():
        cut = pair_products(rows, rows[:, 0], itself, width)
        graph = tf.function(lambda: pair_products(rows, rows[:, 0], itself, width)).get_concrete_function()
    assert "GatherV2" not in {node.op for node in graph.graph.as_graph_def().node}
    np.testing.assert_array_equal(cut, gathered)
    after = tf.function(lambda: pair_products(rows, rows[:, 0], itself, width)).get_concrete_function()
    assert "GatherV2" in {node.op for node in after.graph.as_graph_def().node}
