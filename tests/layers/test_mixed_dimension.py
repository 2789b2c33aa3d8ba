"""The mixed-dimension solver, exact, and what it makes of tables."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.golden_files import golden_files
from tfdlrm.config import FeatureConfig, MixedDimensionConfig, QuotientRemainderConfig, TableConfig
from tfdlrm.layers.mixed_dimension import mixed_dimensions, with_mixed_dimensions

SIZES = st.lists(st.integers(1, 10**8), min_size=1, max_size=8)


@pytest.mark.parametrize("path", golden_files("mixed_dimension*.json"), ids=lambda path: path.stem)
def test_widths_are_the_references(path: Path) -> None:
    cases = json.loads(path.read_text())["mixed_dimension"]
    assert cases
    for case in cases:
        found = mixed_dimensions(case["rows"], case["alpha"], case["d0"], case["round"])
        assert found == case["dims"], case


@given(sizes=SIZES, alpha=st.floats(0, 2), width=st.sampled_from([1, 16, 24, 128]), power=st.booleans())
def test_a_larger_table_is_never_wider(sizes: list[int], alpha: float, width: int, power: bool) -> None:
    found = mixed_dimensions(sizes, alpha, width, power)
    ordered = [dim for _, dim in sorted(zip(sizes, found, strict=True))]
    assert all(a >= b for a, b in itertools.pairwise(ordered))
    assert min(found) >= 1
    assert found[sizes.index(min(sizes))] == max(found)
    if power:
        assert all(dim & (dim - 1) == 0 for dim in found)
    else:
        assert max(found) == width


@given(sizes=SIZES, width=st.integers(1, 256))
def test_alpha_zero_is_the_common_width(sizes: list[int], width: int) -> None:
    assert mixed_dimensions(sizes, 0.0, width, False) == [width] * len(sizes)


@given(sizes=SIZES, order=st.randoms())
def test_the_order_of_the_tables_does_not_matter(sizes: list[int], order) -> None:
    permutation = list(range(len(sizes)))
    order.shuffle(permutation)
    found = mixed_dimensions(sizes, 0.3, 64, True)
    shuffled = mixed_dimensions([sizes[i] for i in permutation], 0.3, 64, True)
    assert shuffled == [found[i] for i in permutation]


def test_no_tables() -> None:
    assert mixed_dimensions([], 0.3, 16, True) == []


@pytest.mark.parametrize(("sizes", "alpha", "width"), [([0], 0.3, 16), ([5], -0.1, 16), ([5], 0.3, 0)])
def test_values_that_are_not_valid(sizes: list[int], alpha: float, width: int) -> None:
    with pytest.raises(ValueError, match="mixed_dimensions: vocabulary_sizes="):
        mixed_dimensions(sizes, alpha, width, True)


def _features(width: int, *sizes: int, **fields: object) -> list[FeatureConfig]:
    return [
        FeatureConfig(
            name=f"c{k}",
            table=TableConfig(name=f"t{k}", vocabulary_size=size, embedding_dim=width, **fields),
            hotness=None,
        )
        for k, size in enumerate(sizes)
    ]


def _widths(features) -> list[tuple[int, int | None]]:
    return [(feature.table.embedding_dim, feature.table.output_dim) for feature in features]


def test_tables_above_the_threshold_are_narrowed_and_projected() -> None:
    features = _features(16, 60, 7, 210, 33)
    config = MixedDimensionConfig(alpha=0.3, threshold=40)
    # solved over all four; the table of 33 rows is at or below the threshold
    assert _widths(with_mixed_dimensions(features, config, 16)) == [(8, 16), (16, None), (8, 16), (16, None)]
    at_the_threshold = MixedDimensionConfig(alpha=0.3, threshold=60)
    assert _widths(with_mixed_dimensions(features, at_the_threshold, 16))[0] == (16, None)
    assert with_mixed_dimensions(features, None, 16) == tuple(features)


def test_nothing_else_of_a_feature_or_table_changes() -> None:
    features = _features(16, 10, 1_000_000, combiner="mean", trainable=False)
    narrowed = with_mixed_dimensions(features, MixedDimensionConfig(), 16)[1]
    assert (narrowed.name, narrowed.hotness) == ("c1", None)
    assert (narrowed.table.combiner, narrowed.table.trainable, narrowed.table.vocabulary_size) == (
        "mean",
        False,
        1_000_000,
    )


def test_features_that_share_a_table_share_its_width_and_count_once() -> None:
    small, large = _features(16, 10, 1_000_000)
    twice = FeatureConfig(name="again", table=large.table)
    shared = with_mixed_dimensions([small, large, twice], MixedDimensionConfig(), 16)
    assert shared[1].table == shared[2].table
    assert shared[:2] == with_mixed_dimensions([small, large], MixedDimensionConfig(), 16)


def test_tables_with_a_width_of_their_own_are_kept() -> None:
    config = MixedDimensionConfig(threshold=0)
    projected = _features(4, 10, 10_000, output_dim=16)
    assert with_mixed_dimensions(projected, config, 16) == tuple(projected)
    split = _features(16, 10, 10_000, quotient_remainder=QuotientRemainderConfig(threshold=0))
    assert with_mixed_dimensions(split, config, 16) == tuple(split)


def test_a_width_rounded_up_beyond_the_common_one_is_refused() -> None:
    config = MixedDimensionConfig(alpha=0.0, threshold=0)
    with pytest.raises(ValueError, match=r"table 't0': .* up to 32, beyond embedding_dim=24"):
        with_mixed_dimensions(_features(24, 10), config, 24)


def test_a_table_by_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"feature 'c': table='t' is a name\. Give the TableConfig"):
        with_mixed_dimensions([FeatureConfig(name="c", table="t")], MixedDimensionConfig(), 16)
