"""LowRankCross against torchrec's stored run, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.golden_files import golden_files
from tfdlrm.layers import LowRankCross
from tfdlrm.native.scope import native_kernels


def _assert_close(actual: tf.Tensor, stored: np.ndarray, name: str) -> None:
    """Within 1e-5 of the value, or 1e-6 of the array's largest one, where float32 sums cancel."""
    scale = np.abs(stored).max(initial=0.0)
    np.testing.assert_allclose(actual.numpy(), stored, rtol=1e-5, atol=1e-6 * scale, err_msg=name)


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("path", golden_files("lowrank_cross*.npz"), ids=lambda path: path.stem)
def test_forward_and_gradients_are_the_references(path: Path, native: bool) -> None:
    with np.load(path, allow_pickle=False) as stored:
        golden = {name: stored[name] for name in stored.files}
    num_layers = sum(name.startswith("layer_") and name.endswith("/V") for name in golden)
    layer = LowRankCross(num_layers, golden["layer_0/V"].shape[1])
    layer.build(golden["x"].shape)
    weights = {
        f"layer_{i}/{part}": kernels[i]
        for part, kernels in (("V", layer.v_kernels), ("W", layer.w_kernels), ("bias", layer.biases))
        for i in range(num_layers)
    }
    for name, weight in weights.items():
        weight.assign(golden[name])
    x = tf.constant(golden["x"])
    with native_kernels(native), tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    dx, gradients = tape.gradient(
        y,
        [x, {name: weight.value for name, weight in weights.items()}],
        output_gradients=tf.constant(golden["dy"]),
    )
    _assert_close(y, golden["y"], "y")
    _assert_close(dx, golden["dx"], "dx")
    checked = {name for name in golden if name.startswith("gradient/")}
    assert checked
    for name in checked:
        _assert_close(gradients[name.removeprefix("gradient/")], golden[name], name)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    ("batch", "width", "num_layers"), [(1, 1, 1), (0, 5, 2), (7, 3, 3), (65, 17, 2), (300, 64, 3), (130, 33, 1)]
)
def test_the_native_path_gives_what_the_stock_one_gives(
    batch: int, width: int, num_layers: int, compiled: bool
) -> None:
    layer = LowRankCross(num_layers, 4, seed=0)
    layer.build((None, width))
    random = np.random.default_rng(0)
    for bias in layer.biases:
        bias.assign(random.normal(size=width))
    x, dy = (tf.constant(random.normal(size=(batch, width)), tf.float32) for _ in range(2))

    def run(native: bool) -> list[tf.Tensor]:
        with native_kernels(native), tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
        return [y, *tape.gradient(y, [x, *[weight.value for weight in layer.trainable_weights]], output_gradients=dy)]

    found = tf.function(run)(True) if compiled else run(True)
    for one, other in zip(found, run(False), strict=True):
        scale = float(tf.reduce_max(tf.abs(other))) if tf.size(other) else 0.0
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6 * scale)


def test_initial_values_are_torchrecs() -> None:
    layer = LowRankCross(2, 200, seed=5)
    layer.build((None, 400))
    for kernel in (*layer.v_kernels, *layer.w_kernels):
        assert abs(kernel.numpy().std() / np.sqrt(2 / 600) - 1) < 0.02
    assert not any(bias.numpy().any() for bias in layer.biases)
    assert not np.array_equal(layer.v_kernels[0].numpy(), layer.v_kernels[1].numpy())


@pytest.mark.parametrize(("num_layers", "rank"), [(0, 4), (3, 0), (1.5, 4)])
def test_arguments_that_are_not_valid(num_layers: int, rank: int) -> None:
    with pytest.raises(ValueError, match=r"layer 'cross': .* is not a count\. Give 1 or more"):
        LowRankCross(num_layers, rank, name="cross")


@pytest.mark.parametrize("shape", [(None, None), (None, 3, 4)])
def test_inputs_that_do_not_fit(shape: tuple) -> None:
    with pytest.raises(ValueError, match=r"layer 'cross': input shape .* is not \[B, N\]"):
        LowRankCross(1, 2, name="cross").build(shape)
