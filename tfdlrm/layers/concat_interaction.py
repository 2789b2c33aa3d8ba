"""The reference's interaction "cat"."""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from tfdlrm.layers.vector_inputs import (
    batch_size,
    join_vectors,
    pad_columns,
    pad_to,
    padded_width,
    vector_sizes,
)


@keras.saving.register_keras_serializable(package="tfdlrm")
class ConcatInteraction(keras.layers.Layer):
    """Dense vector and features side by side: `concat(x, e_1 .. e_F)` (facebookresearch/dlrm, interaction "cat").

    Input `[x, e]`, `[x, [e_1 .. e_F]]` or `[x, e_1 .. e_F]` with x `[B, D]`, e `[B, F, D]`, e_k `[B, D_k]`; vectors
    given one by one may differ in width. Output `[B, D + F D]` in the compute dtype.

    Args:
        padding: zeros are added to make the output's width a multiple of this.

    Raises:
        ValueError: a shape is not one of those above, or `padding` is below 1.

    Example:
        >>> ConcatInteraction()([tf.ones([2, 16]), tf.ones([2, 26, 16])]).shape
        TensorShape([2, 432])
    """

    def __init__(self, padding: int = 1, **kwargs: Any):
        super().__init__(**kwargs)
        self.padding = pad_columns(self.name, padding)

    def build(self, input_shape: Any) -> None:
        self._output_width = self.compute_output_shape(input_shape)[1]
        self.built = True

    def call(self, inputs: Any) -> tf.Tensor:
        return pad_to(join_vectors(inputs), self._output_width)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, int]:
        width = sum(math.prod(size) for size in vector_sizes(self.name, input_shape))
        return batch_size(input_shape), padded_width(width, self.padding)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "padding": self.padding}
