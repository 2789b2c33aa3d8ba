"""IdCounts: exact below the limit; above it within the errors that it states."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from tests.data.inspect import oracle
from tfdlrm.data.inspect.findings import id_bins, population_stability, unseen_share
from tfdlrm.data.inspect.id_stats import IdCounts, head_share

# part, ids, labels
Block = tuple[int, np.ndarray, np.ndarray]


def _counted(
    blocks: list[tuple[int, np.ndarray, np.ndarray]], limit: int, dtype: pl.DataType | None = None
) -> IdCounts:
    counts = IdCounts(num_parts=2, num_tasks=1, limit=limit)
    for part, ids, labels in blocks:
        tokens = pl.Series(ids)
        counts.add(part, tokens if dtype is None else tokens.cast(dtype), labels[:, None])
    return counts


def _power_law_blocks(
    num_rows: int, exponent: float, seed: int = 0, scale: int = 10
) -> list[tuple[int, np.ndarray, np.ndarray]]:
    random = np.random.default_rng(seed)
    ids = np.minimum(random.pareto(exponent, num_rows) * scale, 2.0**60).astype(np.int64)
    labels = random.integers(0, 2, num_rows).astype(np.float32)
    edges = [*range(0, num_rows, 10_000), num_rows]
    split = int(num_rows * 0.8)
    return [(int(start >= split), ids[start:stop], labels[start:stop]) for start, stop in pairwise(edges)]


@pytest.mark.parametrize("dtype", [None, pl.String, pl.Float64])
def test_exact_below_the_limit(dtype):
    blocks = _power_law_blocks(50_000, 1.2)
    counts = _counted(blocks, 10**6, dtype)
    table = counts.table()
    ids = np.concatenate([ids for _, ids, _ in blocks])
    expected = Counter(ids.tolist())
    found = {
        int(float(token)): total for token, total in zip(table.tokens.to_list(), table.totals.tolist(), strict=True)
    }
    assert found == expected
    assert table.totals.tolist() == sorted(expected.values(), reverse=True)
    assert table.exact
    assert table.relative_error == 0.0
    assert counts.occurrences.tolist() == [40_000, 10_000]
    train = Counter(np.concatenate([ids for part, ids, _ in blocks if part == 0]).tolist())
    positives = Counter(np.concatenate([ids[labels == 1] for _, ids, labels in blocks]).tolist())
    for token, in_part, positive in zip(table.tokens.to_list(), table.counts, table.positives, strict=True):
        assert in_part[0] == train[int(float(token))]
        assert positive[0] == positives[int(float(token))]


def test_integers_of_different_widths_are_one_id():
    counts = IdCounts(num_parts=1, num_tasks=0, limit=10)
    counts.add(0, pl.Series([1, 2], dtype=pl.UInt32), np.zeros((2, 0)))
    counts.add(0, pl.Series([2, 2**40], dtype=pl.Int64), np.zeros((2, 0)))
    assert counts.table().tokens.to_list() == [2, 1, 2**40]


@pytest.mark.parametrize("exponent", [0.3, 0.8, 2.0])
def test_above_the_limit_within_the_stated_errors(exponent):
    blocks = _power_law_blocks(400_000, exponent, seed=1, scale=1_000)
    ids = np.concatenate([ids for _, ids, _ in blocks])
    expected = oracle.id_numbers([ids.tolist()])
    limit = expected["distinct"] // 4
    counts = _counted(blocks, limit)
    table = counts.table()
    total = int(counts.occurrences.sum())
    assert total == 400_000
    assert not table.exact
    assert len(table.tokens) <= limit
    # four standard errors
    assert table.distinct == pytest.approx(expected["distinct"], rel=4 * table.relative_error)
    assert table.weights.sum() == pytest.approx(expected["distinct"], rel=0.1)
    assert table.once / table.distinct == pytest.approx(expected["once_ids"], abs=0.03)
    for fraction, name in ((0.01, "top_1_share"), (0.10, "top_10_share")):
        assert head_share(table, total, fraction) == pytest.approx(expected[name], abs=0.03)
    true = Counter(ids.tolist())
    for token, count, under in zip(table.tokens.to_list(), table.totals, table.undercounts, strict=True):
        assert count <= true[token] <= count + under
    train = set(np.concatenate([ids for part, ids, _ in blocks if part == 0]).tolist())
    test = np.concatenate([ids for part, ids, _ in blocks if part == 1]).tolist()
    unseen = sum(token not in train for token in test) / len(test)
    assert unseen_share(table, 1, counts.occurrences) == pytest.approx(unseen, abs=0.02)


def test_the_most_frequent_ids_are_found_above_the_limit():
    blocks = _power_law_blocks(400_000, 0.8, seed=2)
    ids = np.concatenate([ids for _, ids, _ in blocks])
    table = _counted(blocks, 5_000).table()
    assert not table.exact
    assert set(table.tokens[:20].to_list()) == {token for token, _ in Counter(ids.tolist()).most_common(20)}


def test_a_late_frequent_id_is_found():
    random = np.random.default_rng(3)
    counts = IdCounts(num_parts=1, num_tasks=0, limit=2_000)
    for _ in range(20):
        counts.add(0, pl.Series(random.integers(0, 2**40, 5_000)), np.zeros((5_000, 0)))
    counts.add(0, pl.Series(np.full(500, 7)), np.zeros((500, 0)))
    table = counts.table()
    assert table.tokens[0] == 7
    assert table.totals[0] <= 500 <= table.totals[0] + table.undercounts[0]


def test_bins_of_a_sketch_hold_every_occurrence():
    counts = _counted(_power_law_blocks(200_000, 0.5), 3_000)
    train, test = id_bins(counts.table(), 1, counts.occurrences)
    assert (train.sum(), test.sum()) == (160_000, 40_000)


def test_many_rare_ids_are_no_drift():
    """Most ids of the second part are not in the first, and nothing has changed."""
    random = np.random.default_rng(9)
    counts = IdCounts(num_parts=2, num_tasks=0, limit=10**6)
    for part, num in ((0, 60_000), (1, 10_000)):
        counts.add(part, pl.Series(random.integers(0, 10**6, num)), np.zeros((num, 0)))
    assert (unseen_share(counts.table(), 1, counts.occurrences) or 0) > 0.9
    found, noise = population_stability(*id_bins(counts.table(), 1, counts.occurrences))
    assert found < max(noise, 0.1)


def test_nothing_counted():
    table = IdCounts(num_parts=2, num_tasks=1, limit=10).table()
    assert (table.distinct, table.exact, table.counts.shape) == (0, True, (0, 2))
    with pytest.raises(ValueError, match="limit=0 leaves no room"):
        IdCounts(num_parts=1, num_tasks=0, limit=0)
