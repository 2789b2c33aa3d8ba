"""MLP: the reference's initial values, what its options do, and that its graph holds nothing superfluous."""

from __future__ import annotations

from collections import Counter
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfdlrm.layers import MLP, BiasNormal, XavierNormal
from tfdlrm.layers.initializers import derived_seed


def test_kernels_and_biases_have_the_references_distributions() -> None:
    kernel = XavierNormal(seed=3)((600, 300)).numpy()
    deviation = np.sqrt(2 / 900)
    # 180,000 draws: the standard error of the deviation is 0.17 %
    assert abs(kernel.std() / deviation - 1) < 0.01
    assert abs(kernel.mean()) < 0.01 * deviation
    beyond = (np.abs(kernel) > 2 * deviation).mean()
    assert abs(beyond - 0.0455) < 0.003, "a truncated normal has nothing beyond two deviations"
    bias = BiasNormal(seed=3)((100_000,)).numpy()
    assert abs(bias.std() * np.sqrt(100_000) - 1) < 0.01


def test_mlp_starts_from_them() -> None:
    layer = MLP([400, 300], seed=0)
    layer.build((None, 200))
    for kernel, bias in zip(layer.trainable_weights[::2], layer.trainable_weights[1::2], strict=True):
        assert abs(kernel.numpy().std() / np.sqrt(2 / sum(kernel.shape)) - 1) < 0.02
        assert abs(bias.numpy().std() * np.sqrt(bias.shape[0]) - 1) < 0.2


def _weights(seed: int | None) -> list[np.ndarray]:
    layer = MLP([4, 4, 4], seed=seed)
    layer.build((None, 4))
    return [weight.numpy() for weight in layer.weights]


def test_a_seed_gives_the_same_values_and_each_weight_its_own() -> None:
    first, again, other = _weights(7), _weights(7), _weights(8)
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)
    kernels = first[::2]
    assert not any(np.array_equal(kernels[0], kernel) for kernel in kernels[1:])
    assert not np.array_equal(_weights(None)[0], _weights(None)[0])


def test_derived_seeds_differ_by_path() -> None:
    seeds = [derived_seed(seed, *path) for seed in (0, 1) for path in [(0,), (1,), (0, 0), (0, 1), (1, 0)]]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert derived_seed(None, 1) is None


def test_initializers_of_the_users() -> None:
    layer = MLP([2, 2], kernel_initializer="ones", bias_initializer=keras.initializers.Constant(0.5))
    np.testing.assert_array_equal(layer(tf.ones([1, 3])).numpy(), [[7.5, 7.5]])  # (3 + 0.5) * 2 + 0.5
    again = MLP.from_config(layer.get_config())
    np.testing.assert_array_equal(again(tf.ones([1, 3])).numpy(), [[7.5, 7.5]])
    unseeded = MLP([4, 4], kernel_initializer="glorot_uniform")
    unseeded.build((None, 4))
    assert not np.array_equal(unseeded.weights[0].numpy(), unseeded.weights[2].numpy())


def test_dropout_is_of_hidden_layers_in_training() -> None:
    layer = MLP([1000, 1], dropout=0.25, kernel_initializer="ones", bias_initializer="zeros", seed=1)
    x = tf.ones([1, 1])
    assert layer(x, training=False).numpy() == 1000
    kept = layer(x, training=True).numpy().item() * 0.75
    assert kept != 750
    assert abs(kept - 750) < 100  # the deviation is 13.7
    assert MLP([3], dropout=0.5, kernel_initializer="ones", seed=1)(x, training=True).numpy().all()


def test_batch_normalization_learns_its_statistics_in_training_only() -> None:
    layer = MLP([8, 1], normalization="batch", seed=1)
    x = tf.random.stateless_normal([64, 3], seed=[1, 2])
    layer(x, training=False)
    moving = layer.normalizations[0].moving_mean
    np.testing.assert_array_equal(moving.numpy(), np.zeros(8))
    layer(x, training=True)
    assert np.abs(moving.numpy()).max() > 0


def _operations(layer: keras.layers.Layer, width: int) -> Counter[str]:
    def step(x: tf.Tensor) -> Any:
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(layer(x, training=True))
        return tape.gradient(total, [weight.value for weight in layer.trainable_weights])

    function = tf.function(step, autograph=False, input_signature=[tf.TensorSpec([None, width])])
    return Counter(operation.type for operation in function.get_concrete_function().graph.get_operations())


def test_the_graph_is_products_biases_and_relus() -> None:
    """One product forward and two backward a layer, none for the input's own gradient, no cast and no reshape."""
    layer = MLP([32, 16, 8], final_activation="relu", seed=1)
    layer.build((None, 13))
    operations = _operations(layer, 13)
    assert operations["MatMul"] == 3 + 3 + 2
    for name in ("BiasAdd", "BiasAddGrad", "Relu", "ReluGrad", "ReadVariableOp"):
        assert operations[name] == (6 if name == "ReadVariableOp" else 3), name
    assert "Cast" not in operations


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"units": []}, r"layer 'm': units=\[\] is not a list of widths"),
        ({"units": 16}, "units=16 is not a list of widths"),
        ({"units": [16, 0]}, r"units=\[16, 0\] must be whole numbers of 1 or more"),
        ({"units": [16, 1.5]}, "must be whole numbers"),
        ({"units": [1], "dropout": 1.0}, r"dropout=1.0 is not a share. Give a number in \[0, 1\)"),
        ({"units": [1], "normalization": "instance"}, "normalization='instance' is unknown. Use 'batch'"),
    ],
)
def test_arguments_that_are_not_valid(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MLP(name="m", **arguments)


def test_an_unknown_width_is_refused() -> None:
    with pytest.raises(ValueError, match=r"layer 'm': input shape \(None, None\) has no known width"):
        MLP([1], name="m").build((None, None))


def test_initializers_know_their_shapes() -> None:
    with pytest.raises(ValueError, match=r"XavierNormal: shape=\(3,\) is not that of a kernel"):
        XavierNormal()((3,))
    with pytest.raises(ValueError, match=r"BiasNormal: shape=\(3, 4\) is not that of a bias"):
        BiasNormal()((3, 4))
    for initializer in (XavierNormal(seed=4), BiasNormal(seed=4)):
        config = keras.initializers.serialize(initializer)
        again = keras.initializers.deserialize(config)
        shape = (3, 4) if isinstance(initializer, XavierNormal) else (4,)
        np.testing.assert_array_equal(again(shape).numpy(), initializer(shape).numpy())
