"""Rows that are not as they should be are stopped before anything is trained, and named."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.config import ExamplesConfig, PipelineConfig, ShiftConfig
from pipelines.pipeline import create_pipeline
from pipelines.run_local import PipelineError, run_local
from tests.pipelines.generated_rows import HEADER
from tests.pipelines.pipeline_run import Run, pipeline_run

Rows = list[dict[str, str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return pipeline_run(tmp_path_factory.getbasetemp())


def read_rows(file: Path) -> Rows:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def write_rows(file: Path, rows: Rows) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def changed_rows(run: Run, folder: Path, change: Callable[[Rows], Rows]) -> str:
    """The run's rows after a change, in a folder of their own."""
    for file in run.data.glob("*.csv"):
        write_rows(folder / file.name, change(read_rows(file)))
    return str(folder)


def refused(config: PipelineConfig) -> str:
    before = set(Path(config.root).glob("Trainer/model/*"))
    with pytest.raises(PipelineError) as error:
        run_local(create_pipeline(config))
    assert set(Path(config.root).glob("Trainer/model/*")) == before
    assert len(list(config.serving.iterdir())) == 1
    return str(error.value)


def without(name: str) -> Callable[[Rows], Rows]:
    return lambda rows: [{key: cell for key, cell in row.items() if key != name} for row in rows]


def with_cells(name: str, cell: Callable[[dict[str, str]], str]) -> Callable[[Rows], Rows]:
    return lambda rows: [{**row, name: cell(row)} for row in rows]


CURATED = [
    (without("genre"), ["column 'genre': Column dropped", "(eval, train)"]),
    (with_cells("age", lambda row: "old"), ["column 'age': Unexpected data type", "INT", "STRING"]),
    (with_cells("genre", lambda row: row["genre"] and "opera"), ["column 'genre': Unexpected string values"]),
]


@pytest.mark.parametrize(("change", "named"), CURATED)
def test_what_a_curated_schema_does_not_allow(run, tmp_path, change, named) -> None:
    schema = run.artifact("SchemaGen/schema/*/schema.pbtxt")
    config = replace(
        run.config, data=changed_rows(run, tmp_path / "rows", change), examples=ExamplesConfig(schema=str(schema))
    )
    message = refused(config)
    assert message.startswith("ExampleGate: the examples are not accepted")
    for part in named:
        assert part in message
    log = Path(message.rpartition("Log: ")[2])
    assert "ExampleGate" in log.name
    assert "not accepted" in log.read_text()
    report = Path(message.partition("See ")[2].partition("report.html")[0])
    assert "genre" in (report / "report.html").read_text()
    assert json.loads((report / "problems.json").read_text())


ALWAYS = [
    (
        with_cells("level", lambda row: "nan"),
        "column 'level': 100.0% of the values are NaN, and examples.max_nan is 1.0%",
    ),
    (with_cells("level", lambda row: row["click"]), "column 'level' has the value of the label 'click' in every row"),
    (
        with_cells("price", lambda row: "cheap" if row["line"] == "0/5" else row["price"]),
        "column 'price': text ('cheap')",
    ),
    (with_cells("click", lambda row: "" if row["line"] == "0/5" else row["click"]), "label 'click': 1 of "),
    (with_cells("click", lambda row: "0"), "label 'click': it is 0 in every row"),
    (with_cells("click", lambda row: "yes" if row["click"] == "1" else "no"), "label 'click': text ("),
    (
        with_cells("click", lambda row: "2" if row["line"].endswith("7") else row["click"]),
        "label 'click': values from 0",
    ),
]


@pytest.mark.parametrize(("change", "named"), ALWAYS)
def test_what_is_wrong_whatever_the_schema(run, tmp_path, change, named) -> None:
    assert named in refused(replace(run.config, data=changed_rows(run, tmp_path / "rows", change)))


def test_a_column_that_has_the_labels_statistics_by_chance_is_accepted(run, tmp_path) -> None:
    """The labels of the rows in another order; the run then ends at a threshold of drift."""
    for name, split in (("rows-0.csv", "train"), ("rows-1.csv", "eval")):
        rows = read_rows(run.data / name)
        shuffled = [{**row, "level": other["click"]} for row, other in zip(rows, rows[::-1], strict=True)]
        write_rows(tmp_path / "rows" / split / name, shuffled)
    stop = ExamplesConfig(skew=ShiftConfig(columns={"user": 0.0}))
    message = refused(replace(run.config, data=str(tmp_path / "rows"), examples=stop))
    assert "column 'user'" in message
    assert "column 'level'" not in message


