"""Transform gives the ids and numbers that `tfdlrm data prepare` gives of the same rows by the same settings."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import tensorflow as tf
import tensorflow_transform.beam as tft_beam
from tensorflow_transform.tf_metadata import dataset_metadata, schema_utils

from pipelines.preprocessing import graph_bin_edges, preprocessing_fn, read_preprocessing, transform_config
from pipelines.tfx_extra import tft
from pipelines.transformed_rows import write_prepared
from tests.pipelines.pipeline_run import MIN_COUNT, Run, pipeline_run
from tfdlrm import CategoricalColumn, DenseColumn, FeatureSpec
from tfdlrm.data.dataset import Dataset
from tfdlrm.data.prepare import PrepareConfig, prepare
from tfdlrm.data.prepared import open_prepared
from tfdlrm.data.preprocessing import Preprocessing
from tfdlrm.data.transforms import SORTED_VALUES, bin_edges

# from the most frequent to the rarest, no two alike: of equally frequent values the order is each program's own
TEXTS = ["a", "", "a\nb", "a\\nb", ":a", " a ", "é 🙂", 'say "a"', "A", "x" * 200, "rare"]
HEX = ["0", "a0000000", "A1", "ffffffff", "7fffffffffffffff", "1e5", "99"]


def counted(values: list[Any], total: int) -> list[Any]:
    """The first value most often, the last but one twice, the last once; in any order."""
    found = [value for place, value in enumerate(values) for _ in range(len(values) - place)]
    found += values[:1] * (total - len(found))
    return [found[k] for k in np.random.default_rng(len(values)).permutation(total)]


def analyze(
    rows: dict[str, list[list[Any]]], types: dict[str, tf.DType], schema: FeatureSpec, folder: Path, **options: Any
) -> tuple[Preprocessing, list[dict[str, Any]]]:
    """What Transform learns and makes of rows: column -> the values of each row."""
    config = transform_config(schema, split_cells=False, **options)
    raw_spec = {name: tf.io.VarLenFeature(types[name]) for name in rows}
    metadata = dataset_metadata.DatasetMetadata(schema_utils.schema_from_feature_spec(raw_spec))
    dicts = [dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True)]
    with tft_beam.Context(temp_dir=str(folder / "temporary")):
        (found, _), function = (dicts, metadata) | tft_beam.AnalyzeAndTransformDataset(
            functools.partial(preprocessing_fn, custom_config=config)
        )
        _ = function | tft_beam.WriteTransformFn(str(folder / "transform"))
    return read_preprocessing(tft.TFTransformOutput(str(folder / "transform")), config), found


def prepared(rows: dict[str, Any], schema: FeatureSpec, folder: Path, **options: Any) -> tuple[Preprocessing, dict]:
    """What `prepare` learns and makes of them."""
    pl.DataFrame(rows).write_parquet(folder / "rows.parquet")
    config = PrepareConfig(format="parquet", schema=schema, vocabulary_order="frequency", **options)
    prepare(config, [folder / "rows.parquet"], folder / "prepared")
    splits = open_prepared(folder / "prepared")
    features, _ = next(iter(splits.train.batches(splits.train.num_rows)))
    return splits.preprocessing, features


def assert_same_preprocessing(found: Preprocessing, expected: Preprocessing) -> None:
    assert found.spec.vocabulary_sizes == expected.spec.vocabulary_sizes
    assert found.spec.categorical == expected.spec.categorical
    for one, other in zip(found.spec.dense, expected.spec.dense, strict=True):
        assert one.transform == other.transform
        if one.transform == "standardize":
            assert (one.mean, one.std) == pytest.approx((other.mean, other.std), rel=1e-12)
    assert found.vocabularies.keys() == expected.vocabularies.keys()
    for table, vocabulary in expected.vocabularies.items():
        assert found.vocabularies[table].values.to_list() == vocabulary.values.to_list()
        assert found.vocabularies[table].has_oov == vocabulary.has_oov


# column -> what it is, its values from the most frequent to the rarest, their type, rows of its table
COLUMNS: dict[str, tuple[dict[str, Any], list[Any], tf.DType, int | None]] = {
    "text": ({"encoding": "vocabulary", "id_policy": "oov"}, TEXTS, tf.string, None),
    "text of a larger table": ({"encoding": "vocabulary", "id_policy": "oov"}, TEXTS[:4], tf.string, 40),
    "known text": ({"encoding": "vocabulary"}, TEXTS, tf.string, 20),
    "numbers": ({"encoding": "vocabulary", "id_policy": "oov"}, [7, 0, -3, 2**62, 12], tf.int64, None),
    "hex": ({"encoding": "hex", "id_policy": "oov"}, HEX, tf.string, None),
    "known hex": ({"encoding": "hex"}, HEX, tf.string, None),
    "hashed": ({"encoding": "hash"}, TEXTS, tf.string, 7),
    "hashed numbers": ({"encoding": "hash"}, [7, 0, -3, 2**62], tf.int64, 7),
    "ids": ({}, [3, 0, 9, 4], tf.int64, None),
    "ids of a table": ({}, [3, 0, 9, 4], tf.int64, 12),
    "any ids": ({"id_policy": "oov"}, [3, 0, 9, -4, 2**62], tf.int64, 8),
    "shelf/modulo": ({"id_policy": "modulo"}, [3, 0, 9, -4], tf.int64, 8),
}


@pytest.mark.parametrize(("hotness", "min_count"), [(1, 1), (2, 1), (None, 2)])
def test_ids_of_every_encoding(hotness, min_count, tmp_path) -> None:
    # rare values need an out-of-vocabulary row
    chosen = {name: of for name, of in COLUMNS.items() if min_count == 1 or not name.startswith("known")}
    num_ids = 80
    lengths = [hotness or 1] * (num_ids // (hotness or 1)) if hotness else [0, 1, 3, 4] * (num_ids // 8)
    schema = FeatureSpec(
        labels=("click",),
        dense=(DenseColumn(name="price"),),
        categorical=tuple(CategoricalColumn(name=name, hotness=hotness, **of[0]) for name, of in chosen.items()),
        vocabulary_sizes={name: of[3] for name, of in chosen.items() if of[3] is not None},
    )
    given = {"click": [k % 2 for k in range(len(lengths))], "price": [0.5 * k for k in range(len(lengths))]}
    plain: dict[str, list[Any]] = dict(given)
    rows = {name: [[value] for value in own] for name, own in given.items()}
    types = {"click": tf.int64, "price": tf.float32}
    for name, (_, values, types[name], _) in chosen.items():
        flat = counted(values, num_ids)
        ends = np.cumsum([0, *lengths]).tolist()
        bags = [flat[start:stop] for start, stop in itertools.pairwise(ends)]
        plain[name] = [bag[0] for bag in bags] if hotness == 1 else bags
        rows[name] = [[value.encode() if isinstance(value, str) else value for value in bag] for bag in bags]
    expected, features = prepared(plain, schema, tmp_path, min_count=min_count)
    found, transformed = analyze(rows, types, schema, tmp_path, min_count=min_count)
    assert_same_preprocessing(found, expected)
    for name in chosen:
        ids = features[name]
        wanted = ids.to_list() if hotness is None else [np.ravel(row).tolist() for row in ids.numpy()]
        column = name if hotness is not None else f"{name}$ragged_values"
        assert [np.ravel(row[column]).tolist() for row in transformed] == wanted, name


def test_dense_numbers_of_every_transform(tmp_path) -> None:
    random = np.random.default_rng(0)
    values = np.round(random.lognormal(2, 2, 500) - 5, 3).astype(np.float32)
    columns = (
        DenseColumn(name="log", transform="log1p"),
        DenseColumn(name="standard", transform="standardize", missing=3.5),
        DenseColumn(name="far", transform="standardize", missing=None),
        DenseColumn(name="given", transform="standardize", mean=2.0, std=0.25),
        DenseColumn(name="clipped", transform="clip", minimum=-1.0, maximum=9.5),
        DenseColumn(name="as it is", missing=-7.0),
        DenseColumn(name="constant", transform="standardize"),
    )
    schema = FeatureSpec(
        labels=("click",),
        dense=columns,
        categorical=(CategoricalColumn(name="item"),),
        vocabulary_sizes={"item": 3},
    )
    cells: dict[str, list[float | None]] = {}
    for column in columns:
        own = np.ones(500, np.float32) if column.name == "constant" else values + (1e6 if column.name == "far" else 0)
        there = random.random(500) < (1.0 if column.missing is None or column.name == "constant" else 0.8)
        cells[column.name] = [float(value) if is_there else None for value, is_there in zip(own, there, strict=True)]
    given = {"click": [k % 2 for k in range(500)], "item": [k % 3 for k in range(500)]}
    expected, features = prepared({**given, **cells}, schema, tmp_path)
    rows = {name: [[value] for value in own] for name, own in given.items()}
    rows |= {name: [[] if value is None else [value] for value in own] for name, own in cells.items()}
    types = {**dict.fromkeys(cells, tf.float32), "click": tf.int64, "item": tf.int64}
    found, transformed = analyze(rows, types, schema, tmp_path)
    assert_same_preprocessing(found, expected)
    dense = np.array([[row[column.name] for column in columns] for row in transformed])
    np.testing.assert_allclose(dense, features["dense"], rtol=1e-6, atol=1e-6)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return pipeline_run(tmp_path_factory.getbasetemp())


def test_rows_prepared_by_the_vocabularies_of_a_pipeline_are_its_transformed_rows(run, tmp_path) -> None:
    """Every column of the pipeline's CSV files, by our own reader."""
    learned = run.preprocessing()
    learned.save(tmp_path / "learned")
    config = PrepareConfig(
        format="csv", schema=learned.spec, vocabularies=str(tmp_path / "learned"), min_count=1, split="none"
    )
    prepare(config, sorted(run.data.glob("*.csv")), tmp_path / "prepared")
    ours = open_prepared(tmp_path / "prepared").train
    split = {
        name: [str(run.root / f"Transform/transformed_examples/*/Split-{name}/*.gz")] for name in ("train", "eval")
    }
    parts = {"train": split["train"], "validation": split["eval"]}
    theirs = open_prepared(write_prepared(tmp_path / "transformed", parts, run.transform(), learned))
    assert theirs.train.num_rows + theirs.validation.num_rows == ours.num_rows
    assert MIN_COUNT > 1

    def by_line(*datasets: Dataset) -> dict[str, list[Any]]:
        rows: dict[str, list[Any]] = {}
        for dataset in datasets:
            features, labels, keys = next(iter(dataset.batches(dataset.num_rows, with_keys=True)))
            columns = [labels, *(part for value in features.values() for part in _parts(value)), keys["session"]]
            rows |= zip(keys["line"].numpy().tolist(), zip(*map(_rows, columns), strict=True), strict=True)
        return rows

    expected, found = by_line(ours), by_line(theirs.train, theirs.validation)
    assert found.keys() == expected.keys()
    # numbers of examples are float32: near 1000 half a step is 2^-15, as may be the mean's error; the deviation is 3
    near = 2 * 2**-15 / 3
    for line, row in expected.items():
        for one, other in zip(found[line], row, strict=True):
            assert one == (other if isinstance(other, bytes) else pytest.approx(other, rel=1e-6, abs=near)), line


