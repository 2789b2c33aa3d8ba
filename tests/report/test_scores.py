"""Metrics, curves and intervals of scores: scikit-learn's numbers, and intervals that hold what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics
from sklearn.calibration import calibration_curve

from tfdlrm.data.columns import Columns
from tfdlrm.metrics import evaluate_arrays
from tfdlrm.metrics.evaluation import probability_of
from tfdlrm.metrics.grouped_auc import group_aucs
from tfdlrm.report.curves import MOST_POINTS, curves_of, reliability_of, wilson
from tfdlrm.report.score_bins import METRICS, bootstrap_intervals, metrics_of, score_bins
from tfdlrm.report.scored_rows import ScoredRows
from tfdlrm.report.slices import auc_interval
from tfdlrm.report.verdict import verdict_of
from tfdlrm.schema import DenseColumn, FeatureSpec

SPEC = FeatureSpec(labels=("y",), dense=(DenseColumn(name="x"),))


def scored(labels: np.ndarray, logits: np.ndarray) -> ScoredRows:
    nothing = np.zeros([len(labels), 0], np.float32)
    sample = Columns(
        dense=logits[:, None], labels=labels[:, None].astype("f4"), ids=nothing.astype("i4"), weights=nothing
    )
    return ScoredRows(
        spec=SPEC,
        task=0,
        labels=labels,
        logits=logits,
        numbers=np.arange(len(labels)),
        sample=sample,
        best=None,
    )


def draw(rows: int, seed: int, *, shift: float = 0.0, scale: float = 1.0, ties: bool = False):
    """Labels of known probabilities, and logits that are `shift` off and `scale` times as sure."""
    random = np.random.default_rng(seed)
    truth = random.normal(-1.0, 1.2, rows)
    truth = np.round(truth, 1) if ties else truth
    labels = random.random(rows) < probability_of(truth)
    return labels, (scale * truth + shift).astype(np.float32)


@pytest.mark.parametrize(("rows", "ties"), [(900, False), (3000, True), (30_000, False)])
def test_curves_are_scikit_learns(rows: int, ties: bool) -> None:
    labels, logits = draw(rows, 1, ties=ties)
    bins = score_bins(labels, logits)
    curves = curves_of(scored(labels, logits), bins)
    fpr, tpr, _ = sklearn_metrics.roc_curve(labels, logits)
    precision, recall, _ = sklearn_metrics.precision_recall_curve(labels, logits)
    # every point of the kept curve is one of the whole curve, and nothing between two of them is lost to the eye
    assert len(curves.false_positive_rate) <= MOST_POINTS
    grid = np.linspace(0.01, 0.99, 99)
    np.testing.assert_allclose(
        np.interp(grid, curves.false_positive_rate, curves.true_positive_rate), np.interp(grid, fpr, tpr), atol=5e-3
    )
    for r, p in zip(curves.recall[::50], curves.precision[::50], strict=True):
        assert np.min(np.abs(recall - r) + np.abs(precision - p)) < 1e-6
    assert (curves.share_of_rows[-1], curves.gain[-1]) == (1.0, 1.0)
    top = np.argsort(-logits, kind="stable")[: rows // 10]
    if not ties:
        assert np.interp(0.1, curves.share_of_rows, curves.gain) == pytest.approx(
            labels[top].sum() / labels.sum(), abs=2e-3
        )


def test_reliability_is_scikit_learns() -> None:
    labels, logits = draw(20_000, 2, shift=0.4)
    found = reliability_of(labels, logits, 10)
    observed, predicted = calibration_curve(labels, probability_of(logits), n_bins=10, strategy="quantile")
    np.testing.assert_allclose(found.predicted, predicted, atol=1e-6)
    np.testing.assert_allclose(found.observed, observed, atol=1e-6)
    low, high = wilson(np.array([7, 0]), np.array([40, 5]))
    for place, (k, n) in enumerate([(7, 40), (0, 5)]):
        expected = stats.binomtest(k, n).proportion_ci(method="wilson")
        assert (low[place], high[place]) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert found.error == pytest.approx(np.abs(observed - predicted).mean(), abs=1e-6)
    assert found.error > 2 * found.error_by_chance


def test_the_error_by_chance_is_that_of_right_probabilities() -> None:
    beyond = 0
    for seed in range(200):
        found = reliability_of(*draw(2000, seed), seed=seed)
        beyond += found.error > found.error_by_chance
    # 5 % of 200, and four standard deviations of that
    assert 10 - 4 * 3.1 < beyond < 10 + 4 * 3.1


@pytest.mark.parametrize(("rows", "ties"), [(3000, True), (60_000, False)])
def test_metrics_of_bins_are_those_of_rows(rows: int, ties: bool) -> None:
    labels, logits = draw(rows, 3, ties=ties, shift=0.2)
    bins = score_bins(labels, logits)
    assert bins.exact == ties
    found = metrics_of(bins, bins.positives[None], bins.negatives[None])
    exact = evaluate_arrays(labels, logits)
    for name in METRICS:
        assert found[name][0] == pytest.approx(exact[name], rel=1e-12 if ties else 1e-3), name
    assert exact["auc"] == pytest.approx(sklearn_metrics.roc_auc_score(labels, logits), abs=1e-12)
    assert exact["pr_auc"] == pytest.approx(sklearn_metrics.average_precision_score(labels, logits), abs=1e-9)


def test_bootstrap_intervals_cover_at_their_rate() -> None:
    """Of 300 sets of rows, the interval of about 95 % holds the value that many rows have."""
    labels, logits = draw(2_000_000, 99, shift=0.1)
    truth = evaluate_arrays(labels, logits)
    names = ("base_rate", "auc", "pr_auc", "log_loss", "normalized_entropy", "calibration", "accuracy")
    covered = dict.fromkeys(names, 0)
    for seed in range(300):
        some = draw(1500, seed, shift=0.1)
        intervals = bootstrap_intervals(score_bins(*some, most=400), evaluate_arrays(*some), seed)
        for name in names:
            covered[name] += intervals[name][0] <= truth[name] <= intervals[name][1]
    # binomial: 285, standard deviation 3.8; the percentile bootstrap of a finite sample may miss by a little more
    for name, count in covered.items():
        assert 285 - 5 * 3.8 <= count <= 285 + 3.9 * 3.8, (name, count)


def test_auc_intervals_of_slices_cover_at_their_rate() -> None:
    truth = sklearn_metrics.roc_auc_score(*draw(1_000_000, 98))
    labels, logits = draw(300 * 400, 97)
    found = group_aucs(np.repeat(np.arange(400), 300), logits, labels)
    intervals = [auc_interval(auc, variance) for auc, variance in zip(found.aucs, found.variances, strict=True)]
    covered = sum(low <= truth <= high for low, high in intervals)
    assert 380 - 4 * 4.4 <= covered <= 380 + 4 * 4.4
    one = slice(0, 300)
    assert found.aucs[0] == pytest.approx(sklearn_metrics.roc_auc_score(labels[one], logits[one]), abs=1e-12)
    # DeLong's variance by its definition, pair by pair
    p, n = logits[one][labels[one]], logits[one][~labels[one]]
    wins = (p[:, None] > n) + 0.5 * (p[:, None] == n)
    expected = wins.mean(axis=1).var(ddof=1) / len(p) + wins.mean(axis=0).var(ddof=1) / len(n)
    assert found.variances[0] == pytest.approx(expected, rel=1e-9)


def _verdict(labels: np.ndarray, logits: np.ndarray) -> list[str]:
    bins, metrics = score_bins(labels, logits), evaluate_arrays(labels, logits)
    return verdict_of(metrics, bootstrap_intervals(bins, metrics), reliability_of(labels, logits), None)


def test_verdicts() -> None:
    good = _verdict(*draw(20_000, 5))
    assert good[0].startswith("It is better than a constant")
    assert good[1].startswith("It is calibrated")
    assert "the AUC is known to" in good[2]
    shifted = _verdict(*draw(20_000, 5, shift=0.3))
    assert shifted[1].startswith("It is not calibrated, it predicts too many")
    # too sure of itself, and right on the whole
    labels, logits = draw(50_000, 5, scale=1.6)
    shifts = np.linspace(0.0, 1.0, 201)
    right = shifts[np.argmin([abs(probability_of(logits + shift).sum() - labels.sum()) for shift in shifts])]
    assert _verdict(labels, logits + np.float32(right))[1].startswith("It is calibrated on the whole, and not")
    random = np.random.default_rng(0)
    noise = _verdict(random.random(2000) < 0.3, random.normal(-0.85, 0.01, 2000).astype("f4"))
    assert noise[0].startswith("It cannot be told from a constant")
    worse = _verdict(*draw(20_000, 5, scale=-1.0))
    assert worse[0].startswith("It is worse than the base rate")


def test_verdicts_of_hardly_any_rows() -> None:
    labels, logits = np.zeros(300, bool), np.linspace(-3, 0, 300, dtype="f4")
    alike = _verdict(labels, logits)
    assert "every row is negative" in alike[0]
    assert alike[1].startswith("It is not calibrated on these rows: no row is positive, and it predicts 64.")
    assert "give rows of both kinds" in alike[2]
    assert "every row is positive" in _verdict(~labels, logits)[0]
    labels[::43] = True
    few = _verdict(labels, logits)
    assert "There are 7 positives and 293 negatives: too few positives to say anything" in few[2]
    # and the sentences before it claim nothing
    assert few[0].startswith("Whether it is better than a constant cannot be told from so few rows of one kind")
    assert few[1].startswith("Whether it is calibrated can hardly be told: there are 7 positives where it predicts")
    labels[::10] = True
    assert "few positives" in _verdict(labels, logits)[2]
    constant = _verdict(labels, np.full(300, -1.0, "f4"))
    assert constant[0].startswith(("It cannot be told", "It is worse"))
    assert _verdict(np.array([True]), np.array([0.5], "f4"))[2].startswith("There are 1 positive and 0 negatives")


def test_intervals_of_what_does_not_exist_are_unknown() -> None:
    labels, logits = np.zeros(50, bool), np.linspace(-1, 1, 50, dtype="f4")
    intervals = bootstrap_intervals(score_bins(labels, logits), evaluate_arrays(labels, logits))
    assert math.isnan(intervals["auc"][0])
    assert intervals["log_loss"][0] > 0
    assert all(math.isnan(value) for value in auc_interval(1.0, 0.0))
