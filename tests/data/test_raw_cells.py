"""Raw files that need a word from the schema: no header, marks of missing values, named labels, columns left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.data import sample_rows as sample
from tfdlrm.cli import main
from tfdlrm.config import DataConfig
from tfdlrm.data import BadRowError, Splits, open_dataset, open_rows
from tfdlrm.data.inspect import inspect_data
from tfdlrm.data.opening import from_frame
from tfdlrm.data.prepare import PrepareConfig, prepare
from tfdlrm.schema import CategoricalColumn, DenseColumn, FeatureSpec, RawCells

NAMES = ("age", "work", "nothing", "income", "hours")
ROWS = (
    ("39", " State-gov", "7", " 50000+.", "40"),
    ("50", " ?", "7", " - 50000.", "?"),
    (" ? ", "Private", "7", "- 50000.", "NA"),
    ("28", "NA", "7", "50000+.", "13"),
)
SPEC = FeatureSpec(
    labels=("income",),
    dense=(DenseColumn(name="age", missing=30.0), DenseColumn(name="hours")),
    categorical=(CategoricalColumn(name="work", encoding="vocabulary", id_policy="oov"),),
    ignored=("nothing",),
    raw=RawCells(missing=("?", "NA"), label_values={"income": ("- 50000.", "50000+.")}),
)
HEADERLESS = FeatureSpec.from_dict({**SPEC.to_dict(), "raw": {**SPEC.raw.to_dict(), "columns": list(NAMES)}})


def write(path: Path, rows: tuple[tuple[str, ...], ...] = ROWS, *, header: bool = True, separator: str = ",") -> Path:
    lines = ([NAMES] if header else []) + list(rows)
    path.write_text("".join(separator.join(line) + "\n" for line in lines))
    return path


def parquet(path: Path) -> Path:
    columns = zip(NAMES, zip(*ROWS, strict=True), strict=True)
    pl.DataFrame([pl.Series(name, cells) for name, cells in columns]).write_parquet(path)
    return path


FILES = {
    "header": lambda folder: (write(folder / "rows.csv"), SPEC),
    "no header": lambda folder: (write(folder / "rows.csv", header=False), HEADERLESS),
    "tabs, no header": lambda folder: (write(folder / "rows.tsv", header=False, separator="\t"), HEADERLESS),
    "parquet": lambda folder: (parquet(folder / "rows.parquet"), SPEC),
}


def read(path: Path, spec: FeatureSpec) -> Splits:
    data_format = "parquet" if path.suffix == ".parquet" else "csv"
    return open_dataset(DataConfig(format=data_format, path=str(path), split="none", schema=spec))


@pytest.mark.parametrize("kind", FILES)
def test_every_file_gives_the_same_rows(kind: str, tmp_path: Path) -> None:
    path, spec = FILES[kind](tmp_path)
    splits = read(path, spec)
    rows = splits.train.columns
    np.testing.assert_array_equal(rows.labels[:, 0], [1, 0, 0, 1])
    np.testing.assert_array_equal(rows.dense, [[39, 40], [50, 0], [30, 0], [28, 13]])
    np.testing.assert_array_equal(rows.ids[:, 0], [1, 2, 3, 2])
    assert splits.preprocessing.vocabularies["work"].values.to_list() == [" State-gov", "", "Private"]
    report = inspect_data(path, schema=spec)
    assert {column.name: column.missing_rate for column in (*report.dense, *report.categorical)} == {
        "age": 0.25,
        "hours": 0.5,
        "work": 0.5,
    }


@pytest.mark.parametrize("kind", FILES)
def test_prepared_rows_are_the_same(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, spec = FILES[kind](tmp_path)
    schema = spec.save(tmp_path / "given" / "schema.yaml")
    assert FeatureSpec.load(schema) == spec
    assert main(["data", "prepare", str(path), str(tmp_path / "out"), "--schema", str(schema)]) == 0
    assert "4 rows read = 4 written + 0 quarantined" in capsys.readouterr().out
    prepared = open_dataset(DataConfig(format="prepared", path=str(tmp_path / "out")))
    expected = read(path, spec)
    (batch,), (other,) = (
        list(splits.train.batches(8, shuffle=False, drop_remainder=False)) for splits in (prepared, expected)
    )
    np.testing.assert_array_equal(batch[0]["dense"], other[0]["dense"])
    np.testing.assert_array_equal(batch[0]["work"], other[0]["work"])
    np.testing.assert_array_equal(batch[1], other[1])


@pytest.mark.parametrize("mark", ["nan", "-1", "inf", "1e3"])
def test_a_mark_may_be_a_number(mark: str, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", tuple((mark, *row[1:]) for row in ROWS))
    spec = FeatureSpec.from_dict({**SPEC.to_dict(), "raw": {**SPEC.raw.to_dict(), "missing": ["?", "NA", mark]}})
    np.testing.assert_array_equal(read(path, spec).train.columns.dense[:, 0], [30] * 4)


def test_a_file_without_labels_or_header(tmp_path: Path) -> None:
    trained = read(write(tmp_path / "rows.csv", header=False), HEADERLESS)
    rows = tuple(row[:3] + row[4:] for row in ROWS)
    new = write(tmp_path / "new.csv", rows, header=False)
    dataset = open_rows(DataConfig(format="csv", path="-"), new, trained.preprocessing)
    assert np.isnan(dataset.columns.labels).all()
    np.testing.assert_array_equal(dataset.columns.ids, trained.train.columns.ids)


def test_a_third_label_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", (*ROWS, ("1", "x", "7", "maybe", "1"), ("1", "x", "7", "?", "1")))
    with pytest.raises(
        BadRowError, match=r"line 6, column 'income': the label is not '- 50000\.' or '50000\+\.' \(found 'm"
    ):
        read(path, SPEC)
    splits = open_dataset(DataConfig(format="csv", path=str(path), split="none", schema=SPEC), bad_rows="quarantine")
    assert (splits.books.used, splits.books.set_aside) == (4, 2)


def test_a_header_that_is_none(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", header=False)
    with pytest.raises(ValueError, match=r"no column of the schema, in 5 fields: 39, State-gov, .*raw\.columns"):
        read(path, SPEC)


def test_another_number_of_fields(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", tuple((*row, "9") for row in ROWS), header=False)
    with pytest.raises(ValueError, match=r"rows\.csv, line 1: 6 fields by ',', and raw\.columns of the schema names 5"):
        read(path, HEADERLESS)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"ignored": ["age"]}, "ignored names 'age', which is a label, feature or key too"),
        ({"ignored": ["x", "x"]}, "ignored.*'x'"),
        ({"raw": {"columns": ["age", "work"]}}, "column '.*' is not among raw.columns"),
        ({"raw": {"columns": [*NAMES, "more"]}}, "raw.columns has 'more', which is no column of the schema"),
        ({"raw": {"columns": [*NAMES, "age"]}}, "'age'"),
        ({"raw": {"label_values": {"income": ["a"]}}}, "label_values of 'income' is .*Give two texts"),
        ({"raw": {"label_values": {"income": ["a", " a "]}}}, "label_values of 'income' is .*Give two texts"),
        ({"raw": {"label_values": {"income": ["0", 1]}}}, "label_values of 'income'"),
        ({"raw": {"label_values": {"income": "ab"}}}, "label_values of 'income'"),
        ({"raw": {"label_values": {"age": ["a", "b"]}}}, "'age'"),
        ({"raw": {"missing": "?"}}, "missing"),
        ({"raw": {"missing": [None]}}, "missing"),
        ({"raw": {"header": False}}, "header"),
    ],
)
def test_what_a_schema_refuses(changes: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        FeatureSpec.from_dict({**SPEC.to_dict(), **changes})


def test_the_format_is_guessed_or_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train.txt").write_bytes(sample.criteo_text(sample.criteo_rows(9)))
    command = ["data", "prepare", str(tmp_path / "train.txt"), str(tmp_path / "out")]
    assert main(command) == 2
    assert (
        "looks like criteo (by its first line of 40 tab-separated fields without names). Give --format, one of: "
        in (capsys.readouterr().err)
    )
    assert main([*command, "--format", "criteo-kaggle"]) == 0
    assert main(["data", "prepare", str(tmp_path / "out"), str(tmp_path / "again")]) == 2
    assert "Give --format" in capsys.readouterr().err
    write(tmp_path / "rows.csv")
    assert main(["data", "prepare", str(tmp_path / "rows.csv"), str(tmp_path / "no")]) == 2
    assert "rows.csv: format 'csv' needs a schema. Give --schema FILE, or put schema.yaml" in capsys.readouterr().err


def test_prepare_splits_by_named_labels(tmp_path: Path) -> None:
    """`keep_negatives` goes by the label that the texts stand for."""
    rows = tuple(ROWS[k % 4] for k in range(400))
    path = write(tmp_path / "rows.csv", rows, header=False)
    config = PrepareConfig(format="csv", schema=HEADERLESS, keep_negatives=0.25, seed=1)
    books = prepare(config, [path], tmp_path / "out").books
    assert books["read"] == 400
    assert 200 < books["written"] < 300


STRIPPED = replace(
    SPEC,
    dense=(),
    categorical=(
        CategoricalColumn(name="work", encoding="vocabulary", id_policy="oov"),
        CategoricalColumn(name="age", encoding="vocabulary", id_policy="oov"),
        CategoricalColumn(name="hours", encoding="hash", hotness=None, separator="|"),
    ),
    vocabulary_sizes={"hours": 50},
    raw=replace(SPEC.raw, strip=True),
)


def test_blanks_around_texts_do_not_count_where_the_schema_says_so(tmp_path: Path) -> None:
    """In cells and in the pieces of bags, in every reader."""
    tidy = (("a", "b", "7", "50000+.", "x|y"), ("c", "d", "7", "- 50000.", "y"), ("a", "?", "7", "50000+.", ""))
    blank = tuple(tuple(f" {cell}\t".replace("|", " | ") for cell in row) for row in tidy)
    found = []
    for number, rows in enumerate((tidy, blank)):
        path = write(tmp_path / f"{number}.csv", rows)
        frame = pl.DataFrame(dict(zip(NAMES, map(list, zip(*rows, strict=True)), strict=True)))
        frame.write_parquet(tmp_path / f"{number}.parquet")
        for dataset in (
            read(path, STRIPPED),
            read(tmp_path / f"{number}.parquet", STRIPPED),
            from_frame(frame, STRIPPED, split="none"),
        ):
            features, _ = next(iter(dataset.train.batches(3)))
            found.append({name: str(value.numpy().tolist()) for name, value in features.items()})
    assert all(each == found[0] for each in found)
    other = replace(STRIPPED, raw=replace(STRIPPED.raw, strip=False))
    assert read(write(tmp_path / "rows.csv", (*tidy, *blank)), other).preprocessing.vocabularies["work"].size == 5 + 1
    assert FeatureSpec.infer(pl.read_csv(tmp_path / "1.csv", has_header=True), "income", positive="50000+.").raw.strip
    assert not FeatureSpec.infer(pl.read_csv(tmp_path / "0.csv"), "income", positive="50000+.").raw.strip
