"""Lengths of bags, correlations, days, drift and cold ids; with all of them off, the rows of before."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.sample_rows import assert_same_columns
from tfdlrm.config import SyntheticConfig
from tfdlrm.data import best_possible, synthetic_dataset
from tfdlrm.data.columns import Columns
from tfdlrm.data.synth.draws import DayBounds, TableDays
from tfdlrm.data.synth.rows import DAY, SEED_BLOCK_ROWS, TEACHER_PROBABILITY, SyntheticRows

PLAIN = SyntheticConfig(num_rows=40_000, num_dense=4, vocabulary_sizes=(50, 8, 300_000), hotness=(1, 3, 1), seed=3)
BAGS = SyntheticConfig(
    num_rows=40_000, num_dense=2, vocabulary_sizes=(500, 40, 60), hotness=(1, 6, 3), hotness_distribution="uniform"
)
DAYS = SyntheticConfig(num_rows=50_001, num_dense=3, vocabulary_sizes=(2_000, 300, 10, 3), days=5, seed=1)


def rows_of(config: SyntheticConfig, start: int = 0, stop: int | None = None) -> Columns:
    return SyntheticRows(config).read(start, config.num_rows if stop is None else stop)[0]


def _digest(columns: Columns) -> str:
    """Of all bits but the teacher's probabilities, whose last ones depend on the processor."""
    content = b"".join(array.tobytes() for array in (columns.ids, columns.dense, columns.labels))
    return hashlib.sha256(content).hexdigest()[:16]


def test_the_rows_of_a_seed_have_not_changed() -> None:
    assert _digest(rows_of(PLAIN)) == "49e580346cd00c22"
    assert _digest(rows_of(replace(PLAIN, missing_fraction=0.2))) == "bd6f1808e498a4e6"


@pytest.mark.parametrize(("distribution", "mean"), [("uniform", 3.0), ("geometric", 6.0)])
def test_lengths_of_bags(distribution: str, mean: float) -> None:
    """Means within 5 standard errors; a column of hotness 1 keeps one id."""
    config = replace(BAGS, hotness_distribution=distribution)
    rows = rows_of(config)
    assert rows.ids.shape == (40_000, 1)
    lengths = np.diff(rows.ragged["cat_2"].row_splits)
    deviation = 2.0 if distribution == "uniform" else np.sqrt(6 * 7)
    assert abs(lengths.mean() - mean) < 5 * deviation / np.sqrt(len(lengths))
    assert lengths.min() == 0
    if distribution == "uniform":
        assert np.bincount(lengths).shape == (7,)
    else:  # each length is 6/7 as likely as the one before
        counts = np.bincount(lengths)
        np.testing.assert_allclose(counts[1:6] / counts[:5], 6 / 7, atol=0.05)
    assert rows.ragged["cat_2"].values.max() < 40
    assert rows.ragged["cat_2"].values.dtype == rows.ids.dtype


def test_ragged_rows_are_batches_and_have_a_teacher() -> None:
    features, labels, keys = next(iter(synthetic_dataset(BAGS).batches(32, with_keys=True)))
    assert features["cat_1"].shape == (32,)
    assert features["cat_2"].shape == (32, None)
    assert labels.shape == (32, 1)
    assert keys[TEACHER_PROBABILITY].shape == (32,)
    best = best_possible(synthetic_dataset(BAGS))
    assert best is not None
    assert best.expected_auc > 0.75
    # the probability of a row is that of its own bags
    rows = SyntheticRows(BAGS)
    part = rows.read(0, 200)[0]
    for row in (0, 1, 57, 199):
        one = part.slice(row, row + 1)
        bags = [one.ids, one.ragged["cat_2"], one.ragged["cat_3"]]
        again = rows._teacher.probability(bags, np.ascontiguousarray(one.dense.T))
        np.testing.assert_allclose(again, one.keys[TEACHER_PROBABILITY], rtol=1e-4)


def test_empty_cells_of_bags_and_single_ids() -> None:
    config = replace(BAGS, missing_fraction=0.3)
    rows, empty = SyntheticRows(config).read(0, 20_000)
    assert empty is not None
    assert empty.categorical.shape == (20_000, 3)
    assert empty.dense.mean() == pytest.approx(0.3, abs=0.02)
    assert (rows.ids[empty.categorical[:, 0], 0] == 0).all()
    assert (np.diff(rows.ragged["cat_2"].row_splits)[empty.categorical[:, 1]] == 0).all()
    assert (rows.dense[empty.dense] == 0).all()
    assert SyntheticRows(BAGS).read(0, 10)[1] is None


