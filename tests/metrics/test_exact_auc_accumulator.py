"""Exact AUC and average precision against pair counting and scikit-learn, in memory, spilled, merged, restored."""

from __future__ import annotations

import doctest
import gc
import itertools
import math
import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from tfdlrm.metrics import ExactAUCAccumulator, exact_auc_accumulator, score_counts
from tfdlrm.metrics.score_counts import MINIMUM_MEMORY_BYTES

# few distinct values: many ties; both zeros are one score; infinities are scores
SCORES = st.sampled_from([-1.0, -0.0, 0.0, 0.5, 0.25, 1e-30, -math.inf, math.inf]) | st.floats(
    -5, 5, width=32, allow_nan=False
)
WEIGHTS = st.sampled_from([0.0, 0.5, 1.0, 3.0]) | st.floats(0, 10, width=32, allow_subnormal=False)


def rows_of(*columns: st.SearchStrategy) -> st.SearchStrategy:
    return st.lists(st.tuples(st.integers(0, 1), *columns), max_size=40)


def pair_counting(labels, scores, weights=None) -> float:
    """Mann-Whitney, in rational numbers: each pair of a positive and a negative won, lost, or half won."""
    weights = [1] * len(labels) if weights is None else weights
    rows = [(label, score, Fraction(weight)) for label, score, weight in zip(labels, scores, weights, strict=True)]
    won = total = Fraction(0)
    for _, score, weight in (row for row in rows if row[0] == 1):
        for _, other, other_weight in (row for row in rows if row[0] == 0):
            won += weight * other_weight * (Fraction(1, 2) if score == other else int(score > other))
            total += weight * other_weight
    return float(won / total) if total else math.nan


def accumulated(labels, scores, weights=None, pieces: int = 3, **options) -> ExactAUCAccumulator:
    auc = ExactAUCAccumulator(**options)
    bounds = np.linspace(0, len(labels), pieces + 1).astype(int)
    for start, end in itertools.pairwise(bounds):
        auc.update(labels[start:end], scores[start:end], None if weights is None else weights[start:end])
    return auc


