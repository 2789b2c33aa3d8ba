"""The low-rank cross network of DCN-v2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from tfdlrm.checks import quoted
from tfdlrm.layers.initializers import XavierNormal, derived_seed
from tfdlrm.layers.tracking import track_lists
from tfdlrm.native.custom_gradient import custom_gradient
from tfdlrm.native.scope import native_ops


@keras.saving.register_keras_serializable(package="tfdlrm")
class LowRankCross(keras.layers.Layer):
    """Feature crosses of bounded degree (Wang et al. 2021, "DCN V2", arXiv 2008.13535, equation 2).

        x_{l+1} = x_0 * ((x_l V_l) W_l + b_l) + x_l,    l = 0 .. num_layers - 1

    with V_l `[N, rank]` and W_l `[rank, N]`, as torchrec's `LowRankCrossNet` and MLPerf's DLRM-DCNv2 have it. Kernels
    start Xavier normal (not truncated), biases at zero.

    Input `[B, N]`, output `[B, N]`, in the layer's compute dtype.

    Args:
        num_layers: number of crosses, 1 or more.
        rank: r, 1 or more; below N / 2 it saves work against a full `[N, N]` kernel.
        seed: of the initial values; None for another draw each time.

    Raises:
        ValueError: `num_layers` or `rank` is below 1.

    Example:
        >>> LowRankCross(num_layers=3, rank=4)(tf.ones([2, 24])).shape
        TensorShape([2, 24])
    """

    def __init__(self, num_layers: int, rank: int, *, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        for field, value in (("num_layers", num_layers), ("rank", rank)):
            if value != int(value) or value < 1:
                raise ValueError(f"layer {quoted(self.name)}: {field}={quoted(value)} is not a count. Give 1 or more.")
        self.num_layers = int(num_layers)
        self.rank = int(rank)
        self.seed = seed

    def build(self, input_shape: Sequence[int | None]) -> None:
        width = input_shape[-1]
        if len(input_shape) != 2 or width is None:
            raise ValueError(
                f"layer {quoted(self.name)}: input shape {tuple(input_shape)} is not [B, N] with a known N. "
                "Flatten the features first, for instance with ConcatInteraction."
            )
        self.v_kernels, self.w_kernels, self.biases = [], [], []
        for layer in range(self.num_layers):
            self.v_kernels.append(self._kernel(f"layer_{layer}_V", (width, self.rank), layer, 0))
            self.w_kernels.append(self._kernel(f"layer_{layer}_W", (self.rank, width), layer, 1))
            self.biases.append(self.add_weight(name=f"layer_{layer}_bias", shape=(width,), initializer="zeros"))
        track_lists(self, v_kernels=self.v_kernels, w_kernels=self.w_kernels, biases=self.biases)

    def _kernel(self, name: str, shape: tuple[int, int], *path: int) -> keras.Variable:
        return self.add_weight(name=name, shape=shape, initializer=XavierNormal(derived_seed(self.seed, *path)))

    def call(self, inputs: Any) -> Any:
        native = native_ops()
        if native is not None and inputs.dtype == tf.float32:
            kernels = [*self.v_kernels, *self.w_kernels, *self.biases]
            return _native_crosses(native, inputs, [tf.convert_to_tensor(kernel) for kernel in kernels])
        return self.rest(inputs, ops.matmul(inputs, self.v_kernels[0]))

    def rest(self, inputs: Any, narrow: Any) -> Any:
        """What follows the first product, for callers that have cheaper ways to it.

        Args:
            inputs: x_0 `[B, N]`.
            narrow: `x_0 V_0`, `[B, rank]`.
        """
        x0 = x = inputs
        for layer in range(self.num_layers):
            if layer:
                narrow = ops.matmul(x, self.v_kernels[layer])
            x = x0 * ops.add(ops.matmul(narrow, self.w_kernels[layer]), self.biases[layer]) + x
        return x

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_layers": self.num_layers, "rank": self.rank, "seed": self.seed}


def _native_crosses(native: Any, x0: tf.Tensor, kernels: Sequence[tf.Tensor]) -> tf.Tensor:
    """All crosses, with what lies between two matrix products in one pass over memory, both ways."""
    num_layers = len(kernels) // 3

    @custom_gradient
    def crosses(x0: tf.Tensor, *kernels: tf.Tensor) -> Any:
        v, w, biases = (kernels[start : start + num_layers] for start in range(0, 3 * num_layers, num_layers))
        inputs, narrow, products = [], [], []
        x = x0
        for layer in range(num_layers):
            inputs.append(x)
            narrow.append(tf.matmul(x, v[layer]))
            products.append(tf.matmul(narrow[-1], w[layer]))
            x = native.tfdlrm_cross(x0=x0, product=products[-1], bias=biases[layer], x=x)

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
            dv, dw, dbiases = ([None] * num_layers for _ in range(3))
            total = upstream
            more: list[tf.Tensor] = []
            for layer in reversed(range(num_layers)):
                total, dproduct, dx0, dbiases[layer] = native.tfdlrm_cross_gradient(
                    upstream=total, x0=x0, product=products[layer], bias=biases[layer], more=more
                )
                dw[layer] = tf.matmul(narrow[layer], dproduct, transpose_a=True)
                dnarrow = tf.matmul(dproduct, w[layer], transpose_b=True)
                dv[layer] = tf.matmul(inputs[layer], dnarrow, transpose_a=True)
                # the input's own share; the residual's, `total`, is added where the next layer reads both
                more = [tf.matmul(dnarrow, v[layer], transpose_b=True), dx0]
            return (tf.add_n([total, *more]), *dv, *dw, *dbiases)

        return x, gradient

    return crosses(x0, *kernels)
