"""Drift: how far the columns of another part are from those of the training part.

The population stability index is sum over bins of (q - p) ln(q / p), p and q the shares of train and of the other part
(Siddiqi 2006, "Credit Risk Scorecards"; the same as Jeffreys' divergence). By custom 0.1 is worth a look and 0.25
is a change. Half an occurrence is added to each bin, so that an empty one does not make it infinite.

Bins of a dense column: tenths of train, and one for empty cells. Of a categorical one: the most frequent ids of
train, and one bin for all others. Ids that train does not have get no bin of their own: it would be empty in train
whatever the data, so that a column of many rare ids would always seem to drift. Their share is told beside the index.
"""

from __future__ import annotations

import math

import numpy as np

from tfdlrm.data.inspect.id_counts import CountTable

NOTABLE_PSI = 0.1
LARGE_PSI = 0.25

_NUM_TENTHS = 10
_NUM_TOP_IDS = 50


def population_stability(train: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """The index, and what it hardly exceeds without drift.

    Without drift, psi / (1/n + 1/m) is about chi-squared with bins - 1 degrees of freedom; the second number is
    the mean plus three standard deviations of that.

    Args:
        train, other: occurrences a bin.

    Example:
        >>> population_stability(np.array([100, 100]), np.array([100, 100]))[0]
        0.0
    """
    filled = (train > 0) | (other > 0)
    train, other = train[filled], other[filled]
    if not train.sum() or not other.sum():
        raise ValueError("population_stability: a part has no occurrence. Compare parts that have rows.")
    p = (train + 0.5) / (train + 0.5).sum()
    q = (other + 0.5) / (other + 0.5).sum()
    freedom = len(train) - 1
    noise = (freedom + 3.0 * math.sqrt(2.0 * freedom)) * (1.0 / float(train.sum()) + 1.0 / float(other.sum()))
    return float(((q - p) * np.log(q / p)).sum()), noise


def dense_bins(train: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Occurrences of both parts a bin.

    Args:
        train, other: float64, NaN where the cell is empty.
    """
    present = train[~np.isnan(train)]
    edges = np.unique(np.quantile(present, np.arange(1, _NUM_TENTHS) / _NUM_TENTHS)) if len(present) else np.zeros(0)

    def counted(cells: np.ndarray) -> np.ndarray:
        missing = np.isnan(cells)
        inside = np.bincount(np.searchsorted(edges, cells[~missing], side="left"), minlength=len(edges) + 1)
        return np.append(inside, np.count_nonzero(missing))

    return counted(train), counted(other)


def unseen_share(table: CountTable, part: int, occurrences: np.ndarray, unseen_id: int | None = None) -> float | None:
    """Occurrences of a part whose id train (part 0) does not have / all of the part.

    Args:
        table: counts of every part.
        part: the part.
        occurrences: int64 [parts].
        unseen_id: the id that stands for every unseen value.
    """
    if not occurrences[part]:
        return None
    unseen = (table.weights * table.counts[:, part])[_is_unseen(table, unseen_id)].sum()
    return min(1.0, float(unseen) / float(occurrences[part]))


def id_bins(
    table: CountTable, part: int, occurrences: np.ndarray, unseen_id: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Occurrences of train and of `part` a bin: frequent ids of train, and the rest. See `unseen_share`."""
    # test's share of the row of unseen values says nothing, either, if the vocabulary was made of train
    is_unseen = _is_unseen(table, unseen_id)
    top = np.argsort(-np.where(is_unseen, 0, table.counts[:, 0]), kind="stable")[:_NUM_TOP_IDS]
    top = top[~is_unseen[top]]
    bins = []
    for each in (0, part):
        counts = table.counts[top, each]
        bins.append(np.append(counts, occurrences[each] - counts.sum()))
    return bins[0], bins[1]


def _is_unseen(table: CountTable, unseen_id: int | None) -> np.ndarray:
    is_unseen = np.asarray(table.counts[:, 0] == 0)
    if unseen_id is not None:
        is_unseen = is_unseen | (table.tokens == unseen_id).to_numpy()
    return is_unseen
