"""Curves of a model's scores: ROC, precision and recall, reliability, distribution, gain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tfdlrm.metrics.evaluation import probability_of
from tfdlrm.report.scipy_extra import stats
from tfdlrm.report.score_bins import ScoreBins, full_starts, tie_starts
from tfdlrm.report.scored_rows import ScoredRows
from tfdlrm.report.sklearn_extra import metrics

MOST_POINTS = 1000  # of a curve that is kept: more than a plot can show
RELIABILITY_BINS = 20
_HISTOGRAM_BINS = 50
_SIMULATIONS = 1000


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Predicted beside observed, in bins of about as many rows each; equal scores share one.

    Args:
        rows: int64 [K].
        predicted: float64 [K], mean probability.
        observed: float64 [K], share of positives.
        low, high: float64 [K], Wilson's 95 % interval of `observed`.
        error: expected calibration error: mean over rows of |predicted - observed| of their bin.
        error_by_chance: what it would stay below 95 times in 100, were every probability right.
    """

    rows: np.ndarray
    predicted: np.ndarray
    observed: np.ndarray
    low: np.ndarray
    high: np.ndarray
    error: float
    error_by_chance: float


@dataclass(frozen=True, kw_only=True)
class Curves:
    """What the plots of scores show.

    Args:
        false_positive_rate, true_positive_rate: of ROC; empty where one class is missing.
        recall, precision: likewise.
        reliability: see there.
        edges: float64 [B + 1], of probabilities.
        shares: share of the negatives, and of the positives, in each; float64 [2, B].
        share_of_rows, gain: with so many rows from the highest score down, so many of the positives are found.
    """

    false_positive_rate: np.ndarray
    true_positive_rate: np.ndarray
    recall: np.ndarray
    precision: np.ndarray
    reliability: Reliability
    edges: np.ndarray
    shares: np.ndarray
    share_of_rows: np.ndarray
    gain: np.ndarray


def curves_of(rows: ScoredRows, bins: ScoreBins, seed: int = 0) -> Curves:
    """Everything that is drawn of the scores; exact, but that curves keep at most 1,000 points.

    Args:
        rows, bins: of the same rows.
        seed: of the simulation for `Reliability.error_by_chance`.
    """
    empty = np.zeros(0)
    fpr = tpr = recall = precision = empty
    if 0 < rows.labels.sum() < rows.num_rows:
        fpr, tpr, _ = metrics.roc_curve(rows.labels, rows.logits)
        precision, recall, _ = metrics.precision_recall_curve(rows.labels, rows.logits, drop_intermediate=True)
    probabilities = rows.probabilities
    edges = np.linspace(probabilities.min(), max(probabilities.max(), probabilities.min() + 1e-9), _HISTOGRAM_BINS + 1)
    counts = np.stack([np.histogram(probabilities[rows.labels == label], edges)[0] for label in (False, True)])
    found = np.cumsum(bins.positives[::-1])
    return Curves(
        false_positive_rate=_thinned(fpr),
        true_positive_rate=_thinned(tpr),
        recall=_thinned(recall),
        precision=_thinned(precision),
        reliability=reliability_of(rows.labels, rows.logits, seed=seed),
        edges=edges,
        shares=counts / np.maximum(counts.sum(axis=1, keepdims=True), 1),
        share_of_rows=_thinned(np.concatenate([[0.0], np.cumsum(bins.rows[::-1]) / rows.num_rows])),
        gain=_thinned(np.concatenate([[0.0], found / max(found[-1], 1.0)])),
    )


def reliability_of(
    labels: np.ndarray, logits: np.ndarray, most: int = RELIABILITY_BINS, *, seed: int = 0
) -> Reliability:
    """Predicted beside observed.

    Args:
        labels: bool [N].
        logits: float32 [N].
        most: bins.
        seed: of the simulation that `error_by_chance` comes from.
    """
    order = np.argsort(logits, kind="stable")
    logits, labels = logits[order], labels[order]
    begins = full_starts(tie_starts(logits), len(logits), most)
    rows = np.diff(begins, append=len(logits))
    probabilities = probability_of(logits)
    predicted = np.add.reduceat(probabilities, begins) / rows
    positives = np.add.reduceat(labels.astype(np.int64), begins)
    low, high = wilson(positives, rows)
    # of right probabilities the number of positives of a bin is about normal, around their sum
    spread = np.sqrt(np.add.reduceat(probabilities * (1.0 - probabilities), begins)) / rows
    by_chance = np.abs(np.random.default_rng(seed).normal(size=(_SIMULATIONS, len(rows))) * spread)
    shares = rows / len(logits)
    return Reliability(
        rows=rows,
        predicted=predicted,
        observed=positives / rows,
        low=low,
        high=high,
        error=float(shares @ np.abs(predicted - positives / rows)),
        error_by_chance=float(np.quantile(by_chance @ shares, 0.95)),
    )


def wilson(positives: np.ndarray, rows: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's interval of a share (Wilson 1927).

    Args:
        positives, rows: [K]; rows above 0.
        level: of confidence.

    Example:
        >>> wilson(np.array([5]), np.array([10]))
        (array([0.236...]), array([0.763...]))
    """
    z = float(stats.norm.ppf(0.5 + level / 2))
    share = positives / rows
    middle = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * np.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    return np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)


def _thinned(values: np.ndarray) -> np.ndarray:
    """At most `MOST_POINTS` of them, the ends among them."""
    if len(values) <= MOST_POINTS:
        return np.asarray(values)
    return np.asarray(values)[np.linspace(0, len(values) - 1, MOST_POINTS).round().astype(np.int64)]
