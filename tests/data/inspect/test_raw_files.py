"""Reports of raw files: every number against the oracle, in every format; bad rows, empty and odd files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.data import sample_rows as sample
from tests.data.inspect import oracle
from tfdlrm.data.criteo import kaggle_split
from tfdlrm.data.inspect import DataReport, inspect_data
from tfdlrm.data.raw_formats import AVAZU_COLUMNS
from tfdlrm.data.tabular import csv_source
from tfdlrm.schema import CategoricalColumn, DenseColumn, FeatureSpec, criteo_feature_spec

NUM_ROWS = 300
ROWS = sample.sample_rows(NUM_ROWS, seed=11)
FORMATS = {
    "csv": lambda folder: sample.write_csv(folder / "rows.csv", ROWS),
    "gzip": lambda folder: sample.write_csv(folder / "rows.csv.gz", ROWS),
    "tabs": lambda folder: sample.write_csv(folder / "rows.tsv", ROWS, separator="\t"),
    "parquet": lambda folder: sample.write_parquet(folder / "rows.parquet", ROWS),
    "arrow": lambda folder: sample.write_arrow(folder / "rows.feather", ROWS),
    "parquet of another name": lambda folder: sample.write_parquet(folder / "rows", ROWS),
}
SMALL = FeatureSpec(
    labels=("y",), dense=(DenseColumn(name="x"),), categorical=(CategoricalColumn(name="c", encoding="vocabulary"),)
)


def _small(folder: Path, text: str, name: str = "rows.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def _as_bags(name: str, rows: list[sample.Row]) -> list[list[object]]:
    if name == "code":
        return [[int(row["code"] or "0", 16)] for row in rows]
    return [row[name] if isinstance(row[name], list) else [row[name]] for row in rows]


def _texts(report: DataReport) -> str:
    return "\n".join(f"{found.severity} {found.column}: {found.text}" for found in report.findings)


@pytest.mark.parametrize("form", FORMATS)
def test_every_number_of_every_column(form: str, tmp_path: Path) -> None:
    report = inspect_data(FORMATS[form](tmp_path), schema=sample.SPEC)
    assert report.data_format == form.split()[0].replace("gzip", "csv").replace("tabs", "csv")
    assert (report.rows_read, report.rows_used, report.rows_set_aside) == (NUM_ROWS, NUM_ROWS, 0)
    assert report.estimates == ()
    for label in report.labels:
        values = np.array([row[label.name] for row in ROWS])
        assert label.rate == pytest.approx(values.mean())
        assert [group.rows for group in label.by_section] == [43] * 6 + [42]
        assert label.by_section[0].rate == pytest.approx(values[:43].mean())
        assert label.by_section[6].rate == pytest.approx(values[258:].mean())
    for dense in report.dense:
        expected = oracle.dense_numbers([row[dense.name] for row in ROWS])
        quantiles = expected.pop("quantiles")
        assert {name: getattr(dense, name) for name in expected} == pytest.approx(expected)
        assert dense.quantiles == pytest.approx(quantiles)
        assert dense.histogram is not None
        assert sum(dense.histogram.shares["train"]) == pytest.approx(1)
    for ids in report.categorical:
        bags = _as_bags(ids.name, ROWS)
        expected = oracle.id_numbers(bags)
        counts = expected.pop("counts")
        assert {name: getattr(ids, name) for name in expected} == pytest.approx(expected)
        assert [top.count for top in ids.top] == counts[:10]
        assert ids.top[0].share == pytest.approx(counts[0] / expected["occurrences"])
        assert ids.curve[0] == (1, counts[0])
        assert ids.curve[-1] == (expected["distinct"], counts[-1])
        empty = [row[ids.name] in ("", [], "00000000") for row in ROWS]
        assert ids.missing_rate == pytest.approx(np.mean(empty))
        lengths = [len(bag) for bag in bags]
        several = ids.name in ("pair", "tags", "seen")
        assert ids.bag_length == ((min(lengths), pytest.approx(np.mean(lengths)), max(lengths)) if several else None)


@pytest.mark.parametrize("form", FORMATS)
def test_drift_of_every_column(form: str, tmp_path: Path) -> None:
    report = inspect_data(FORMATS[form](tmp_path), schema=sample.SPEC)
    assert [(part.name, part.rows) for part in report.parts] == [("train", 258), ("test", 42)]
    train, test = ROWS[:258], ROWS[258:]
    found = {column.name: column for column in report.drift}
    assert set(found) == {*sample.SPEC.labels, *(c.name for c in sample.SPEC.dense), *sample.SPEC.feature_names}
    for name in sample.SPEC.labels:
        bins = [[sum(row[name] == label for row in rows) for label in (0, 1)] for rows in (train, test)]
        assert found[name].psi == pytest.approx(oracle.psi(*bins))
    for dense in sample.SPEC.dense:
        expected = oracle.dense_psi([row[dense.name] for row in train], [row[dense.name] for row in test])
        assert found[dense.name].psi == pytest.approx(expected)
    for name in sample.SPEC.feature_names:
        flat = [[token for bag in _as_bags(name, rows) for token in bag] for rows in (train, test)]
        unseen = np.mean([token not in set(flat[0]) for token in flat[1]])
        assert found[name].unseen_share == pytest.approx(unseen)
        if len(set(flat[0])) <= 50:
            assert found[name].psi == pytest.approx(oracle.id_psi(*flat))


def test_a_second_file_is_the_test_part(tmp_path: Path) -> None:
    first = sample.write_csv(tmp_path / "first.csv", ROWS[:200])
    second = sample.write_csv(tmp_path / "second.csv", ROWS[200:])
    report = inspect_data(first, schema=sample.SPEC, test_path=second)
    assert [(part.name, part.rows) for part in report.parts] == [("train", 200), ("test", 100)]
    assert [group.rows for group in report.labels[0].by_section] == [29] * 4 + [28] * 3 + [100]
    train, test = ({row["page"] for row in rows} for rows in (ROWS[:200], ROWS[200:]))
    pages = next(column for column in report.drift if column.name == "page")
    assert pages.unseen_share == pytest.approx(np.mean([row["page"] not in train for row in ROWS[200:]]))
    assert test


def test_many_blocks_give_the_same_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = sample.write_csv(tmp_path / "rows.csv", ROWS)
    whole = inspect_data(path, schema=sample.SPEC)
    monkeypatch.setitem(csv_source.__kwdefaults__, "chunk_bytes", 999)
    many = inspect_data(path, schema=sample.SPEC)
    assert json.dumps(many.categorical, default=lambda r: r.to_dict()) == json.dumps(
        whole.categorical, default=lambda r: r.to_dict()
    )
    assert many.labels == whole.labels
    assert [column.mean for column in many.dense] == pytest.approx([column.mean for column in whole.dense])
    assert [column.quantiles for column in many.dense] == [column.quantiles for column in whole.dense]
    assert [column.psi for column in many.drift] == pytest.approx([column.psi for column in whole.drift])


def _criteo_file(folder: Path, rows: list[list[object]], name: str = "train.txt") -> Path:
    path = folder / name
    content = sample.criteo_text(rows)
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


@pytest.mark.parametrize("name", ["train.txt", "day_0.gz"])
def test_criteo(name: str, tmp_path: Path) -> None:
    rows = sample.criteo_rows(703)
    report = inspect_data(_criteo_file(tmp_path, rows, name))
    assert (report.data_format, report.rows_used) == ("criteo", 703)
    assert "40 tab-separated fields" in report.how_format
    train, validation, test = kaggle_split(703)
    assert report.parts[0].rows == train.stop - train.start
    assert report.parts[1].rows == len(range(703)[validation]) + len(range(703)[test])
    for place, dense in enumerate(report.dense):
        assert dense.missing_rate == pytest.approx(np.mean([row[1 + place] is None for row in rows]))
    for place, ids in enumerate(report.categorical):
        cells = [row[14 + place] for row in rows]
        assert ids.missing_rate == pytest.approx(np.mean([int(str(cell or "0"), 16) == 0 for cell in cells]))
        assert ids.distinct == len({int(str(cell or "0"), 16) for cell in cells})
        assert len(ids.top[0].value) == 8


def test_criteo_without_labels(tmp_path: Path) -> None:
    rows = [row[1:] for row in sample.criteo_rows(50)]
    report = inspect_data(_criteo_file(tmp_path, rows, "test.txt"))
    assert (report.rows_used, report.labels[0].rows, report.labels[0].rate) == (50, 0, None)
    assert "no row has a label" in _texts(report)
    assert not any(column.kind == "label" for column in report.drift)
    json.dumps(report.to_dict(), allow_nan=False)


def test_id_modulo_and_max_rows(tmp_path: Path) -> None:
    rows = sample.criteo_rows(100)
    path = _criteo_file(tmp_path, rows)
    report = inspect_data(path, id_modulo=5, max_rows=40)
    assert (report.rows_read, report.rows_used) == (40, 40)
    assert [part.rows for part in report.parts] == [35, 5]
    assert report.categorical[0].distinct == len({int(str(row[14] or "0"), 16) % 5 for row in rows[:40]})


def test_bad_rows_are_counted_and_left_out(tmp_path: Path) -> None:
    rows = sample.criteo_rows(100)
    rows[3][0] = 7
    rows[4][0] = None
    rows[5][2] = "x"
    rows[6][20] = "zz"
    path = _criteo_file(tmp_path, rows)
    path.write_bytes(path.read_bytes() + b"a\tb\n")
    report = inspect_data(path)
    assert (report.rows_read, report.rows_used, report.rows_set_aside) == (101, 96, 5)
    assert {(bad.column, bad.rows) for bad in report.bad_rows} == {("label", 2), ("int_2", 1), ("cat_7", 1), ("", 1)}
    label = next(bad for bad in report.bad_rows if bad.column == "label")
    assert "line 4" in label.example
    assert "'7'" in label.example
    good = [row for place, row in enumerate(rows) if place not in (3, 4, 5, 6)]
    assert report.labels[0].rate == pytest.approx(np.mean([row[0] for row in good]))
    assert "5 rows (4.95%) cannot be read" in _texts(report)


def test_every_label_is_bad(tmp_path: Path) -> None:
    report = inspect_data(_small(tmp_path, "y,x,c\nnan,1,a\nnan,2,b\n"), schema=SMALL)
    assert (report.rows_read, report.rows_used) == (2, 0)
    assert report.bad_rows[0].reason == "the label is not 0 or 1"
    assert "no row can be used" in _texts(report)
    assert report.dense[0].mean is None
    assert report.categorical[0].top_1_share is None
    json.dumps(report.to_dict(), allow_nan=False)


def test_one_row(tmp_path: Path) -> None:
    report = inspect_data(_small(tmp_path, "y,x,c\n1,2.5,a\n"), schema=SMALL)
    assert report.labels[0].rate == 1.0
    assert set(report.dense[0].quantiles.values()) == {2.5}
    assert report.dense[0].std == 0.0
    assert report.categorical[0].top[0].value == "a"
    assert report.drift == ()
    assert [part.rows for part in report.parts] == [1, 0]


def test_empty_columns_and_constants(tmp_path: Path) -> None:
    lines = "".join(f"{number % 2},,a\n" for number in range(20))
    report = inspect_data(_small(tmp_path, "y,x,c\n" + lines), schema=SMALL)
    assert report.dense[0].missing_rate == 1.0
    assert (report.dense[0].quantiles, report.dense[0].histogram) == ({}, None)
    assert "warning x: every cell is empty" in _texts(report)
    assert "warning c: constant: the only id is a" in _texts(report)
    lines = "".join(f"{number % 2},3,\n" for number in range(20))
    report = inspect_data(_small(tmp_path, "y,x,c\n" + lines), schema=SMALL)
    assert "warning x: constant: every value is 3" in _texts(report)
    assert report.categorical[0].top[0].value == "(empty)"
    assert report.categorical[0].missing_rate == 1.0


@pytest.mark.parametrize(("value", "found"), [("-1", True), ("0", False)])
def test_one_value_that_holds_most_rows(value: str, found: bool, tmp_path: Path) -> None:
    """0 is what an empty cell becomes by default."""
    cells = [value if number % 3 else str(number) for number in range(60)]
    lines = "".join(f"{number % 2},{cell},{number % 5}\n" for number, cell in enumerate(cells))
    report = inspect_data(_small(tmp_path, "y,x,c\n" + lines), schema=SMALL)
    assert ("one value, -1, holds 66.7% of the rows" in _texts(report)) is found
    assert report.dense[0].top[0].count == 40 + (value == "0")


def test_leaks_are_found(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 200)
    lines = "".join(f"{label},{label},{'ab'[label]}{random.integers(0, 5)}\n" for label in labels)
    texts = _texts(inspect_data(_small(tmp_path, "y,x,c\n" + lines), schema=SMALL))
    assert "warning x: leak: it equals the label." in texts
    assert "warning c: leak: it separates the label: all rows of one value" in texts


def test_drift_is_found(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    lines = [f"{random.integers(0, 2)},{random.normal() + 3 * (k >= 1800)},{k // 1800}\n" for k in range(2100)]
    texts = _texts(inspect_data(_small(tmp_path, "y,x,c\n" + "".join(lines)), schema=SMALL))
    assert "warning x: differs between train and test" in texts
    assert "warning c: differs between train and test" in texts
    assert "warning c: 100.00% of the ids of test are not in train" in texts
    assert " y:" not in texts


def test_rates_by_day(tmp_path: Path) -> None:
    spec = FeatureSpec(labels=("y",), dense=(DenseColumn(name="x"),), keys=("day",))
    lines = "".join(f"{int(number % 4 == 0)},{number},{number // 10}\n" for number in range(100))
    path = _small(tmp_path, "y,x,day\n" + lines)
    report = inspect_data(path, schema=spec)
    assert report.grouped_by == "day, of column 'day'"
    assert [group.name for group in report.labels[0].by_section] == [str(day) for day in range(10)]
    assert [group.rate for group in report.labels[0].by_section] == [0.3, 0.2] * 5
    groups = inspect_data(path, schema=spec, day_column="x").labels[0].by_section
    assert len(groups) == 100
    with pytest.raises(ValueError, match="day_column='date' is not there"):
        inspect_data(path, schema=spec, day_column="date")


def test_quantiles_of_a_sample_are_near(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    values = random.normal(size=20_000)
    lines = "".join(f"{k % 2},{value},{k % 9}\n" for k, value in enumerate(values))
    report = inspect_data(_small(tmp_path, "y,x,c\n" + lines), schema=SMALL, sample_rows=5_000)
    found = report.dense[0]
    assert found.sampled
    assert "quantiles" in report.estimates[0]
    assert (found.quantiles["min"], found.quantiles["max"]) == (values.min(), values.max())
    assert (found.mean, found.std) == pytest.approx((values.mean(), values.std()))
    for name, level in (("1%", 0.01), ("25%", 0.25), ("50%", 0.5), ("75%", 0.75), ("99%", 0.99)):
        assert np.mean(values <= found.quantiles[name]) == pytest.approx(level, abs=0.03)
    again = inspect_data(tmp_path / "rows.csv", schema=SMALL, sample_rows=5_000)
    assert again == report


def test_more_ids_than_the_limit_are_estimated_and_said_to_be(tmp_path: Path) -> None:
    lines = "".join(f"{k % 2},{k},{k if k % 2 else 'often'}\n" for k in range(8_000))
    report = inspect_data(_small(tmp_path, "y,x,c\n" + lines), schema=SMALL, max_distinct=1_000)
    ids = report.categorical[0]
    assert not ids.exact
    assert ids.distinct == pytest.approx(4_001, rel=4 * ids.relative_error)
    assert (ids.top[0].value, ids.top[0].share) == ("often", pytest.approx(0.5))
    assert any(text.startswith("c: distinct ids") for text in report.estimates)


@pytest.mark.parametrize(
    ("make", "options", "error", "message"),
    [
        (lambda f: f / "none.csv", {}, FileNotFoundError, "there is no such file"),
        (lambda f: _small(f, ""), {}, ValueError, "the file is empty"),
        (lambda f: _small(f, "y,x,c\n"), {}, ValueError, "no row in it"),
        (lambda f: f, {}, ValueError, "a folder with neither manifest.json"),
        (lambda f: _small(f, "y,x\n1,2\n"), {}, ValueError, "column 'c' of the schema is missing"),
        (lambda f: _small(f, "y,x,c\n1,2,3\n"), {"data_format": "parquet"}, ValueError, "not a readable Parquet file"),
        (lambda f: _small(f, "y,x,c\n1,2,3\n"), {"data_format": "criteo", "schema": criteo_feature_spec()},
         ValueError, "none of the 2 rows is one of format 'criteo'"),
        (lambda f: _small(f, "y,x,c\n1,2,3\n"), {"data_format": "cvs"}, ValueError, "did you mean 'csv'"),
        (lambda f: _small(f, "y,x,c\n1,2,3\n"), {"schema": None}, ValueError, "needs a schema. Give --schema"),
        (lambda f: _small(f, "y,x,c\n1,2,3\n"), {"max_distinct": 5}, ValueError, "max_distinct"),
        (lambda f: _small(f, "y,x,c\n1,2,3\n"), {"data_format": "movielens"}, FileNotFoundError, "no such folder"),
        (lambda f: _small(f, "ARROW1\0\0", "x.arrow"), {}, ValueError, "does not end as an Arrow file does"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_clear_error(make, options, error, message, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        inspect_data(make(tmp_path), **{"schema": SMALL, **options})


def test_a_schema_beside_the_file_or_in_a_file(tmp_path: Path) -> None:
    path = _small(tmp_path, "y,x,c\n1,2,3\n0,1,3\n")
    file = SMALL.save(tmp_path / "other")
    assert inspect_data(path, schema=file).rows_used == 2
    SMALL.save(tmp_path)
    assert inspect_data(path).rows_used == 2


def test_movielens(tmp_path: Path) -> None:
    # 1997-09-20 and the day after; the ratings are not in the order of time
    (tmp_path / "x.inter").write_text(
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t1\t4\t874800000\n2\t1\t3\t874713600\n1\t2\t5\t874713601\n"
    )
    (tmp_path / "x.user").write_text(
        "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n1\t20\tM\ta\t1\n2\t30\tF\tb\t2\n"
    )
    (tmp_path / "x.item").write_text(
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n1\tA\t1990\tDrama War\n2\tB\t\t\n"
    )
    report = inspect_data(tmp_path)
    assert report.data_format == "movielens"
    assert report.grouped_by == "day, of column 'timestamp'"
    groups = [(group.name, group.rows, group.rate) for group in report.labels[0].by_section]
    assert groups == [("1997-09-20", 2, 0.5), ("1997-09-21", 1, 1.0)]
    genres = next(ids for ids in report.categorical if ids.name == "genres")
    assert genres.bag_length == (0, pytest.approx(4 / 3), 2)
    assert genres.missing_rate == pytest.approx(1 / 3)
    assert report.dense[1].missing_rate == pytest.approx(1 / 3)


AVAZU_HEADER = "id,click,hour," + ",".join(AVAZU_COLUMNS)


def _avazu(num_rows: int) -> bytes:
    """Rows of two days, 21 and 22 October 2014, as Avazu writes them."""
    random = np.random.default_rng(0)
    lines = [AVAZU_HEADER]
    for number in range(num_rows):
        hour = 14102100 + 100 * (2 * number // num_rows) + number % 24
        cells = [f"{value:08x}" for value in random.integers(0, 30, len(AVAZU_COLUMNS))]
        lines.append(f"{number},{number % 5 == 0:d},{hour},{','.join(cells)}")
    return ("\n".join(lines) + "\n").encode()


COMPRESSED = {
    "": lambda content: content,
    ".gz": gzip.compress,
    ".zst": lambda content: pa.compress(content, "zstd", asbytes=True),
}


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_an_avazu_file(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"train{suffix}"
    path.write_bytes(COMPRESSED[suffix](_avazu(400)))
    report = inspect_data(path)
    assert (report.data_format, report.rows_used, report.rows_set_aside) == ("avazu", 400, 0)
    assert [column.name for column in report.categorical] == list(AVAZU_COLUMNS)
    assert all(column.distinct == 30 for column in report.categorical)
    [clicks] = report.labels
    assert clicks.rate == pytest.approx(0.2)
    assert [(day.name, day.rows) for day in clicks.by_section] == [("2014-10-21", 200), ("2014-10-22", 200)]
    assert report.grouped_by == "day, of column 'hour'"


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_compressed_criteo_files(suffix: str, tmp_path: Path) -> None:
    content = sample.criteo_text(sample.criteo_rows(210))
    plain, path = tmp_path / "plain", tmp_path / f"rows{suffix}"
    plain.write_bytes(content)
    path.write_bytes(COMPRESSED[suffix](content))
    report, expected = inspect_data(path), inspect_data(plain)
    assert (report.data_format, report.rows_used) == ("criteo", 210)
    for part in ("labels", "dense", "categorical", "drift", "findings"):
        assert getattr(report, part) == getattr(expected, part)
