"""Bad input: refused with file, line, column and fix, or set aside and counted; the books balance either way."""

from __future__ import annotations

import gzip
import itertools
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data import sample_rows as sample
from tfdlrm.config import DataConfig
from tfdlrm.data import BadRowError, Splits, open_dataset, open_rows
from tfdlrm.data.quarantine import QUARANTINE_HEADER
from tfdlrm.schema import CategoricalColumn, DenseColumn, FeatureSpec

SPEC = FeatureSpec(
    labels=("click",),
    dense=(DenseColumn(name="age", missing=None), DenseColumn(name="price")),
    categorical=(
        CategoricalColumn(name="item"),
        CategoricalColumn(name="pair", hotness=2, weights="pair_weights"),
        CategoricalColumn(name="code", encoding="hex"),
        CategoricalColumn(name="city", encoding="vocabulary"),
    ),
    keys=("user",),
    vocabulary_sizes={"item": 10, "pair": 10},
)
HEADER = b"click,age,price,item,pair,pair_weights,code,city,user\n"
GOOD = b"1,30,1.5,3,1 2,0.5 1,ff,Rome,u1\n"

# What is wrong: (the row, the column named, part of the reason).
BAD_ROWS = {
    "a field too few": (b"1,30,1.5,3,1 2,0.5 1,ff,Rome\n", "", "8 fields where 9 are expected: a column is missing"),
    "a field too many": (
        b"1,30,1.5,3,1 2,0.5 1,ff,Rome,u1,x\n",
        "",
        "10 fields where 9 are expected: there is an extra",
    ),
    "a truncated line": (b"1,30,1.\n", "", "3 fields where 9"),
    "a label of 2": (b"2,30,1.5,3,1 2,0.5 1,ff,Rome,u1\n", "click", "the label is not 0 or 1"),
    "a label of 0.5": (b"0.5,30,1.5,3,1 2,0.5 1,ff,Rome,u1\n", "click", "the label is not 0 or 1"),
    "an empty label": (b",30,1.5,3,1 2,0.5 1,ff,Rome,u1\n", "click", "the label is not 0 or 1"),
    "a label of text": (b"yes,30,1.5,3,1 2,0.5 1,ff,Rome,u1\n", "click", "the label is not 0 or 1"),
    "a NaN label": (b"nan,30,1.5,3,1 2,0.5 1,ff,Rome,u1\n", "click", "the label is not 0 or 1"),
    "a dense cell of text": (b"1,30,cheap,3,1 2,0.5 1,ff,Rome,u1\n", "price", "not a number"),
    "a dense NaN": (b"1,30,NaN,3,1 2,0.5 1,ff,Rome,u1\n", "price", "NaN, infinite or too large"),
    "a dense infinity": (b"1,30,-inf,3,1 2,0.5 1,ff,Rome,u1\n", "price", "NaN, infinite or too large"),
    "too large for float32": (b"1,30,1e39,3,1 2,0.5 1,ff,Rome,u1\n", "price", "NaN, infinite or too large"),
    "300 digits": (b"1,30," + b"9" * 320 + b",3,1 2,0.5 1,ff,Rome,u1\n", "price", "NaN, infinite or too large"),
    "an empty cell that may not be": (b"1,,1.5,3,1 2,0.5 1,ff,Rome,u1\n", "age", "the cell is empty"),
    "an id out of range": (b"1,30,1.5,10,1 2,0.5 1,ff,Rome,u1\n", "item", "the id is not in [0, 10)"),
    "a negative id": (b"1,30,1.5,-1,1 2,0.5 1,ff,Rome,u1\n", "item", "the id is not in [0, 10)"),
    "a huge id": (b"1,30,1.5,4294967299,1 2,0.5 1,ff,Rome,u1\n", "item", "the id is not in [0, 10)"),
    "an id beyond int64": (b"1,30,1.5,99999999999999999999,1 2,0.5 1,ff,Rome,u1\n", "item", "not an integer"),
    "an id of text": (b"1,30,1.5,abc,1 2,0.5 1,ff,Rome,u1\n", "item", "not an integer"),
    "a fractional id": (b"1,30,1.5,3.5,1 2,0.5 1,ff,Rome,u1\n", "item", "not an integer"),
    "an empty id": (b"1,30,1.5,,1 2,0.5 1,ff,Rome,u1\n", "item", "not an integer"),
    "three ids for two": (b"1,30,1.5,3,1 2 3,0.5 1 1,ff,Rome,u1\n", "pair", "not 2 ids"),
    "one id for two": (b"1,30,1.5,3,1,0.5,ff,Rome,u1\n", "pair", "not 2 ids"),
    "no id for two": (b"1,30,1.5,3,,,ff,Rome,u1\n", "pair", "not 2 ids"),
    "an id out of range in a bag": (b"1,30,1.5,3,1 77,0.5 1,ff,Rome,u1\n", "pair", "the id is not in [0, 10)"),
    "a weight too few": (b"1,30,1.5,3,1 2,0.5,ff,Rome,u1\n", "pair_weights", "another number of weights"),
    "a weight of text": (b"1,30,1.5,3,1 2,0.5 x,ff,Rome,u1\n", "pair_weights", "a weight is not a finite number"),
    "not hex": (b"1,30,1.5,3,1 2,0.5 1,xyz,Rome,u1\n", "code", "not a hex number"),
    "hex beyond 63 bits": (b"1,30,1.5,3,1 2,0.5 1,ffffffffffffffff,Rome,u1\n", "code", "not a hex number"),
    "negative hex": (b"1,30,1.5,3,1 2,0.5 1,-1,Rome,u1\n", "code", "not a hex number"),
    "a byte that is not UTF-8": (b"1,30,1.5,3,1 2,0.5 1,ff,R\xffme,u1\n", "", "not UTF-8"),
    "a NUL byte": (b"1,30,1.5,3,1 2,0.5 1,ff,R\x00me,u1\n", "", "a NUL byte"),
    "a blank line": (b"\n", "", "a blank line between rows"),
    "a quote that is never closed": (b'1,30,1.5,3,1 2,0.5 1,ff,"Rome,u1\n', "", "a quote"),
    "a quote within a field": (b'1,30,1.5,3,1 2,0.5 1,ff,Ro"me,u1\n', "", "a quote"),
    "two quotes within a field": (b'1,30,1.5,3,1 2,0.5 1,ff,Ro"m"e,u1\n', "", "a quote"),
}


