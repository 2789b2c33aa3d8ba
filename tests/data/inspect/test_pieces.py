"""Samples of rows, totals, days, drift and leaks, each against what is known."""

from __future__ import annotations

import datetime
import gzip
import math

import numpy as np
import polars as pl
import pytest

from tests.data.inspect import oracle
from tfdlrm.data.inspect.blocks import days_of, find_day_column, in_order
from tfdlrm.data.inspect.dense_stats import MAX_DENSE_DISTINCT, DenseTally, RowSample, dense_stats
from tfdlrm.data.inspect.findings import dense_bins, dense_leak, population_stability, table_leak
from tfdlrm.data.inspect.id_stats import IdCounts
from tfdlrm.data.inspect.label_rates import count_text_rows, section_ends, sections_of
from tfdlrm.schema import DenseColumn


def test_a_sample_keeps_all_rows_while_they_fit():
    sample = RowSample(100, 2, np.random.default_rng(0))
    rows = np.arange(200.0).reshape(100, 2)
    for start in range(0, 100, 7):
        sample.add(rows[start : start + 7])
    assert sample.complete
    np.testing.assert_array_equal(sample.rows(), rows)


def test_a_sample_is_uniform_and_merges():
    random = np.random.default_rng(1)
    first, second = (RowSample(2_000, 1, random) for _ in range(2))
    for start in range(0, 100_000, 1_000):
        sample = first if start < 75_000 else second
        sample.add(np.arange(start, start + 1_000, dtype=float)[:, None])
    whole = RowSample.merged([first, second])
    values = whole.rows()[:, 0]
    assert (len(values), len(set(values))) == (2_000, 2_000)
    assert not whole.complete
    assert whole.seen == 100_000
    # of 2000 numbers, each quarter has 500 with a standard deviation of 19
    assert np.histogram(values, 4, (0, 100_000))[0] == pytest.approx(500, abs=80)


