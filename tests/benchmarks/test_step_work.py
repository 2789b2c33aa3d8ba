"""Operations and bytes of a step, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from step_work import flops_per_sample, step_work, unique_rows, weights_of
from workload import DEFAULTS, Workload


def test_criteo_kaggle_takes_2_9_megaflop_a_sample() -> None:
    assert flops_per_sample(DEFAULTS["dlrm"]) == pytest.approx(2.9e6, rel=0.02)


def test_weights_of_an_mlp() -> None:
    assert weights_of(13, (4, 2)) == 13 * 4 + 4 * 2


def test_a_dot_interaction_costs_its_pairs_three_times() -> None:
    workload = Workload(table_rows=(5, 5), embedding_dim=8)
    dense = weights_of(13, (512, 256, 64, 8)) + weights_of(8 + 3, (512, 256, 1))
    assert flops_per_sample(workload) == 6 * (dense + 3 * 8) - 2 * 13 * 512


def test_dcnv2_has_cross_layers() -> None:
    workload = DEFAULTS["dcnv2"]
    width = 27 * 128
    dense = weights_of(13, (512, 256, 128)) + weights_of(width, (1024, 1024, 512, 256, 1))
    assert flops_per_sample(workload) == 6 * (dense + 3 * 2 * width * 512) - 2 * 13 * 512


def test_rows_are_counted_once_a_table() -> None:
    workload = Workload(table_rows=(9, 9), hotness=(2, 1))
    assert unique_rows(workload, np.array([[1, 1, 1], [2, 1, 5]])) == 2 + 2


def test_bytes_of_a_step() -> None:
    # one row a table: every id is 0
    workload = Workload(batch_size=10, table_rows=(1, 1), hotness=(3, 1), embedding_dim=16)
    work = step_work(workload)
    assert work.read_bytes == 10 * 4 * 64
    assert work.update_bytes == 2 * 2 * (64 + 64)
    assert work.row_bytes == work.read_bytes + work.update_bytes
    assert work.flops == 10 * flops_per_sample(workload)
