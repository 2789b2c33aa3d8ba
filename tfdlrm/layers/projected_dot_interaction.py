"""torchrec's dot interaction of two projections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfdlrm.checks import quoted
from tfdlrm.layers.initializers import derived_seed
from tfdlrm.layers.mlp import MLP
from tfdlrm.layers.vector_inputs import (
    batch_size,
    join_vectors,
    num_vectors_and_width,
    pad_columns,
    pad_to,
    padded_width,
)


@keras.saving.register_keras_serializable(package="tfdlrm")
class ProjectedDotInteraction(keras.layers.Layer):
    """Dot products between two learned sets of vectors (torchrec, `InteractionProjectionArch` of `DLRM_Projection`).

    Two MLPs, ReLU after every layer, read all vectors side by side, t = concat(x, e_1 .. e_F) `[B, (F + 1) D]`:

        Y = reshape(branch_1(t), [B, F1, D]),  Z = reshape(branch_2(t), [B, D, F2]),  output = concat(x, flatten(Y Z))

    so a model of many features has F1 * F2 products instead of F (F + 1) / 2. Z is reshaped, not transposed, as in
    torchrec.

    Input as for `DotInteraction`. Output `[B, D + F1 F2]` in the compute dtype.

    Args:
        branch1_units: layer widths of the first MLP; the last is F1 D.
        branch2_units: layer widths of the second MLP; the last is F2 D.
        padding: zeros are added to make the output's width a multiple of this.
        seed: of the initial values; None for another draw each time.

    Raises:
        ValueError: a branch's last width is not a multiple of D, or the inputs' shapes do not fit.

    Example:
        >>> ProjectedDotInteraction([64, 4 * 16], [64, 8 * 16])([tf.ones([2, 16]), tf.ones([2, 26, 16])]).shape
        TensorShape([2, 48])
    """

    def __init__(
        self,
        branch1_units: Sequence[int],
        branch2_units: Sequence[int],
        padding: int = 1,
        *,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.padding = pad_columns(self.name, padding)
        self.seed = seed
        self.branch1 = self._branch("branch1", branch1_units, 0)
        self.branch2 = self._branch("branch2", branch2_units, 1)

    def _branch(self, name: str, units: Sequence[int], index: int) -> MLP:
        seed = derived_seed(self.seed, index)
        return MLP(units, final_activation="relu", seed=seed, name=name, dtype=self.dtype_policy)

    def build(self, input_shape: Any) -> None:
        num_vectors, width = num_vectors_and_width(self.name, input_shape)
        self._factors(width)
        for branch in (self.branch1, self.branch2):
            branch.build((batch_size(input_shape), num_vectors * width))
        self._width = width
        self._output_width = self.compute_output_shape(input_shape)[1]
        self.built = True

    def _factors(self, width: int) -> tuple[int, int]:
        """(F1, F2)."""
        for branch in (self.branch1, self.branch2):
            if branch.units[-1] % width:
                raise ValueError(
                    f"layer {quoted(self.name)}: {branch.name} ends in {branch.units[-1]} units, not a multiple of the "
                    f"vectors' width {width}. Give F * {width}."
                )
        return self.branch1.units[-1] // width, self.branch2.units[-1] // width

    def call(self, inputs: Any) -> tf.Tensor:
        width, joined = self._width, join_vectors(inputs)  # [B, (F + 1) D]
        factors = self._factors(width)
        y = tf.reshape(self.branch1(joined), [-1, factors[0], width])  # [B, F1, D]
        z = tf.reshape(self.branch2(joined), [-1, width, factors[1]])  # [B, D, F2]
        products = tf.reshape(tf.matmul(y, z), [-1, factors[0] * factors[1]])
        return pad_to(tf.concat([joined[:, :width], products], axis=1), self._output_width)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, int]:
        _, width = num_vectors_and_width(self.name, input_shape)
        first, second = self._factors(width)
        return batch_size(input_shape), padded_width(width + first * second, self.padding)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "branch1_units": list(self.branch1.units),
            "branch2_units": list(self.branch2.units),
            "padding": self.padding,
            "seed": self.seed,
        }
