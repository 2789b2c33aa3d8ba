"""Initial rows do not depend on how a table is cut into slices."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfdlrm.embeddings.initializers import (
    BLOCK_ROWS,
    Constant,
    Normal,
    ScaledUniform,
    TruncatedNormal,
    Uniform,
    initial_rows,
    initializer_from_dict,
    initializer_to_dict,
    table_seed,
)

ALL = [
    ScaledUniform(),
    Uniform(low=-0.5, high=0.25),
    Normal(mean=1.0, stddev=0.1),
    TruncatedNormal(),
    Constant(value=0.1),
]


@pytest.mark.parametrize("initializer", ALL, ids=lambda initializer: initializer.name)
@given(cuts=st.lists(st.integers(0, BLOCK_ROWS + 300), max_size=6))
def test_any_slices_give_the_same_rows(initializer, cuts) -> None:
    rows = BLOCK_ROWS + 300
    whole = initial_rows(initializer, 7, rows, 3, 0, rows).numpy()
    edges = sorted({0, rows, *cuts})
    pieces = [initial_rows(initializer, 7, rows, 3, a, b).numpy() for a, b in itertools.pairwise(edges)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_scaled_uniform_is_the_references() -> None:
    rows = 5000
    values = initial_rows(ScaledUniform(), 1, rows, 16, 0, rows).numpy()
    bound = math.sqrt(1 / rows)
    assert -bound <= values.min() < -0.99 * bound
    assert 0.99 * bound < values.max() <= bound
    # standard error of the mean of a uniform: bound / sqrt(3 n)
    assert abs(values.mean()) < 5 * bound / math.sqrt(3 * values.size)


def test_normal_is_not_truncated() -> None:
    values = initial_rows(Normal(stddev=1.0), 1, 8192, 32, 0, 8192).numpy()
    assert np.abs(values).max() > 4
    assert values.std() == pytest.approx(1, abs=0.01)


def test_truncated_normal_ends_at_two_deviations() -> None:
    values = initial_rows(TruncatedNormal(stddev=1.0), 1, 8192, 8, 0, 8192).numpy()
    assert 1.9 < np.abs(values).max() <= 2


def test_tables_differ_and_seeds_repeat() -> None:
    assert table_seed(0, "a") == table_seed(0, "a")
    assert len({table_seed(seed, name) for seed in range(3) for name in ("a", "b")}) == 6


@pytest.mark.parametrize("initializer", ALL, ids=lambda initializer: initializer.name)
def test_round_trip(initializer) -> None:
    assert initializer_from_dict(initializer_to_dict(initializer)) == initializer


def test_unknown_name_and_field_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown name 'glorot'"):
        initializer_from_dict("glorot")
    with pytest.raises(ValueError, match="did you mean 'stddev'"):
        initializer_from_dict({"name": "normal", "stdev": 1.0})
    with pytest.raises(ValueError, match=r"low=1.0 is above high=0.0"):
        Uniform(low=1.0, high=0.0)
