"""`tfdlrm data schema` of files: header or none, separators, samples, bad rows, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.test_infer import KINDS, ROWS, WHOLE
from tfdlrm.cli import main
from tfdlrm.config import DataConfig
from tfdlrm.data import open_dataset
from tfdlrm.data.infer_files import propose_for_file


def test_a_file_without_a_header(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.data"
    path.write_text(
        "".join(
            f"{n}, {kind}, {'?' if n % 5 else 3},yes\n{n + 1}, {kind}, 4,no\n"
            for n, kind in zip(WHOLE, KINDS, strict=True)
        )
    )
    spec = propose_for_file(path, "4").spec
    assert spec.raw.to_dict() == {
        "columns": ["column_1", "column_2", "column_3", "column_4"],
        "missing": ["?"],
        "label_values": {"column_4": ["no", "yes"]},
        "strip": True,
    }
    assert spec == propose_for_file(path, "column_4").spec
    assert open_dataset(DataConfig(format="csv", path=str(path), split="none", schema=spec)).books.used == 2 * ROWS
    swapped = propose_for_file(path, "4", positive="no").spec
    assert dict(swapped.raw.label_values) == {"column_4": ("yes", "no")}
    path.write_text("a;b;c\n" + "1;x;0\n2;y;1\n" * 30)
    assert propose_for_file(path, "3").spec.labels == ("c",)  # a header, and the label by its place
    assert main(["data", "schema", str(path), "--label", "B2"]) == 2
    assert "no column 'B2' in the first line" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "label", "says"),
    [
        ("a,y\n1,0\n2,0\n", "y", "label 'y' has 1 value where two are expected: '0' (2 rows). Give a column of two"),
        ("a,y\n1,0\n2,1\n3,2\n", "y", "label 'y' has 3 values where two are expected"),
        ("a,y\n1,\n2,\n", "y", "label 'y' has 0 values where two are expected: every cell is empty."),
        ("y\n1\n0\n", "y", "no column to learn from beside the label: 'y': '1' in 50.00% of the rows"),
        ("a,y\n1\n2,0\n3,0\n", "y", "(1 rows are bad, the first in line 2: 1 fields where 2 are expected: a"),
        ("a,y\n1,cat\n2,dog\n", "y", "'cat' (1 rows), 'dog' (1 rows). Say which of them is 1: --positive 'dog'"),
        ("a,y\n1,0\n", "x", "no column 'x' in the first line"),
        ("a,y\n1,0\n", "9", "no field 9 in the first line, which has 2"),
        ("a,a,y\n1,2,0\n", "y", "column 'a' occurs twice in the header"),
        ("a,,column_2,y\n1,2,3,0\n", "y", "column 'column_2' occurs twice in the header"),
        ("a,y\n", "y", "no row to look at"),
        ("", "y", "empty"),
        ("a,y\n1\n2\n", "y", "no row to look at; 2 rows are bad, the first in line 2: 1 fields where 2 are expected"),
        ("dense,y\na,0\nb,1\n", "y", "'dense' is the name of the dense vector: rename it"),
    ],
)  # fmt: skip
def test_what_is_refused(text: str, label: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(text)
    assert main(["data", "schema", str(path), "--label", label]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("first", ["1,b,0.577", "2,1,b", "u4,0.7,1"])
def test_a_place_is_not_taken_for_a_cell_of_the_first_row(first: str, tmp_path: Path) -> None:
    """Where the first line has the label's place among its values, it is a row all the same."""
    path = tmp_path / "rows.csv"
    place = {"1,b,0.577": "1", "2,1,b": "2", "u4,0.7,1": "3"}[first]
    lines = [
        first,
        *(",".join("01"[k % 2] if c == int(place) - 1 else f"v{k % 3}" for c in range(3)) for k in range(40)),
    ]
    path.write_text("\n".join(lines) + "\n")
    spec = propose_for_file(path, place).spec
    assert spec.labels == (f"column_{place}",)
    assert spec.raw.columns == ("column_1", "column_2", "column_3")


def test_a_header_can_be_said_to_be_there_or_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a,b,yes\n" + "c,d,no\ne,b,yes\n" * 20)
    assert propose_for_file(path, "3", positive="yes", header=False).spec.labels == ("column_3",)
    assert main(["data", "schema", str(path), "--label", "3", "--no-header"]) == 0
    assert "all 41 rows of rows.csv (fields by comma, no header line)" in capsys.readouterr().out
    path.write_text("7,b,1\n" + "c,d,no\ne,b,yes\n" * 20)
    assert propose_for_file(path, "1", header=True).spec.labels == ("1",)
    assert main(["data", "schema", str(tmp_path), "--label", "3", "--no-header"]) == 2  # the first file of a folder
    assert "rows.csv: label 'column_3' has 3 values" in capsys.readouterr().err


def test_rows_without_a_label_are_told_to_the_next_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("y,a,time\n" + "0,x,2024-01-01\n,y,\n1,x,2024-01-02\n" * 20)
    assert main(["data", "schema", str(path), "--label", "y"]) == 0
    said = capsys.readouterr()
    assert "next: tfdlrm data prepare" in said.err
    assert said.err.endswith("--split random --bad-rows quarantine\n")
    assert "a time (date), but for 20 rows: they cannot be split by it" in said.out


def test_a_column_without_a_name_is_called_by_its_place(tmp_path: Path) -> None:
    """As pandas writes an index; the readers call it so, too."""
    path = tmp_path / "rows.csv"
    path.write_text(",time,y,x\n" + "".join(f"{k},{880_000_000 + k},{k % 2},{k % 5}\n" for k in range(40)))
    spec = propose_for_file(path, "y").spec
    assert spec.keys == ("column_1", "time")
    config = DataConfig(format="csv", path=str(path), split="none", schema=spec)
    assert open_dataset(config).train.columns.keys["column_1"].tolist() == list(range(40))


def test_times_without_a_name_are_told_by_their_values(tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    path.write_text("".join(f"{k % 7}\t{k % 2}\t{880_000_000 + k * 1000}\t{900_000_001 + k % 3}\n" for k in range(40)))
    spec = propose_for_file(path, "2").spec
    assert spec.keys == ("column_3",)
    assert spec.feature_names == ("column_1", "column_4")  # three values are no times


def test_the_sample_is_the_first_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("y,x\n" + "0,a\n1,b\n" * 60_000 + "1,c\n")
    few, all_rows = propose_for_file(path, "y"), propose_for_file(path, "y", all_rows=True)
    assert few.notes[0].startswith("Proposed from the first 100,000 rows")
    assert all_rows.notes[0].startswith("Proposed from all 120,001 rows")
    assert "2 values" in few.reasons["x"]
    assert "3 values" in all_rows.reasons["x"]


def test_bad_rows_are_said(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("y,x\n0,a\n1,b,c\n1,b\n")
    found = propose_for_file(path, "y")
    assert "1 rows are bad, the first in line 3: 3 fields where 2 are expected" in found.notes[0]
    assert found.has_bad_rows  # the next command sets them aside