def test_correlated_ids_follow_from_the_column_before() -> None:
    config = SyntheticConfig(
        num_rows=30_000, num_dense=1, vocabulary_sizes=(1000, 90, 4000), power_law_exponent=0.0, correlation=0.6
    )
    ids = rows_of(config).ids
    assert (ids[:, 1] == ids[:, 0] % 90).mean() == pytest.approx(0.6 + 0.4 / 90, abs=0.02)
    assert (ids[:, 2] == ids[:, 1] % 4000).mean() == pytest.approx(0.6 + 0.4 / 4000, abs=0.02)
    # the other rows are those of no correlation
    free = rows_of(replace(config, correlation=0.0)).ids
    np.testing.assert_array_equal(ids[:, 0], free[:, 0])
    assert (ids[:, 1] == free[:, 1]).mean() == pytest.approx(0.4 + 0.6 / 90, abs=0.02)


def test_correlated_bags() -> None:
    rows = rows_of(replace(BAGS, correlation=1.0, missing_fraction=0.1))
    splits, values = rows.ragged["cat_2"].row_splits, rows.ragged["cat_2"].values
    present = splits[1:] > splits[:-1]
    np.testing.assert_array_equal(values[splits[:-1][present]], rows.ids[present, 0] % 40)


@given(st.integers(1, 500), st.integers(1, 9))
def test_days_are_contiguous_parts(num_rows: int, num_days: int) -> None:
    if num_days > num_rows:
        return
    days = DayBounds(num_rows, num_days)
    bounds = [days.rows(day) for day in range(num_days)]
    assert [start for start, _ in bounds] == [0, *(stop for _, stop in bounds[:-1])]
    assert bounds[-1][1] == num_rows
    sizes = [stop - start for start, stop in bounds]
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)
    expected = [day for day, size in enumerate(sizes) for _ in range(size)]
    assert [days.day_of(row) for row in range(num_rows)] == expected
    assert days.day_of(num_rows + 3) == num_days - 1
    found = [day for day, rows in days.parts(0, num_rows + 5) for _ in range(rows.start, rows.stop)]
    assert found == [*expected, *[num_days - 1] * 5]


def test_days_alone_add_a_key_and_change_nothing_else() -> None:
    rows, plain = rows_of(DAYS), rows_of(replace(DAYS, days=1))
    assert np.bincount(rows.keys[DAY]).tolist() == [10_001, 10_000, 10_000, 10_000, 10_000]
    assert (np.diff(rows.keys[DAY]) >= 0).all()
    np.testing.assert_array_equal(rows.ids, plain.ids)
    np.testing.assert_array_equal(rows.dense, plain.dense)
    np.testing.assert_allclose(rows.keys[TEACHER_PROBABILITY], plain.keys[TEACHER_PROBABILITY], rtol=1e-5)
    _, _, keys = next(iter(synthetic_dataset(DAYS).batches(4, with_keys=True)))
    assert keys[DAY].numpy().tolist() == [0, 0, 0, 0]


def test_any_part_of_days_can_be_made_by_itself() -> None:
    config = replace(DAYS, drift=0.1, cold_fraction=0.2, missing_fraction=0.1, correlation=0.3)
    rows = rows_of(config)
    for start, stop in ((0, 1), (9_990, 10_020), (SEED_BLOCK_ROWS - 1, SEED_BLOCK_ROWS + 1), (40_000, 50_001)):
        # asked for in another order, too: later days do not depend on which were made before
        assert_same_columns(rows_of(config, start, stop), rows.slice(start, stop))


def test_hot_ids_move() -> None:
    config = replace(DAYS, drift=0.05)
    rows = rows_of(config)
    for column, step in ((0, 50), (1, 15), (2, 1), (3, 1)):  # of the first 1000, or V; at least 1
        size = config.vocabulary_sizes[column]
        for day in range(5):
            counts = np.bincount(rows.ids[rows.keys[DAY] == day, column], minlength=size)
            assert counts.argmax() == day * step % size
    # ranks are those without drift
    plain = rows_of(replace(DAYS, days=1)).ids
    moved = (plain[:, 0] + rows.keys[DAY] * 50) % 2_000
    np.testing.assert_array_equal(rows.ids[:, 0], moved)


def test_the_teacher_changes_a_little_every_day() -> None:
    """Correlation of an id's effects on two days: (1 - drift) to the power of half the days between them."""
    rows = SyntheticRows(replace(DAYS, drift=0.2))
    first, second, last = (rows._teacher_of(day)._dense_draws for day in (0, 1, 4))
    assert rows._teacher_of(0) is rows._teacher
    assert not np.array_equal(first, second)
    many = SyntheticRows(SyntheticConfig(num_rows=9, num_dense=2, vocabulary_sizes=(4096,), days=3, drift=0.2))
    effects = [many._teacher_of(day)._effect_draws[0] for day in range(3)]
    step = TableDays(4096, 3, 0.2, False).step
    for days in (1, 2):
        # rank r of a later day is the id that rank r + step was
        earlier = np.roll(effects[0], -days * step)
        assert np.corrcoef(earlier, effects[days])[0, 1] == pytest.approx(0.8 ** (days / 2), abs=0.03)
    assert last.std() > 0


