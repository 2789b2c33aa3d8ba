"""DLRM's interaction by dot products."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfdlrm.checks import quoted
from tfdlrm.layers.pair_products import num_pairs, pair_products
from tfdlrm.layers.vector_inputs import (
    batch_size,
    feature_vectors,
    num_vectors_and_width,
    pad_columns,
    padded_width,
    stack_vectors,
)
from tfdlrm.native.scope import native_ops


@keras.saving.register_keras_serializable(package="tfdlrm")
class DotInteraction(keras.layers.Layer):
    """All pairwise dot products, beside the dense vector (Naumov et al. 2019, arXiv 1906.00091, section 2.1.3).

    With T = [x, e_1 .. e_F] as rows and Z = T T^t, the output is `concat(x, z_ij)` for i > j, row-major:
    (1, 0), (2, 0), (2, 1), (3, 0), ... P = F (F + 1) / 2 pairs, and F + 1 more with `interact_itself`.

    Input `[x, e]`, `[x, [e_1 .. e_F]]` or `[x, e_1 .. e_F]` with x `[B, D]`, e `[B, F, D]`, e_k `[B, D]`. Output
    `[B, D + P]` in the compute dtype. One stacked e is cheaper than a list.

    Args:
        interact_itself: also the dot product of each vector with itself, i >= j.
        padding: zeros are added to make the output's width a multiple of this.
        concat_dense: whether x is at the front of the output; without it the output is `[B, P]`.

    Raises:
        ValueError: widths differ, a shape is not one of those above, or an argument is not valid.

    Example:
        >>> DotInteraction()([tf.ones([2, 16]), tf.ones([2, 26, 16])]).shape
        TensorShape([2, 367])
    """

    def __init__(
        self,
        interact_itself: bool = False,
        padding: int = 1,
        *,
        concat_dense: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.interact_itself = bool(interact_itself)
        self.padding = pad_columns(self.name, padding)
        self.concat_dense = bool(concat_dense)

    def build(self, input_shape: Any) -> None:
        num_vectors, width = num_vectors_and_width(self.name, input_shape)
        pairs = num_pairs(num_vectors, self.interact_itself)
        if not pairs and not self.concat_dense:
            raise ValueError(
                f"layer {quoted(self.name)}: one vector has no pairs. Give two or more, or concat_dense=True."
            )
        self._output_width = padded_width(pairs + (width if self.concat_dense else 0), self.padding)
        self.built = True

    def call(self, inputs: Any) -> tf.Tensor:
        x = tf.nest.flatten(inputs)[0]
        ops = native_ops()
        if ops is not None and x.dtype == tf.float32:
            return ops.tfdlrm_interact(
                x=x,
                e=feature_vectors(inputs),
                head=self.concat_dense,
                itself=self.interact_itself,
                width=self._output_width,
            )
        head = x if self.concat_dense else x[:, :0]
        return pair_products(stack_vectors(inputs), head, self.interact_itself, self._output_width)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, int]:
        num_vectors, width = num_vectors_and_width(self.name, input_shape)
        pairs = num_pairs(num_vectors, self.interact_itself)
        return batch_size(input_shape), padded_width(pairs + (width if self.concat_dense else 0), self.padding)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "interact_itself": self.interact_itself,
            "padding": self.padding,
            "concat_dense": self.concat_dense,
        }
