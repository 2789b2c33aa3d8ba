"""Leaks: columns that tell the label, and how likely that is by chance.

In a file of four rows an id may well tell the label; only what chance would do less than once in a million times
is called a leak.
"""

from __future__ import annotations

import math

import numpy as np

from tfdlrm.data.inspect.dense_stats import DenseTally, number_text
from tfdlrm.data.inspect.id_counts import CountTable

_LOG_CHANCE = math.log(1e-6)


def dense_leak(tally: DenseTally, task: int) -> str | None:
    """How a dense column tells a label, None if it does not.

    Args:
        tally: of all rows; every row has a label.
        task: number of the label.
    """
    present, missing = tally.present_by_label[task], tally.missing_by_label[task]
    low, high = tally.low[task], tally.high[task]
    if _is_unlikely(present):
        if tally.same[task]:
            return "equals the label"
        if tally.opposite[task]:
            return "equals 1 - label"
        if high[0] < low[1] or high[1] < low[0]:
            larger = 1 if high[0] < low[1] else 0
            bounds = f"{number_text(high[1 - larger])} and {number_text(low[larger])}"
            return f"separates the label: label {larger} is above, the other below the gap between {bounds}"
    for label in (0, 1):
        counts = np.array([present[1 - label], missing[label]])
        if not present[label] and not missing[1 - label] and _is_unlikely(counts):
            return f"is empty exactly where the label is {label}"
    table = tally.table()
    return None if table is None else table_leak(table, task)


def table_leak(table: CountTable, task: int) -> str | None:
    """Whether all rows of each id (or value) have one label.

    Ids seen once show nothing. By chance, n rows of an id are all alike with probability r^n + (1 - r)^n, r the
    label rate.

    Args:
        table: every row of it has a label.
        task: number of the label.
    """
    totals, positives = table.totals, table.positives[:, task]
    num, ones = int(totals.sum()), int(positives.sum())
    if not 0 < ones < num or not ((positives == 0) | (positives == totals)).all():
        return None
    n, rate = totals.astype(np.float64), ones / num
    likely, unlikely = math.log(max(rate, 1.0 - rate)), math.log(min(rate, 1.0 - rate))
    log_chance = float((n * likely + np.log1p(np.exp(n * (unlikely - likely))))[totals > 1].sum())
    if log_chance > _LOG_CHANCE:
        return None
    return "separates the label: all rows of one value have the same label"


def _is_unlikely(counts: np.ndarray) -> bool:
    """Whether rows of two labels stand apart in an order more perfectly than chance would have it: 2 / C(n, k)."""
    n, k = int(counts.sum()), int(counts[1])
    if not 0 < k < n:
        return False
    log_choices = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return math.log(2.0) - log_choices < _LOG_CHANCE
