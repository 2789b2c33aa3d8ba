"""Numbers: dense transforms, to what the bottom MLP sees, and bins. The one place where they are computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from tfdlrm.checks import quoted
from tfdlrm.schema import CategoricalColumn, DenseColumn

_HALF = 16  # bits of a float32
_SIGN = 2**31


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


def bin_ids(column: CategoricalColumn, values: np.ndarray) -> np.ndarray:
    """int64 [N]: 0 where a number is missing, else 1 + the number of edges that are not above it.

    Args:
        column: of encoding `bins`, fitted.
        values: float32 [N], NaN where missing.

    Raises:
        ValueError: it has no edges.
    """
    if column.edges is None:
        raise ValueError(
            f"categorical column {quoted(column.name)}: encoding='bins' has no edges. Fit the preprocessing on the "
            "training part first, or give edges in the schema."
        )
    places = np.searchsorted(np.array(column.edges, np.float32), values, side="right")
    return np.where(np.isnan(values), 0, places + 1).astype(np.int64)


def fit_bins(column: CategoricalColumn, pieces: Callable[[], Iterable[np.ndarray]]) -> tuple[float, ...]:
    """Edges of equally full bins: of N sorted values those in places k N / bins, each once, without the least value.

    Exact, in memory that does not grow with N: values are counted by the upper half of their bits, and those near an
    edge by the lower half as well.

    Args:
        column: says how many bins there are.
        pieces: float32 values, NaN where missing; asked for twice.
    """
    bins, size = column.bins or 0, 2**_HALF
    upper = np.zeros(size, np.int64)
    for values in pieces():
        upper += np.bincount(_ordered(values) >> _HALF, minlength=size)
    if not upper.sum():
        return ()
    ranks = np.arange(bins) * upper.sum() // bins
    ends = np.cumsum(upper)
    of_rank = np.searchsorted(ends, ranks, side="right")
    wanted = np.unique(of_rank)
    lower = np.zeros((len(wanted), size), np.int64)
    for values in pieces():
        bits = _ordered(values)
        places = np.searchsorted(wanted, bits >> _HALF)
        near = wanted[np.minimum(places, len(wanted) - 1)] == bits >> _HALF
        flat = places[near] * size + (bits[near] & size - 1)
        lower += np.bincount(flat, minlength=lower.size).reshape(lower.shape)
    within = ranks - (ends[of_rank] - upper[of_rank])
    low = [
        np.searchsorted(np.cumsum(lower[place]), rank, side="right")
        for place, rank in zip(np.searchsorted(wanted, of_rank), within, strict=True)
    ]
    bits = np.unique(of_rank * size + np.array(low)).astype(np.uint32)
    edges = np.where(bits >= _SIGN, bits ^ np.uint32(_SIGN), ~bits).astype(np.uint32).view(np.float32)
    return tuple(float(edge) for edge in edges[1:])


def _ordered(values: np.ndarray) -> np.ndarray:
    """int64: bits of the numbers that are there, in the order of the numbers; -0 as 0."""
    there = values[~np.isnan(values)] + np.float32(0.0)
    bits = there.astype(np.float32).view(np.uint32).astype(np.int64)
    return np.where(bits >= _SIGN, 2 * _SIGN - 1 - bits, bits + _SIGN)
