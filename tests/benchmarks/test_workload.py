"""The shared workload: sizes, ranges and the same arrays every time."""

from __future__ import annotations

import argparse

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from workload import (
    CRITEO_KAGGLE_ROWS,
    DEFAULTS,
    MLPERF_DCNV2_HOTNESS,
    MLPERF_DCNV2_ROWS,
    UNIFORM,
    Workload,
    add_workload_arguments,
    workload_from_arguments,
)

from tfdlrm.config import load_config


def parsed(flags: list[str]) -> Workload:
    parser = argparse.ArgumentParser()
    add_workload_arguments(parser)
    return workload_from_arguments(parser.parse_args(flags))


def test_criteo_kaggle_has_26_tables_of_33_8m_rows() -> None:
    assert len(CRITEO_KAGGLE_ROWS) == 26
    assert sum(CRITEO_KAGGLE_ROWS) == 33_762_577


def test_model_sizes_follow_the_embedding_dim() -> None:
    workload = Workload(embedding_dim=64)
    assert workload.bottom_mlp == (512, 256, 64, 64)
    assert workload.interaction_width == 64 + 27 * 26 // 2


@settings(deadline=None, max_examples=20)
@given(
    batch_size=st.integers(1, 40),
    cap=st.one_of(st.none(), st.integers(1, 10**6)),
    seed=st.integers(0, 2**31),
)
def test_batches_have_their_shapes_and_ids_stay_in_their_tables(batch_size: int, cap: int | None, seed: int) -> None:
    workload = Workload(batch_size=batch_size, max_rows=cap, num_batches=2, seed=seed)
    batches = workload.batches()
    assert len(batches) == 2
    for batch in batches:
        assert batch.dense.shape == (batch_size, 13)
        assert batch.dense.dtype == np.float32
        assert batch.ids.shape == (batch_size, 26)
        assert batch.ids.dtype == np.int64
        assert batch.ids.min() >= 0
        assert (batch.ids < np.array(workload.vocabulary_sizes)).all()
        assert set(np.unique(batch.labels)) <= {0.0, 1.0}


def test_batches_are_the_same_on_every_side() -> None:
    first, second = Workload(batch_size=7).batches(), Workload(batch_size=7).batches()
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.dense, other.dense)
        np.testing.assert_array_equal(one.ids, other.ids)
        np.testing.assert_array_equal(one.labels, other.labels)


@pytest.mark.parametrize("field", ["batch_size", "embedding_dim", "num_batches", "max_rows", "id_exponent"])
def test_a_size_below_one_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} must be at least 1"):
        Workload(**{field: 0})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "wide"}, "model must be one of dlrm, dcnv2, bags"),
        ({"table_rows": ()}, "table_rows must be positive"),
        ({"table_rows": (5, 0)}, "table_rows must be positive"),
        ({"table_rows": (5, 5), "hotness": (1,)}, "hotness must be 2 positive numbers"),
        ({"table_rows": (5, 5), "hotness": (1, 0)}, "hotness must be 2 positive numbers"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Workload(**fields)


def test_dcnv2_is_the_librarys_preset_with_capped_rows() -> None:
    config = load_config("mlperf-dcnv2").model
    workload = DEFAULTS["dcnv2"]
    assert tuple(table.vocabulary_size for table in config.tables) == workload.table_rows == MLPERF_DCNV2_ROWS
    assert tuple(feature.hotness for feature in config.features) == workload.hotness == MLPERF_DCNV2_HOTNESS
    assert (config.embedding_dim, config.bottom_mlp, config.top_mlp) == (128, workload.bottom_mlp, workload.top_mlp)
    assert max(workload.vocabulary_sizes) == 300_000
    assert workload.interaction_width == 27 * 128


def test_the_profile_workload_is_the_papers() -> None:
    workload = DEFAULTS["bags"]
    assert (workload.table_rows, workload.hotness) == ((1_000_000,) * 8, (100,) * 8)
    assert (workload.batch_size, workload.embedding_dim, workload.ids_per_row) == (2048, 64, 800)


@settings(deadline=None, max_examples=20)
@given(sizes=st.lists(st.tuples(st.integers(1, 50), st.integers(1, 5)), min_size=1, max_size=4))
def test_bags_stand_side_by_side_and_stay_in_their_tables(sizes: list[tuple[int, int]]) -> None:
    rows, hotness = zip(*sizes, strict=True)
    workload = Workload(batch_size=6, table_rows=rows, hotness=hotness, id_exponent=UNIFORM, num_batches=1)
    (batch,) = workload.batches()
    assert batch.ids.shape == (6, sum(hotness))
    ends = 0
    for size, bag, columns in zip(rows, hotness, workload.id_columns, strict=True):
        assert (columns.start, columns.stop) == (ends, ends + bag)
        assert batch.ids[:, columns].max() < size
        ends = columns.stop


def test_the_exponent_moves_ids_to_the_first_rows() -> None:
    sizes = {"batch_size": 5000, "table_rows": (1600,), "num_batches": 1}
    for exponent, expected in ((UNIFORM, 1 / 16), (4, 1 / 2)):
        (batch,) = Workload(**sizes, id_exponent=exponent).batches()
        assert np.mean(batch.ids < 100) == pytest.approx(expected, abs=0.05)


@given(
    model=st.sampled_from(sorted(DEFAULTS)),
    sizes=st.lists(st.tuples(st.integers(1, 10**6), st.integers(1, 100)), min_size=1, max_size=4),
    with_bags=st.booleans(),
    cap=st.one_of(st.none(), st.integers(1, 10**6)),
    numbers=st.tuples(*[st.integers(1, 1000)] * 4),
)
def test_flags_make_the_same_workload_again(
    model: str, sizes: list[tuple[int, int]], with_bags: bool, cap: int | None, numbers: tuple[int, ...]
) -> None:
    rows, hotness = zip(*sizes, strict=True)
    batch_size, embedding_dim, exponent, num_batches = numbers
    # what a model's defaults set cannot be taken back by leaving a flag out
    base = DEFAULTS[model]
    workload = Workload(
        model=model,
        batch_size=batch_size,
        embedding_dim=embedding_dim,
        max_rows=cap or base.max_rows,
        table_rows=rows,
        hotness=hotness if with_bags or base.hotness else None,
        id_exponent=exponent,
        num_batches=num_batches,
    )
    assert parsed(workload.to_flags()) == workload


def test_a_model_brings_its_own_sizes() -> None:
    for model, workload in DEFAULTS.items():
        assert parsed(["--model", model]) == workload


def test_flags_take_their_defaults_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("B", "64")
    monkeypatch.setenv("CAP", "1000")
    assert parsed(["--embedding-dim", "8"]) == Workload(batch_size=64, embedding_dim=8, max_rows=1000)