def _parts(value: Any) -> tuple[Any, ...]:
    """Ids, or ids and weights."""
    return value if isinstance(value, tuple) else (value,)


def _rows(column: Any) -> list[Any]:
    return column.to_list() if isinstance(column, tf.RaggedTensor) else column.numpy().tolist()


@pytest.mark.parametrize("bins", [2, 3, 8, 32, 256])
def test_edges_in_a_graph_are_those_of_prepare(bins) -> None:
    """Of the same sorted values, that is: Transform's are not exact."""
    random = np.random.default_rng(bins)
    column = CategoricalColumn(name="x", encoding="bins", bins=bins)
    for size in (0, 1, 5, 300, SORTED_VALUES - 1):
        for values in (
            random.normal(size=size),
            random.integers(0, 5, size),
            np.where(random.random(size) < 0.9, 0.0, random.normal(size=size)),
            np.zeros(size),
        ):
            numbers = np.sort(values).astype(np.float32)
            np.testing.assert_array_equal(graph_bin_edges(tf.constant(numbers), column), bin_edges(numbers, bins))


def test_bins_and_times(tmp_path) -> None:
    """Bins of few values are those of `prepare`, and hours and days are its own in any case."""
    columns = (
        CategoricalColumn(name="level", encoding="bins", bins=8),
        CategoricalColumn(name="hour", source="at", encoding="hour"),
        CategoricalColumn(name="day", source="at", encoding="weekday"),
    )
    schema = FeatureSpec(labels=("y",), categorical=columns)
    level = [[], [3.0], [3.5], [-1.0], [7.0], [3.0]] * 20
    at = [["2024-01-31 23:59:59"], [], ["2024020112"], ["14102100"], ["1700000000"], ["2024-02-01T00:00:00+02:00"]] * 20
    labels = [[k % 2] for k in range(120)]
    types = {"y": tf.int64, "level": tf.float32, "at": tf.string}
    learned, found = analyze({"y": labels, "level": level, "at": at}, types, schema, tmp_path)
    first = {name: [cell[0] if cell else None for cell in cells] for name, cells in (("level", level), ("at", at))}
    expected, ids = prepared({"y": [k for (k,) in labels], **first}, schema, tmp_path)
    assert learned.spec == expected.spec
    for column in columns:
        assert [int(row[column.name]) for row in found] == np.ravel(ids[column.name]).tolist()