def test_every_day_has_the_positive_rate() -> None:
    config = replace(DAYS, num_rows=100_000, drift=0.3, cold_fraction=0.1)
    rows = rows_of(config)
    for day in range(5):
        probability = rows.keys[TEACHER_PROBABILITY][rows.keys[DAY] == day]
        assert probability.mean() == pytest.approx(0.25, abs=0.02)


def test_what_was_learnt_yesterday_is_worth_less_today() -> None:
    """Yesterday's teacher scores today's rows worse than today's does, and the more the more drifts."""
    losses = []
    for drift in (0.05, 0.5):
        rows = SyntheticRows(replace(DAYS, vocabulary_sizes=(50, 50, 50), drift=drift))
        start, stop = rows.days.rows(1)
        today = rows.read(start, stop)[0]
        probability = today.keys[TEACHER_PROBABILITY].astype(np.float64)
        bags = [today.ids[:, [column]] for column in range(3)]
        stale = rows._teacher_of(0).probability(bags, np.ascontiguousarray(today.dense.T)).astype(np.float64)

        def log_loss(p: np.ndarray, truth: np.ndarray = probability) -> float:
            return float(-(truth * np.log(p) + (1 - truth) * np.log1p(-p)).mean())

        losses.append(log_loss(stale) - log_loss(probability))
    assert 0 < losses[0] < losses[1]


def test_cold_ids_never_occurred_before() -> None:
    config = replace(DAYS, cold_fraction=0.2, hotness=(1, 4, 1, 1))
    rows = rows_of(config)
    days = rows.keys[DAY]
    columns = (slice(0, 1), slice(1, 5), slice(5, 6), slice(6, 7))
    for column, place in enumerate(columns):
        seen: set[int] = set()
        pool = TableDays(config.vocabulary_sizes[column], 5, 0.0, True).pool_size
        assert (pool > 0) == (column < 3)
        for day in range(5):
            ids = rows.ids[days == day, place]
            assert ids.max() < config.vocabulary_sizes[column]
            low, high = TableDays(config.vocabulary_sizes[column], 5, 0.0, True).pool(day)
            cold = (ids >= low) & (ids < high) if day and pool else np.zeros(ids.shape, bool)
            assert cold.mean() == pytest.approx(0.2 if day and pool else 0.0, abs=0.02)
            assert not seen & set(ids[cold].tolist())
            seen |= set(ids.reshape(-1).tolist())


def test_cold_ids_and_drift_in_ragged_columns() -> None:
    config = replace(BAGS, days=4, cold_fraction=0.5, drift=0.1, missing_fraction=0.1)
    rows = rows_of(config)
    table = TableDays(40, 4, 0.1, True)
    bags = rows.ragged["cat_2"]
    days = np.repeat(rows.keys[DAY], np.diff(bags.row_splits))
    for day in range(1, 4):
        low, high = table.pool(day)
        cold = (bags.values >= low) & (bags.values < high)
        assert not cold[days < day].any()
        assert cold[days == day].mean() == pytest.approx(0.5, abs=0.02)


@given(st.integers(1, 3000), st.integers(2, 30), st.sampled_from([0.0, 0.001, 0.3, 1.0]), st.booleans())
def test_tables_keep_their_size(size: int, num_days: int, drift: float, has_cold: bool) -> None:
    table = TableDays(size, num_days, drift, has_cold)
    assert 1 <= table.num_warm <= size
    if has_cold and table.pool_size:
        assert table.pool(1)[0] == table.num_warm
        assert table.pool(num_days - 1)[1] == size
    for day in (0, num_days - 1):
        ids = table.ids(np.arange(table.num_warm, dtype=np.int32), day)
        assert sorted(ids.tolist()) == list(range(table.num_warm))


def test_ids_beyond_int32() -> None:
    config = SyntheticConfig(
        num_rows=20_000, num_dense=1, vocabulary_sizes=(2**31 + 10, 5), days=2, drift=0.1, cold_fraction=0.3
    )
    ids = rows_of(config).ids
    assert ids.dtype == np.int64
    assert ids[:10_000, 0].max() < 2**31 + 10 - (2**31 + 10) // 4
    assert (ids[10_000:, 0] >= 2**31 + 10 - (2**31 + 10) // 4).mean() == pytest.approx(0.3, abs=0.02)
    assert ids.min() >= 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hotness_distribution": "normal"}, "hotness_distribution='normal' is not known"),
        ({"hotness_distribution": "uniform"}, "hotness_distribution='uniform' is given and every hotness is 1"),
        ({"correlation": 1.5}, "correlation=1.5 is out of range"),
        ({"days": 0}, "days=0 is too small"),
        ({"days": 11}, "days=11 is more than num_rows=10. Lower it."),
        ({"drift": 0.1}, "drift=0.1 needs days. Set days to 2 or more."),
        ({"cold_fraction": 0.1}, "cold_fraction=0.1 needs days"),
        ({"days": 2, "cold_fraction": -1}, "cold_fraction=-1 is out of range"),
    ],
)
def test_options_that_mean_nothing_are_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        SyntheticConfig(**{"num_rows": 10, "vocabulary_sizes": (5, 6), **fields})
