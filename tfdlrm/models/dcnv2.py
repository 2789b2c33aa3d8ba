"""DLRM with DCNv2's low-rank cross in place of the dot interaction (MLPerf's DLRM-DCNv2; Wang et al. 2021).

               logit
                 ^
           +-----------+
           |  top MLP  |
           +-----------+
                 ^  [B, (F + 1) D]
     +------------------------+
     |  low-rank cross layers |      x_{l+1} = x_0 * ((x_l V) W + b) + x_l
     +------------------------+
                 ^  [B, (F + 1) D]   x_0 = dense vector and pooled vectors, side by side
     ^ [B, D]         ^ [B, F, D]
+------------+  +------------------------+
| bottom MLP |  |  embedding collection  |
+------------+  +------------------------+
"""

from __future__ import annotations

from typing import Any

import keras

from tfdlrm.layers import ConcatInteraction, LowRankCross
from tfdlrm.models.dlrm import DLRM


@keras.saving.register_keras_serializable(package="tfdlrm")
class DLRMDCNv2(DLRM):
    """DLRM-DCNv2, from a config with `architecture="dcnv2"`. Output: logits `[B, number of tasks]`.

    The cross layers' output goes to the top MLP as it is, without the dense vector beside it.

    Args:
        config: sizes, tables and features; `cross_layers` and `cross_rank`.
        row_optimizer: see `DLRM`.

    Example:
        >>> model = DLRMDCNv2(preset("mlperf-dcnv2").model)
    """

    architecture = "dcnv2"

    def _interaction(self) -> keras.layers.Layer:
        return CrossInteraction(
            self.config.cross_layers,
            self.config.cross_rank,
            seed=self.config.seed,
            name="interaction",
            dtype=self.dtype_policy,
        )


@keras.saving.register_keras_serializable(package="tfdlrm")
class CrossInteraction(keras.layers.Layer):
    """Dense vector `[B, D]` and pooled vectors `[B, F, D]` -> `[B, (F + 1) D]` through low-rank cross layers.

    Args:
        num_layers: cross layers.
        rank: r of each.
        seed: of the initial values.
    """

    def __init__(self, num_layers: int, rank: int, *, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.num_layers = num_layers
        self.rank = rank
        self.seed = seed
        self._join = ConcatInteraction(name="join", dtype=self.dtype_policy)
        self._cross = LowRankCross(num_layers, rank, seed=seed, name="cross", dtype=self.dtype_policy)

    def build(self, input_shape: Any) -> None:
        self._join.build(input_shape)
        self._cross.build(self._join.compute_output_shape(input_shape))

    def call(self, inputs: Any) -> Any:
        return self._cross(self._join(inputs))

    def first_kernel(self) -> Any:
        """V of the first cross, `[(F + 1) D, rank]`: what the joined vectors meet first."""
        return self._cross.v_kernels[0]

    def rest(self, joined: Any, narrow: Any) -> Any:
        """The output for `joined` `[B, (F + 1) D]`, given its product with `first_kernel`."""
        return self._cross.rest(joined, narrow)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return self._join.compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_layers": self.num_layers, "rank": self.rank, "seed": self.seed}
