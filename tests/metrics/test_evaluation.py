"""evaluate_arrays and EvaluationAccumulator against scikit-learn."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from tests.metrics.keras_metric_cases import make_rows
from tfdlrm.metrics import EvaluationAccumulator, evaluate_arrays, evaluation
from tfdlrm.metrics.score_counts import MINIMUM_MEMORY_BYTES

ROWS = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from([0.0, -1.0, 2.5]) | st.floats(-20, 20), st.floats(0.01, 10)),
    min_size=1,
    max_size=40,
)


def reference(labels: np.ndarray, logits: np.ndarray, weights: np.ndarray) -> dict[str, float]:
    p, q = 1 / (1 + np.exp(-logits)), 1 / (1 + np.exp(logits))  # 1 - p has lost half its digits where p is near 1
    both, base_rate = 0 < labels.sum() < len(labels), np.average(labels, weights=weights)
    loss = log_loss(labels, np.column_stack([q, p]), sample_weight=weights, labels=[0, 1])
    entropy = log_loss(labels, np.full(len(labels), base_rate), sample_weight=weights, labels=[0, 1])
    return {
        "rows": len(labels),
        "base_rate": base_rate,
        "auc": roc_auc_score(labels, logits, sample_weight=weights) if both else math.nan,
        "pr_auc": average_precision_score(labels, logits, sample_weight=weights) if labels.any() else math.nan,
        "log_loss": loss,
        "normalized_entropy": loss / entropy if both else math.nan,
        "calibration": (weights * p).sum() / (weights * labels).sum() if labels.any() else math.nan,
        "accuracy": np.average((logits > 0) == labels, weights=weights),
    }


def assert_same(got: dict[str, float], expected: dict[str, float]) -> None:
    assert list(got) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-9, atol=1e-12, err_msg=name)


@settings(max_examples=60)
@given(rows=ROWS, weighted=st.booleans(), cut=st.integers(0, 40))
def test_all_metrics_are_scikit_learns(rows, weighted, cut):
    labels, logits, weights = (np.array([row[i] for row in rows]) for i in range(3))
    given_weights = weights if weighted else None
    expected = reference(labels, logits, weights if weighted else np.ones(len(labels)))
    assert_same(evaluate_arrays(labels, logits, weights=given_weights), expected)
    streamed = EvaluationAccumulator()
    for piece in (slice(cut), slice(cut, None)):
        streamed.update(labels[piece], logits[piece], weights=weights[piece] if weighted else None)
    assert_same(streamed.result(), expected)


def test_probabilities():
    labels, logits, _ = make_rows(500)
    from_logits = evaluate_arrays(labels, logits)
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    assert_same(evaluate_arrays(labels, p, from_logits=False), from_logits)
    with pytest.raises(ValueError, match=r"500 scores are not probabilities.*from_logits=True"):
        evaluate_arrays(labels, logits, from_logits=False)


def test_certain_probabilities_cost_what_their_dtype_can_tell():
    for dtype in (np.float32, np.float64):
        wrong = evaluate_arrays([0, 1], np.array([1.0, 0.0], dtype), from_logits=False)
        assert wrong["log_loss"] == pytest.approx(-math.log(np.finfo(dtype).eps), rel=1e-9)


def test_tasks():
    labels, logits, weights = make_rows(300, num_tasks=2)
    got = evaluate_arrays(labels, logits, weights=weights, tasks=["click", "buy"])
    for task, name in enumerate(["click", "buy"]):
        alone = evaluate_arrays(labels[:, task], logits[:, task], weights=weights)
        assert {f"{name}_{key}": value for key, value in alone.items()}.items() <= got.items()
    assert "task_1_auc" in evaluate_arrays(labels, logits)
    entry_weights = np.stack([weights, weights[::-1]], axis=1)
    got = evaluate_arrays(labels, logits, weights=entry_weights)
    alone = evaluate_arrays(labels[:, 1], logits[:, 1], weights=weights[::-1])
    assert got["task_1_log_loss"] == alone["log_loss"]
    with pytest.raises(ValueError, match=r"3 task names for 2 task"):
        evaluate_arrays(labels, logits, tasks=["a", "b", "c"])


def test_groups():
    labels, logits = np.array([1, 0, 0, 1, 1]), np.array([0.5, 0.1, 0.9, 0.2, 0.3])
    got = evaluate_arrays(labels, logits, ["ann", "ann", "bob", "bob", "cy"])
    assert (got["gauc"], got["gauc_groups"], got["gauc_skipped_groups"]) == (0.5, 2, 1)
    assert "gauc" not in evaluate_arrays(labels, logits)
    streamed = EvaluationAccumulator()
    streamed.update([1, 0], [0.1, 0.2], groups=["a", "b"])
    with pytest.raises(ValueError, match="groups are missing after 2 rows with them"):
        streamed.update([1, 0], [0.1, 0.2])


def test_arrays_in_pieces_are_the_arrays(monkeypatch):
    labels, logits, weights = make_rows(4000)
    groups = np.arange(4000) % 37
    whole = evaluate_arrays(labels, logits, groups, weights=weights)
    monkeypatch.setattr(evaluation, "_ROWS_PER_PIECE", 113)
    assert_same(evaluate_arrays(labels, logits, groups, weights=weights, memory_bytes=MINIMUM_MEMORY_BYTES), whole)


def test_nothing_and_one_row():
    nothing = evaluate_arrays([], [])
    assert nothing.pop("rows") == 0
    assert all(math.isnan(value) for value in nothing.values())
    assert len(evaluate_arrays(np.zeros((0, 2)), np.zeros((0, 2)))) == 16
    one = evaluate_arrays([1], [0.0])
    assert (one["log_loss"], one["accuracy"], one["calibration"]) == (pytest.approx(math.log(2)), 0.0, 0.5)
    assert math.isnan(one["auc"])
    assert math.isnan(one["normalized_entropy"])


def test_infinite_logits_rank_and_cost():
    right = evaluate_arrays([0, 1], [-math.inf, math.inf])
    assert (right["auc"], right["log_loss"], right["accuracy"], right["calibration"]) == (1.0, 0.0, 1.0, 1.0)
    wrong = evaluate_arrays([0, 1, 1], [math.inf, math.inf, 0.0], weights=[1.0, 1.0, 1.0])
    assert wrong["log_loss"] == math.inf
    assert evaluate_arrays([0, 1], [math.inf, 0.0], weights=[0.0, 1.0])["log_loss"] == pytest.approx(math.log(2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0, 1], [0.1]), r"labels of shape \(2,\) and logits of shape \(1,\)"),
        (([0, 1], [0.1, math.nan]), "1 of 2 scores are NaN"),
        (([0, 3], [0.1, 0.2]), "neither 0 nor 1"),
        (([0, 1], [0.1, 0.2], [1]), r"groups of shape \(1,\) for 2 rows"),
        (([[[0]]], [[[0.1]]]), "Give both"),
    ],
)
def test_bad_arrays_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluate_arrays(*arguments)


def test_examples():
    assert doctest.testmod(evaluation).failed == 0
