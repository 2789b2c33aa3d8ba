"""The shared workload: sizes, ranges and the same arrays every time."""

from __future__ import annotations

import argparse

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from workload import CRITEO_KAGGLE_ROWS, Workload, add_workload_arguments, workload_from_arguments


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


@pytest.mark.parametrize("field", ["batch_size", "embedding_dim", "num_batches", "max_rows"])
def test_a_size_below_one_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} must be at least 1"):
        Workload(**{field: 0})


def test_flags_take_their_defaults_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("B", "64")
    monkeypatch.setenv("CAP", "1000")
    parser = argparse.ArgumentParser()
    add_workload_arguments(parser)
    workload = workload_from_arguments(parser.parse_args(["--embedding-dim", "8"]))
    assert workload == Workload(batch_size=64, embedding_dim=8, max_rows=1000)
