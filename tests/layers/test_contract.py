"""What every dense layer keeps: one case a layer and option, one parametrised test a promise."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tests import reference as oracle
from tfdlrm import layers

Arrays = list[np.ndarray]


class Case(NamedTuple):
    """A layer, the shapes of its inputs behind the batch, and its formula on `(inputs, weights)` in float64."""

    make: Callable[..., keras.layers.Layer]
    shapes: list[tuple[int, ...]]
    formula: Callable[[Arrays, Arrays], np.ndarray]

    def inputs(self, batch: int) -> Arrays:
        rng = np.random.default_rng(5)
        return [rng.normal(size=(batch, *shape)).astype(np.float32) for shape in self.shapes]

    def symbolic(self) -> list[keras.KerasTensor]:
        return [keras.Input(shape, name=f"in_{i}") for i, shape in enumerate(self.shapes)]

    def model(self) -> keras.Model:
        inputs = as_argument(self.symbolic())
        return keras.Model(inputs, self.make()(inputs))


def as_argument(tensors: list[Any]) -> Any:
    return tensors[0] if len(tensors) == 1 else tensors


def _layers(weights: Arrays, size: int) -> list[tuple[np.ndarray, ...]]:
    return [tuple(weights[i : i + size]) for i in range(0, len(weights), size)]


def _mlp(final: str | None) -> Callable[[Arrays, Arrays], np.ndarray]:
    return lambda inputs, weights: oracle.mlp(inputs[0], _layers(weights, 2), final)[-1]


def _normalized_mlp(kind: str) -> Callable[[Arrays, Arrays], np.ndarray]:
    """dense -> normalization (inference) -> ReLU -> dense, at Keras's epsilon of 1e-3."""

    def formula(inputs: Arrays, weights: Arrays) -> np.ndarray:
        if kind == "layer":
            kernel, bias, last_kernel, last_bias, gamma, beta = weights
            hidden = oracle.dense(inputs[0], kernel, bias, None)
            mean, variance = hidden.mean(axis=1, keepdims=True), hidden.var(axis=1, keepdims=True)
        else:
            kernel, last_kernel, last_bias, gamma, beta, mean, variance = weights
            hidden = inputs[0] @ kernel
        hidden = np.maximum((hidden - mean) / np.sqrt(variance + 1e-3) * gamma + beta, 0)
        return oracle.dense(hidden, last_kernel, last_bias, None)

    return formula


def _projected(inputs: Arrays, weights: Arrays) -> np.ndarray:
    x, e = inputs
    joined = oracle.concat_interaction(x, e)
    first = 4  # kernels and biases of the first branch
    y = oracle.mlp(joined, _layers(weights[:first], 2), "relu")[-1].reshape(len(x), -1, x.shape[1])
    z = oracle.mlp(joined, _layers(weights[first:], 2), "relu")[-1].reshape(len(x), x.shape[1], -1)
    return np.concatenate([x, (y @ z).reshape(len(x), -1)], axis=1)


STACKED = [(4,), (3, 4)]
ONE_BY_ONE = [(4,)] * 4


def _dot(itself: bool = False, padding: int = 1, head: int = 4) -> Callable[[Arrays, Arrays], np.ndarray]:
    def formula(inputs: Arrays, weights: Arrays) -> np.ndarray:
        x, *rest = inputs
        e = rest[0] if rest[0].ndim == 3 else np.stack(rest, axis=1)
        output = oracle.dot_interaction(x, e, itself)[:, 4 - head :]
        return np.pad(output, [(0, 0), (0, -output.shape[1] % padding)])

    return formula


def _partial(layer: type, *args: Any, **fixed: Any) -> Callable[..., keras.layers.Layer]:
    return lambda **kwargs: layer(*args, **fixed, **kwargs)


