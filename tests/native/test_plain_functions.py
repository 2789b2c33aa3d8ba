"""Text to numbers and columns to rows: what native code gives is what plain NumPy and Python give, or it declines."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfdlrm.native import cache, loader, plain
from tfdlrm.native.columns import BeyondBudgetError, Dictionary, PartedColumn, new_dictionary
from tfdlrm.native.text import criteo_lines, criteo_rows

NATIVE, PLAIN = "native", "plain"


@contextlib.contextmanager
def library(which: str) -> Iterator[None]:
    """With `PLAIN`, as if the library could not be had; with `NATIVE`, it must be there."""
    if which == NATIVE:
        assert plain.functions() is not None, "the library could not be built here"
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain, "functions", lambda: None)
        yield


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


count = st.just(-1) | st.integers(0, 2**31 - 1)


@given(st.lists(st.tuples(st.integers(0, 1), count, count, st.integers(0, 2**32 - 1)), max_size=20))
def test_written_lines(rows: list) -> None:
    table = np.array(rows, np.int64).reshape(-1, 4)
    found = criteo_lines(table[:, 0].astype(np.uint8), table[:, 1:3].astype(np.int32), table[:, 3:].astype(np.uint32))
    lines = [
        f"{label}\t{'' if a < 0 else a}\t{'' if b < 0 else b}\t{f'{token:08x}' if token else ''}\n"
        for label, a, b, token in rows
    ]
    assert found == "".join(lines).encode()


def test_without_native_code_there_is_no_fast_way() -> None:
    with library(PLAIN):
        assert criteo_rows(GOOD, 3, 2) is None
        assert criteo_lines(np.zeros(1, np.uint8), np.zeros((1, 1), np.int32), np.ones((1, 1), np.uint32)) is None


@pytest.mark.parametrize("which", [NATIVE, PLAIN])
def test_gathering(which: str) -> None:
    random = np.random.default_rng(0)
    parts = [random.integers(0, 60_000, (rows, 2), dtype=np.uint16) for rows in (10, 0, 300)]
    column = PartedColumn(parts)
    part_of = random.choice([0, 2], 1_000).astype(np.int32)
    row_of = np.where(part_of == 0, random.integers(0, 10, 1_000), random.integers(0, 300, 1_000)).astype(np.int32)
    expected = np.stack([parts[part][row] for part, row in zip(part_of, row_of, strict=True)])
    with library(which):
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


@pytest.mark.parametrize("which", [NATIVE, PLAIN])
def test_gathering_single_numbers_into_a_matrix(which: str) -> None:
    column = PartedColumn([np.array([5, 6], np.uint8), np.array([7], np.uint8)])
    out = np.zeros((3, 2), np.float32)
    with library(which):
        column.take(np.array([1, 0, 0], np.int32), np.array([0, 1, 0], np.int32), out[:, 1:2])
    assert out.tolist() == [[0, 7], [0, 6], [0, 5]]


def test_parts_of_different_types() -> None:
    with pytest.raises(ValueError, match="the first has int32"):
        PartedColumn([np.zeros(3, np.int32), np.zeros(3, np.int64)])
    with pytest.raises(ValueError, match="dtype float64"):
        PartedColumn([np.zeros(3)])


KEYS = {np.uint32: st.integers(0, 2**32 - 1), np.int64: st.integers(-(2**63), 2**63 - 1)}
PLENTY = 2**30


@pytest.mark.parametrize("dtype", KEYS)
@given(data=st.data())
def test_a_dictionary(dtype: type, data: st.DataObject) -> None:
    few = st.lists(st.integers(0, 9), max_size=300)
    pieces = data.draw(st.lists(st.lists(KEYS[dtype], max_size=200) | few, max_size=6))
    wanted = data.draw(few | st.lists(KEYS[dtype], max_size=50))
    dictionary = Dictionary(dtype, PLENTY)
    places: dict[int, int] = {}
    counts = np.zeros(sum(map(len, pieces)), np.int64)
    for piece in pieces:
        found = dictionary.add(np.array(piece, dtype), counts)
        assert found.tolist() == [places.setdefault(key, len(places)) for key in piece]
    assert len(dictionary) == len(places)
    assert dictionary.values().tolist() == list(places)
    assert dictionary.find(np.array(wanted, dtype)).tolist() == [places.get(key, -1) for key in wanted]
    tokens = [key for piece in pieces for key in piece]
    assert counts[: len(places)].tolist() == [tokens.count(key) for key in places]


@pytest.mark.parametrize("dtype", KEYS)
def test_a_dictionary_that_grows(dtype: type) -> None:
    """Neighbouring numbers, multiples of a power of two and random ones: none makes one long run of taken slots."""
    random = np.random.default_rng(0)
    step = 2**12 if dtype is np.uint32 else 2**40
    for keys in (np.arange(300_000), np.arange(300_000) * step, random.integers(0, 2**32, 300_000)):
        keys = random.permutation(keys % np.iinfo(dtype).max).astype(dtype)
        dictionary = Dictionary(dtype, PLENTY)
        found = np.concatenate([dictionary.add(piece) for piece in np.array_split(keys, 7)])
        values, first = np.unique(keys, return_index=True)
        order = np.argsort(first)
        np.testing.assert_array_equal(dictionary.values(), values[order])
        np.testing.assert_array_equal(dictionary.values()[found], keys)


def test_a_dictionary_keeps_to_its_budget() -> None:
    for budget in (0, 1_000, 20_000, 500_000):
        dictionary = Dictionary(np.uint32, budget)
        with pytest.raises(BeyondBudgetError):
            dictionary.add(np.arange(100_000, dtype=np.uint32))
        # 8 bytes a slot of which half may be taken, 4 a value, and half of the slots again while the table grows
        assert len(dictionary) * (2 * 8 + 4 + 8) <= budget
        assert dictionary.find(np.arange(len(dictionary), dtype=np.uint32)).tolist() == list(range(len(dictionary)))
    with pytest.raises(ValueError, match="counts have dtype int64 and 2 entries"):
        Dictionary(np.uint32, PLENTY).add(np.arange(3, dtype=np.uint32), np.zeros(2, np.int64))


def test_where_there_is_no_dictionary() -> None:
    assert new_dictionary(np.int32, PLENTY) is None
    assert new_dictionary(np.int64, PLENTY) is not None
    with library(PLAIN):
        assert new_dictionary(np.int64, PLENTY) is None


LOAD = """
import sys, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from tfdlrm.native import plain
    print(plain.functions() is not None, plain.functions() is not None, len(caught), plain.library_path())
    print(*(warning.message for warning in caught))