@pytest.mark.parametrize(
    ("text", "options", "rows"),
    [
        (b"", {}, 0),
        (b"a", {}, 1),
        (b"a\nb\n", {}, 2),
        (b"a\r\nb\r\n\r\n", {}, 2),
        (b"a\n\nb", {}, 3),
        (b"h\na\nb\n", {"has_header": True}, 2),
        (b"h\n", {"has_header": True}, 0),
        (b'h\n"a\nb",1\nc\n', {"has_header": True, "quoted": True}, 2),
        (b'h\n"a""\n",1\n"\n"\n', {"has_header": True, "quoted": True}, 2),
        (b"a\nb\nc\n", {"most": 2}, 2),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_rows_of_a_text_file(tmp_path, text, options, rows, zipped):
    path = tmp_path / "rows"
    path.write_bytes(gzip.compress(text) if zipped else text)
    assert count_text_rows(path, **{"has_header": False, "quoted": False, **options}) == rows


def test_sections_are_those_of_the_kaggle_split():
    from tfdlrm.data.criteo import kaggle_rows_per_day

    for num_rows in (1, 6, 7, 703, 1000):
        ends = section_ends(num_rows, 7)
        np.testing.assert_array_equal(np.diff(ends, prepend=0), kaggle_rows_per_day(num_rows))
        sections = sections_of(np.arange(num_rows), ends)
        np.testing.assert_array_equal(np.bincount(sections, minlength=7), kaggle_rows_per_day(num_rows))
    assert sections_of(np.array([5_000]), section_ends(1000, 7)).tolist() == [6]


@pytest.mark.parametrize(
    ("cells", "days"),
    [
        (pl.Series(["2019-05-31", " 2019-05-31 23:59:59", "2019-06-01T00:00", "no", "", None]),
         ["2019-05-31", "2019-05-31", "2019-06-01", None, None, None]),
        (pl.Series([datetime.date(2019, 5, 31), None]), ["2019-05-31", None]),
        (pl.Series([datetime.datetime(2019, 5, 31, 12)]), ["2019-05-31"]),
        (pl.Series([1559260800, 1559347199, 1559347200]), ["2019-05-31", "2019-05-31", "2019-06-01"]),
        (pl.Series(["1559260800", "1559260800.5"]), ["2019-05-31", "2019-05-31"]),
        (pl.Series([1559260800000]), ["2019-05-31"]),
        (pl.Series([14102100, 20190531]), ["2014-10-21", "2019-05-31"]),
        (pl.Series([0, 3, -1]), ["0", "3", "-1"]),
        (pl.Series([0.5, math.nan, math.inf, None]), ["0", None, None, None]),
        (pl.Series(["1e300", "7"]), [None, "7"]),
        (pl.Series([[1], [2]]), [None, None]),
    ],
)  # fmt: skip
def test_days(cells, days):
    assert days_of(cells).to_list() == days


def test_days_are_in_order_and_columns_are_found():
    assert in_order(["10", "9", "-1"]) == ["-1", "9", "10"]
    assert in_order(["2019-10-01", "2019-09-30"]) == ["2019-09-30", "2019-10-01"]
    assert find_day_column(None, ["timestamp", "day"], "f") == "day"
    assert find_day_column(None, ["x"], "f") == ""
    with pytest.raises(ValueError, match="day_column='z' is not there"):
        find_day_column("z", ["x"], "f")


def test_population_stability_by_hand():
    found, noise = population_stability(np.array([90, 10]), np.array([50, 50]))
    p, q = 90.5 / 101, 50.5 / 101
    assert found == pytest.approx((q - p) * math.log(q / p) + (p - q) * math.log((1 - q) / (1 - p)))
    assert found == pytest.approx(oracle.psi([90, 10], [50, 50]))
    assert noise == pytest.approx((1 + 3 * math.sqrt(2)) * 0.02)
    with pytest.raises(ValueError, match="no occurrence"):
        population_stability(np.array([1]), np.array([0]))


def test_without_drift_the_index_stays_below_the_noise():
    random = np.random.default_rng(4)
    for _ in range(200):
        bins = [random.multinomial(num, np.full(20, 0.05)) for num in (3_000, 500)]
        found, noise = population_stability(*bins)
        assert found < 1.5 * noise
    shifted = random.multinomial(500, np.arange(1, 21) / 210)
    assert population_stability(bins[0], shifted)[0] > 3 * noise


def test_bins_of_a_dense_column():
    random = np.random.default_rng(5)
    train, other = random.normal(size=1_000), random.normal(0.5, 1, 300)
    train[:100], other[:90] = np.nan, np.nan
    plain = [[None if math.isnan(x) else x for x in cells.tolist()] for cells in (train, other)]
    assert population_stability(*dense_bins(train, other))[0] == pytest.approx(oracle.dense_psi(*plain))
    before, after = dense_bins(np.full(5, np.nan), np.array([1.0, np.nan]))
    assert (before.tolist(), after.tolist()) == ([0, 5], [1, 1])


def _tally(values: np.ndarray, labels: np.ndarray, block: int = 1_000) -> DenseTally:
    tally = DenseTally(1, 1)
    for start in range(0, len(values), block):
        tally.add(0, values[start : start + block], labels[start : start + block, None])
    return tally


LABELS = (np.random.default_rng(6).random(500) < 0.3).astype(np.float32)


@pytest.mark.parametrize(
    ("values", "leak"),
    [
        (LABELS, "equals the label"),
        (1 - LABELS, "equals 1 - label"),
        (np.where(LABELS == 1, np.nan, 3.0), "is empty exactly where the label is 1"),
        (np.where(LABELS == 1, 3.0, np.nan), "is empty exactly where the label is 0"),
        (LABELS * 2 + np.linspace(0, 1, 500), "label 1 is above"),
        (np.linspace(0, 1, 500) - 5 * LABELS, "label 0 is above"),
        (np.where(LABELS == 1, 5.0, np.arange(500) % 2 * 10), "all rows of one value have the same label"),
        (np.linspace(0, 1, 500), None),
        (np.full(500, 2.0), None),
        (np.full(500, np.nan), None),
        (np.where(np.arange(500) == 0, 1 - LABELS, LABELS), None),
    ],
)
def test_leaks_of_a_dense_column(values, leak):
    for block in (1_000, 37):
        found = dense_leak(_tally(values.astype(np.float64), LABELS, block), 0)
        assert found is None if leak is None else leak in str(found)


def test_what_chance_can_do_is_no_leak():
    few = np.array([0.0, 1.0, 1.0, 0.0])
    assert dense_leak(_tally(few, few.astype(np.float32)), 0) is None
    assert dense_leak(_tally(np.ones(100), np.ones(100, np.float32)), 0) is None


@pytest.mark.parametrize(
    ("ids", "leaks"),
    [
        (LABELS.astype(np.int64) * 3, True),
        (np.arange(500), False),  # each id once
        (np.arange(500) // 2 * 2 + LABELS.astype(np.int64), True),
        (np.arange(500) % 7, False),
        (np.zeros(500, np.int64), False),
    ],
)
def test_leaks_of_ids(ids, leaks):
    counts = IdCounts(num_parts=1, num_tasks=1, limit=10_000)
    counts.add(0, pl.Series(ids), LABELS[:, None])
    assert (table_leak(counts.table(), 0) is not None) is leaks


def test_moments_of_large_numbers_are_exact():
    values = 1e9 + np.random.default_rng(7).random(10_000)
    tally = _tally(values, np.zeros(10_000, np.float32), 77)
    assert tally.mean == pytest.approx(values.mean(), rel=1e-14)
    assert math.sqrt(tally.m2 / tally.present) == pytest.approx(values.std(), rel=1e-6)


def test_a_continuous_column_is_not_counted_for_ever():
    values = np.random.default_rng(8).random(3 * MAX_DENSE_DISTINCT)
    values[::2] = 0.25
    tally = _tally(values, np.zeros(len(values), np.float32), 50_000)
    assert tally.table() is None
    stats = dense_stats(DenseColumn(name="x"), tally, {"train": values}, values, sampled=True)
    assert (stats.distinct, stats.exact_counts) == (MAX_DENSE_DISTINCT, False)
    assert stats.top[0].value == "0.25"
    assert stats.top[0].share == pytest.approx(0.5)