CASES = {
    "mlp": Case(_partial(layers.MLP, [5, 3], seed=1), [(4,)], _mlp(None)),
    "mlp_relu_at_the_end": Case(_partial(layers.MLP, [5, 3], final_activation="relu", seed=1), [(4,)], _mlp("relu")),
    "mlp_dropout": Case(_partial(layers.MLP, [5, 4, 3], dropout=0.5, seed=1), [(4,)], _mlp(None)),
    "mlp_layer_normalization": Case(
        _partial(layers.MLP, [5, 3], normalization="layer", seed=1), [(4,)], _normalized_mlp("layer")
    ),
    "mlp_batch_normalization": Case(
        _partial(layers.MLP, [5, 3], normalization="batch", seed=1), [(4,)], _normalized_mlp("batch")
    ),
    "dot": Case(_partial(layers.DotInteraction), STACKED, _dot()),
    "dot_one_by_one": Case(_partial(layers.DotInteraction), ONE_BY_ONE, _dot()),
    "dot_itself_padded": Case(_partial(layers.DotInteraction, True, padding=8), STACKED, _dot(True, 8)),
    "dot_without_dense": Case(
        _partial(layers.DotInteraction, padding=4, concat_dense=False), STACKED, _dot(False, 4, 0)
    ),
    "concat": Case(_partial(layers.ConcatInteraction), STACKED, lambda i, w: oracle.concat_interaction(*i)),
    "concat_padded": Case(
        _partial(layers.ConcatInteraction, padding=10),
        [(4,), (2,), (3,)],
        lambda i, w: np.pad(np.concatenate(i, axis=1), [(0, 0), (0, 1)]),
    ),
    "cross": Case(
        _partial(layers.LowRankCross, 2, 3, seed=1),
        [(6,)],
        lambda i, w: oracle.low_rank_cross(i[0], _layers(w, 3))[-1],
    ),
    "projected_dot": Case(_partial(layers.ProjectedDotInteraction, [5, 8], [12], seed=1), STACKED, _projected),
}


@pytest.fixture(params=CASES, name="case")
def _case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def built(case: Case, **kwargs: Any) -> keras.layers.Layer:
    """The layer with weights off their initial zeros and ones."""
    layer = case.make(**kwargs)
    layer.build(as_argument([(None, *shape) for shape in case.shapes]))
    rng = np.random.default_rng(9)
    for weight in layer.weights:
        if weight.dtype == "float32" and len(weight.shape) < 2:
            weight.assign(rng.uniform(0.2, 1.0, weight.shape))
    return layer


def float_weights(layer: keras.layers.Layer) -> list[keras.Variable]:
    """Without the states of random generators."""
    return [weight for weight in layer.weights if weight.dtype == "float32"]


def test_forward_is_the_formula(case: Case) -> None:
    layer, inputs = built(case), case.inputs(6)
    expected = case.formula(inputs, [weight.numpy() for weight in float_weights(layer)])
    np.testing.assert_allclose(layer(as_argument(inputs)).numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("mode", "training"), [("eager", False), ("eager", True), ("graph of unknown batch", True)])
def test_gradients_are_the_formulas(case: Case, mode: str, training: bool) -> None:
    layer, inputs = built(case), case.inputs(3)
    if training and (getattr(layer, "dropout", 0) or getattr(layer, "normalization", "") == "batch"):
        training = False  # random, or the batch's own statistics: the formula has neither
    weights = float_weights(layer)
    trained = [index for index, weight in enumerate(weights) if weight.trainable]
    upstream = np.random.default_rng(3).normal(size=layer(as_argument(inputs)).shape).astype(np.float32)

    def gradients(*tensors: tf.Tensor) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            output = layer(as_argument(list(tensors)), training=training)
        sources = [*tensors, *[weights[index].value for index in trained]]
        return tape.gradient(output, sources, output_gradients=tf.constant(upstream))

    if mode == "graph of unknown batch":
        signature = [tf.TensorSpec([None, *shape]) for shape in case.shapes]
        gradients = tf.function(gradients, autograph=False, input_signature=signature)
    found = gradients(*map(tf.constant, inputs))
    arrays = [array.astype(np.float64) for array in [*inputs, *[w.numpy() for w in weights]]]
    count = len(inputs)
    checked = [*range(count), *[count + index for index in trained]]
    for gradient, index in zip(found, checked, strict=True):
        expected = derivative(lambda: case.formula(arrays[:count], arrays[count:]), arrays[index], upstream)
        np.testing.assert_allclose(tf.convert_to_tensor(gradient), expected, rtol=1e-4, atol=2e-5)


def derivative(formula: Callable[[], np.ndarray], array: np.ndarray, upstream: np.ndarray) -> np.ndarray:
    """Central differences of `sum(upstream * formula())` as `array` changes."""
    gradient, step = np.zeros_like(array), 1e-6
    for index in np.ndindex(array.shape):
        kept = array[index]
        values = []
        for shift in (step, -step):
            array[index] = kept + shift
            values.append((upstream * formula()).sum())
        array[index] = kept
        gradient[index] = (values[0] - values[1]) / (2 * step)
    return gradient


def test_config_round_trip(case: Case) -> None:
    layer = case.make(name="some_name")
    config = layer.get_config()
    assert json.loads(json.dumps(config)) == config
    again = type(layer).from_config(config)
    assert again.get_config() == config
    inputs = case.inputs(2)
    # seeded layers, so the copy starts from the same values
    np.testing.assert_array_equal(again(as_argument(inputs)).numpy(), layer(as_argument(inputs)).numpy())


def test_every_argument_is_in_the_config(case: Case) -> None:
    layer = case.make()
    arguments = set(type(layer).__init__.__code__.co_varnames[1 : _num_arguments(type(layer))])
    assert arguments <= layer.get_config().keys()


