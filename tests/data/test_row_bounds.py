"""Rows of text with quotes: what Python's csv module finds, and bad quotes that harm no other row."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfdlrm.data.chunks import line_bounds, quoted_bounds
from tfdlrm.data.lines import LineReader, TextFormat
from tfdlrm.data.quarantine import Quarantine

CELLS = st.text(alphabet='ab",\n ', max_size=6)
TABLES = st.integers(1, 4).flatmap(lambda width: st.lists(st.lists(CELLS, min_size=width, max_size=width), max_size=8))


def _csv(rows: list[list[str]]) -> bytes:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(rows)
    return stream.getvalue().encode()


def _codes(text: bytes) -> np.ndarray:
    return np.frombuffer(text, np.uint8)


@given(TABLES)
def test_quoted_rows_are_found(rows: list[list[str]]) -> None:
    text = _csv(rows)
    width = len(rows[0]) if rows else 1
    bounds, covered = quoted_bounds(_codes(text), ord(","), ord('"'), width, final=True)
    assert covered == len(text)
    assert len(bounds) == len(rows)
    assert not bounds.bad_quotes.any()
    assert (bounds.fields == width).all()
    found = [text[start:end].decode() for start, end in zip(bounds.starts, bounds.ends, strict=True)]
    assert [next(csv.reader(io.StringIO(row, newline=""))) for row in found] == rows


@given(TABLES.filter(bool), st.integers(1, 30))
def test_chunks_may_end_within_a_quoted_field(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], chunk_bytes: int
) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    path.write_bytes(_csv(rows))
    form = TextFormat(separator=b",", columns=tuple("abcd"[: len(rows[0])]), quote=b'"')
    quarantine = Quarantine("quarantine")
    reader = LineReader(path, form, quarantine, chunk_bytes)
    blocks = list(reader.blocks())
    raw = [block.raw(row) for block in blocks for row in range(len(block.lines))]
    assert b"".join(row + b"\n" for row in raw) == _csv(rows)
    assert quarantine.count == 0
    assert reader.rows_read == len(rows)
    numbers = [int(number) for block in blocks for number in block.numbers]
    assert numbers == list(range(len(rows)))
    lines = [int(line) for block in blocks for line in block.lines]
    assert lines == np.cumsum([1, *(row.count(b"\n") + 1 for row in raw)])[:-1].tolist()


@given(st.text(alphabet="a,\n", max_size=40))
def test_rows_without_quotes(text: str) -> None:
    text += "\n"
    bounds = line_bounds(_codes(text.encode()), ord(","))
    lines = text.split("\n")[:-1]
    assert [text[start:end] for start, end in zip(bounds.starts, bounds.ends, strict=True)] == lines
    assert bounds.fields.tolist() == [line.count(",") + 1 for line in lines]
    assert bounds.lines.tolist() == list(range(len(lines)))


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        ('a,b\n"c,d\ne,f\ng,h\n', [1]),  # never closed
        ('a,b\n"c,d\ne,f"\ng,h\n', [1, 2]),  # closed, but with a field too many: two bad lines rather than a lost row
        ('a,b\nc"c,d\n"e,\nf"\n', [1, 2, 3]),
        ('a,b\n"c",d"\ne,f\n', [1]),
        ('a,b\n"c"x,d\ne,f\n', [1]),
        ('"a","b""c"\n"d\n"",e",f\n', []),
        ('"",""\n"""",""""\n', []),
    ],
)
def test_bad_quotes_take_no_other_row_with_them(text: str, bad: list[int]) -> None:
    bounds, _ = quoted_bounds(_codes(text.encode()), ord(","), ord('"'), 2, final=True)
    wrong = bounds.bad_quotes | (bounds.fields != 2)
    assert bounds.lines[wrong].tolist() == bad


def test_a_file_without_line_ends_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tfdlrm.data.lines.MAX_ROW_BYTES", 1000)
    path = tmp_path / "blob"
    path.write_bytes(b"x" * 5000)
    reader = LineReader(path, TextFormat(separator=b",", columns=("a", "b")), Quarantine(), chunk_bytes=100)
    with pytest.raises(ValueError, match="line 1: no end of the row within"):
        list(reader.blocks())
