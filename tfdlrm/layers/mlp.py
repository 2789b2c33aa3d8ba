"""The multi-layer perceptron of DLRM, bottom and top."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from tfdlrm.checks import quoted
from tfdlrm.layers.initializers import BiasNormal, XavierNormal, derived_seed
from tfdlrm.layers.tracking import track_lists
from tfdlrm.native.custom_gradient import custom_gradient
from tfdlrm.native.scope import native_ops

Activation = str | Callable[[Any], Any] | None


@keras.saving.register_keras_serializable(package="tfdlrm")
class MLP(keras.layers.Layer):
    """Dense layers one after the other (Naumov et al. 2019, arXiv 1906.00091, section 2.1), with its initial values.

    A hidden layer is dense -> normalization -> activation -> dropout; the last one is dense -> `final_activation`.
    The bottom MLP of DLRM has `final_activation="relu"`, the top MLP none: it gives logits.

    Input `[..., in]`, output `[..., units[-1]]`, in the layer's compute dtype.

    Args:
        units: width of each layer.
        activation: of the hidden layers.
        final_activation: of the last layer; None for logits.
        dropout: share of hidden activations set to zero in training, in [0, 1).
        normalization: "batch", "layer" or None; of hidden layers, before the activation. With "batch" these have no
            bias of their own.
        kernel_initializer: of the kernels; None for the reference's, `XavierNormal`.
        bias_initializer: of the biases; None for the reference's, `BiasNormal`.
        output_bias: what the last layer gives at first, whatever its input: its bias, beside a kernel of zeros. None
            for initial values as in the other layers.
        seed: of the reference's initial values and of dropout; None for another draw each time.

    Raises:
        ValueError: no units, a width below 1, a dropout outside [0, 1), an unknown normalization.

    Example:
        >>> MLP([512, 256, 16], final_activation="relu", seed=0)(tf.ones([4, 13])).shape
        TensorShape([4, 16])
    """

    def __init__(
        self,
        units: Sequence[int],
        activation: Activation = "relu",
        final_activation: Activation = None,
        *,
        dropout: float = 0.0,
        normalization: str | None = None,
        kernel_initializer: Any = None,
        bias_initializer: Any = None,
        output_bias: float | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.units = _checked_units(self.name, units)
        if not 0.0 <= dropout < 1.0:
            raise ValueError(
                f"layer {quoted(self.name)}: dropout={quoted(dropout)} is not a share. Give a number in [0, 1)."
            )
        if normalization not in (None, "batch", "layer"):
            raise ValueError(
                f"layer {quoted(self.name)}: normalization={quoted(normalization)} is unknown. "
                "Use 'batch', 'layer' or None."
            )
        self.activation = keras.activations.get(activation)
        self.final_activation = keras.activations.get(final_activation)
        self.dropout = float(dropout)
        self.normalization = normalization
        self.kernel_initializer = _initializer(kernel_initializer)
        self.bias_initializer = _initializer(bias_initializer)
        self.output_bias = None if output_bias is None else float(output_bias)
        self.seed = seed
        self.supports_masking = True
        self.dense_layers = [self._dense(index) for index in range(len(self.units))]
        hidden = range(len(self.units) - 1)
        self.normalizations = [self._normalization(index) for index in hidden] if normalization else []
        self.dropouts = (
            [
                keras.layers.Dropout(
                    dropout, seed=derived_seed(seed, index, 2), name=f"dropout_{index}", dtype=self.dtype_policy
                )
                for index in hidden
            ]
            if dropout
            else []
        )
        track_lists(self, dense_layers=self.dense_layers, normalizations=self.normalizations, dropouts=self.dropouts)

    def _dense(self, index: int) -> keras.layers.Dense:
        last = index == len(self.units) - 1
        # with normalization in between, the activation cannot be the dense layer's own
        own_activation = self.final_activation if last else None if self.normalization else self.activation
        kernel = _copy(self.kernel_initializer) or XavierNormal(derived_seed(self.seed, index, 0))
        bias = _copy(self.bias_initializer) or BiasNormal(derived_seed(self.seed, index, 1))
        if last and self.output_bias is not None:
            kernel, bias = keras.initializers.Zeros(), keras.initializers.Constant(self.output_bias)
        return keras.layers.Dense(
            self.units[index],
            activation=own_activation,
            use_bias=last or self.normalization != "batch",  # which subtracts it again
            kernel_initializer=kernel,
            bias_initializer=bias,
            name=f"dense_{index}",
            dtype=self.dtype_policy,
        )

    def _normalization(self, index: int) -> keras.layers.Layer:
        kind = keras.layers.BatchNormalization if self.normalization == "batch" else keras.layers.LayerNormalization
        return kind(name=f"normalization_{index}", dtype=self.dtype_policy)

    def build(self, input_shape: Sequence[int | None]) -> None:
        shape = tuple(input_shape)
        if not shape or shape[-1] is None:
            raise ValueError(
                f"layer {quoted(self.name)}: input shape {shape} has no known width. Give inputs "
                "[..., in] with a fixed in."
            )
        for index, dense in enumerate(self.dense_layers):
            dense.build(shape)
            shape = dense.compute_output_shape(shape)
            if index < len(self.normalizations):
                self.normalizations[index].build(shape)
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        x = inputs
        for index, dense in enumerate(self.dense_layers):
            x = self._rest_of_layer(index, _apply(dense, x), training)
        return x

    def from_first_product(self, product: Any) -> Any:
        """Inference from the first layer's product on, for callers that have cheaper ways to it than the product.

        Args:
            product: `x @ dense_layers[0].kernel`, `[..., units[0]]`.

        Returns:
            What a call with x gives, but for rounding.
        """
        for index, dense in enumerate(self.dense_layers):
            if index:
                product = dense(product)
            else:
                product = product + dense.bias if dense.use_bias else product
                product = dense.activation(product)
            product = self._rest_of_layer(index, product, training=False)
        return product

    def _rest_of_layer(self, index: int, x: Any, training: bool | None) -> Any:
        if index < len(self.normalizations):
            x = self.activation(self.normalizations[index](x, training=training))
        if index < len(self.dropouts):
            x = self.dropouts[index](x, training=training)
        return x

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        return (*tuple(input_shape)[:-1], self.units[-1])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": list(self.units),
            "activation": keras.activations.serialize(self.activation),
            "final_activation": keras.activations.serialize(self.final_activation),
            "dropout": self.dropout,
            "normalization": self.normalization,
            "kernel_initializer": _serialized(self.kernel_initializer),
            "bias_initializer": _serialized(self.bias_initializer),
            "output_bias": self.output_bias,
            "seed": self.seed,
        }


def _apply(dense: keras.layers.Dense, x: Any) -> Any:
    """`dense(x)`; where native kernels may run, with the gradient of bias and relu in one pass over memory."""
    ops = native_ops()
    relu = dense.activation is keras.activations.relu
    if (
        ops is None
        or not dense.use_bias
        or x.dtype != tf.float32
        or x.shape.rank != 2
        or not (relu or dense.activation is keras.activations.linear)
    ):
        return dense(x)

    @custom_gradient
    def product(x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> Any:
        y = tf.nn.bias_add(tf.matmul(x, kernel), bias)
        if relu:
            y = tf.nn.relu(y)

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            masked, dbias = ops.tfdlrm_activation_gradient(upstream=upstream, y=y, relu=relu)
            return tf.matmul(masked, kernel, transpose_b=True), tf.matmul(x, masked, transpose_a=True), dbias

        return y, gradient

    return product(x, tf.convert_to_tensor(dense.kernel), tf.convert_to_tensor(dense.bias))


def _checked_units(name: str, units: Sequence[int]) -> tuple[int, ...]:
    if isinstance(units, (int, str)) or not len(units):
        raise ValueError(
            f"layer {quoted(name)}: units={quoted(units)} is not a list of widths. Give one, such as [512, 256, 1]."
        )
    widths = tuple(int(width) for width in units)
    if any(width < 1 or width != given for width, given in zip(widths, units, strict=True)):
        raise ValueError(f"layer {quoted(name)}: units={quoted(list(units))} must be whole numbers of 1 or more.")
    return widths


def _initializer(given: Any) -> keras.initializers.Initializer | None:
    return None if given is None else keras.initializers.get(given)


def _copy(initializer: keras.initializers.Initializer | None) -> keras.initializers.Initializer | None:
    # unseeded, one instance would give every kernel of a shape the same values
    return None if initializer is None else type(initializer).from_config(initializer.get_config())


def _serialized(initializer: keras.initializers.Initializer | None) -> Any:
    return None if initializer is None else keras.initializers.serialize(initializer)