assert "tensorflow" not in sys.modules
"""


def _load(cache: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, loader.CACHE_SETTING: str(cache), **settings}
    return subprocess.run([sys.executable, "-c", LOAD], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.multiprocess
def test_the_library_is_built_once_without_tensorflow(tmp_path: Path) -> None:
    first = _load(tmp_path)
    assert first.stdout.startswith("True True 0"), first.stderr
    path = Path(first.stdout.splitlines()[0].split(maxsplit=3)[3])
    assert cache.is_whole(path)
    age = path.stat().st_mtime_ns
    assert _load(tmp_path, CXX="").stdout == first.stdout
    assert path.stat().st_mtime_ns == age
    path.write_bytes(path.read_bytes()[:1000])  # damaged: it is built again
    assert _load(tmp_path).stdout == first.stdout
    assert cache.is_whole(path)


@pytest.mark.multiprocess
def test_without_a_compiler(tmp_path: Path) -> None:
    missing = {"CXX": "/no/such/compiler"}
    done = _load(tmp_path, **missing)
    assert done.stdout.startswith("False False 1"), done.stderr
    assert "native functions for data cannot be used: there is no C++ compiler" in done.stdout
    assert "the same bytes, more slowly" in done.stdout
    assert _load(tmp_path, **missing, TFDLRM_NATIVE="off").stdout.startswith("False False 0")
    refused = _load(tmp_path, **missing, TFDLRM_NATIVE="require")
    assert "RuntimeError: TFDLRM_NATIVE=require, but native functions for data cannot be used" in refused.stderr
