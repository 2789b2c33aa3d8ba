"""Numbers: dense transforms, to what the bottom MLP sees, and bins. The one place where they are computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from tfdlrm.checks import quoted
from tfdlrm.schema import CategoricalColumn, DenseColumn

SORTED_VALUES = 2048  # that edges of bins are taken from
_UPPER, _LOWER = 20, 12  # bits of a float32 that are counted together
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
    """Edges of a column of encoding `bins`: `bin_edges` of values that stand evenly spaced in the order of all.

    Those are exact, in memory that does not grow with the rows: values are counted by the upper bits of their float32,
    and those that share them with a wanted one by the lower bits as well.

    Args:
        column: says how many bins there are.
        pieces: float32 values, NaN where missing; asked for twice.
    """
    upper = np.zeros(2**_UPPER, np.int64)
    for values in pieces():
        upper += np.bincount(_ordered(values) >> _LOWER, minlength=upper.size)
    total = int(upper.sum())
    ranks = np.arange(min(total, SORTED_VALUES)) * total // min(max(total, 1), SORTED_VALUES)
    ends = np.cumsum(upper)
    of_rank = np.searchsorted(ends, ranks, side="right")
    wanted, place = np.unique(of_rank, return_inverse=True)
    lower = np.zeros((len(wanted), 2**_LOWER), np.int64)
    for values in pieces() if total else ():
        bits = _ordered(values)
        row = np.minimum(np.searchsorted(wanted, bits >> _LOWER), len(wanted) - 1)
        near = wanted[row] == bits >> _LOWER
        flat = (row[near] << _LOWER) + (bits[near] & 2**_LOWER - 1)
        lower += np.bincount(flat, minlength=lower.size).reshape(lower.shape)
    within = ranks - (ends - upper)[of_rank]
    low = [
        int(np.searchsorted(np.cumsum(lower[row]), rank, side="right")) for row, rank in zip(place, within, strict=True)
    ]
    bits = (of_rank << _LOWER) + np.array(low, np.int64)
    values = np.where(bits >= _SIGN, bits - _SIGN, 2 * _SIGN - 1 - bits).astype(np.uint32).view(np.float32)
    return tuple(float(edge) for edge in bin_edges(values, column.bins or 0))


def bin_edges(values: np.ndarray, bins: int) -> np.ndarray:
    """Where bins of sorted values begin, but for the first: ascending, fewer than `bins`.

    A value that more than one in `bins` have gets a bin of its own, the most frequent ones first and no more than
    half of the bins; the other values are cut into equally full bins. So a column that is mostly zero keeps bins for
    the rest.

    Args:
        values: sorted.
        bins: at most so many.

    Example:
        >>> bin_edges(np.array([0, 0, 0, 0, 0, 0, 1, 2, 3, 4]), 4)
        array([1, 3])
    """
    distinct, counts = np.unique(values, return_counts=True)
    by_count = np.argsort(-counts, kind="stable")[: (bins - 1) // 2]
    heavy = np.sort(by_count[counts[by_count] * bins > len(values)])
    rest = values[~np.isin(values, distinct[heavy])]
    parts = bins - 2 * len(heavy)
    cuts = rest[np.arange(1, parts) * len(rest) // parts] if len(rest) else rest
    behind = distinct[heavy[heavy + 1 < len(distinct)] + 1]
    edges = np.unique(np.concatenate([distinct[heavy], behind, cuts]))
    return edges[edges > values[:1].max(initial=-np.inf)]


def _ordered(values: np.ndarray) -> np.ndarray:
    """int64: bits of the numbers that are there, in the order of the numbers; -0 as 0."""
    there = values[~np.isnan(values)] + np.float32(0.0)
    bits = there.astype(np.float32).view(np.uint32).astype(np.int64)
    return np.where(bits >= _SIGN, 2 * _SIGN - 1 - bits, bits + _SIGN)
