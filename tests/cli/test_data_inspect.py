"""`tfdlrm data inspect`: terminal, files, errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.data import sample_rows as sample
from tfdlrm.cli.data_inspect import add_command
from tfdlrm.cli.program import main

SCHEMA = """\
labels: [y]
dense: [{name: x}]
categorical: [{name: c, encoding: vocabulary}]
"""


def _add_data(commands):
    add_command(commands.add_parser("data").add_subparsers(required=True))


def _run(*argv: str) -> int:
    return main(["data", "inspect", *argv], [_add_data])


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text("y,x,c\n" + "".join(f"{k % 2},{k % 5},v{k % 4}\n" for k in range(40)) + "3,1,a\n")
    (tmp_path / "schema.yaml").write_text(SCHEMA)
    return path


def test_the_terminal_shows_every_part(rows, capsys):
    assert _run(str(rows)) == 0
    shown = capsys.readouterr().out
    for words in (
        "csv (by its name)",
        "41 rows read = 40 used + 1 set aside",
        "train: 36 rows",
        "Label 'y' by groups of contiguous rows",
        "50.00%",
        "Dense columns",
        "Categorical columns",
        "bad rows  1: column 'y': the label is not 0 or 1",
        "line 42, found '3",
        "warning",
    ):
        assert words in shown


def test_files_are_written(rows, tmp_path, capsys):
    files = {flag: tmp_path / f"report.{flag}" for flag in ("json", "html", "png")}
    assert _run(str(rows), *(part for flag, file in files.items() for part in (f"--{flag}", str(file)))) == 0
    plain = json.loads(files["json"].read_text())
    assert plain["rows_used"] == 40
    assert plain["labels"][0]["rate"] == 0.5
    assert plain["dense"][0]["quantiles"]["50%"] == 2.0
    assert files["html"].read_text().startswith("<!DOCTYPE html>")
    assert files["png"].read_bytes().startswith(b"\x89PNG")


def test_flags_reach_the_reader(tmp_path, capsys):
    path = tmp_path / "train.txt"
    path.write_bytes(sample.criteo_text(sample.criteo_rows(60)))
    argv = ["--format", "criteo", "--id-modulo", "3", "--max-rows", "20", "--sections", "2", "--max-distinct", "1000"]
    assert _run(str(path), *argv, "--test", str(path), "--json", str(tmp_path / "r.json")) == 0
    plain = json.loads((tmp_path / "r.json").read_text())
    assert [part["rows"] for part in plain["parts"]] == [20, 20]
    assert plain["categorical"][0]["distinct"] <= 3
    assert len(plain["labels"][0]["by_section"]) == 3


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["{folder}/none.csv"], "there is no such file"),
        (["{folder}"], "neither manifest.json"),
        (["{folder}/rows.csv", "--format", "parquet"], "not a readable Parquet file"),
        (["{folder}/rows.csv", "--format", "criteo"], "none of the 42 rows is one of format 'criteo'"),
        (["{folder}/rows.csv", "--max-distinct", "1"], "max_distinct"),
        (["{folder}/rows.csv", "--html", "{folder}"], "a folder. Give the name of a file"),
        (["{folder}/rows.csv", "--json", "{folder}/no/x.json"], "there is no folder"),
        (["{folder}/rows.csv", "--schema", "{folder}/no.yaml"], "no schema there"),
        (["{folder}/rows.csv", "--day-column", "when"], "day_column='when' is not there"),
    ],
)
def test_errors_are_one_line(rows, tmp_path, capsys, argv, message):
    assert _run(*(part.format(folder=tmp_path) for part in argv)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