def _open(path: Path, bad_rows: str = "error", folder: Path | None = None, form: str = "csv") -> Splits:
    return open_dataset(DataConfig(format=form, path=str(path), schema=SPEC), bad_rows=bad_rows, quarantine_dir=folder)


def _quarantined(folder: Path) -> list[list[str]]:
    text = (folder / "quarantine.tsv").read_text(encoding="utf-8")
    assert text.startswith(QUARANTINE_HEADER)
    return [line.split("\t") for line in text.splitlines()[1:]]


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_bad_row_is_refused_by_name(name: str, tmp_path: Path) -> None:
    row, column, reason = BAD_ROWS[name]
    path = tmp_path / "rows.csv"
    path.write_bytes(HEADER + GOOD + GOOD + row + GOOD)
    with pytest.raises(BadRowError) as caught:
        _open(path)
    message = str(caught.value)
    assert message.startswith(f"{path}, line 4")
    assert reason in message
    assert f"column {column!r}" in message if column else "column '" not in message
    assert message.endswith("--bad-rows quarantine.")
    assert caught.value.row.raw == row.removesuffix(b"\n")


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_bad_row_is_set_aside_and_the_others_are_used(name: str, tmp_path: Path) -> None:
    row, column, reason = BAD_ROWS[name]
    path = tmp_path / "rows.csv"
    path.write_bytes(HEADER + GOOD + GOOD + row + GOOD)
    splits = _open(path, "quarantine", tmp_path / "out")
    books = splits.books
    assert (books.read, books.used, books.set_aside) == (4, 3, 1)
    assert splits.train.columns.keys["row_id"].tolist() == [0, 1, 3]
    assert len(splits.bad_rows) == 1
    [(file, line, found_column, found_reason, raw)] = _quarantined(tmp_path / "out")
    assert (file, line, found_column) == (str(path), "4", column)
    assert reason in found_reason
    escaped = row.removesuffix(b"\n").decode("utf-8", "backslashreplace")
    assert raw == escaped


@pytest.mark.parametrize("order", list(itertools.permutations(["an id of text", "a field too few", "a label of 2"])))
def test_several_bad_rows_are_all_set_aside(order: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(HEADER + b"".join(GOOD + BAD_ROWS[name][0] for name in order))
    books = _open(path, "quarantine", tmp_path).books
    assert (books.read, books.used, books.set_aside) == (6, 3, 3)
    assert sorted(row[1] for row in _quarantined(tmp_path)) == ["3", "5", "7"]


# Pieces of a file: good rows, bad rows and noise in any order; the books must balance whatever they add up to.
PIECES = [
    GOOD,
    *(row for row, _, _ in BAD_ROWS.values()),
    b"\r\n",
    b'"',
    b",",
    b"\xc3",
    b"\xc3\xbc",
    b'""',
    b"7",
    b"\x00",
]


@given(st.lists(st.sampled_from(PIECES), max_size=12), st.integers(1, 200))
def test_the_books_always_balance(tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], chunk: int) -> None:
    folder = tmp_path_factory.mktemp("books")
    path = folder / "rows.csv"
    path.write_bytes(HEADER + GOOD + b"".join(pieces))
    splits = _open(path, "quarantine", folder)  # Books refuses to be made if they do not balance
    assert splits.books.used == splits.train.num_rows
    written = len(_quarantined(folder)) if splits.books.set_aside else 0
    assert splits.books.set_aside == written
    good_lines = (HEADER + GOOD + b"".join(pieces)).replace(b"\r\n", b"\n").split(b"\n").count(GOOD[:-1])
    assert splits.books.used >= good_lines if b'"' not in b"".join(pieces) else splits.books.used >= 0


