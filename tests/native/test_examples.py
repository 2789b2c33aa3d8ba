"""Records of tf.train.Example by native code: the bytes of protobuf, and nothing read that is not there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfdlrm.data.prepare import output
from tfdlrm.native.examples import ExampleColumn, can_write_examples, example_records

INTEGERS = {
    pa.uint8(): st.integers(0, 255),
    pa.uint16(): st.integers(0, 2**16 - 1),
    pa.int32(): st.integers(-(2**31), 2**31 - 1),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.uint32(): st.integers(0, 2**32 - 1),
}
FLOATS = st.floats(width=32)
NAMES = st.text(min_size=1, max_size=200).filter(lambda name: "\0" not in name)


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """Columns of every form that prepared data have."""
    rows = draw(st.integers(0, 5))
    columns: dict[str, pa.Array] = {}
    for name in draw(st.lists(NAMES, min_size=1, max_size=5, unique=True)):
        kind, value = draw(st.sampled_from([*INTEGERS.items(), (pa.float32(), FLOATS), (pa.float64(), FLOATS)]))
        form = draw(st.sampled_from(["one", "fixed", "ragged", "text"]))
        if form == "text":
            columns[name] = pa.array(draw(st.lists(st.text(), min_size=rows, max_size=rows)), pa.large_string())
        elif form == "one":
            columns[name] = pa.array(draw(st.lists(value, min_size=rows, max_size=rows)), kind)
        else:
            size = draw(st.integers(1, 3))
            bag = st.lists(value, min_size=size if form == "fixed" else 0, max_size=size)
            dtype = pa.list_(kind, size) if form == "fixed" else pa.large_list(kind)
            columns[name] = pa.array(draw(st.lists(bag, min_size=rows, max_size=rows)), dtype)
    table = pa.table(columns)
    return table.slice(draw(st.integers(0, rows)))


@settings(deadline=None, max_examples=60)
@given(tables())
def test_the_file_is_tensorflows(tmp_path_factory: pytest.TempPathFactory, table: pa.Table) -> None:
    folder = tmp_path_factory.mktemp("records")
    assert can_write_examples()
    output.write_tfrecords(folder / "native", table)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output, "can_write_examples", lambda: False)
        output.write_tfrecords(folder / "plain", table)
    assert (folder / "native").read_bytes() == (folder / "plain").read_bytes()


def test_checksums_are_those_that_tensorflow_checks(tmp_path: Path) -> None:
    values = np.arange(100_000, dtype=np.float32)
    path = tmp_path / "rows"
    path.write_bytes(b"".join(bytes(piece) for piece in example_records([ExampleColumn("x", values, 100)], 1000)))
    found = [tf.train.Example.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(path))]
    read = [row.features.feature["x"].float_list.value for row in found]
    np.testing.assert_array_equal(np.array(read).ravel(), values)


def test_a_row_larger_than_the_buffer() -> None:
    text = np.frombuffer(b"a" * (9 * 2**20), np.uint8)
    ends = np.array([0, len(text), len(text)])
    pieces = [bytes(piece) for piece in example_records([ExampleColumn("t", text, text_offsets=ends)], 2)]
    assert sum(map(len, pieces)) > len(text)
    assert len(pieces) == 1


ONES = np.ones(4, np.int64)
DAMAGED: dict[str, tuple[list[ExampleColumn], int, str]] = {
    "too few values": ([ExampleColumn("x", ONES, 2)], 3, "values of a feature are not there"),
    "offsets beyond": ([ExampleColumn("x", ONES, None, np.array([0, 5]))], 1, "values of a feature are not there"),
    "offsets back": ([ExampleColumn("x", ONES, None, np.array([3, 1]))], 1, "values of a feature are not there"),
    "offsets below": ([ExampleColumn("x", ONES, None, np.array([-1, 1]))], 1, "values of a feature are not there"),
    "text beyond": (
        [ExampleColumn("x", np.ones(4, np.uint8), text_offsets=np.array([0, 9]))],
        1,
        "values of a feature are not there",
    ),
    "too few offsets": ([ExampleColumn("x", ONES, None, np.array([0, 1]))], 2, "2 offsets for 2 rows"),
    "floats of 64 bits": ([ExampleColumn("x", np.ones(4))], 4, "float64 is no kind of values"),
    "text of int64": ([ExampleColumn("x", ONES, text_offsets=np.array([0, 1]))], 1, "int64 is no kind of values"),
    "small offsets": ([ExampleColumn("x", ONES, None, np.array([0, 1], np.int32))], 1, "offsets are no int64"),
    "a matrix": ([ExampleColumn("x", ONES.reshape(2, 2))], 2, "a flat one is needed"),
    "every second": ([ExampleColumn("x", ONES[::2])], 2, "a flat one is needed"),
    "width and offsets": ([ExampleColumn("x", ONES, 1, np.array([0, 1]))], 1, "give either width or offsets"),
    "a width below 0": ([ExampleColumn("x", ONES, -1)], 1, "give either width or offsets"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_what_is_not_there_is_not_read(what: str) -> None:
    columns, rows, message = DAMAGED[what]
    with pytest.raises(ValueError, match=message):
        list(example_records(columns, rows))


def test_nothing_of_tensorflow_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    table: Any = pa.table({"x": pa.array([1, 2], pa.uint8())})
    output.write_tfrecords(tmp_path / "rows", table)
    assert (tmp_path / "rows").stat().st_size > 40