def test_a_row_that_transform_refuses_is_one_line(run, tmp_path) -> None:
    changed = with_cells("item", lambda row: "77" if row["line"].endswith("/7") else row["item"])
    message = refused(replace(run.config, data=changed_rows(run, tmp_path / "rows", changed)))
    said, _, log = message.partition(" Log: ")
    assert said == "Transform: column 'item': the id 77 is not in [0, 30), the rows of 'item'."
    assert "Traceback" in Path(log).read_text()


def test_drift_from_the_rows_accepted_last_and_not_from_those_refused(run, tmp_path) -> None:
    moved = changed_rows(run, tmp_path / "rows", with_cells("age", lambda row: str(int(row["age"] or 40) + 60)))
    config = replace(run.config, data=moved, examples=ExamplesConfig(drift=ShiftConfig(default=0.2)))
    first = refused(config)
    assert "column 'age': its values are" in first
    assert "the rows accepted last" in first
    assert "column 'price'" not in first
    # again: what was refused is no baseline
    assert "column 'age': its values are" in refused(config)


def test_drift_to_missing_values(run, tmp_path) -> None:
    """Empty cells, which are no NaN."""
    emptied = with_cells("price", lambda row: row["price"] if row["line"].endswith("1") else "")
    config = replace(
        run.config,
        data=changed_rows(run, tmp_path / "rows", emptied),
        examples=ExamplesConfig(drift=ShiftConfig(default=0.2)),
    )
    message = refused(config)
    assert "column 'price': its values are" in message
    assert message.count("column ") == 1


def test_skew_between_the_splits(run, tmp_path) -> None:
    """Which rows are for evaluation is not known before; a threshold of 0 finds any difference."""
    config = replace(run.config, examples=ExamplesConfig(skew=ShiftConfig(columns={"user": 0.0})))
    message = refused(config)
    assert "column 'user'" in message
    assert "the rows for training" in message


def test_a_split_without_rows(run, tmp_path) -> None:
    data = tmp_path / "rows"
    data.mkdir()
    (file, *_) = sorted(run.data.glob("*.csv"))
    (data / "rows.csv").write_text("\n".join(file.read_text().splitlines()[:2]) + "\n")
    message = refused(replace(run.config, data=str(data)))
    assert ": no row. Give more rows, or divide them yourself in folders." in message


BAD_LINES = [
    (b"1,2,3", f"line 4: 3 cells, and the header has {len(HEADER)}: '1,2,3'. Correct the row."),
    (
        b"caf\xe9" + b"," * (len(HEADER) - 1),
        "line 4: not UTF-8 (invalid continuation byte at byte 3). Save it as UTF-8.",
    ),
]


@pytest.mark.parametrize(("line", "named"), BAD_LINES)
def test_a_row_that_cannot_be_read_is_named_by_file_and_line(run, tmp_path, line, named) -> None:
    data = Path(changed_rows(run, tmp_path / "rows", lambda rows: rows))
    lines = (data / "rows-0.csv").read_bytes().splitlines(keepends=True)
    (data / "rows-0.csv").write_bytes(b"".join([*lines[:3], line + b"\r\n", *lines[3:]]))
    message = refused(replace(run.config, data=str(data)))
    assert message.startswith(f"CsvExampleGen: {data / 'rows-0.csv'}, {named}")


def test_a_curated_schema_that_is_missing_is_named(run, tmp_path) -> None:
    file = tmp_path / "schema.pbtxt"
    config = replace(run.config, examples=ExamplesConfig(schema=str(file)))
    with pytest.raises(FileNotFoundError, match=r"schema\.pbtxt: no schema there"):
        create_pipeline(config)
    file.write_text("feature { nam: 3 }")
    with pytest.raises(ValueError, match=r'schema\.pbtxt: line 1:11 : .*"nam"'):
        create_pipeline(config)


def test_an_edited_schema_is_read_again(run, tmp_path) -> None:
    """TFX looks at a schema's path alone."""
    file = tmp_path / "schema.pbtxt"
    text = run.artifact("SchemaGen/schema/*/schema.pbtxt").read_text()
    file.write_text(text.replace("drama", "opera"))
    config = replace(run.config, examples=ExamplesConfig(schema=str(file)))
    assert "drama" in refused(config)
    file.write_text(text.replace("comedy", "operetta"))
    assert "comedy" in refused(config)