@pytest.mark.parametrize(
    ("ending", "rows"),
    [(b"", 2), (b"\n", 2), (b"\n\n\n", 2), (b"\r\n", 2), (b"\r\n\r\n", 2)],
    ids=["no newline", "newline", "blank lines", "crlf", "blank crlf lines"],
)
def test_ends_of_file(ending: bytes, rows: int, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(HEADER + GOOD + GOOD.removesuffix(b"\n") + ending)
    assert _open(path).books.read == rows


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"\xef\xbb\xbf" + HEADER + GOOD)
    assert _open(path).train.num_rows == 1


@pytest.mark.parametrize("content", [b"", HEADER, HEADER + b"\n\n"], ids=["empty", "header only", "blank lines only"])
def test_a_file_without_rows_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    for mode in ("error", "quarantine"):
        with pytest.raises(ValueError, match=r"rows\.csv: (the file is empty|no usable row)"):
            _open(path, mode)


def test_a_file_of_bad_rows_only_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(HEADER + b"1\n2\n")
    with pytest.raises(ValueError, match="no usable row; all 2 rows read were set aside"):
        _open(path, "quarantine")


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (HEADER.replace(b"price", b"prize"), "column 'price' of the schema is missing. Is it 'prize'?"),
        (HEADER.replace(b",user", b",user,extra"), "column 'extra' is not in the schema"),
        (HEADER.replace(b",user", b",user,age"), "column 'age' occurs twice"),
        (HEADER.replace(b"user", b"us\xffer"), "the line has bytes that are not UTF-8"),
    ],
    ids=["missing", "extra", "twice", "not utf-8"],
)
def test_a_wrong_header_is_refused_whatever_the_mode(header: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(header + GOOD)
    for mode in ("error", "quarantine"):
        with pytest.raises(ValueError, match=re.escape(reason)):
            _open(path, mode)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_bytes(HEADER + GOOD)
    with pytest.raises(FileNotFoundError, match=r"trian\.csv: there is no such file.*Files there: train\.csv"):
        _open(tmp_path / "trian.csv")
    with pytest.raises(FileNotFoundError, match="does not exist either"):
        _open(tmp_path / "nowhere" / "train.csv")
    with pytest.raises(IsADirectoryError, match="a folder, where a CSV file"):
        _open(tmp_path)
    with pytest.raises(ValueError, match="path is missing"):
        open_dataset(DataConfig(format="csv", schema=SPEC))


def test_a_truncated_gzip_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv.gz"
    random = np.random.default_rng(0)
    rows = [b"1,%d,%.6f,3,1 2,0.5 1,%x,Rome,u\n" % (i, random.random(), random.integers(2**32)) for i in range(3000)]
    whole = gzip.compress(HEADER + b"".join(rows))
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadRowError, match="ends early: it was cut off; every later row is lost"):
        _open(path)
    splits = _open(path, "quarantine", tmp_path)
    assert splits.books.set_aside == 1
    assert 1000 < splits.books.used < 2000
    assert splits.train.columns.dense[:, 0].tolist() == list(range(splits.books.used))
    assert "ends early" in _quarantined(tmp_path)[0][3]


