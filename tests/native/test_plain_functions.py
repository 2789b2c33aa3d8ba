"""Text to numbers and columns to rows: what native code gives is what plain NumPy and Python give, or it declines."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kernels import NATIVE, TENSORFLOW, kernels
from tfdlrm.native.columns import PartedColumn, RowPacker
from tfdlrm.native.text import criteo_rows

cell = st.none() | st.integers(-(10**15) + 1, 10**15 - 1)
token = st.none() | st.integers(0, 2**32 - 1)
row = st.tuples(st.integers(0, 1), st.tuples(cell, cell, cell), st.tuples(token, token))


def _text(rows: list) -> bytes:
    lines = []
    for label, numbers, tokens in rows:
        cells = [str(label), *("" if n is None else str(n) for n in numbers)]
        cells += ["" if t is None else f"{t:x}" for t in tokens]
        lines.append("\t".join(cells) + "\n")
    return "".join(lines).encode()


@given(st.lists(row, min_size=1, max_size=20))
def test_plain_lines(rows: list) -> None:
    found = criteo_rows(_text(rows), 3, 2)
    assert found is not None
    assert found.labels.tolist() == [label for label, _, _ in rows]
    for column in range(3):
        expected = [np.nan if numbers[column] is None else float(numbers[column]) for _, numbers, _ in rows]
        np.testing.assert_array_equal(found.dense[column], expected)
    for column in range(2):
        assert found.tokens[column].tolist() == [tokens[column] or 0 for _, _, tokens in rows]


GOOD = b"1\t5\t\t-7\tff\t\n"


@pytest.mark.parametrize(
    "text",
    [
        GOOD[:-1],
        GOOD + b"\n",
        b"\n" + GOOD,
        GOOD.replace(b"\n", b"\r\n"),
        GOOD.replace(b"1\t", b"2\t", 1),
        GOOD.replace(b"1\t", b"\t", 1),
        GOOD.replace(b"5", b"5.0"),
        GOOD.replace(b"5", b"+5"),
        GOOD.replace(b"5", b" 5"),
        GOOD.replace(b"-7", b"-"),
        GOOD.replace(b"5", b"1" * 16),
        GOOD.replace(b"ff", b"123456789"),
        GOOD.replace(b"ff", b"xy"),
        GOOD.replace(b"ff", b"f\0"),
        GOOD.replace(b"\tff\t", b"\tff"),
        GOOD.replace(b"\tff\t", b"\tff\t\t"),
        b"",
        b"\n",
        b"1",
        b"\0" * 9,
    ],
)
def test_whatever_is_not_plain_is_left_alone(text: bytes) -> None:
    assert criteo_rows(text, 3, 2) is None
    assert criteo_rows(GOOD, 3, 2) is not None


@given(st.binary(max_size=200))
def test_any_bytes(text: bytes) -> None:
    found = criteo_rows(text, 3, 2)
    if found is not None:
        assert text.count(b"\n") == len(found.labels) > 0
        assert text.endswith(b"\n")


def test_without_native_code_there_is_no_fast_way() -> None:
    with kernels(TENSORFLOW):
        assert criteo_rows(GOOD, 3, 2) is None


def _columns(random: np.random.Generator, rows: int) -> list[np.ndarray]:
    return [
        random.integers(0, 200, rows, dtype=np.uint8),
        random.integers(0, 60_000, (rows, 3), dtype=np.uint16),
        random.integers(-9, 2**31, rows, dtype=np.int32),
        random.integers(0, 2**31, (rows, 1), dtype=np.int64),
    ]


@pytest.mark.parametrize("which", [NATIVE, TENSORFLOW])
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_packing(which: str, dtype: type) -> None:
    random = np.random.default_rng(0)
    columns = _columns(random, 5_000)
    expected = np.concatenate([column.reshape(5_000, -1).astype(dtype) for column in columns], axis=1)
    packer = RowPacker(columns)
    with kernels(which):
        for start, stop in ((0, 5_000), (0, 0), (17, 18), (513, 4_999), (5_000, 5_000)):
            out = np.empty((stop - start, packer.width), dtype)
            packer.pack(start, out)
            np.testing.assert_array_equal(out, expected[start:stop])
        for start, rows in ((-1, 2), (4_999, 2), (5_001, 0)):
            with pytest.raises(IndexError, match="of 5000"):
                packer.pack(start, np.empty((rows, packer.width), dtype))
        with pytest.raises(ValueError, match=r"need \[rows, 6\]"):
            packer.pack(0, np.empty((2, 5), dtype))


@pytest.mark.parametrize("which", [NATIVE, TENSORFLOW])
def test_gathering(which: str) -> None:
    random = np.random.default_rng(0)
    parts = [random.integers(0, 60_000, (rows, 2), dtype=np.uint16) for rows in (10, 0, 300)]
    column = PartedColumn(parts)
    part_of = random.choice([0, 2], 1_000).astype(np.int32)
    row_of = np.where(part_of == 0, random.integers(0, 10, 1_000), random.integers(0, 300, 1_000)).astype(np.int32)
    expected = np.stack([parts[part][row] for part, row in zip(part_of, row_of, strict=True)])
    with kernels(which):
        for dtype in (np.int32, np.int64, np.float32):
            out = np.empty((1_000, 2), dtype)
            column.take(part_of, row_of, out)
            np.testing.assert_array_equal(out, expected)
        wide = np.zeros((1_000, 5), np.float32)
        column.take(part_of, row_of, wide[:, 1:3])
        np.testing.assert_array_equal(wide, np.pad(expected, ((0, 0), (1, 2))))
        for part, row_ in ((0, 10), (1, 0), (2, 300)):
            with pytest.raises(IndexError):
                column.take(np.array([part], np.int32), np.array([row_], np.int32), np.empty((1, 2), np.int32))


def test_columns_that_cannot_be_packed() -> None:
    with pytest.raises(ValueError, match="dtype float64"):
        RowPacker([np.zeros(3)])
    with pytest.raises(ValueError, match=r"have \[2, 3\] rows"):
        RowPacker([np.zeros(3, np.int32), np.zeros(2, np.int32)])
    with pytest.raises(ValueError, match="the first has int32"):
        PartedColumn([np.zeros(3, np.int32), np.zeros(3, np.int64)])
