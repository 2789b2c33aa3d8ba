"""How far the values of a column have moved, from the statistics of two sets of rows."""

from __future__ import annotations

from typing import Any

import numpy as np

_QUANTILES = 1  # of tensorflow_metadata's Histogram.HistogramType
_RARE = 0.005  # share of a text that counts for itself
_LEAST = 0.05  # half a decile


def divergence(now: Any, before: Any) -> float:
    """Jensen-Shannon divergence of the shares of values, base 2: 0 for equal shares, 1 for nothing in common.

    Text is compared by the shares of its frequent values, all others together being one more: rare ones differ between
    any two samples. Numbers are compared by their shares between the deciles of `before`, so that a long tail counts as
    what it holds (where all values are above or below, the result is 0.76): TFDV's own comparison of equally wide bins
    finds a shift wherever the largest value differs. Missing values and NaN are values of their own.

    Args:
        now, before: `FeatureNameStatistics` of a column; where one holds text and the other numbers, the result is 1.
    """
    if now.HasField("num_stats") != before.HasField("num_stats"):
        return 1.0
    first, second = (_numbers if now.HasField("num_stats") else _texts)(now, before)
    p, q = _shares(now, first), _shares(before, second)
    return float((_relative_entropy(p, (p + q) / 2) + _relative_entropy(q, (p + q) / 2)) / 2)


def _relative_entropy(p: np.ndarray, q: np.ndarray) -> float:
    return float(np.sum(p[p > 0] * np.log2(p[p > 0] / q[p > 0])))


def _shares(feature: Any, present: np.ndarray) -> np.ndarray:
    """Shares of all rows: `present`, whose sum is 1, and then NaN and missing."""
    missing = missing_share(feature)
    nan = nan_values(feature) / max(_common_stats(feature).tot_num_values, 1)
    return np.array([*(present * (1 - missing) * (1 - nan)), (1 - missing) * nan, missing])


def missing_share(feature: Any) -> float:
    """Share of the rows that have no value in a column.

    An empty cell of a CSV file is a list without values in its example, and statistics count it as present.
    """
    common = _common_stats(feature)
    there = common.num_non_missing if common.max_num_values > 1 else min(common.num_non_missing, common.tot_num_values)
    return 1 - there / max(num_rows(feature), 1)


def num_rows(feature: Any) -> int:
    """How many rows the statistics of a column are of."""
    common = _common_stats(feature)
    return int(common.num_non_missing + common.num_missing)


def nan_values(feature: Any) -> int:
    """How many values of a column are NaN."""
    return max((int(histogram.num_nan) for histogram in feature.num_stats.histograms), default=0)


def _common_stats(feature: Any) -> Any:
    return (feature.num_stats if feature.HasField("num_stats") else feature.string_stats).common_stats


def _numbers(now: Any, before: Any) -> tuple[np.ndarray, np.ndarray]:
    edges, cumulative = _distribution(before)
    values, of_values = _distribution(now)
    if not len(edges) or not len(values):
        return np.array([1.0]), np.array([1.0])
    # the least and the largest value are another in every sample
    is_inner = (cumulative > _LEAST) & (cumulative < 1 - _LEAST)
    edges, cumulative = edges[is_inner], cumulative[is_inner]
    others = np.interp(edges, values, of_values, left=0.0, right=1.0)
    return np.diff([0.0, *others, 1.0]), np.diff([0.0, *cumulative, 1.0])


def _distribution(feature: Any) -> tuple[np.ndarray, np.ndarray]:
    """Values, ascending, and the share of values up to each."""
    for histogram in feature.num_stats.histograms:
        if histogram.type == _QUANTILES and histogram.buckets:
            buckets = histogram.buckets
            values = np.array([buckets[0].low_value, *(bucket.high_value for bucket in buckets)])
            counts = np.array([0.0, *(bucket.sample_count for bucket in buckets)])
            cumulative = np.cumsum(counts) / max(counts.sum(), 1e-30)
            last = np.append(values[1:] > values[:-1], True)  # of equal values
            return values[last], cumulative[last]
    return np.array([]), np.array([])


def _texts(now: Any, before: Any) -> tuple[np.ndarray, np.ndarray]:
    counts = []
    for feature in (now, before):
        total = max(feature.string_stats.common_stats.tot_num_values, 1)
        buckets = feature.string_stats.rank_histogram.buckets
        counts.append({bucket.label: bucket.sample_count / total for bucket in buckets})
    labels = list(dict.fromkeys(label for found in counts for label, share in found.items() if share >= _RARE))
    shares = [np.array([found.get(label, 0.0) for label in labels]) for found in counts]
    first, second = (np.append(share, max(1.0 - share.sum(), 0.0)) for share in shares)
    return first, second
