"""The divergence of columns, from statistics as StatisticsGen makes them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import tensorflow_data_validation as tfdv

from pipelines.shift import divergence

ROWS = 4000
BETWEEN_SAMPLES = 0.01  # of one distribution


def statistics(values: list | np.ndarray) -> object:
    frame = pd.DataFrame({"column": values})
    (feature,) = tfdv.generate_statistics_from_dataframe(frame, n_jobs=1).datasets[0].features
    return feature


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    "draw",
    [
        lambda random: random.normal(size=ROWS),
        lambda random: np.exp(4 * random.normal(size=ROWS)),  # its largest values differ by a factor of ten
        lambda random: random.integers(0, 3, ROWS),
        lambda random: random.zipf(1.3, ROWS).clip(max=10**9),
        lambda random: [f"word {value}" for value in random.zipf(2.0, ROWS)],
        lambda random: np.where(random.random(ROWS) < 0.3, np.nan, random.normal(size=ROWS)),
    ],
)
def test_two_samples_of_one_distribution_are_near(random, draw) -> None:
    first, second = statistics(draw(random)), statistics(draw(random))
    assert 0 <= divergence(first, second) < BETWEEN_SAMPLES
    assert divergence(first, first) == pytest.approx(0, abs=1e-12)


def test_it_is_the_formula() -> None:
    """Jensen-Shannon: half of each relative entropy to the mean of both."""
    now, before = ["a"] * 30 + ["b"] * 70, ["a"] * 50 + ["c"] * 50
    p, q = np.array([0.3, 0.7, 0.0]), np.array([0.5, 0.0, 0.5])
    m = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = sum(np.nansum(each * np.log2(each / m)) for each in (p, q)) / 2
    assert divergence(statistics(now), statistics(before)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("now", "before"),
    [
        (["x", "y"] * 50, ["z"] * 100),
        (["1"] * 100, np.ones(100)),
    ],
)
def test_nothing_in_common_is_one(now, before) -> None:
    assert divergence(statistics(now), statistics(before)) == pytest.approx(1.0)


def test_numbers_that_are_all_above_are_far_away() -> None:
    found = divergence(statistics(np.arange(5000) + 1e6), statistics(np.arange(5000.0)))
    p, q = np.array([0.0, 1.0]), np.array([0.9, 0.1])  # below the last decile, and above
    m = (p + q) / 2
    assert found == pytest.approx((np.log2(1 / m[1]) + np.sum(q * np.log2(q / m))) / 2, abs=0.01)


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_missing_values_and_nan_are_a_shift(random, share) -> None:
    values = random.normal(size=ROWS)
    flooded = np.where(random.random(ROWS) < share, np.nan, values)  # pandas' NaN is a missing value
    found = divergence(statistics(flooded), statistics(values))
    p, q = np.array([1 - share, share]), np.array([1.0, 0.0])
    m = (p + q) / 2
    expected = (np.sum(p * np.log2(p / m)) + np.log2(1 / m[0])) / 2
    assert q.sum() == 1
    assert found == pytest.approx(expected, abs=0.02)


def test_a_moved_column_is_further_away_the_more_it_moved(random) -> None:
    before = statistics(random.normal(size=ROWS))
    found = [divergence(statistics(random.normal(by, size=ROWS)), before) for by in (0.0, 0.5, 1.0, 3.0)]
    assert found == sorted(found)
    assert found[1] > BETWEEN_SAMPLES
    assert found[3] > 0.5
