"""The histogram metrics: bins, and how far they may be from the exact value."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from tfdlrm.metrics import PRAUC, BinnedAUC
from tfdlrm.metrics.binned_auc import SOFTNESS, prefix_sum

LOGITS = st.floats(-1e5, 1e5, width=32) | st.floats(-3, 3, width=32) | st.sampled_from([0.0, -2.0, math.inf, -math.inf])
ROWS = st.lists(st.tuples(st.integers(0, 1), LOGITS), min_size=2, max_size=50)


@settings(max_examples=30)
@given(rows=ROWS, num_bins=st.sampled_from([2, 7, 100, 4096]))
def test_the_exact_auc_is_within_the_error_bound(rows, num_bins):
    labels, logits = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    metric = BinnedAUC(num_bins)
    metric.update_state(labels, logits.astype(np.float32))
    bound = float(metric.error_bound())
    if labels.min() == labels.max():
        assert math.isnan(float(metric.result()))
        return
    exact = roc_auc_score(labels, np.clip(logits, -1e6, 1e6))  # scikit-learn refuses infinity
    assert abs(float(metric.result()) - exact) <= bound + 1e-12


@pytest.mark.parametrize("base_logit", [-3.5, 0.0])
def test_default_bins_are_fine_enough_for_click_data(base_logit):
    """A click rate of about 3 % and one of a half, 200,000 rows of distinct scores."""
    rng = np.random.default_rng(0)
    logits = (base_logit + 1.2 * rng.standard_normal(200_000)).astype(np.float32)
    labels = (rng.random(len(logits)) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    auc, pr_auc = BinnedAUC(), PRAUC()
    for metric in (auc, pr_auc):
        metric.update_state(labels, logits)
    assert float(auc.error_bound()) < 2e-3
    assert float(auc.result()) == pytest.approx(roc_auc_score(labels, logits), abs=2e-5)
    # a bin of several scores has the precision at its lower end, so the value is a little low
    assert -1e-3 < float(pr_auc.result()) - average_precision_score(labels, logits) < 0


@settings(max_examples=30)
@given(rows=ROWS, num_bins=st.sampled_from([2, 7, 100]))
def test_both_are_exact_for_the_binned_scores(rows, num_bins):
    labels = np.array([row[0] for row in rows])
    logits = np.clip(np.array([row[1] for row in rows], np.float32), -1e9, 1e9)
    share = (logits / (np.float32(SOFTNESS) + np.abs(logits))).astype(np.float32)
    bins = np.minimum((np.float32(num_bins / 2) + np.float32(num_bins / 2) * share).astype(int), num_bins - 1)
    for metric, score in ((BinnedAUC(num_bins), roc_auc_score), (PRAUC(num_bins), average_precision_score)):
        metric.update_state(labels, logits)
        if 0 < labels.sum() < len(labels):
            assert float(metric.result()) == pytest.approx(score(labels, bins), abs=1e-12)


@pytest.mark.parametrize("length", [1, 15, 16, 17, 1000])
def test_prefix_sum_is_cumsum(length):
    counts = np.random.default_rng(0).integers(0, 2**40, length).astype(np.float64)
    np.testing.assert_array_equal(prefix_sum(tf.constant(counts)).numpy(), np.cumsum(counts))


def test_order_of_bins_is_order_of_logits():
    logits = np.concatenate([[-np.inf], np.linspace(-60, 60, 5001), [np.inf]]).astype(np.float32)
    metric = BinnedAUC(64)
    seen = []
    for logit in (logits[0], *logits[1:-1:250], logits[-1]):
        metric.reset_state()
        metric.update_state([[1.0]], [[logit]])
        seen.append(int(np.argmax(metric.histogram()[0].numpy())))
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0, 63)


@pytest.mark.parametrize("kind", [BinnedAUC, PRAUC])
def test_a_nan_score_makes_the_result_nan(kind):
    metric = kind()
    metric.update_state([[1.0], [0.0], [0.0]], [[1.0], [0.0], [math.nan]])
    assert math.isnan(float(metric.result()))
    assert float(metric.histogram()[2]) == 1.0


@pytest.mark.parametrize("kind", [BinnedAUC, PRAUC])
def test_rows_of_weight_zero_do_not_count(kind):
    metric = kind()
    metric.update_state([[1.0], [0.0], [0.0]], [[1.0], [0.0], [2.0]], [1.0, 1.0, 0.0])
    assert float(metric.result()) == 1.0


def test_too_few_bins_are_refused():
    with pytest.raises(ValueError, match=r"BinnedAUC: num_bins=1 is too small\. Give 2"):
        BinnedAUC(1)


def test_the_update_has_a_fixed_number_of_ops():
    """Cheap at every step: no sort, no loop, nothing that grows with the number of steps."""
    metric = BinnedAUC()
    graph = tf.function(lambda y, x: (metric.update_state(y, x), metric.result())[1]).get_concrete_function(
        tf.TensorSpec([2048, 1]), tf.TensorSpec([2048, 1])
    )
    kinds = [op.type for op in graph.graph.get_operations()]
    assert not {"TopKV2", "While", "StatelessWhile", "PyFunc", "EagerPyFunc", "Unique"} & set(kinds)
    assert kinds.count("AssignVariableOp") + kinds.count("AssignAddVariableOp") == 1
    assert kinds.count("UnsortedSegmentSum") == 1
