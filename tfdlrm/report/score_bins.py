"""ScoreBins: rows counted by score, from which metrics, their bootstrap intervals and curves follow.

The Poisson bootstrap (Hanley, MacGibbon 2006; Chamandy et al. 2012) gives every row a weight drawn from Poisson(1). The
sum of such weights over the rows of a bin is Poisson of their number, so that replicates are drawn bin by bin, at a
cost that does not grow with the rows. Where there are more distinct scores than bins, rows of neighbouring scores share
a bin, and only the spread of the metrics comes from bins: their values are exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tfdlrm.metrics.evaluation import log_losses, probability_of

LEVEL = 0.95
MOST_BINS = 4096
REPLICATES = 1000
_ROWS_AT_ONCE = 50  # replicates
METRICS = ("base_rate", "auc", "pr_auc", "log_loss", "normalized_entropy", "calibration", "accuracy")

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class ScoreBins:
    """Rows in K bins of ascending score.

    Args:
        positives, negatives: float64 [K], rows.
        loss_of_positives, loss_of_negatives: float64 [K], mean log loss; 0 where there are none.
        probability: float64 [K], mean of the predicted ones.
        above: float64 [K], share of rows whose probability is above 0.5.
        exact: each bin is one score.
    """

    positives: np.ndarray
    negatives: np.ndarray
    loss_of_positives: np.ndarray
    loss_of_negatives: np.ndarray
    probability: np.ndarray
    above: np.ndarray
    exact: bool

    @property
    def rows(self) -> np.ndarray:
        """float64 [K]."""
        return self.positives + self.negatives


def score_bins(labels: np.ndarray, logits: np.ndarray, most: int = MOST_BINS) -> ScoreBins:
    """Counts rows by score.

    Args:
        labels: bool [N].
        logits: float32 [N].
        most: bins. With more distinct scores, bins have about as many rows each; equal scores share one.
    """
    order = np.argsort(logits, kind="stable")
    logits, labels = logits[order], labels[order]
    begins = tie_starts(logits)
    exact = len(begins) <= most
    if not exact:
        begins = full_starts(begins, len(logits), most)
    probability, loss = probability_of(logits), log_losses(labels, logits)

    def total(values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(values.astype(np.float64), begins)

    positives, negatives = total(labels), total(~labels)
    return ScoreBins(
        positives=positives,
        negatives=negatives,
        loss_of_positives=total(np.where(labels, loss, 0.0)) / np.maximum(positives, 1.0),
        loss_of_negatives=total(np.where(labels, 0.0, loss)) / np.maximum(negatives, 1.0),
        probability=total(probability) / (positives + negatives),
        above=total(logits > 0) / (positives + negatives),
        exact=exact,
    )


def tie_starts(ordered: np.ndarray) -> np.ndarray:
    """Where equal scores begin, of scores in order."""
    return np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))


def full_starts(starts: np.ndarray, num_rows: int, most: int) -> np.ndarray:
    """Where at most so many bins begin, of about as many rows each; equal scores (`starts`: theirs) share one."""
    wanted = np.arange(most) * num_rows // most
    return np.unique(starts[np.searchsorted(starts, wanted, side="right") - 1])


def auc_of(positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """AUC of R weighings of K scores in ascending order, [R]; NaN where one class has no weight.

    Args:
        positives, negatives: float64 [R, K].
    """
    below = np.cumsum(negatives, axis=1) - 0.5 * negatives
    with np.errstate(invalid="ignore"):
        return (positives * below).sum(axis=1) / (positives.sum(axis=1) * negatives.sum(axis=1))


def metrics_of(bins: ScoreBins, positives: np.ndarray, negatives: np.ndarray) -> dict[str, np.ndarray]:
    """`METRICS` of R weighings of the bins, [R] each; NaN where one does not exist.

    Args:
        bins: what is known of a row of each bin.
        positives, negatives: float64 [R, K], in place of the bins' own numbers.
    """
    total_p, total_n = positives.sum(axis=1), negatives.sum(axis=1)
    total = total_p + total_n
    with np.errstate(invalid="ignore", divide="ignore"):
        rate = total_p / total
        # average precision: of each score from the top, precision at it times the recall that it adds
        above_p = np.cumsum(positives[:, ::-1], axis=1)
        above = above_p + np.cumsum(negatives[:, ::-1], axis=1)
        precision = np.divide(above_p, above, out=np.zeros_like(above), where=above > 0)
        pr_auc = (precision * positives[:, ::-1]).sum(axis=1) / total_p
        loss = (positives @ bins.loss_of_positives + negatives @ bins.loss_of_negatives) / total
        entropy = -(
            np.where(rate > 0, rate * np.log(rate), 0.0) + np.where(rate < 1, (1 - rate) * np.log1p(-rate), 0.0)
        )
        rows = positives + negatives
        return {
            "base_rate": rate,
            "auc": auc_of(positives, negatives),
            "pr_auc": np.where(total_p > 0, pr_auc, np.nan),
            "log_loss": loss,
            "normalized_entropy": np.where(entropy > 0, loss / entropy, np.nan),
            "calibration": np.where(total_p > 0, rows @ bins.probability / total_p, np.nan),
            "accuracy": (positives @ bins.above + negatives @ (1.0 - bins.above)) / total,
        }


def bootstrap_intervals(bins: ScoreBins, values: dict[str, float], seed: int = 0) -> dict[str, Interval]:
    """95 % intervals of `METRICS`: the percentiles of 1,000 Poisson bootstrap replicates.

    Args:
        bins: of the rows.
        values: the exact metrics. What bins lose against them is taken from the replicates.
        seed: of the replicates.

    Returns:
        (low, high) by name; (NaN, NaN) where the metric does not exist, or exists in few replicates.
    """
    random = np.random.default_rng(seed)
    found: dict[str, list[np.ndarray]] = {name: [] for name in METRICS}
    for _ in range(REPLICATES // _ROWS_AT_ONCE):
        positives, negatives = (
            random.poisson(counts, (_ROWS_AT_ONCE, len(counts))).astype(np.float64)
            for counts in (bins.positives, bins.negatives)
        )
        for name, value in metrics_of(bins, positives, negatives).items():
            found[name].append(value)
    of_bins = metrics_of(bins, bins.positives[None], bins.negatives[None])
    return {
        name: _within(name, percentile_interval(np.concatenate(replicates) + values[name] - of_bins[name][0]))
        for name, replicates in found.items()
    }


def percentile_interval(replicates: np.ndarray) -> Interval:
    """What `LEVEL` of the replicates are within; (NaN, NaN) where fewer than those are numbers."""
    known = replicates[np.isfinite(replicates)]
    if len(known) < LEVEL * len(replicates):
        return math.nan, math.nan
    low, high = np.quantile(known, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return float(low), float(high)


def _within(name: str, interval: Interval) -> Interval:
    if name in ("base_rate", "auc", "pr_auc", "accuracy") and not math.isnan(interval[0]):
        return max(interval[0], 0.0), min(interval[1], 1.0)
    return interval
