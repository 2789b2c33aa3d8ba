"""Columns of typed files: the same value is the same row whatever its type, and 64-bit keys keep every digit."""

from __future__ import annotations

import datetime
import decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfdlrm import CategoricalColumn, DenseColumn, FeatureSpec
from tfdlrm.config import DataConfig
from tfdlrm.data.cells import parse_integers, parse_text, plain_types
from tfdlrm.data.opening import open_dataset, open_rows
from tfdlrm.data.parse import parse_key
from tfdlrm.data.prepare import PrepareConfig, prepare

ROWS = 40
LARGE = 4873214862074861312
NUMBERS = [k % 10 + 1 for k in range(ROWS)]

# the numbers 1 to 10 as files have them
TYPES: dict[str, Any] = {
    "int64": pa.array(NUMBERS, pa.int64()),
    "uint8": pa.array(NUMBERS, pa.uint8()),
    "float64": pa.array([float(n) for n in NUMBERS], pa.float64()),
    "float32": pa.array([float(n) for n in NUMBERS], pa.float32()),
    "text": pa.array([str(n) for n in NUMBERS]),
    "decimal": pa.array([decimal.Decimal(n) for n in NUMBERS], pa.decimal128(12, 3)),
    "dictionary": pa.array([str(n) for n in NUMBERS]).dictionary_encode(),
    "bytes": pa.array([str(n).encode() for n in NUMBERS], pa.binary()),
    "fixed-size list": pa.FixedSizeListArray.from_arrays(pa.array(NUMBERS), 1),
    "list": pa.array([[n] for n in NUMBERS]),
    "list of decimals": pa.array([[decimal.Decimal(n)] for n in NUMBERS], pa.list_(pa.decimal128(5, 1))),
}


def spec(**item: Any) -> FeatureSpec:
    return FeatureSpec(
        labels=("click",),
        dense=(DenseColumn(name="price"),),
        categorical=(CategoricalColumn(name="item", **item),),
        vocabulary_sizes={} if item.get("encoding") == "vocabulary" else {"item": 12},
    )


