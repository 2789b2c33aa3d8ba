"""Exact ROC AUC and average precision of any number of rows in bounded memory, on the host."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tfdlrm.metrics.score_counts import ScoreCounts


class ExactAUCAccumulator(ScoreCounts):
    """Streaming, exact, tie-correct AUC (Mann-Whitney, ties count half) and average precision.

    With p(s) and n(s) the weight of positives and negatives of score s, and P, N their totals:

        AUC = sum over s of p(s) * (n(scores below s) + n(s) / 2) / (P * N)
        AP  = sum over s of p(s) / P * p(scores >= s) / (p(scores >= s) + n(scores >= s))

    Without weights the AUC is computed in integers and rounded once. Several processes each accumulate their
    own rows, `save` them, and one of them `load`s and `merge`s: the result is that of all rows.

    Args:
        memory_bytes: limit of what is held and allocated; sorted runs go to disk beyond it.
        directory: where the temporary folder is made when it is needed; None for the system's.

    Example:
        >>> auc = ExactAUCAccumulator()
        >>> auc.update(labels=[0, 1, 1, 0], scores=[0.1, 0.4, 0.4, 0.4])
        >>> auc.result()
        0.75
    """

    def update(self, labels: Any, scores: Any, weights: Any = None) -> None:
        """Add rows; see `ScoreCounts.add`."""
        self.add(labels, scores, weights)

    def result(self) -> float:
        """The AUC; NaN where either class is absent, as no pair exists to be ranked."""
        if not self.positives or not self.negatives:
            return math.nan
        if self.weighted:
            return self._weighted_auc()
        twice_won, negatives_below = 0, 0  # Python integers: P * N passes 2^63 at 6e9 rows
        for _, positives, negatives in self.blocks():
            p, n = positives.astype(np.int64), negatives.astype(np.int64)
            block_positives, block_negatives = int(p.sum()), int(n.sum())
            if 2 * block_positives * block_negatives >= 2**63:
                p, n = p.astype(object), n.astype(object)
            inside = int((p * (2 * (np.cumsum(n) - n) + n)).sum())
            twice_won += inside + 2 * negatives_below * block_positives
            negatives_below += block_negatives
        return twice_won / (2 * self.positives * self.negatives)

    def _weighted_auc(self) -> float:
        won, negatives_below = 0.0, 0.0
        for _, positives, negatives in self.blocks():
            won += float(positives @ (negatives_below + np.cumsum(negatives) - 0.5 * negatives))
            negatives_below += float(negatives.sum())
        return min(1.0, won / (self.positives * self.negatives))

    def average_precision(self) -> float:
        """Area under the precision-recall steps, not interpolated; NaN where there is no positive."""
        if not self.positives:
            return math.nan
        total, positives_below, negatives_below = 0.0, 0.0, 0.0
        for _, positives, negatives in self.blocks():
            true = self.positives - positives_below - (np.cumsum(positives) - positives)
            false = self.negatives - negatives_below - (np.cumsum(negatives) - negatives)
            # a score whose rows all weigh 0 adds no recall; `true` and `false` may both be 0 there
            precision = np.divide(true, true + false, out=np.zeros_like(true), where=positives > 0)
            total += float(positives @ precision)
            positives_below += float(positives.sum())
            negatives_below += float(negatives.sum())
        return min(1.0, total / self.positives)
