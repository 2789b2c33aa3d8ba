"""Any small table, prepared in every file format and read back, has the values that the raw reader gives."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data import sample_rows as sample
from tests.golden_files import golden_files
from tfdlrm.config import DataConfig
from tfdlrm.data import open_dataset
from tfdlrm.data.columns import Columns, fixed_columns, weighted_columns
from tfdlrm.data.prepare import PrepareConfig, prepare
from tfdlrm.data.prepare.config import OutputFormat
from tfdlrm.data.prepared import prepared_dataset
from tfdlrm.data.prepared_folders import key_column
from tfdlrm.schema import CategoricalColumn, DenseColumn, FeatureSpec, criteo_feature_spec

OUTPUTS: tuple[OutputFormat, ...] = ("arrow", "parquet", "tfrecord")
SPEC = FeatureSpec(
    labels=("click", "buy"),
    dense=(
        DenseColumn(name="price", transform="log1p"),
        DenseColumn(name="age", transform="standardize", missing=30.0),
        DenseColumn(name="score", missing=-1.0),
    ),
    categorical=(
        CategoricalColumn(name="item"),
        CategoricalColumn(name="city", encoding="vocabulary", id_policy="oov"),
        CategoricalColumn(name="code", encoding="hex"),
        CategoricalColumn(name="pair", hotness=2, table="item", weights="pair_weights"),
        CategoricalColumn(name="tags", hotness=None, encoding="vocabulary", id_policy="oov"),
        CategoricalColumn(name="seen", hotness=None, table="item", weights="seen_weights"),
    ),
    keys=("user", "city"),
    vocabulary_sizes={"item": 300},
)

# floats of few digits: text then holds the very number
number = st.integers(-(10**6), 10**6).map(lambda n: n / 64)
ids, label = st.integers(0, 299), st.integers(0, 1)
weight = st.integers(-64, 640).map(lambda n: n / 64)
# no control characters and separators of lines, which a cell without quotes cannot hold
text = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), max_size=4)
word = text.filter(lambda t: bool(t))


@st.composite
def rows(draw: st.DrawFn) -> sample.Row:
    seen = draw(st.lists(ids, max_size=4))
    return {
        "click": draw(label),
        "buy": draw(label),
        "price": draw(st.none() | st.integers(-3, 10**6)),
        "age": draw(st.none() | number),
        "score": draw(st.none() | number),
        "item": draw(ids),
        "city": draw(text),
        "code": draw(st.just("") | st.integers(0, 2**63 - 1).map(lambda n: f"{n:x}")),
        "pair": draw(st.lists(ids, min_size=2, max_size=2)),
        "pair_weights": draw(st.lists(weight, min_size=2, max_size=2)),
        "tags": draw(st.lists(word, max_size=3)),
        "seen": seen,
        "seen_weights": draw(st.lists(weight, min_size=len(seen), max_size=len(seen))),
        "user": draw(st.integers(-(2**63), 2**63 - 1)),
    }


def _table(spec: FeatureSpec, columns: Columns) -> dict[str, list]:
    """Packed columns as a list a column, under the names that files have."""
    table: dict[str, list] = {name: columns.labels[:, task].tolist() for task, name in enumerate(spec.labels)}
    table |= {column.name: columns.dense[:, place].tolist() for place, column in enumerate(spec.dense)}
    fixed, weighted = fixed_columns(spec), weighted_columns(spec)
    for column in spec.categorical:
        weights = column.weights or ""
        if column.hotness is None:
            bags = columns.ragged[column.name]
            table[column.name] = [bag.tolist() for bag in np.split(bags.values, bags.row_splits[1:-1])]
            if bags.weights is not None:
                table[weights] = [bag.tolist() for bag in np.split(bags.weights, bags.row_splits[1:-1])]
            continue
        own = columns.ids[:, fixed[column.name]]
        table[column.name] = own[:, 0].tolist() if column.hotness == 1 else own.tolist()
        if weights:
            table[weights] = columns.weights[:, weighted[column.name]].tolist()
    for name, values in columns.keys.items():
        table[key_column(spec, name)] = values.tolist()
    return table


def _read_tfrecords(file: Path, like: dict[str, list]) -> dict[str, list]:
    table: dict[str, list] = {name: [] for name in like}
    for record in tf.data.TFRecordDataset(str(file)):
        example = tf.train.Example.FromString(record.numpy())
        for name, expected in like.items():
            feature = example.features.feature[name]
            values: list[Any] = list(getattr(feature, feature.WhichOneof("kind")).value)
            values = [value.decode() if isinstance(value, bytes) else value for value in values]
            table[name].append(values if isinstance(expected[0], list) else values[0])
    return table


def _read(folder: Path, output: OutputFormat, like: dict[str, list], part: str = "train") -> dict[str, list]:
    """All rows of a part; a table of one file."""
    if output == "arrow":
        dataset = prepared_dataset(folder, part)
        return _table(dataset.spec, dataset.source.read_blocks(range(dataset.num_blocks)))
    [file] = json.loads((folder / "manifest.json").read_text())["parts"][part]["files"]
    if output == "parquet":
        return pq.read_table(folder / file["name"]).to_pydict()
    return _read_tfrecords(folder / file["name"], like)


@settings(max_examples=25)
@given(st.lists(rows(), min_size=1, max_size=12))
def test_any_small_table(table: list[sample.Row]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = sample.write_csv(folder / "rows.csv", table)
        opened = open_dataset(DataConfig(format="csv", path=str(path), schema=SPEC))
        expected = _table(opened.spec, opened.train.columns)
        assert len(expected["click"]) == len(table)
        for output in OUTPUTS:
            prepare(PrepareConfig(format="csv", schema=SPEC, output=output), [path], folder / output)
            found = _read(folder / output, output, expected)
            assert set(found) == set(expected)
            for column, values in expected.items():
                assert found[column] == values, (output, column)


GOLDEN = golden_files("criteo_kaggle_rows*.tsv.gz")
HEX_SPEC = criteo_feature_spec()
PARTS = {"train": "train", "validation": "val", "test": "test"}


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("reader", ["criteo", "csv", "parquet"])
@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.name)
def test_golden_criteo_rows(path: Path, reader: str, output: OutputFormat, tmp_path: Path) -> None:
    golden = np.load(path.parent / (path.name.removesuffix(".tsv.gz") + ".npz"))
    source = path
    if reader != "criteo":
        names = [*HEX_SPEC.labels, *(column.name for column in HEX_SPEC.dense), *HEX_SPEC.feature_names]
        raw = pl.read_csv(path, has_header=False, separator="\t", new_columns=names, infer_schema=False)
        source = tmp_path / f"rows.{reader}"
        if reader == "csv":
            raw.write_csv(source)
        else:
            numbers = [*HEX_SPEC.labels, *(column.name for column in HEX_SPEC.dense)]
            raw.with_columns(pl.col(numbers).cast(pl.Int32)).write_parquet(source)
    form = "criteo-kaggle" if reader == "criteo" else reader
    config = PrepareConfig(
        format=form,  # type: ignore[arg-type]
        schema=None if reader == "criteo" else HEX_SPEC,
        split="criteo-kaggle",
        output=output,
    )
    prepare(config, [source], tmp_path / "out")
    names = [*HEX_SPEC.labels, *(column.name for column in HEX_SPEC.dense), *HEX_SPEC.feature_names]
    for part, short in PARTS.items():
        found = _read(tmp_path / "out", output, {name: [0] for name in names}, part)
        ids = np.stack([found[name] for name in HEX_SPEC.feature_names], axis=1)
        np.testing.assert_array_equal(ids, golden[f"split/{short}_cat"])
        np.testing.assert_array_equal(found[HEX_SPEC.label], golden[f"split/{short}_label"])
        dense = np.stack([found[column.name] for column in HEX_SPEC.dense], axis=1)
        np.testing.assert_array_equal(dense.astype(np.float32), golden[f"split/{short}_dense"])


def test_a_table_whose_text_has_newlines_and_quotes(tmp_path: Path) -> None:
    """What the strategies above leave out: cells that need quotes over lines."""
    table = sample.sample_rows(30)
    content = sample.csv_bytes(table)
    assert b'"line\nbreak"' in content
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    opened = open_dataset(DataConfig(format="csv", path=str(path), schema=sample.SPEC))
    expected = _table(opened.spec, opened.train.columns)
    for output in OUTPUTS:
        prepare(PrepareConfig(format="csv", schema=sample.SPEC, output=output), [path], tmp_path / output)
        assert _read(tmp_path / output, output, expected) == expected
