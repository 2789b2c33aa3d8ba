"""Frames, inspected as the file that holds the same rows."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from tests.data import sample_rows as sample
from tfdlrm.data.inspect import inspect_data

ROWS = sample.sample_rows(300, seed=11)


def test_a_frame_is_read_as_a_file(tmp_path: Path) -> None:
    path = sample.write_parquet(tmp_path / "rows.parquet", ROWS)
    frame = pl.read_parquet(path)
    of_file, of_frame = inspect_data(path, schema=sample.SPEC), inspect_data(frame.to_pandas(), schema=sample.SPEC)
    assert (of_frame.path, of_frame.data_format) == ("frame", "frame")
    for name in ("rows_used", "labels", "dense", "categorical", "drift", "findings", "parts", "bad_rows"):
        assert getattr(of_frame, name) == getattr(of_file, name)
    apart = inspect_data(frame.head(200), schema=sample.SPEC, test_path=frame.tail(100), max_rows=150)
    assert [(part.name, part.rows) for part in apart.parts] == [("train", 150), ("test", 100)]
    with pytest.raises(ValueError, match="a frame needs a schema"):
        inspect_data(frame)
    with pytest.raises(ValueError, match="a frame is compared with a frame"):
        inspect_data(frame, schema=sample.SPEC, test_path=path)
    with pytest.raises(TypeError, match="rows are a int"):
        inspect_data(3)
    with pytest.raises(ValueError, match="frame: no row in it"):
        inspect_data(frame.head(0), schema=sample.SPEC)
