"""GroupedAUC: the mean of the AUC within each group, for example within each user (GAUC)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfdlrm.metrics.checked_rows import check_rows


@dataclass(frozen=True, kw_only=True)
class GroupedAUCResult:
    """GAUC and what it rests on.

    Attributes:
        value: weighted mean of the groups' AUCs; NaN where no group has both classes.
        num_groups: groups that count, those with both classes.
        num_skipped_groups: groups of one class only, which have no AUC.
        num_rows, num_skipped_rows: rows in the former and in the latter.
    """

    value: float
    num_groups: int
    num_skipped_groups: int
    num_rows: int
    num_skipped_rows: int


class GroupedAUC:
    """Exact, tie-correct GAUC (Zhu et al., 2017): each group's AUC, weighted by the group's impressions.

        GAUC = sum over g of W_g * AUC_g / sum over g of W_g

    over the groups with both classes; W_g is the number of rows of the group, or the sum of their weights.
    The rows of a group may come in any order and any number of updates, so every row is kept: 17 bytes each
    (25 with weights) beside the distinct keys, and about 120 while `result` sorts them. Bound the rows, not the groups.

    Example:
        >>> gauc = GroupedAUC()
        >>> gauc.update(labels=[1, 0, 1, 1], scores=[0.9, 0.1, 0.2, 0.3], groups=["ann", "ann", "bob", "bob"])
        >>> gauc.result(), gauc.summary().num_skipped_groups
        (1.0, 1)
    """

    def __init__(self) -> None:
        self._pieces: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]] = []
        self._codes: dict[Any, int] = {}
        self._kind: str | None = None

    @property
    def num_rows(self) -> int:
        return sum(len(scores) for _, scores, _, _ in self._pieces)

    def update(self, labels: Any, scores: Any, groups: Any, weights: Any = None) -> None:
        """Add rows.

        Args:
            labels: `[N]` or `[N, 1]`, 0 or 1.
            scores: `[N]` or `[N, 1]`, logits or probabilities.
            groups: `[N]` or `[N, 1]`, integers, strings or bytes; one kind throughout.
            weights: `[N]` or `[N, 1]`, 0 or more; None for 1 a row.

        Raises:
            ValueError: lengths differ, or a value is not valid; then no row of the call was added.
        """
        rows = check_rows("GroupedAUC", labels, scores, weights)
        keys = np.asarray(groups)
        if keys.ndim == 2 and keys.shape[1] == 1:
            keys = keys[:, 0]
        if keys.shape != rows.labels.shape:
            raise ValueError(f"GroupedAUC: groups have shape {keys.shape} for {len(rows.labels)} rows. Give one a row.")
        if not len(keys):
            return
        kind = _kind_of_key(keys)
        if self._kind not in (None, kind):
            raise ValueError(f"GroupedAUC: groups are {kind}s after {self._kind}s. Give one kind of key throughout.")
        self._kind = kind
        self._pieces.append((self._encode(keys), rows.scores, rows.labels > 0, rows.weights))

    def merge(self, other: GroupedAUC) -> None:
        """Add the rows of `other`, for example of another process; equal keys are one group."""
        if other._kind is None:
            return
        if self._kind not in (None, other._kind):
            raise ValueError(f"GroupedAUC: groups are {other._kind}s after {self._kind}s. Give one kind of key.")
        self._kind = other._kind
        new_codes = np.array([self._codes.setdefault(key, len(self._codes)) for key in other._codes], np.int64)
        self._pieces += [(new_codes[codes], *columns) for codes, *columns in list(other._pieces)]

    def result(self) -> float:
        """The GAUC, or NaN where no group has both classes."""
        return self.summary().value

    def summary(self) -> GroupedAUCResult:
        """The GAUC with the counts of groups and rows used and skipped."""
        if not self._pieces:
            return GroupedAUCResult(value=math.nan, num_groups=0, num_skipped_groups=0, num_rows=0, num_skipped_rows=0)
        weights = None
        if any(piece[3] is not None for piece in self._pieces):
            weights = np.concatenate([np.ones(len(p[1])) if p[3] is None else p[3] for p in self._pieces])
        found = group_aucs(
            np.concatenate([piece[0] for piece in self._pieces]),
            np.concatenate([piece[1] for piece in self._pieces]),
            np.concatenate([piece[2] for piece in self._pieces]),
            weights,
        )
        used = ~np.isnan(found.aucs)
        impressions = (found.positives + found.negatives)[used]
        return GroupedAUCResult(
            value=float(impressions @ found.aucs[used] / impressions.sum()) if used.any() else math.nan,
            num_groups=int(used.sum()),
            num_skipped_groups=int((~used).sum()),
            num_rows=int(found.num_rows[used].sum()),
            num_skipped_rows=int(found.num_rows[~used].sum()),
        )

    def _encode(self, keys: np.ndarray) -> np.ndarray:
        distinct, inverse = np.unique(keys, return_inverse=True)
        codes = [self._codes.setdefault(key, len(self._codes)) for key in distinct.tolist()]
        return np.array(codes, np.int64)[inverse]


@dataclass(frozen=True, kw_only=True)
class GroupAUCs:
    """The AUC within each of G groups.

    Attributes:
        groups: [G], ascending.
        num_rows: int64 [G].
        positives, negatives: float64 [G], rows of each class, or the sums of their weights.
        aucs: float64 [G]; NaN where a class is missing.
        variances: float64 [G], of the AUCs by DeLong et al. (1988); NaN where a class has fewer than two rows, and
            where rows have weights.
    """

    groups: np.ndarray
    num_rows: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray
    aucs: np.ndarray
    variances: np.ndarray


def group_aucs(
    groups: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray | None = None,
    order: np.ndarray | None = None,
) -> GroupAUCs:
    """Exact, tie-correct AUCs within groups, all at once.

    Args:
        groups: [N], integers.
        scores: [N], none NaN.
        labels: bool [N].
        weights: float64 [N], or None for 1 a row.
        order: int [N], rows by group, and within one by score, for who has it at hand; None to sort.

    Example:
        >>> group_aucs(np.array([0, 0, 1]), np.array([0.9, 0.1, 0.5]), np.array([True, False, True])).aucs
        array([ 1., nan])
    """
    order = np.lexsort((scores, groups)) if order is None else order
    groups, scores, labels = groups[order], scores[order], labels[order]
    weight = np.ones(len(groups)) if weights is None else weights[order]
    positive, negative = np.where(labels, weight, 0.0), np.where(labels, 0.0, weight)

    new_group = np.concatenate([[True], groups[1:] != groups[:-1]])
    new_score = new_group | np.concatenate([[True], scores[1:] != scores[:-1]])
    ties = np.flatnonzero(new_score)  # first row of every (group, score)
    starts = np.flatnonzero(new_group[ties])  # first tie of every group
    sizes = np.diff(starts, append=len(ties))
    p, n = np.add.reduceat(positive, ties), np.add.reduceat(negative, ties)
    group_p, group_n = np.add.reduceat(p, starts), np.add.reduceat(n, starts)
    below = np.cumsum(n) - n
    below -= np.repeat(below[starts], sizes)  # count within the group only
    beaten = below + 0.5 * n  # negatives that a positive of this score is above
    won = np.add.reduceat(p * beaten, starts)
    with np.errstate(invalid="ignore", divide="ignore"):
        aucs = won / (group_p * group_n)
        variances = np.full(len(starts), np.nan)
        if weights is None:
            ahead = np.cumsum(p) - p
            ahead -= np.repeat(ahead[starts], sizes)
            above = np.repeat(group_p, sizes) - ahead - 0.5 * p  # positives that a negative of this score is below
            # variances of each positive's share of negatives beaten, and of each negative's of positives above it
            share_p, share_n = beaten / np.repeat(group_n, sizes), above / np.repeat(group_p, sizes)
            squares_p = np.add.reduceat(p * (share_p - np.repeat(aucs, sizes)) ** 2, starts)
            squares_n = np.add.reduceat(n * (share_n - np.repeat(aucs, sizes)) ** 2, starts)
            variances = squares_p / (group_p - 1.0) / group_p + squares_n / (group_n - 1.0) / group_n
    first = np.flatnonzero(new_group)
    return GroupAUCs(
        groups=groups[first],
        num_rows=np.diff(first, append=len(groups)),
        positives=group_p,
        negatives=group_n,
        aucs=np.where((group_p > 0) & (group_n > 0), aucs, np.nan),
        variances=np.where((group_p > 1) & (group_n > 1), variances, np.nan),
    )


def _kind_of_key(keys: np.ndarray) -> str:
    kinds = {
        "i": "integer",
        "u": "integer",
        "b": "integer",
        "U": "string",
        "S": "bytes string",
        "T": "string",
    }
    if keys.dtype.kind == "O":
        found = {type(key) for key in keys}
        if len(found) == 1:
            kind = {str: "string", bytes: "bytes string", int: "integer"}.get(found.pop())
            if kind:
                return kind
    elif keys.dtype.kind in kinds:
        return kinds[keys.dtype.kind]
    raise ValueError(
        f"GroupedAUC: groups of dtype {keys.dtype} cannot be keys. "
        "Give integers, strings or bytes, of one kind and none missing."
    )
