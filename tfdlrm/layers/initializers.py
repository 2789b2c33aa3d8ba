"""Initial values of the reference's dense layers.

Keras's own come near, but not to the same distribution: `GlorotNormal` truncates at two standard deviations, and
biases start at zero. Xavier uniform, the reference's choice for mixed-dimension projections, is
`keras.initializers.GlorotUniform` as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np


@keras.saving.register_keras_serializable(package="tfdlrm")
class XavierNormal(keras.initializers.RandomNormal):
    """N(0, sqrt(2 / (fan_in + fan_out))), not truncated (Glorot & Bengio 2010): the reference's dense kernels.

    Args:
        seed: an integer, or None for another draw each time.

    Example:
        >>> XavierNormal(seed=1)((512, 256)).shape
        TensorShape([512, 256])
    """

    def __init__(self, seed: int | None = None):
        super().__init__(mean=0.0, stddev=1.0, seed=seed)

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        """Values for a kernel `[fan_in, fan_out]`."""
        if len(shape) != 2:
            raise ValueError(f"XavierNormal: shape={tuple(shape)} is not that of a kernel. Give [fan_in, fan_out].")
        fan_in, fan_out = shape
        return _normal(shape, math.sqrt(2.0 / (fan_in + fan_out)), self.seed, dtype)

    def get_config(self) -> dict[str, Any]:
        return {"seed": super().get_config()["seed"]}


@keras.saving.register_keras_serializable(package="tfdlrm")
class BiasNormal(keras.initializers.RandomNormal):
    """N(0, sqrt(1 / fan_out)): the reference's dense biases.

    Args:
        seed: an integer, or None for another draw each time.

    Example:
        >>> BiasNormal(seed=1)((256,)).shape
        TensorShape([256])
    """

    def __init__(self, seed: int | None = None):
        super().__init__(mean=0.0, stddev=1.0, seed=seed)

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        """Values for a bias `[fan_out]`."""
        if len(shape) != 1:
            raise ValueError(f"BiasNormal: shape={tuple(shape)} is not that of a bias. Give [fan_out].")
        return _normal(shape, math.sqrt(1.0 / shape[0]), self.seed, dtype)

    def get_config(self) -> dict[str, Any]:
        return {"seed": super().get_config()["seed"]}


def _normal(shape: Sequence[int], stddev: float, seed: Any, dtype: Any) -> Any:
    return keras.random.normal(shape, mean=0.0, stddev=stddev, dtype=dtype, seed=seed)


def derived_seed(seed: int | None, *path: int) -> int | None:
    """A seed for one weight of a seeded layer: different for each path, the same in every run; None stays None.

    An initializer with an integer seed draws the same numbers at every call, so two kernels of one shape must not
    share theirs.
    """
    if seed is None:
        return None
    return int(np.random.SeedSequence(seed, spawn_key=path).generate_state(1)[0] >> 1)
