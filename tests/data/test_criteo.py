"""Criteo's format: the reference's own preprocessing, exactly, and what it leaves open."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.sample_rows import criteo_rows, criteo_text
from tests.golden_files import golden_files
from tfdlrm.config import DataConfig
from tfdlrm.data import Preprocessing, Quarantine, open_dataset, open_rows
from tfdlrm.data.criteo import criteo_source, kaggle_rows_per_day, kaggle_split
from tfdlrm.data.prepare.config import PrepareConfig
from tfdlrm.data.prepare.in_memory import prepare_in_memory
from tfdlrm.schema import CategoricalColumn, FeatureSpec, criteo_feature_spec

FILES = golden_files("criteo_kaggle_rows*.tsv.gz")


def test_the_references_preprocessing() -> None:
    for path in FILES:
        golden = np.load(path.parent / (path.name.removesuffix(".tsv.gz") + ".npz"))
        splits = open_dataset(DataConfig(format="criteo", path=str(path), split="criteo-kaggle"))
        num_rows = len(golden["label"])
        assert splits.books.read == splits.books.used == num_rows
        assert list(splits.spec.vocabulary_sizes.values()) == golden["vocabulary_sizes"].tolist()
        np.testing.assert_array_equal(kaggle_rows_per_day(num_rows), golden["rows_per_day"])
        for name, short in (("train", "train"), ("validation", "val"), ("test", "test")):
            columns = splits.parts[name].columns
            np.testing.assert_array_equal(columns.ids, golden[f"split/{short}_cat"])
            np.testing.assert_array_equal(columns.labels[:, 0], golden[f"split/{short}_label"])
            assert columns.dense.dtype == np.float32
            np.testing.assert_array_equal(columns.dense, golden[f"split/{short}_dense"])


@pytest.mark.parametrize("chunk_bytes", [1, 3000, 2**24])
def test_all_golden_rows_in_any_chunks(chunk_bytes: int) -> None:
    spec = criteo_feature_spec()
    for path in FILES:
        golden = np.load(path.parent / (path.name.removesuffix(".tsv.gz") + ".npz"))
        quarantine = Quarantine()
        source, labelled = criteo_source(path, spec, quarantine, chunk_bytes=chunk_bytes)
        columns = prepare_in_memory(PrepareConfig(format="criteo-kaggle"), source, spec, quarantine).parts["train"]
        assert labelled
        np.testing.assert_array_equal(columns.ids, golden["categorical"])
        np.testing.assert_array_equal(columns.labels[:, 0], golden["label"])
        raw = golden["dense_raw"].astype(np.float32)
        np.testing.assert_array_equal(columns.dense, np.log(raw + np.float32(1)))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_batches_of_golden_rows(path: Path) -> None:
    splits = open_dataset(DataConfig(format="criteo", path=str(path), split="criteo-kaggle"))
    features, labels = next(iter(splits.train.batches(8)))
    assert list(features) == ["dense", *(f"cat_{i}" for i in range(1, 27))]
    np.testing.assert_array_equal(features["dense"], splits.train.columns.dense[:8])
    np.testing.assert_array_equal(features["cat_26"], splits.train.columns.ids[:8, 25])
    assert labels.shape == (8, 1)


@given(st.integers(0, 5000))
def test_kaggle_split(num_rows: int) -> None:
    """As the reference does it: array_split into 7, then the last part into 2, test before validation."""
    days = np.array_split(np.arange(num_rows), 7)
    test, validation = np.array_split(days[-1], 2)
    train = np.concatenate(days[:-1])
    found = [np.arange(num_rows)[part] for part in kaggle_split(num_rows)]
    for part, expected in zip(found, (train, validation, test), strict=True):
        np.testing.assert_array_equal(part, expected)
    assert kaggle_rows_per_day(num_rows).tolist() == [len(day) for day in days]


def test_ids_modulo(tmp_path: Path) -> None:
    rows = criteo_rows(200)
    path = tmp_path / "day_0"
    path.write_bytes(criteo_text(rows))
    splits = open_dataset(DataConfig(format="criteo", path=str(path), id_modulo=7))
    for column in range(26):
        ids: dict[int, int] = {}
        expected = [ids.setdefault(int(str(row[14 + column] or 0), 16) % 7, len(ids)) for row in rows]
        assert splits.train.columns.ids[:, column].tolist() == expected
    assert max(splits.spec.vocabulary_sizes.values()) == 7
    splits.preprocessing.save(tmp_path / "saved")
    again = open_rows(DataConfig(format="criteo"), path, Preprocessing.load(tmp_path / "saved"))
    np.testing.assert_array_equal(again.columns.ids, splits.train.columns.ids)


def test_an_out_of_vocabulary_row_takes_vocabularies_from_the_training_part(tmp_path: Path) -> None:
    rows = criteo_rows(70)
    for number, row in enumerate(rows):
        row[14] = f"{min(number, 60) // 10:x}"  # 0 to 5 in training, 6 afterwards
    path = tmp_path / "train.txt.gz"
    path.write_bytes(gzip.compress(criteo_text(rows)))
    plain = criteo_feature_spec()
    spec = FeatureSpec(
        labels=plain.labels,
        dense=plain.dense,
        categorical=tuple(
            CategoricalColumn(name=column.name, encoding="hex", id_policy="oov") for column in plain.categorical
        ),
    )
    splits = open_dataset(DataConfig(format="criteo", path=str(path), split="criteo-kaggle", schema=spec))
    assert splits.spec.vocabulary_sizes["cat_1"] == 7
    assert splits.train.columns.ids[:, 0].tolist() == [1 + number // 10 for number in range(60)]
    assert splits.parts["test"].columns.ids[:, 0].tolist() == [0] * 5


def test_rows_without_labels(tmp_path: Path) -> None:
    rows = criteo_rows(20)
    train, test = tmp_path / "train.txt", tmp_path / "test.txt"
    train.write_bytes(criteo_text(rows))
    test.write_bytes(criteo_text([row[1:] for row in rows]))
    preprocessing = open_dataset(DataConfig(format="criteo", path=str(train))).preprocessing
    config = DataConfig(format="criteo")
    labelled, unlabelled = open_rows(config, train, preprocessing), open_rows(config, test, preprocessing)
    assert np.isnan(unlabelled.columns.labels).all()
    assert not np.isnan(labelled.columns.labels).any()
    np.testing.assert_array_equal(unlabelled.columns.ids, labelled.columns.ids)
    np.testing.assert_array_equal(unlabelled.columns.dense, labelled.columns.dense)
