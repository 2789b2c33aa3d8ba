"""Dense transforms: raw numbers to what the bottom MLP sees. The one place where they are computed."""

from __future__ import annotations

import numpy as np

from tfdlrm.checks import quoted
from tfdlrm.schema import DenseColumn


def transform_dense(column: DenseColumn, values: np.ndarray) -> np.ndarray:
    """Apply a column's transform.

    `log1p` is ln(max(x, 0) + 1) in float32, the reference's expression to the last bit; `standardize` is
    (x - mean) / std in float64 of a float32 x; `clip` limits to [minimum, maximum]; `identity` leaves x.

    Args:
        column: the transform and its numbers.
        values: float64 [N], missing values filled in.

    Returns:
        float32 [N].

    Raises:
        ValueError: `standardize` without mean and std.
    """
    if column.transform == "log1p":
        return np.log(np.maximum(values, 0.0).astype(np.float32) + np.float32(1.0))
    if column.transform == "standardize":
        if column.mean is None or column.std is None:
            raise ValueError(
                f"dense column {quoted(column.name)}: transform='standardize' has no mean and std. "
                "Fit the preprocessing on the training part first, or give both in the schema."
            )
        # exports take float32: training must not know more digits than they do
        values = (values.astype(np.float32).astype(np.float64) - column.mean) / column.std
    elif column.transform == "clip":
        values = np.clip(values, column.minimum, column.maximum)
    return values.astype(np.float32)


def fit_standardize(column: DenseColumn, values: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation (population) of raw values; a constant column gets std 1."""
    mean, std = float(values.mean()), float(values.std())
    return mean, std if std > 0.0 else 1.0