def _num_arguments(layer_class: type) -> int:
    code = layer_class.__init__.__code__
    return code.co_argcount + code.co_kwonlyargcount


def test_a_batch_of_one_is_a_row_of_a_larger_one(case: Case) -> None:
    layer, inputs = built(case), case.inputs(5)
    whole = layer(as_argument(inputs)).numpy()
    one = layer(as_argument([array[2:3] for array in inputs])).numpy()
    assert one.shape == (1, *whole.shape[1:])
    np.testing.assert_allclose(one[0], whole[2], rtol=1e-6, atol=1e-6)


def test_unknown_batch_size(case: Case) -> None:
    model = case.model()
    layer = model.layers[-1]
    shapes = as_argument([(None, *shape) for shape in case.shapes])
    assert model.output_shape == tuple(layer.compute_output_shape(shapes))
    for batch in (1, 4):
        inputs = case.inputs(batch)
        expected = case.formula(inputs, [weight.numpy() for weight in float_weights(layer)])
        np.testing.assert_allclose(model(as_argument(inputs)).numpy(), expected, rtol=1e-5, atol=1e-5)
    assert layer.compute_output_shape(as_argument([(7, *shape) for shape in case.shapes])) == (
        7,
        model.output_shape[-1],
    )


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_dtype_policy(case: Case, policy: str) -> None:
    layer = case.make(dtype=policy)
    inputs = case.inputs(4)
    training = not (getattr(layer, "dropout", 0) or getattr(layer, "normalization", "") == "batch")
    with tf.GradientTape() as tape:
        tensors = [tf.constant(array) for array in inputs]
        tape.watch(tensors)
        output = layer(as_argument(tensors), training=training)
        total = tf.reduce_sum(tf.cast(output, tf.float32))
    assert output.dtype == keras.DTypePolicy(policy).compute_dtype
    assert all(weight.dtype == "float32" for weight in layer.trainable_weights)
    expected = case.formula(inputs, [weight.numpy() for weight in float_weights(layer)])
    # 8 bits of mantissa in bfloat16, 11 in float16, over sums of a dozen terms
    close = {"mixed_bfloat16": 0.06, "mixed_float16": 0.01}[policy]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(output.numpy().astype(np.float64), expected, rtol=close, atol=close * scale)
    assert all(np.isfinite(gradient.numpy()).all() for gradient in tape.gradient(total, tensors))


def test_export_has_stock_ops_only_and_gives_the_same(case: Case, tmp_path: Path) -> None:
    model = case.model()
    inputs = case.inputs(5)
    expected = model(as_argument(inputs)).numpy()
    model.export(tmp_path / "exported", verbose=False)
    reloaded = tf.saved_model.load(tmp_path / "exported")
    found = reloaded.serve(as_argument([tf.constant(array) for array in inputs]))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6, atol=1e-6)
    saved = saved_model_pb2.SavedModel.FromString((tmp_path / "exported" / "saved_model.pb").read_bytes())
    for function in saved.meta_graphs[0].graph_def.library.function:
        assert not function.attr["_XlaMustCompile"].b, function.signature.name
        assert not any("Xla" in node.op or "_gradient_op_type" in node.attr for node in function.node_def)


def test_keras_file_round_trip(case: Case, tmp_path: Path) -> None:
    model = case.model()
    for weight in float_weights(model):
        weight.assign(weight + 0.25)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    inputs = case.inputs(3)
    np.testing.assert_array_equal(again(as_argument(inputs)).numpy(), model(as_argument(inputs)).numpy())


@pytest.mark.parametrize("name", ["mlp_dropout", "mlp_batch_normalization", "dot", "concat", "cross"])
def test_fit_reaches_the_weights_before_and_in_the_layer(name: str) -> None:
    case = CASES[name]
    inputs = case.symbolic()
    # whatever computes it, the gradient must get through the layer
    scaled = [keras.layers.Dense(case.shapes[0][-1], use_bias=False)(inputs[0]), *inputs[1:]]
    model = keras.Model(as_argument(inputs), case.make(name="case")(as_argument(scaled)))
    model.compile(keras.optimizers.SGD(0.01), "mse")
    before = [weight.numpy() for weight in model.trainable_weights]
    arrays = case.inputs(7)
    model.fit(as_argument(arrays), np.ones((7, model.output_shape[-1]), np.float32), batch_size=4, verbose=0)
    moved = [not np.array_equal(b, w.numpy()) for b, w in zip(before, model.trainable_weights, strict=True)]
    assert len(moved) > 0
    assert all(moved)
    assert all(np.isfinite(weight.numpy()).all() for weight in model.trainable_weights)
