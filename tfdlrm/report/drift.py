"""Drift of the scored rows from the training rows, and how the model fares with ids that are frequent or rare there."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tfdlrm.data.columns import Columns
from tfdlrm.data.inspect.findings import dense_bins, population_stability
from tfdlrm.data.inspect.report import NOTABLE_PSI, ColumnDrift
from tfdlrm.metrics.evaluation import probability_of
from tfdlrm.metrics.grouped_auc import group_aucs
from tfdlrm.report.groups import Grouping, id_groupings
from tfdlrm.report.scored_rows import ScoredRows

_TOP_IDS = 50
_HEAD_SHARE = 0.5


@dataclass(frozen=True, kw_only=True)
class HeadAndTail:
    """Rows by how frequent their id of a column is among training rows.

    Args:
        column: which.
        head_ids: the most frequent ids of the training rows, as few as make up half of their occurrences.
        rows: that have such an id, and others; [2].
        aucs: of both; NaN where one class is missing.
        ratios: predicted / observed positives of both.
        unseen: share of the ids that no training row looked at has.
    """

    column: str
    head_ids: int
    rows: tuple[int, int]
    aucs: tuple[float, float]
    ratios: tuple[float, float]
    unseen: float


def find_drift(rows: ScoredRows, background: Columns) -> tuple[list[ColumnDrift], list[HeadAndTail]]:
    """Drift of every column, the largest first; and head and tail of every categorical one.

    Args:
        rows: with a sample.
        background: training rows, see `training.background`.
    """
    drift = []
    for place, dense in enumerate(rows.spec.dense):
        values = (each.dense[:, place].astype(np.float64) for each in (background, rows.sample))
        psi, noise = population_stability(*dense_bins(*values))
        drift.append(ColumnDrift(name=dense.name, kind="dense", part="scored", psi=psi, noise=noise))
    tails = []
    pairs = zip(id_groupings(rows.spec, background), id_groupings(rows.spec, rows.sample), strict=True)
    for before, after in pairs:
        if not len(before.codes) or not len(after.codes):
            continue
        ids, counts = np.unique(before.codes, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        ids, counts = ids[order], counts[order]
        new_ids, new_counts = np.unique(after.codes, return_counts=True)
        psi, noise = population_stability(*_bins(ids, counts, new_ids, new_counts))
        unseen = float(new_counts[~np.isin(new_ids, ids)].sum() / new_counts.sum())
        drift.append(
            ColumnDrift(
                name=before.column, kind="categorical", part="scored", psi=psi, noise=noise, unseen_share=unseen
            )
        )
        head = ids[: int(np.searchsorted(np.cumsum(counts), _HEAD_SHARE * counts.sum())) + 1]
        tails.append(_head_and_tail(rows, after, head, unseen))
    return sorted(drift, key=lambda each: -each.psi), tails


def drifted(column: ColumnDrift) -> bool:
    """Whether a column's drift is worth a look, and more than chance."""
    return column.psi > max(NOTABLE_PSI, column.noise)


def _bins(
    ids: np.ndarray, counts: np.ndarray, new_ids: np.ndarray, new_counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Occurrences of the most frequent training ids, and of all others together."""
    top = ids[:_TOP_IDS]
    found = np.zeros(len(top), np.int64)
    place = np.searchsorted(new_ids, top)
    known = (place < len(new_ids)) & (new_ids[np.minimum(place, len(new_ids) - 1)] == top)
    found[known] = new_counts[place[known]]
    before = np.append(counts[:_TOP_IDS], counts[_TOP_IDS:].sum())
    return before, np.append(found, new_counts.sum() - found.sum())


def _head_and_tail(rows: ScoredRows, grouping: Grouping, head: np.ndarray, unseen: float) -> HeadAndTail:
    """A row of several ids is of the head where all of them are."""
    in_head = np.isin(grouping.codes, head)
    if grouping.rows is not None:
        in_tail = np.zeros(rows.sample.num_rows, bool)
        in_tail[grouping.rows[~in_head]] = True
        in_head = ~in_tail
    labels, logits = rows.sample_labels, rows.sample_logits
    probabilities = probability_of(logits)
    found = {}
    for each in (True, False):
        own = in_head == each
        positives = int(labels[own].sum())
        auc = (
            group_aucs(np.zeros(int(own.sum()), np.int64), logits[own], labels[own]).aucs[0] if own.any() else math.nan
        )
        ratio = float(probabilities[own].sum()) / positives if positives else math.nan
        found[each] = int(own.sum()), float(auc), ratio
    return HeadAndTail(
        column=grouping.column,
        head_ids=len(head),
        rows=(found[True][0], found[False][0]),
        aucs=(found[True][1], found[False][1]),
        ratios=(found[True][2], found[False][2]),
        unseen=unseen,
    )
