"""MLPerf's multi-hot bags: the original id first, the same bag for the same id, the others uniform."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfdlrm.data.synth.presets import DCNV2_HOTNESS, DCNV2_SIZES
from tfdlrm.data.synth.rows import multi_hot, multi_hot_columns

_MASK = 2**64 - 1


def _mix(x: int) -> int:
    """splitmix64 in Python's integers."""
    x = (x + 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def _bag(id_: int, hotness: int, size: int, table: int, seed: int) -> list[int]:
    state = _mix(id_ ^ _mix(_mix(seed) ^ table))
    draws = [_mix((state + place) & _MASK) for place in range(1, hotness)]
    return [id_, *(int((draw >> 11) / 2**53 * size) for draw in draws)]


@given(st.lists(st.integers(0, 999), max_size=20), st.integers(1, 6), st.integers(0, 30), st.integers(0, 2**40))
def test_bags_by_hand(ids: list[int], hotness: int, table: int, seed: int) -> None:
    bags = multi_hot(np.array(ids, np.int32), hotness, 1000, table=table, seed=seed)
    assert bags.dtype == np.int32
    assert bags.tolist() == [_bag(id_, hotness, 1000, table, seed) for id_ in ids]


def test_the_other_ids_are_uniform() -> None:
    """Chi-square over 64 groups of ids, at 5 standard deviations; also for one id in many tables."""
    size = 40_000_000
    bags = multi_hot(np.arange(200_000), 3, size, table=0)
    by_table = np.array([multi_hot(np.array([7]), 101, size, table=table)[0, 1:] for table in range(2000)])
    for ids in (bags[:, 1], bags[:, 2], by_table.reshape(-1)):
        counts = np.bincount(ids * 64 // size, minlength=64)
        assert counts.shape == (64,)
        expected = len(ids) / 64
        assert ((counts - expected) ** 2 / expected).sum() < 63 + 5 * np.sqrt(2 * 63)
    correlation = np.corrcoef(bags.T)
    assert np.abs(correlation - np.eye(3)).max() < 5 / np.sqrt(200_000)


def test_seeds_and_tables_differ() -> None:
    ids = np.arange(1000)
    bags = multi_hot(ids, 2, 10**6, table=0, seed=0)
    assert (multi_hot(ids, 2, 10**6, table=1, seed=0)[:, 1] == bags[:, 1]).mean() < 0.01
    assert (multi_hot(ids, 2, 10**6, table=0, seed=1)[:, 1] == bags[:, 1]).mean() < 0.01
    np.testing.assert_array_equal(multi_hot(ids[::-1], 2, 10**6, table=0)[::-1], bags)


def test_all_tables_of_mlperf() -> None:
    generator = np.random.default_rng(0)
    ids = np.stack([generator.integers(0, size, 500) for size in DCNV2_SIZES], axis=1)
    bags = multi_hot_columns(ids, DCNV2_HOTNESS, DCNV2_SIZES, seed=4)
    assert bags.shape == (500, 214)
    starts = np.cumsum([0, *DCNV2_HOTNESS[:-1]])
    np.testing.assert_array_equal(bags[:, starts], ids)
    assert (bags >= 0).all()
    assert (bags < np.repeat(DCNV2_SIZES, DCNV2_HOTNESS)).all()
    np.testing.assert_array_equal(
        bags[:, starts[20] : starts[20] + 100], multi_hot(ids[:, 20], 100, DCNV2_SIZES[20], table=20, seed=4)
    )


@pytest.mark.parametrize(
    ("ids", "hotness", "message"),
    [
        (np.array([1, 5]), 2, "ids of table 3 are from 1 to 5, not within [0, 5)"),
        (np.array([-1]), 2, "ids of table 3 are from -1 to -1"),
        (np.array([1]), 0, "table 3 has hotness=0 and vocabulary_size=5"),
        (np.array([1.0]), 2, "dtype float64"),
        (np.array([[1]]), 2, "shape (1, 1)"),
    ],
)
def test_bad_ids_are_refused(ids: np.ndarray, hotness: int, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        multi_hot(ids, hotness, 5, table=3)
    with pytest.raises(ValueError, match="Give a column, a hotness and a size for each table"):
        multi_hot_columns(np.zeros((2, 3), int), (1, 2), (5, 5, 5))