def many_rows(num_rows: int, num_scores: int | None, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal(num_rows).astype(np.float32)
    if num_scores:
        scores = np.round(scores * num_scores) / num_scores
    return (rng.random(num_rows) < 1 / (1 + np.exp(-scores))).astype(np.int64), scores, rng.random(num_rows)


@given(rows=rows_of(SCORES), pieces=st.integers(1, 5))
def test_auc_is_pair_counting_rounded_once(rows, pieces):
    labels, scores = [row[0] for row in rows], [row[1] for row in rows]
    got, expected = accumulated(labels, scores, pieces=pieces).result(), pair_counting(labels, scores)
    assert got == expected or (math.isnan(got) and math.isnan(expected))


@given(rows=rows_of(SCORES, WEIGHTS), pieces=st.integers(1, 5))
def test_weighted_auc_is_weighted_pair_counting(rows, pieces):
    labels, scores, weights = ([row[i] for row in rows] for i in range(3))
    got = accumulated(labels, scores, weights, pieces=pieces).result()
    np.testing.assert_allclose(got, pair_counting(labels, scores, weights), rtol=1e-9, atol=1e-12)


@given(
    rows=rows_of(st.sampled_from([0.0, 0.1, 0.25, 0.7]) | st.floats(0, 1), st.floats(0.01, 10)), weighted=st.booleans()
)
def test_scikit_learn_agrees(rows, weighted):
    labels, scores = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    weights = np.array([row[2] for row in rows]) if weighted else None
    auc = accumulated(labels, scores, weights)
    if 0 < labels.sum() < len(labels):
        assert auc.result() == pytest.approx(roc_auc_score(labels, scores, sample_weight=weights), abs=1e-9)
    if labels.sum() > 0:
        expected = average_precision_score(labels, scores, sample_weight=weights)
        assert auc.average_precision() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("num_scores", [None, 500, 20])
def test_spilled_to_disk_it_is_the_same(tmp_path: Path, num_scores, weighted):
    labels, scores, weights = many_rows(24_000, num_scores)
    weights = weights if weighted else None
    auc = accumulated(labels, scores, weights, 20, memory_bytes=MINIMUM_MEMORY_BYTES, directory=tmp_path)
    assert any(tmp_path.iterdir()) == (num_scores != 20), "distinct scores beyond the memory go to disk"
    assert auc.result() == pytest.approx(roc_auc_score(labels, scores, sample_weight=weights), abs=1e-9)
    if not weighted:
        assert auc.result() == accumulated(labels, scores).result()
    expected = average_precision_score(labels, scores, sample_weight=weights)
    assert auc.average_precision() == pytest.approx(expected, abs=1e-9)

    assert auc.num_rows == len(labels)
    blocks = np.concatenate(list(auc.blocks()), axis=1)
    assert (np.diff(blocks[0]) > 0).all()
    np.testing.assert_array_equal(blocks[0], np.unique(scores))
    auc.update([0, 1], [0.0, 0.0], None)  # and it goes on
    assert auc.num_rows == len(labels) + 2
    auc.clear()
    assert not any(tmp_path.iterdir())
    assert math.isnan(auc.result())


def test_memory_stays_within_the_limit():
    labels, scores, _ = many_rows(60_000, None)
    limit, batch = 2**18, 500
    tracemalloc.start()
    try:
        auc = ExactAUCAccumulator(memory_bytes=limit)
        for start in range(0, len(labels), batch):
            auc.update(labels[start : start + batch], scores[start : start + batch])
        auc.result()
        auc.average_precision()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < limit + 100 * batch, "the limit, and the columns of one call"
    assert peak < len(labels) * 24 / 4, "far less than the rows"


def test_temporary_files_go_with_the_object(tmp_path: Path):
    labels, scores, _ = many_rows(20_000, None)
    auc = accumulated(labels, scores, memory_bytes=MINIMUM_MEMORY_BYTES, directory=tmp_path)
    assert any(tmp_path.iterdir())
    del auc
    gc.collect()
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("weighted", [False, True])
def test_merging_is_accumulating_all_rows(tmp_path: Path, weighted):
    labels, scores, weights = many_rows(30_000, 3000)
    weights = weights if weighted else None
    small = {"memory_bytes": MINIMUM_MEMORY_BYTES, "directory": tmp_path}
    first = accumulated(labels[:9000], scores[:9000], weights[:9000] if weighted else None, **small)
    rest = accumulated(labels[9000:], scores[9000:], weights[9000:] if weighted else None, **small)
    before = rest.result()
    first.merge(rest)
    assert first.num_rows == len(labels)
    assert first.result() == pytest.approx(accumulated(labels, scores, weights).result(), rel=1e-12)
    assert rest.result() == before
    empty = ExactAUCAccumulator()
    empty.merge(rest)
    assert empty.result() == pytest.approx(before, rel=1e-12)
    with pytest.raises(ValueError, match="itself"):
        first.merge(first)


def test_counts_beyond_64_bits_stay_exact():
    """Merging in turn grows both like Fibonacci's numbers, to 10^13 rows: pairs no longer fit in 64 bits."""
    first, second = accumulated([0, 1, 1, 0], [0.1, 0.4, 0.4, 0.4]), accumulated([0, 1, 1], [0.1, 0.1, 0.4])
    for _ in range(29):
        first.merge(second)
        second.merge(first)
    p, n = {0.1: 0, 0.4: 0}, {0.1: 0, 0.4: 0}
    for score, positives, negatives in second.blocks().__next__().T.tolist():
        p[score], n[score] = int(positives), int(negatives)
    assert sum(p.values()) > 10**12
    assert (second.positives, second.negatives) == (sum(p.values()), sum(n.values()))
    won = p[0.1] * n[0.1] + p[0.4] * (2 * n[0.1] + n[0.4])
    assert second.result() == won / (2 * sum(p.values()) * sum(n.values()))


@settings(max_examples=20)
@given(rows=rows_of(SCORES, WEIGHTS), weighted=st.booleans())
def test_saved_and_loaded_it_is_the_same(tmp_path_factory, rows, weighted):
    labels, scores, weights = ([row[i] for row in rows] for i in range(3))
    auc = accumulated(labels, scores, weights if weighted else None)
    path = tmp_path_factory.mktemp("saved") / "auc"
    auc.save(path)
    again = ExactAUCAccumulator.load(path, memory_bytes=MINIMUM_MEMORY_BYTES)
    for counts in (auc, again):
        counts.update([1, 0, 1], [0.3, 0.3, -1.0])
    assert (again.num_rows, again.positives, again.negatives) == (auc.num_rows, auc.positives, auc.negatives)
    assert again.result() == auc.result()
    assert again.average_precision() == auc.average_precision()


def test_saving_spilled_rows(tmp_path: Path):
    labels, scores, _ = many_rows(20_000, None)
    auc = accumulated(labels, scores, memory_bytes=MINIMUM_MEMORY_BYTES)
    auc.save(tmp_path / "auc")
    again = ExactAUCAccumulator.load(tmp_path / "auc", memory_bytes=MINIMUM_MEMORY_BYTES)
    assert again.result() == auc.result() == accumulated(labels, scores).result()
    assert [path.name for path in tmp_path.iterdir()] == ["auc"]


@pytest.mark.parametrize("cut", [1, 24, 240])
def test_a_file_cut_short_is_refused(tmp_path: Path, cut):
    labels, scores, _ = many_rows(100, None)
    accumulated(labels, scores).save(tmp_path / "auc")
    content = (tmp_path / "auc").read_bytes()
    (tmp_path / "auc").write_bytes(content[:-cut])
    with pytest.raises(ValueError, match="cut short"):
        ExactAUCAccumulator.load(tmp_path / "auc")


@pytest.mark.parametrize("content", [b"", b"\x00\xff", b'{"format": "other"}\n', b"[1]\n"])
def test_another_file_is_refused(tmp_path: Path, content):
    (tmp_path / "other").write_bytes(content)
    with pytest.raises(ValueError, match="not a file that ExactAUCAccumulator"):
        ExactAUCAccumulator.load(tmp_path / "other")


@pytest.mark.parametrize(("labels", "scores"), [([], []), ([1], [0.3]), ([0], [0.3]), ([1, 1], [0.1, 0.2])])
def test_without_both_classes_there_is_no_auc(labels, scores):
    auc = accumulated(labels, scores)
    assert math.isnan(auc.result())
    average_precision = auc.average_precision()
    assert average_precision == 1.0 if any(labels) else math.isnan(average_precision)


def test_shapes_and_dtypes():
    expected = accumulated([0, 1, 1], [0.5, 0.5, 2.0]).result()
    auc = ExactAUCAccumulator()
    auc.update(np.array([[False], [True]]), np.array([[0.5], [0.5]], np.float16))
    auc.update(np.array([1], np.uint8), np.array([2], np.int64))
    assert auc.result() == expected


def test_neighbouring_float32_and_float64_scores_are_not_ties():
    low32, high32 = np.float32(0.1), np.nextafter(np.float32(0.1), np.float32(1))
    assert accumulated([1, 0], np.array([low32, high32])).result() == 0.0
    assert accumulated([0, 1], [0.1, np.nextafter(0.1, 1)]).result() == 1.0


@pytest.mark.parametrize(
    ("labels", "scores", "weights", "message"),
    [
        ([0, 1, 1], [0.1, math.nan, math.nan], None, "2 of 3 scores are NaN; the first, in row 1"),
        ([0, 2], [0.1, 0.2], None, "1 of 2 labels are neither 0 nor 1; the first, in row 1, is 2.0"),
        ([0, math.nan], [0.1, 0.2], None, "labels are neither"),
        ([0, 1], [0.1], None, "2 labels and 1 scores"),
        ([0, 1], [0.1, 0.2], [1.0], "2 labels and 1 weights"),
        ([0, 1], [0.1, 0.2], [1.0, -1.0], "1 of 2 weights are negative"),
        ([0, 1], [0.1, 0.2], [1.0, math.inf], "not finite"),
        ([[0, 1]], [[0.1, 0.2]], None, r"shape \(1, 2\)"),
        (["a", "b"], [0.1, 0.2], None, "not numbers"),
    ],
)
def test_bad_rows_are_refused_and_change_nothing(labels, scores, weights, message):
    auc = accumulated([0, 1], [0.1, 0.2])
    with pytest.raises(ValueError, match=message):
        auc.update(labels, scores, weights)
    assert (auc.num_rows, auc.result()) == (2, 1.0)


def test_too_little_memory_is_refused():
    with pytest.raises(ValueError, match=r"memory_bytes=1000 is too small\. Give 65536"):
        ExactAUCAccumulator(memory_bytes=1000)


@pytest.mark.parametrize("module", [exact_auc_accumulator, score_counts])
def test_examples(module):
    assert doctest.testmod(module).failed == 0