def test_corrupt_gzip_data(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv.gz"
    whole = bytearray(gzip.compress(HEADER + GOOD * 2000))
    whole[-6] ^= 0xFF  # the checksum
    path.write_bytes(bytes(whole))
    with pytest.raises(BadRowError, match="the gzip data are corrupt"):
        _open(path)
    books = _open(path, "quarantine").books
    assert (books.used, books.set_aside) == (1999, 1)  # the last line is not known to be whole


def test_gzip_members_one_after_another_are_one_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"  # known by its content, not by its name
    path.write_bytes(gzip.compress(HEADER + GOOD[:10]) + gzip.compress(GOOD[10:] + GOOD) + b"\0" * 512)
    assert _open(path).train.num_rows == 2


def test_a_value_not_seen_in_training_is_refused_or_set_aside(tmp_path: Path) -> None:
    train, new = tmp_path / "train.csv", tmp_path / "new.csv"
    train.write_bytes(HEADER + GOOD)
    new.write_bytes(HEADER + GOOD + GOOD.replace(b"Rome", b"Oslo") + GOOD + GOOD.replace(b"ff", b"ee"))
    preprocessing = _open(train).preprocessing
    config = DataConfig(format="csv")
    with pytest.raises(
        BadRowError, match=r"line 3, column 'city': the value was not seen in training \(found 'Oslo'\)"
    ):
        open_rows(config, new, preprocessing)
    dataset = open_rows(config, new, preprocessing, bad_rows="quarantine", quarantine_dir=tmp_path)
    assert (dataset.books.read, dataset.books.used, dataset.books.set_aside) == (4, 2, 2)
    assert dataset.columns.keys["row_id"].tolist() == [0, 2]
    found = _quarantined(tmp_path)
    assert [row[1:3] for row in found] == [["3", "city"], ["5", "code"]]
    assert found[0][4] == GOOD.replace(b"Rome", b"Oslo").decode().strip()


def test_parquet_of_the_wrong_kind(tmp_path: Path) -> None:
    rows = [
        {"click": 1, "age": 30.0, "price": 1.5, "item": 3, "pair": [1, 2], "pair_weights": [0.5, 1.0], "code": "ff"}
        | {"city": "Rome", "user": "u"}
        for _ in range(3)
    ]
    path = tmp_path / "rows.parquet"

    def write(**columns: list) -> Path:
        pl.DataFrame({name: [row[name] for row in rows] for name in rows[0]} | columns).write_parquet(path)
        return path

    assert _open(write(), form="parquet").books.used == 3
    with pytest.raises(ValueError, match="column 'price' has dtype List"):
        _open(write(price=[[1.0], [2.0], [3.0]]), form="parquet")
    with pytest.raises(ValueError, match="column 'item' holds lists, and its hotness is 1"):
        _open(write(item=[[1], [2], [3]]), form="parquet")
    with pytest.raises(BadRowError, match="line 2, column 'price': not a number"):
        _open(write(price=["1", "x", "2"]), form="parquet")
    with pytest.raises(BadRowError, match="line 3, column 'price': NaN"):
        _open(write(price=[1.0, None, float("nan")]), form="parquet")
    with pytest.raises(BadRowError, match="line 1, column 'item': not an integer"):
        _open(write(item=[1.5, 2.0, 3.0]), form="parquet")
    with pytest.raises(BadRowError, match="line 2, column 'pair': not an integer"):
        _open(write(pair=[[1, 2], [3, None], [4, 5]]), form="parquet")
    books = _open(write(item=[1, 99, -3]), "quarantine", tmp_path, form="parquet").books
    assert (books.used, books.set_aside) == (1, 2)
    assert _quarantined(tmp_path)[0][4].startswith("1\\t30.0\\t1.5\\t99")
    path.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(ValueError, match=r"rows\.parquet: not a readable Parquet file"):
        _open(path, form="parquet")


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("\t".join(["1"] * 39), "39 fields where 40 are expected"),
        ("\t".join(["1"] * 41), "41 fields where 40 are expected"),
        ("\t".join(["2", *["1"] * 39]), "column 'label': the label is not 0 or 1"),
        ("\t".join(["1", "x", *["1"] * 38]), "column 'int_1': not a number"),
        ("\t".join(["1", *["1"] * 38, "gg"]), "column 'cat_26': not a hex number"),
        ("\t".join(["1", *["1"] * 38, "1" * 40]), "column 'cat_26': not a hex number"),
    ],
)
def test_criteo_rows(bad: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "day_0"
    path.write_bytes(sample.criteo_text(sample.criteo_rows(5)) + bad.encode() + b"\n")
    config = DataConfig(format="criteo", path=str(path))
    with pytest.raises(BadRowError, match=re.escape(reason)) as caught:
        open_dataset(config)
    assert caught.value.row.line == 6
    books = open_dataset(config, bad_rows="quarantine").books
    assert (books.read, books.used, books.set_aside) == (6, 5, 1)


def test_options_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(HEADER + GOOD)
    words = FeatureSpec(labels=("click",), categorical=(CategoricalColumn(name="city", encoding="vocabulary"),))
    (tmp_path / "words.csv").write_bytes(b"click,city\n1,Rome\n")
    with pytest.raises(ValueError, match="id_modulo=7: no categorical column has encoding"):
        open_dataset(DataConfig(format="csv", path=str(tmp_path / "words.csv"), schema=words, id_modulo=7))
    with pytest.raises(ValueError, match="validation_path or test_path is given as well"):
        open_dataset(DataConfig(format="csv", path=str(path), schema=SPEC, split="time", test_path=str(path)))
    with pytest.raises(ValueError, match="training part has no row"):
        open_dataset(DataConfig(format="csv", path=str(path), schema=SPEC, split="time"))
    with pytest.raises(ValueError, match="Criteo files have no key columns"):
        open_dataset(DataConfig(format="criteo", path=str(path), schema=SPEC))
