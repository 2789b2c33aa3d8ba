"""The file of a workload's rows, as this project's reader sees it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from criteo_file import criteo_file, criteo_lines
from fit_from_files import BARE, FIT, STEPS_MULTIPLE, file_workload, judged
from sides import SIDES
from workload import CRITEO_KAGGLE_ROWS, Batch, Workload

from tfdlrm.config import DataConfig
from tfdlrm.data.opening import open_dataset

SMALL = Workload(batch_size=8, num_batches=3, max_rows=50)


def test_a_line_is_label_integers_and_hex_strings() -> None:
    batch = Batch(
        dense=np.log1p([[0.5, 3.0]]).astype(np.float32), ids=np.array([[0, 255]]), labels=np.ones(1, np.float32)
    )
    assert list(criteo_lines(batch)) == ["1\t0\t3\t00000000\t000000ff\n"]


def test_the_reader_finds_the_rows(tmp_path: Path) -> None:
    path = criteo_file(SMALL, tmp_path)
    data = open_dataset(DataConfig(format="criteo", path=str(path))).train
    assert data.num_rows == 24
    features, labels = next(iter(data.batches(8)))
    first = SMALL.batches()[0]
    np.testing.assert_array_equal(labels[:, 0], first.labels)
    np.testing.assert_allclose(features["dense"], np.log1p(np.floor(np.expm1(first.dense))), rtol=1e-5, atol=1e-6)
    for k in (0, 25):  # rows are numbered by the reader: equal ids stay equal, others apart
        found = np.asarray(features[f"cat_{k + 1}"])
        ids = first.ids[:, k]
        np.testing.assert_array_equal(found[:, None] == found, ids[:, None] == ids)


def test_a_file_is_written_once(tmp_path: Path) -> None:
    path = criteo_file(SMALL, tmp_path)
    path.write_text("kept")
    assert criteo_file(SMALL, tmp_path).read_text() == "kept"
    assert list(tmp_path.iterdir()) == [path]


def test_bags_do_not_fit_into_the_format(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one id a feature"):
        criteo_file(Workload(table_rows=(5,), hotness=(2,)), tmp_path)


@pytest.mark.parametrize("batch_size", [128, 2048, 16384])
def test_an_epoch_is_whole_executions(batch_size: int) -> None:
    workload = file_workload(batch_size, 400_000, None)
    assert workload.batch_size * workload.num_batches >= 400_000
    assert workload.num_batches % STEPS_MULTIPLE == 0
    assert workload.table_rows == CRITEO_KAGGLE_ROWS


def test_the_two_sides_are_known() -> None:
    assert {FIT, BARE} <= SIDES.keys()
    assert judged([]) == []
