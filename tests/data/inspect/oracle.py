"""The statistics of `inspect_data` once more, from whole columns in plain Python and NumPy."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np


def id_numbers(bags: Sequence[Sequence[Hashable]]) -> dict[str, Any]:
    """Of a categorical column, one list of ids a row."""
    counts = Counter(token for bag in bags for token in bag)
    total = sum(counts.values())
    ordered = sorted(counts.values(), reverse=True)

    def head(fraction: float) -> float:
        return sum(ordered[: math.ceil(round(fraction * len(ordered), 6))]) / total

    once = sum(count == 1 for count in ordered)
    return {
        "occurrences": total,
        "distinct": len(counts),
        "top_1_share": head(0.01),
        "top_10_share": head(0.10),
        "once_ids": once / len(counts),
        "once_share": once / total,
        "counts": ordered,
    }


def dense_numbers(cells: Sequence[float | None]) -> dict[str, Any]:
    """Of a dense column, None where the cell is empty."""
    values = np.array([cell for cell in cells if cell is not None], np.float64)
    levels = {"min": 0.0, "1%": 0.01, "25%": 0.25, "50%": 0.5, "75%": 0.75, "99%": 0.99, "max": 1.0}
    return {
        "missing_rate": 1 - len(values) / len(cells),
        "distinct": len(set(values.tolist())),
        "mean": values.mean(),
        "std": values.std(),
        "quantiles": {name: np.quantile(values, level) for name, level in levels.items()},
    }


def psi(train: Sequence[float], other: Sequence[float]) -> float:
    """Population stability index of occurrences a bin, bins that both lack left out, half added to the rest."""
    pairs = [(a, b) for a, b in zip(train, other, strict=True) if a or b]
    sums = [sum(pair[side] + 0.5 for pair in pairs) for side in (0, 1)]
    total = 0.0
    for a, b in pairs:
        p, q = (a + 0.5) / sums[0], (b + 0.5) / sums[1]
        total += (q - p) * math.log(q / p)
    return total


def id_psi(train: Sequence[Hashable], other: Sequence[Hashable], num_top: int = 50) -> float:
    """The index with the bins of a categorical column; right where no two ids tie for the last place."""
    before, after = Counter(train), Counter(other)
    top = [token for token, _ in before.most_common(num_top)]
    bins = [[before[token] for token in top], [after[token] for token in top]]
    return psi([*bins[0], len(train) - sum(bins[0])], [*bins[1], len(other) - sum(bins[1])])


def dense_psi(train: Sequence[float | None], other: Sequence[float | None]) -> float:
    """The index with the bins of a dense column."""
    edges = sorted({float(np.quantile([x for x in train if x is not None], k / 10)) for k in range(1, 10)})

    def bins(cells: Sequence[float | None]) -> list[float]:
        counts = [0.0] * (len(edges) + 2)
        for cell in cells:
            counts[-1 if cell is None else sum(edge < cell for edge in edges)] += 1
        return counts

    return psi(bins(train), bins(other))
