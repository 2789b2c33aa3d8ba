"""Headers that CsvExampleGen would take wrongly are refused before anything runs."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.csv_files import check_headers, find_splits, first_bad_row
from tfdlrm import DenseColumn, FeatureSpec

SPEC = FeatureSpec(labels=("click",), dense=(DenseColumn(name="商品"),))
GOOD = "click,商品,user id\r\n1,2,3\r\n"


def folder(path: Path, **files: str | bytes) -> Path:
    for name, content in files.items():
        (path / f"{name}.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def check(path: Path, spec: FeatureSpec | None = SPEC) -> None:
    check_headers(path, find_splits(path), spec)


def test_good_files_pass(tmp_path) -> None:
    check(folder(tmp_path, a=GOOD, b=GOOD.replace("\r\n", "\n"), c="click,商品,user id\n"))
    assert first_bad_row(tmp_path, find_splits(tmp_path)) is None


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"a": GOOD, "b": "商品,click,user id\n1,2,3\n"},
            "b.csv: its columns are 商品, click, user id, and those of a.csv click, 商品, user id.",
        ),
        ({"a": GOOD, "b": ""}, "b.csv: no header line"),
        ({"a": b"\xef\xbb\xbf" + GOOD.encode()}, "a.csv: a byte order mark would be part of the first name"),
        ({"a": "click,商品,商品\n1,2,3\n"}, "a.csv: column '商品' is there 2 times"),
        ({"a": 'click,"商品, net"\n1,2\n'}, "a.csv: the header has quotes"),
        ({"a": "click,caf\xe9\n1,2\n".encode("latin-1")}, "a.csv, line 1: not UTF-8"),
        ({"a": "click,商品\n"}, "no row below the header"),
        ({"a": "clicks,商品\n1,2\n"}, "a.csv: no column 'click' of the schema, did you mean 'clicks'"),
    ],
)
def test_what_would_be_taken_wrongly_is_named(tmp_path, files, message) -> None:
    folder(tmp_path, **files)
    with pytest.raises(ValueError, match=re.escape(message)):
        check(tmp_path)


def test_the_row_id_need_not_be_a_column(tmp_path) -> None:
    """Readers make it where it is none; `preprocessing_fn` does without."""
    check(folder(tmp_path, a=GOOD), replace(SPEC, keys=("row_id",)))


def test_with_a_curated_schema_missing_columns_are_its_affair(tmp_path) -> None:
    folder(tmp_path, a="clicks,商品\n1,2\n")
    check(tmp_path, None)


def test_a_file_in_the_place_of_the_folder(tmp_path) -> None:
    folder(tmp_path, a=GOOD)
    with pytest.raises(FileNotFoundError, match=r"a\.csv: is a file"):
        find_splits(tmp_path / "a.csv")


def test_the_first_bad_row_after_cells_of_several_lines(tmp_path) -> None:
    folder(tmp_path, a='click,商品\n1,"two\nlines"\n0\n')
    found = str(first_bad_row(tmp_path, find_splits(tmp_path)))
    assert found.endswith("a.csv, line 4: 1 cells, and the header has 2: '0'. Correct the row.")
