"""Ids that are made of numbers and times: bins, hours, days of the week, the same whatever the rows come in."""

from __future__ import annotations

import datetime
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfdlrm.cli import main
from tfdlrm.config import DataConfig
from tfdlrm.data import BadRowError, open_dataset
from tfdlrm.data.inspect import inspect_data
from tfdlrm.data.opening import frame_rows, from_frame, open_rows
from tfdlrm.data.prepare import PrepareConfig, prepare
from tfdlrm.data.prepared import open_prepared
from tfdlrm.data.preprocessing import Preprocessing
from tfdlrm.data.transforms import bin_ids, fit_bins
from tfdlrm.schema import CategoricalColumn, DenseColumn, FeatureSpec

SPEC = FeatureSpec(
    labels=("click",),
    dense=(DenseColumn(name="age", transform="standardize", missing=40.0),),
    categorical=(
        CategoricalColumn(name="age in bins", source="age", encoding="bins", bins=8),
        CategoricalColumn(name="width", encoding="bins", bins=4),
        CategoricalColumn(name="hour", source="at", encoding="hour"),
        CategoricalColumn(name="day", source="at", encoding="weekday"),
    ),
    keys=("at",),
)
ROWS = 500
START = datetime.datetime(2024, 1, 1)  # a Monday


def frame() -> pl.DataFrame:
    random = np.random.default_rng(3)
    moments = [START + datetime.timedelta(hours=7 * k, minutes=k % 60) for k in range(ROWS)]
    return pl.DataFrame(
        {
            "click": random.integers(0, 2, ROWS),
            "age": [None if k % 11 == 0 else int(random.integers(18, 90)) for k in range(ROWS)],
            "width": [None if k % 7 == 0 else round(float(random.normal()), 2) for k in range(ROWS)],
            "at": moments,
        }
    )