def write(path: Path, item: Any, **more: Any) -> str:
    columns = {"click": [0, 1] * (ROWS // 2), "price": [1.0] * ROWS, "item": item, **more}
    pq.write_table(pa.table(columns), path)
    return str(path)


@pytest.mark.parametrize("encoding", ["hash", "vocabulary", "integer"])
def test_an_id_is_the_same_row_in_every_type(encoding, tmp_path) -> None:
    for name, item in TYPES.items():
        write(tmp_path / f"{name}.parquet", item)
    for hotness in (1, None):
        names = [name for name in TYPES if ("list" in name) == (hotness is None)]
        schema = spec(hotness=hotness, encoding=encoding)
        config = DataConfig(format="parquet", path=str(tmp_path / f"{names[0]}.parquet"), split="none", schema=schema)
        trained = open_dataset(config)
        found = []
        for name in names:
            rows = open_rows(config, tmp_path / f"{name}.parquet", trained.preprocessing)
            features = next(iter(rows.batches(ROWS)))[0]["item"]
            found.append(np.asarray(features if hotness else features.flat_values).reshape(-1).tolist())
        assert len(set(found[0])) > 5
        for name, ids in zip(names, found, strict=True):
            assert ids == found[0], name


@given(st.integers(-(2**63), 2**63 - 1))
@settings(max_examples=50)
def test_integers_are_their_digits_as_text(value) -> None:
    assert parse_text(pl.Series([value], dtype=pl.Int64)).to_list() == [str(value)]
    if abs(value) <= 2**53:
        assert parse_text(pl.Series([float(value)])).to_list() == [str(value)]
    exact = decimal.Decimal(value)
    frame = plain_types(pl.DataFrame({"x": pl.Series([exact], dtype=pl.Decimal(38, 6))}))
    assert parse_text(frame["x"]).to_list() == [str(value)]


@given(st.integers(-(2**62), 2**62), st.integers(0, 3))
def test_text_with_a_decimal_point_is_an_integer(value, zeros) -> None:
    values, wrong = parse_integers(pl.Series([f" {value}.{'0' * zeros}", f"{value}", "1.5", "x.0", "", "1e3"]))
    assert values.to_list()[:2] == [value, value]
    assert wrong.tolist() == [False, False, True, True, True, True]


def test_what_is_no_whole_number_keeps_its_digits() -> None:
    assert parse_text(pl.Series([1.5, float("nan"), None, -0.25, 1e300, float("inf")])).to_list() == [
        "1.5",
        "",
        "",
        "-0.25",
        "1e+300",
        "inf",
    ]
    prices = pl.Series([decimal.Decimal("12.50"), decimal.Decimal("3.00"), None], dtype=pl.Decimal(10, 2))
    assert plain_types(pl.DataFrame({"x": prices}))["x"].to_list() == ["12.5", "3", None]


@given(st.lists(st.none() | st.integers(2**53, 2**64 - 1), min_size=1, max_size=6))
@settings(max_examples=50)
def test_keys_keep_every_digit(values) -> None:
    wide = max((value or 0) for value in values) >= 2**63
    series = pl.Series("user", values, dtype=pl.UInt64 if wide else pl.Int64)
    found = parse_key(series)
    assert [str(key) for key in found] == ["" if value is None else str(value) for value in values]
    csv = pl.Series("user", ["" if value is None else str(value) for value in values])
    assert parse_key(csv).tolist() == found.tolist()


def test_keys_of_several_files_through_prepare(tmp_path) -> None:
    users = {
        "null": pa.array([LARGE + 1, LARGE + 2, LARGE + 3, None] * 10, pa.int64()),
        "full": pa.array([LARGE + 1, LARGE + 2] * 20, pa.int64()),
        "uint64": pa.array([2**63 + 1, 2**63 + 2] * 20, pa.uint64()),
        "text": pa.array([str(LARGE + 1), "x"] * 20),
        "float": pa.array([1.0, 2.5] * 20),
    }
    keyed = FeatureSpec(**{**spec().__dict__, "keys": ("user",)})
    files = [write(tmp_path / f"{name}.parquet", TYPES["int64"], user=column) for name, column in users.items()]
    for chosen in ([0], [1], [2], [1, 0], [1, 2], [1, 3], [1, 4], [0, 1, 2, 3, 4]):
        out = tmp_path / f"out-{''.join(map(str, chosen))}"
        prepare(PrepareConfig(format="parquet", schema=keyed), [files[k] for k in chosen], out)
        found = []
        for part in sorted((out / "train").glob("*.arrow")):
            with pa.OSFile(str(part)) as stream:
                found += pa.ipc.open_file(stream).read_all()["user"].to_pylist()
        expected = [value for k in chosen for value in list(users.values())[k].to_pylist()]
        as_text = {"" if value is None else str(value).removesuffix(".0") for value in expected}
        assert {str(value) for value in found} == as_text, chosen


@pytest.mark.parametrize("encoding", ["hash", "vocabulary", "integer", "hex"])
@pytest.mark.parametrize(
    ("column", "sort"),
    [
        (pa.array([2.0**60 + 1000 * k for k in range(ROWS - 1)] + [None]), r"Float64 such as 1152921504606\d+"),
        (pa.array([2.0**53] * ROWS), "Float64 such as 9007199254740992"),
        (pa.array([2.0**24 + k for k in range(ROWS)], pa.float32()), r"Float32 such as 167772\d\d"),
    ],
)
def test_ids_that_floats_have_rounded_are_refused(encoding, column, sort, tmp_path) -> None:
    """pandas makes floats of integers with a missing value; different ids have then become one."""
    file = write(tmp_path / "rows.parquet", column)
    schema = spec(encoding=encoding)
    with pytest.raises(ValueError, match=rf"rows\.parquet: column 'item' holds ids as {sort}"):
        prepare(PrepareConfig(format="parquet", schema=schema), [file], tmp_path / "out")
    with pytest.raises(ValueError, match=rf"rows\.parquet: column 'item' holds ids as {sort}"):
        open_dataset(DataConfig(format="parquet", path=file, split="none", schema=schema))


@pytest.mark.parametrize(
    ("column", "says"),
    [
        (pa.array([[("a", k)] for k in range(ROWS)], pa.map_(pa.string(), pa.int64())), "has dtype"),
        (pa.array([datetime.timedelta(seconds=k) for k in range(ROWS)]), "has dtype Duration"),
        (pa.array([{"a": k} for k in range(ROWS)]), "has dtype Struct"),
        (pa.array([[[k]] for k in range(ROWS)]), "has dtype List"),
        (pa.array([bytes([200 + k % 10, 255]) for k in range(ROWS)], pa.binary()), "holds bytes that are not UTF-8"),
    ],
)
def test_other_types_are_named_with_file_and_column(column, says, tmp_path) -> None:
    file = write(tmp_path / "rows.parquet", column)
    schema = spec(encoding="hash", hotness=None)
    with pytest.raises(ValueError, match=rf"rows\.parquet: column 'item' {says}"):
        prepare(PrepareConfig(format="parquet", schema=schema), [file], tmp_path / "out")
    with pytest.raises(ValueError, match=rf"rows\.parquet: column 'item' {says}"):
        open_dataset(DataConfig(format="parquet", path=file, split="none", schema=schema))
