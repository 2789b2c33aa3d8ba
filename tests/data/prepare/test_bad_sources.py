"""Malformed input: each ends as documented, and the books balance: read = written + quarantined."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from tests.data import sample_rows as sample
from tfdlrm.data.prepare import PrepareConfig, PrepareResult, prepare
from tfdlrm.data.prepared import prepared_dataset

GOOD = sample.criteo_text(sample.criteo_rows(40))
LINES = GOOD.splitlines(keepends=True)
FIELDS = LINES[3].rstrip(b"\n").split(b"\t")


def _line(place: int, cell: bytes) -> bytes:
    fields = list(FIELDS)
    fields[place] = cell
    return b"\t".join(fields) + b"\n"


# One bad row among 40 good ones: what it is, and a part of the reason.
BAD_LINES: dict[str, tuple[bytes, str]] = {
    "12 columns": (b"\t".join(FIELDS[:12]) + b"\n", "12 fields where 40"),
    "39 columns": (b"\t".join(FIELDS[:39]) + b"\n", "39 fields where 40"),
    "41 columns": (b"\t".join([*FIELDS, b"x"]) + b"\n", "41 fields where 40"),
    "80 columns": (b"\t".join([*FIELDS, *FIELDS]) + b"\n", "80 fields where 40"),
    "one word": (b"hello\n", "1 fields where 40"),
    "commas": (b",".join(FIELDS) + b"\n", "1 fields where 40"),
    "blanks for tabs": (b" ".join(FIELDS) + b"\n", "1 fields where 40"),
    "an empty line": (b"\n", "a blank line"),
    "an empty line with CR": (b"\r\n", "a blank line"),
    "a NUL byte": (_line(20, b"ab\0cd"), "a NUL byte"),
    "only NUL bytes": (b"\0" * 50 + b"\n", "a NUL byte"),
    "Latin-1": (_line(20, b"\xe9"), "not UTF-8"),
    "a broken UTF-8 sequence": (_line(20, b"\xe2\x82"), "not UTF-8"),
    "an empty label": (_line(0, b""), "the label is not 0 or 1"),
    "label 2": (_line(0, b"2"), "the label is not 0 or 1"),
    "label -1": (_line(0, b"-1"), "the label is not 0 or 1"),
    "label 0.5": (_line(0, b"0.5"), "the label is not 0 or 1"),
    "label nan": (_line(0, b"nan"), "the label is not 0 or 1"),
    "label yes": (_line(0, b"yes"), "the label is not 0 or 1"),
    "label true": (_line(0, b"true"), "the label is not 0 or 1"),
    "a word for an integer": (_line(3, b"many"), "not a number"),
    "hex for an integer": (_line(3, b"0x1f"), "not a number"),
    "a comma in an integer": (_line(3, b"1,5"), "not a number"),
    "two numbers": (_line(3, b"1 2"), "not a number"),
    "a quoted number": (_line(3, b'"1"'), "not a number"),
    "a date": (_line(3, b"2020-01-01"), "not a number"),
    "nan": (_line(3, b"nan"), "NaN, infinite"),
    "infinity": (_line(3, b"inf"), "NaN, infinite"),
    "minus infinity": (_line(3, b"-inf"), "NaN, infinite"),
    "a 320-digit integer": (_line(3, b"9" * 320), "NaN, infinite or too large"),
    "1e39": (_line(3, b"1e39"), "NaN, infinite or too large"),
    "no hex": (_line(20, b"xyz"), "not a hex number"),
    "hex with a sign": (_line(20, b"-1"), "not a hex number"),
    "hex with 0x": (_line(20, b"0xff"), "not a hex number"),
    "64 bits of hex": (_line(20, b"ffffffffffffffff"), "not a hex number"),
    "300 digits of hex": (_line(20, b"a" * 300), "not a hex number"),
    "a quote in hex": (_line(20, b'"ff"'), "not a hex number"),
    "a decimal point in hex": (_line(20, b"1.0"), "not a hex number"),
    "emoji": (_line(20, "🙂".encode()), "not a hex number"),
    "a minus sign that is none": (_line(3, "−3".encode()), "not a number"),
    "a full-width digit": (_line(3, "３".encode()), "not a number"),
    "a separator of lines that is none": (_line(20, "a\u2028b".encode()), "not a hex number"),
    "a vertical tab": (_line(20, b"a\x0bb"), "not a hex number"),
    "a CR within a line": (_line(20, b"a\rb"), "not a hex number"),
    "a header": (b"\t".join([b"label"] + [b"c"] * 39) + b"\n", "the label is not 0 or 1"),
}


def _prepare(folder: Path, bad_rows: str = "quarantine") -> PrepareResult:
    return prepare(PrepareConfig(format="criteo-kaggle"), [folder / "raw"], folder / "out", bad_rows=bad_rows)


def _write(folder: Path, content: bytes, name: str = "rows.txt") -> Path:
    (folder / "raw").mkdir(exist_ok=True)
    path = folder / "raw" / name
    path.write_bytes(content)
    return path


def _quarantined(folder: Path) -> list[list[str]]:
    path = folder / "out" / "quarantine.tsv"
    if not path.exists():
        return []
    return [line.split("\t") for line in path.read_text(encoding="utf-8").split("\n")[1:-1]]


@pytest.mark.parametrize("what", BAD_LINES)
def test_one_bad_line(what: str, tmp_path: Path) -> None:
    bad, reason = BAD_LINES[what]
    path = _write(tmp_path, b"".join(LINES[:7]) + bad + b"".join(LINES[7:]))
    result = _prepare(tmp_path)
    assert result.books == {"read": 41, "written": 40, "quarantined": 1, "sampled_out": 0}
    [line] = _quarantined(tmp_path)
    assert line[:2] == [str(path), "8"]
    assert reason in line[3]
    assert prepared_dataset(tmp_path / "out").num_rows == 40
    with pytest.raises(ValueError, match="line 8") as error:
        prepare(PrepareConfig(format="criteo-kaggle"), [path], tmp_path / "strict")
    assert reason in str(error.value)


def _cut_gzip(content: bytes) -> bytes:
    whole = gzip.compress(content)
    return whole[: len(whole) * 2 // 3]


def _damaged_gzip(content: bytes) -> bytes:
    whole = bytearray(gzip.compress(content))
    whole[-6] ^= 0xFF
    return bytes(whole)


def _zstd(content: bytes) -> bytes:
    return pa.compress(content, "zstd", asbytes=True)


# Whole files: rows that must be written of 40, and how many are set aside; None where that depends on the damage.
FILES: dict[str, tuple[Callable[[], bytes], int | None, int]] = {
    "no newline at the end": (lambda: GOOD[:-1], 40, 0),
    "CRLF": (lambda: GOOD.replace(b"\n", b"\r\n"), 40, 0),
    "mixed line ends": (lambda: b"".join(x if i % 2 else x[:-1] + b"\r\n" for i, x in enumerate(LINES)), 40, 0),
    "blank lines at the end": (lambda: GOOD + b"\n\n\n", 40, 0),
    "blank lines within": (lambda: b"".join(LINES[:5]) + b"\n\n" + b"".join(LINES[5:]), 40, 2),
    "a byte order mark": (lambda: b"\xef\xbb\xbf" + GOOD, 40, 0),
    "gzip in two members": (lambda: gzip.compress(b"".join(LINES[:9])) + gzip.compress(b"".join(LINES[9:])), 40, 0),
    "gzip with padding": (lambda: gzip.compress(GOOD) + b"\0" * 512, 40, 0),
    "gzip that is cut off": (lambda: _cut_gzip(GOOD), None, 1),
    "gzip with a wrong checksum": (lambda: _damaged_gzip(GOOD), None, 1),
    "gzip with rubbish behind": (lambda: gzip.compress(GOOD) + b"rubbish", 40, 1),
    "Zstandard": (lambda: _zstd(GOOD), 40, 0),
    "cut in the middle of a line": (lambda: GOOD[: len(GOOD) - len(LINES[-1]) // 2], 39, 1),
    "every other line bad": (lambda: b"".join(x + b"x\n" for x in LINES), 40, 40),
    "one row": (lambda: LINES[0], 1, 0),
}


@pytest.mark.parametrize("what", FILES)
def test_whole_files(what: str, tmp_path: Path) -> None:
    make, written, quarantined = FILES[what]
    _write(tmp_path, make())
    books = _prepare(tmp_path).books
    assert books["read"] == books["written"] + books["quarantined"]
    assert books["quarantined"] == quarantined == len(_quarantined(tmp_path))
    if written is not None:
        assert books["written"] == written
    else:
        assert 0 < books["written"] <= 40
    assert prepared_dataset(tmp_path / "out").num_rows == books["written"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\n\n\n", "no usable row among 0 read"),
        (b"\0\0\0\0", "no usable row among 1 read"),
        (b"hello\nworld\n", "no usable row among 2 read"),
        (os.urandom(5000).replace(b"\n", b""), "no usable row"),
    ],
    ids=["empty", "blank lines only", "NUL bytes only", "text", "noise"],
)
def test_files_without_a_row(content: bytes, message: str, tmp_path: Path) -> None:
    path = _write(tmp_path, content)
    with pytest.raises(ValueError, match=message):
        prepare(PrepareConfig(format="criteo-kaggle"), [path], tmp_path / "out", bad_rows="quarantine")
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_an_empty_day_among_others(tmp_path: Path) -> None:
    for day, content in enumerate([GOOD, b"", GOOD]):
        _write(tmp_path, content, f"day_{day}")
    result = _prepare(tmp_path)
    assert result.books["written"] == 80
    assert "the file is empty" in result.manifest["sources"][1]["notes"][0]
    with pytest.raises(ValueError, match=r"day_1: the file is empty"):
        prepare(PrepareConfig(format="criteo-kaggle"), [tmp_path / "raw"], tmp_path / "strict")


def test_the_same_file_twice(tmp_path: Path) -> None:
    path = _write(tmp_path, GOOD)
    for sources in ([path, path], [path, tmp_path / "raw"], [path, str(tmp_path / "raw" / "*.txt")]):
        with pytest.raises(ValueError, match="is given twice"):
            prepare(PrepareConfig(format="criteo-kaggle"), sources, tmp_path / "out")
    os.symlink(path, tmp_path / "link.txt")
    with pytest.raises(ValueError, match="is given twice"):
        prepare(PrepareConfig(format="criteo-kaggle"), [path, tmp_path / "link.txt"], tmp_path / "out")


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source, message in (
        (tmp_path / "none.txt", "there is no such file"),
        (tmp_path / "empty", "names no file"),
        (str(tmp_path / "*.gz"), "names no file"),
    ):
        with pytest.raises(FileNotFoundError, match=message):
            prepare(PrepareConfig(format="criteo-kaggle"), [source], tmp_path / "out")


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(tmp_path, GOOD)
    original = Path.open

    def refuse(self: Path, *arguments: object, **keywords: object) -> object:
        if self == path:
            raise PermissionError(13, "Permission denied", str(path))
        return original(self, *arguments, **keywords)  # type: ignore[arg-type]

    # tests may run as root, who may read everything
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PermissionError, match=r"rows.txt"):
        prepare(PrepareConfig(format="criteo-kaggle"), [path], tmp_path / "out", bad_rows="quarantine")


def test_a_truncated_zstandard_file(tmp_path: Path) -> None:
    whole = _zstd(sample.criteo_text(sample.criteo_rows(3000)))
    _write(tmp_path, whole[: len(whole) * 2 // 3])
    books = _prepare(tmp_path).books
    assert books["quarantined"] == 1
    assert books["read"] == books["written"] + 1
    assert "cut off or corrupt" in _quarantined(tmp_path)[0][3]


def test_a_file_that_is_no_parquet(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_bytes(GOOD)
    with pytest.raises(ValueError, match="not a readable Parquet file"):
        prepare(PrepareConfig(format="parquet", schema=sample.SPEC), [tmp_path / "rows.parquet"], tmp_path / "out")


def test_the_first_bad_row_is_the_one_reported(tmp_path: Path) -> None:
    """Blocks are parsed beside each other; the error is still that of the first line."""
    lines = sample.criteo_text(sample.criteo_rows(30_000)).splitlines(keepends=True)
    lines[7_000] = _line(3, b"many")
    lines[29_000] = b"hello\n"
    path = _write(tmp_path, b"".join(lines))
    with pytest.raises(ValueError, match="line 7001, column 'int_3'"):
        prepare(PrepareConfig(format="criteo-kaggle"), [path], tmp_path / "out", memory=2**27)


@pytest.mark.parametrize(
    ("place", "cell", "column"),
    [(0, b"3", "label"), (3, b"007x", "int_3"), (3, b"1e39", "int_3"), (20, b"xyz", "cat_7")],
)
def test_a_bad_cell_is_shown_as_it_stands_in_the_file(place: int, cell: bytes, column: str, tmp_path: Path) -> None:
    """Labels are read as numbers, and `3` then is 3.0."""
    path = _write(tmp_path, GOOD + _line(place, cell))
    with pytest.raises(ValueError, match=rf"line 41, column '{column}': .* \(found '{cell.decode()}'\)"):
        prepare(PrepareConfig(format="criteo-kaggle"), [path], tmp_path / "out")


def test_a_bad_cell_within_quotes(tmp_path: Path) -> None:
    rows = sample.sample_rows(20)
    rows[12] |= {"click": 3, "city": 'New "York", or\nso'}
    path = sample.write_csv(tmp_path / "rows.csv", rows)
    with pytest.raises(ValueError, match=r"column 'click': the label is not 0 or 1 \(found '3'\)"):
        prepare(PrepareConfig(format="csv", schema=sample.SPEC), [path], tmp_path / "out")
    rows[12] |= {"click": 1, "price": "1,5"}
    path = sample.write_csv(tmp_path / "rows.csv", rows)
    with pytest.raises(ValueError, match=r"column 'price': not a number \(found '1,5'\)"):
        prepare(PrepareConfig(format="csv", schema=sample.SPEC), [path], tmp_path / "again")


def test_a_token_that_was_not_seen_is_shown_as_hex(tmp_path: Path) -> None:
    lines = [_line(20, b"0000000a")] * 30 + [_line(20, b"0000beef")] * 10
    path = _write(tmp_path, b"".join(lines))
    with pytest.raises(ValueError, match=r"line 31, column 'cat_7': the value was not seen .*found '0000beef'"):
        prepare(PrepareConfig(format="criteo-kaggle", split="time", train_fraction=0.75), [path], tmp_path / "out")