def expected(values: list[float | None], bins: int) -> np.ndarray:
    """Bins and ids as the documentation has them, one value after another (no more than 2,048)."""
    there = sorted(float(np.float32(value)) + 0.0 for value in values if value is not None)
    counts = Counter(there)
    often = sorted((value for value in counts if counts[value] * bins > len(there)), key=lambda v: (-counts[v], v))
    own = often[: (bins - 1) // 2]
    rest = [value for value in there if value not in own]
    parts = bins - 2 * len(own)
    begins = {*own, *(min((v for v in there if v > value), default=value) for value in own)}
    begins |= {rest[k * len(rest) // parts] for k in range(1, parts) if rest}
    edges = sorted(value for value in begins if value > there[0])
    return np.array([0 if v is None else 1 + sum(edge <= np.float32(v) for edge in edges) for v in values])


def ids_of(dataset: Any) -> dict[str, np.ndarray]:
    features, _ = next(iter(dataset.batches(10 * ROWS)))
    return {name: features[name].numpy().ravel() for name in SPEC.feature_names}


def test_ids_are_those_of_the_definition() -> None:
    rows = frame()
    splits = from_frame(rows, SPEC, split="none")
    found = ids_of(splits.train)
    np.testing.assert_array_equal(found["age in bins"], expected(rows["age"].to_list(), 8))
    np.testing.assert_array_equal(found["width"], expected(rows["width"].to_list(), 4))
    moments = rows["at"].to_list()
    assert found["hour"].tolist() == [1 + moment.hour for moment in moments]
    assert found["day"].tolist() == [1 + moment.weekday() for moment in moments]
    spec = splits.preprocessing.spec
    assert spec.vocabulary_sizes == {"age in bins": 9, "width": 5, "hour": 25, "day": 8}
    assert len(spec.categorical[0].edges or ()) == 7
    # the rows of later files are cut by the same edges
    later = ids_of(frame_rows(rows[:50], splits.preprocessing))
    assert all(later[name].tolist() == found[name][:50].tolist() for name in SPEC.feature_names)


FILES = {
    "csv": lambda rows, path: rows.write_csv(path),
    "csv.gz": lambda rows, path: pl.DataFrame(rows).write_csv(path, compression="gzip", check_extension=False),
    "parquet": lambda rows, path: rows.write_parquet(path),
}


@pytest.mark.parametrize("kind", [*FILES, "seconds", "YYYYMMDDHH"])
def test_every_way_to_the_rows_gives_the_same_ids(tmp_path: Path, kind: str) -> None:
    rows = frame().with_columns(pl.col("at").dt.truncate("1h"))
    splits = from_frame(rows, SPEC, split="time")
    if kind == "seconds":
        rows = rows.with_columns(pl.col("at").dt.epoch("s"))
    elif kind == "YYYYMMDDHH":
        rows = rows.with_columns(pl.col("at").dt.strftime("%Y%m%d%H"))
    path = tmp_path / f"rows.{kind if kind in FILES else 'csv'}"
    FILES.get(kind, FILES["csv"])(rows, path)
    data_format = "parquet" if kind == "parquet" else "csv"
    read = open_dataset(DataConfig(format=data_format, path=str(path), split="time", schema=SPEC))
    assert read.preprocessing.spec == splits.preprocessing.spec
    prepare(PrepareConfig(format=data_format, schema=SPEC, split="time"), [path], tmp_path / "out", memory=2**27)
    prepared = open_prepared(tmp_path / "out")
    assert prepared.spec.categorical == splits.preprocessing.spec.categorical
    for part in ("train", "validation", "test"):
        own = ids_of(getattr(splits, part))
        for other in (getattr(read, part), getattr(prepared, part)):
            assert {name: ids.tolist() for name, ids in ids_of(other).items()} == {
                n: i.tolist() for n, i in own.items()
            }
    # a model's folder has all that later rows need
    splits.preprocessing.save(tmp_path / "model")
    loaded = Preprocessing.load(tmp_path / "model")
    assert loaded.spec == splits.preprocessing.spec
    assert ids_of(open_rows(DataConfig(format=data_format), path, loaded))["hour"].tolist() == [
        1 + moment.hour for moment in frame()["at"]
    ]


def test_a_later_preparation_keeps_the_edges(tmp_path: Path) -> None:
    frame().write_csv(tmp_path / "first.csv")
    frame().with_columns(pl.col("age") + 100).write_csv(tmp_path / "second.csv")
    config = PrepareConfig(format="csv", schema=SPEC)
    prepare(config, [tmp_path / "first.csv"], tmp_path / "one")
    prepare(replace(config, vocabularies=str(tmp_path / "one")), [tmp_path / "second.csv"], tmp_path / "two")
    one, two = open_prepared(tmp_path / "one"), open_prepared(tmp_path / "two")
    assert one.spec.categorical == two.spec.categorical
    ids = ids_of(two.train)["age in bins"]
    assert set(ids.tolist()) == {0, 8}  # the last bin, or no number


@given(
    st.lists(st.floats(width=32, allow_infinity=False) | st.sampled_from([0.0, -0.0, 1.0, 2.0]), max_size=60),
    st.integers(2, 9),
    st.integers(1, 4),
)
def test_edges_are_those_of_sorted_values(values: list[float], bins: int, pieces: int) -> None:
    column = CategoricalColumn(name="x", encoding="bins", bins=bins)
    numbers = np.array(values, np.float32)
    fitted = replace(column, edges=fit_bins(column, lambda: np.array_split(numbers, pieces)))
    plain = [None if np.isnan(value) else value for value in numbers.tolist()]
    if any(value is not None for value in plain):
        assert bin_ids(fitted, numbers).tolist() == expected(plain, bins).tolist()
    else:
        assert fitted.edges == ()
        assert not bin_ids(fitted, numbers).any()


BAD = {
    "a time that is none": ({"at": "yesterday"}, "at", "not a time"),
    "a date that does not exist": ({"at": "2023-02-29"}, "at", "not a time"),
    "a short number": ({"at": "12345"}, "at", "not a time"),
    "a width that is none": ({"width": "wide"}, "width", "not a number"),
    "an infinite width": ({"width": "inf"}, "width", "NaN, infinite or too large"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_cells_are_named(tmp_path: Path, kind: str) -> None:
    cells, column, reason = BAD[kind]
    rows = frame().cast({"at": pl.String, "width": pl.String})
    bad = rows[7:8].with_columns(pl.lit(cell).alias(name) for name, cell in cells.items())
    pl.concat([rows[:7], bad, rows[8:]]).write_csv(tmp_path / "rows.csv")
    with pytest.raises(BadRowError, match=reason) as refused:
        open_dataset(DataConfig(format="csv", path=str(tmp_path / "rows.csv"), split="none", schema=SPEC))
    assert f"line 9, column '{column}'" in str(refused.value)
    assert repr(next(iter(cells.values()))) in str(refused.value)


def test_missing_cells_of_times_are_ids(tmp_path: Path) -> None:
    spec = replace(SPEC, keys=())
    rows = frame().with_columns(pl.when(pl.int_range(ROWS) % 5 == 0).then(None).otherwise(pl.col("at")).alias("at"))
    rows.write_csv(tmp_path / "rows.csv")
    read = open_dataset(DataConfig(format="csv", path=str(tmp_path / "rows.csv"), split="none", schema=spec))
    for ids in (ids_of(read.train), ids_of(from_frame(rows, spec, split="none").train)):
        assert not ids["hour"][::5].any()
        assert ids["hour"][1::5].all()


WRONG: dict[str, tuple[Any, str]] = {
    "source of ids": (
        lambda: CategoricalColumn(name="c", source="d"),
        "source='d' has no meaning with encoding='integer'. Remove it, or set encoding: bins or hour or weekday",
    ),
    "bins of text": (lambda: CategoricalColumn(name="c", encoding="hash", bins=3), "bins=3 has no meaning"),
    "edges of hours": (lambda: CategoricalColumn(name="c", encoding="hour", edges=(1.0,)), "edges=.* has no meaning"),
    "bags": (lambda: CategoricalColumn(name="c", encoding="hour", hotness=2), "hotness=2 has no meaning"),
    "policy": (lambda: CategoricalColumn(name="c", encoding="bins", id_policy="oov"), "id_policy='oov' has no"),
    "weights": (lambda: CategoricalColumn(name="c", encoding="bins", weights="w"), "weights='w' has no meaning"),
    "one bin": (lambda: CategoricalColumn(name="c", encoding="bins", bins=1), "bins=1 is too small"),
    "many bins": (lambda: CategoricalColumn(name="c", encoding="bins", bins=257), "bins=257 is too large"),
    "falling edges": (lambda: CategoricalColumn(name="c", encoding="bins", edges=(2.0, 1.0)), "must ascend"),
    "many edges": (lambda: CategoricalColumn(name="c", encoding="bins", bins=2, edges=(1.0, 2.0)), "fewer than bins=2"),
    "small table": (
        lambda: replace(SPEC, vocabulary_sizes={"hour": 24}),
        "gives table 'hour' 24 rows, and column 'hour' needs 25",
    ),
    "two readings": (
        lambda: FeatureSpec(
            labels=("y",),
            categorical=(
                CategoricalColumn(name="a", encoding="vocabulary"),
                CategoricalColumn(name="b", source="a", encoding="bins"),
            ),
        ),
        "column 'b' takes 'a' for a number, and another column takes it for something else",
    ),
    "a label": (
        lambda: FeatureSpec(labels=("y",), categorical=(CategoricalColumn(name="b", source="y", encoding="bins"),)),
        "column 'b' is made of 'y', which is a label: it would tell the answer",
    ),
    "time of a dense column": (
        lambda: FeatureSpec(
            labels=("y",),
            dense=(DenseColumn(name="a"),),
            categorical=(CategoricalColumn(name="b", source="a", encoding="hour"),),
        ),
        "column 'b' takes 'a' for a time",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_schemas_that_mean_nothing_are_refused(kind: str) -> None:
    make, message = WRONG[kind]
    with pytest.raises(ValueError, match=message):
        make()


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    frame().drop("width").write_csv(tmp_path / "rows.csv")
    with pytest.raises(ValueError, match="column 'width' of the schema is missing"):
        open_dataset(DataConfig(format="csv", path=str(tmp_path / "rows.csv"), split="none", schema=SPEC))


def test_criteo_rows_in_bins(tmp_path: Path) -> None:
    """The files have no header: derived columns are none of their fields."""
    spec = FeatureSpec(
        labels=("label",),
        dense=(DenseColumn(name="i", transform="log1p"),),
        categorical=(
            CategoricalColumn(name="i in bins", source="i", encoding="bins", bins=2),
            CategoricalColumn(name="c", encoding="hex"),
        ),
    )
    (tmp_path / "rows.txt").write_text("1\t5\tab\n0\t\tcd\n0\t9\tab\n1\t7\tab\n")
    read = open_dataset(DataConfig(format="criteo", path=str(tmp_path / "rows.txt"), split="none", schema=spec))
    features, _ = next(iter(read.train.batches(4)))
    assert features["i in bins"].numpy().ravel().tolist() == [1, 0, 2, 2]
    assert features["c"].numpy().ravel().tolist() == [0, 1, 0, 0]


def test_inspect_shows_numbers_and_parts_of_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame().write_csv(tmp_path / "rows.csv")
    SPEC.save(tmp_path)
    report = inspect_data(tmp_path / "rows.csv")
    assert {column.name for column in report.dense} == {"age", "width"}
    assert {column.name: column.distinct for column in report.categorical} == {"hour": 24, "day": 7}
    assert main(["data", "inspect", str(tmp_path / "rows.csv")]) == 0
    assert "hour" in capsys.readouterr().out
