"""GroupedAUC against scikit-learn group by group."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from tfdlrm.metrics import GroupedAUC, grouped_auc

ROWS = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.sampled_from([-1.0, 0.0, 0.5]) | st.floats(-3, 3),
        st.integers(-2, 3),
        st.floats(0.01, 5),
    ),
    max_size=40,
)


def group_by_group(labels, scores, groups, weights) -> tuple[float, int, int]:
    """(GAUC, groups used, groups skipped), each group's AUC from scikit-learn."""
    total = impressions = used = skipped = 0
    for group in np.unique(groups):
        rows = groups == group
        if len(set(labels[rows])) < 2:
            skipped += 1
            continue
        used += 1
        impressions += weights[rows].sum()
        total += weights[rows].sum() * roc_auc_score(labels[rows], scores[rows], sample_weight=weights[rows])
    return (total / impressions if used else math.nan), used, skipped


def columns(rows) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    return tuple(np.array([row[i] for row in rows]) for i in range(4))


@given(rows=ROWS, weighted=st.booleans(), as_text=st.booleans(), cut=st.integers(0, 40), merged=st.booleans())
def test_is_the_weighted_mean_of_the_groups(rows, weighted, as_text, cut, merged):
    labels, scores, groups, weights = columns(rows)
    if not weighted:
        weights = np.ones(len(labels))
    keys = np.array([f"user {group}" for group in groups], dtype=object) if as_text else groups
    first, rest = GroupedAUC(), GroupedAUC()
    for gauc, piece in ((first, slice(cut)), (rest if merged else first, slice(cut, None))):
        gauc.update(labels[piece], scores[piece], keys[piece], weights[piece] if weighted else None)
    first.merge(rest)
    result = first.summary()
    expected, used, skipped = group_by_group(labels, scores, groups, weights)
    np.testing.assert_allclose(result.value, expected, rtol=1e-9, atol=1e-12)
    assert (result.num_groups, result.num_skipped_groups) == (used, skipped)
    assert result.num_rows + result.num_skipped_rows == first.num_rows == len(labels)


@pytest.mark.parametrize(
    "keys",
    [
        np.array([3, 3, 7, 7], np.uint8),
        np.array(["a", "a", "b", "b"]),
        np.array([b"a", b"a", b"b", b"b"]),
        np.array([b"a", b"a", b"b", b"b"], dtype=object),
        np.array([[1], [1], [2], [2]]),
        np.array([True, True, False, False]),
        np.array([2**62, 2**62, 2**62 + 1, 2**62 + 1]),  # one number as a float
    ],
    ids=lambda keys: str(keys.dtype),
)
def test_kinds_of_key(keys):
    gauc = GroupedAUC()
    gauc.update([0, 1, 0, 1], [0.1, 0.9, 0.9, 0.1], keys)
    assert gauc.summary() == grouped_auc.GroupedAUCResult(
        value=0.5, num_groups=2, num_skipped_groups=0, num_rows=4, num_skipped_rows=0
    )


def test_one_group_is_the_auc():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 200), np.round(rng.random(200), 1)
    gauc = GroupedAUC()
    gauc.update(labels, scores, np.zeros(200, int))
    assert gauc.result() == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_without_a_usable_group_it_is_nan():
    gauc = GroupedAUC()
    assert math.isnan(gauc.result())
    gauc.update([], [], np.array([], dtype=object))
    assert math.isnan(gauc.result())
    gauc.update([1, 0], [0.1, 0.2], ["ann", "bob"])
    assert math.isnan(gauc.result())
    assert (gauc.summary().num_skipped_groups, gauc.summary().num_skipped_rows) == (2, 2)


def test_merging_in_an_empty_one_changes_nothing():
    gauc = GroupedAUC()
    gauc.update([1, 0], [0.9, 0.2], [1, 1])
    gauc.merge(GroupedAUC())
    assert gauc.result() == 1.0
    other = GroupedAUC()
    other.update([1], [0.9], ["a"])
    with pytest.raises(ValueError, match="strings after integers"):
        gauc.merge(other)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([1, 1, 2], r"shape \(3,\) for 2 rows"),
        ([0.5, 1.5], "dtype float64 cannot be keys"),
        (np.array(["a", None], dtype=object), "dtype object cannot be keys"),
        (["a", "b"], "strings after integers"),
    ],
)
def test_bad_keys_are_refused_and_change_nothing(groups, message):
    gauc = GroupedAUC()
    gauc.update([1, 0], [0.9, 0.2], [1, 1])
    with pytest.raises(ValueError, match=message):
        gauc.update([1, 0], [0.5, 0.5], groups)
    assert (gauc.num_rows, gauc.result()) == (2, 1.0)


def test_nan_scores_are_refused_with_their_count():
    with pytest.raises(ValueError, match="GroupedAUC: 1 of 2 scores are NaN"):
        GroupedAUC().update([1, 0], [math.nan, 0.5], [1, 1])


def test_examples():
    assert doctest.testmod(grouped_auc).failed == 0
