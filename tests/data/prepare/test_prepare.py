"""Preparation gives the rows that opening the raw files gives, whatever the format, and a schema that fits them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from tests.data import sample_rows as sample
from tests.data.test_readers import READERS
from tests.golden_files import golden_files
from tfdlrm import CategoricalColumn, FeatureSpec
from tfdlrm.config import DataConfig
from tfdlrm.data import BadRowError, Preprocessing, open_dataset, open_rows
from tfdlrm.data.columns import Columns
from tfdlrm.data.prepare import PrepareConfig, PrepareResult, avazu_feature_spec, prepare
from tfdlrm.data.prepared import open_prepared, prepared_dataset
from tfdlrm.native import plain

GOLDEN = golden_files("criteo_kaggle_rows*.tsv.gz")
ROWS = sample.sample_rows(200)


def _prepare(sources: Path | list[Path], folder: Path, **options: Any) -> PrepareResult:
    sources = sources if isinstance(sources, list) else [sources]
    keywords = {name: options.pop(name) for name in ("memory", "bad_rows", "restart") if name in options}
    return prepare(PrepareConfig(**options), sources, folder, **keywords)


def _columns(folder: Path, part: str = "train") -> Columns:
    dataset = prepared_dataset(folder, part)
    return dataset.source.read_blocks(range(dataset.num_blocks))


def _ids(folder: Path, part: str = "train") -> np.ndarray:
    return _columns(folder, part).ids


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.name)
def test_golden_criteo_rows(path: Path, tmp_path: Path) -> None:
    golden = np.load(path.parent / (path.name.removesuffix(".tsv.gz") + ".npz"))
    result = _prepare(path, tmp_path / "out", format="criteo-kaggle", split="criteo-kaggle")
    num_rows = len(golden["label"])
    assert result.books == {"read": num_rows, "written": num_rows, "quarantined": 0, "sampled_out": 0}
    splits = open_prepared(tmp_path / "out")
    assert list(splits.spec.vocabulary_sizes.values()) == golden["vocabulary_sizes"].tolist()
    for name, short in (("train", "train"), ("validation", "val"), ("test", "test")):
        columns = _columns(tmp_path / "out", name)
        np.testing.assert_array_equal(columns.ids, golden[f"split/{short}_cat"])
        np.testing.assert_array_equal(columns.labels[:, 0], golden[f"split/{short}_label"])
        np.testing.assert_array_equal(columns.dense, golden[f"split/{short}_dense"])
    assert not (tmp_path / "out" / ".work").exists()


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("split", ["none", "time"])
def test_every_format_gives_what_opening_it_gives(reader: str, split: str, tmp_path: Path) -> None:
    form, write = READERS[reader]
    raw = tmp_path / "raw"
    raw.mkdir()
    path = write(raw, ROWS)
    fractions = {"train_fraction": 0.6, "validation_fraction": 0.3}
    opened = open_dataset(
        DataConfig(format=form, path=str(path), schema=sample.SPEC, split=split, **fractions),
        bad_rows="quarantine",
    )
    result = _prepare(
        path, tmp_path / "out", format=form, schema=sample.SPEC, split=split, bad_rows="quarantine", **fractions
    )
    prepared = open_prepared(tmp_path / "out")
    assert prepared.spec == opened.spec
    assert prepared.books == opened.books
    assert list(prepared.parts) == list(opened.parts)
    for name, part in opened.parts.items():
        sample.assert_same_columns(_columns(tmp_path / "out", name), part.columns)
    saved = Preprocessing.load(tmp_path / "out")
    for table, vocabulary in opened.preprocessing.vocabularies.items():
        assert saved.vocabularies[table].values.to_list() == vocabulary.values.to_list()
    assert result.books["read"] == 200
    features, labels = next(iter(prepared.train.batches(7)))
    expected, expected_labels = next(iter(opened.train.batches(7)))
    tf.nest.map_structure(
        lambda one, other: np.testing.assert_array_equal(one, other),
        tf.nest.flatten((features, labels), expand_composites=True),
        tf.nest.flatten((expected, expected_labels), expand_composites=True),
    )


def _criteo(folder: Path, num_rows: int, seed: int = 0, name: str = "rows.txt") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_bytes(sample.criteo_text(sample.criteo_rows(num_rows, seed)))
    return path


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }


def test_memory_changes_nothing(tmp_path: Path) -> None:
    path = _criteo(tmp_path / "raw", 9_000)
    for name, memory in (("little", 2**27), ("much", 2**33)):
        _prepare(path, tmp_path / name, format="criteo-kaggle", split="criteo-kaggle", memory=memory)
    assert _contents(tmp_path / "little") == _contents(tmp_path / "much")


def test_native_code_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _criteo(tmp_path / "raw", 3_000)
    kinds: dict[str, dict[str, Any]] = {
        "plain": {"split": "criteo-kaggle"},
        "counted": {"split": "random", "oov": True, "min_count": 20, "vocabulary_order": "frequency"},
    }
    for name, options in kinds.items():
        _prepare(path, tmp_path / f"native-{name}", format="criteo-kaggle", memory=2**27, **options)
    monkeypatch.setattr(plain, "functions", lambda: None)
    for name, options in kinds.items():
        _prepare(path, tmp_path / f"python-{name}", format="criteo-kaggle", memory=2**27, **options)
        assert _contents(tmp_path / f"python-{name}") == _contents(tmp_path / f"native-{name}")


def test_compressed_files_are_the_same(tmp_path: Path) -> None:
    path = _criteo(tmp_path / "raw", 500)
    gz = tmp_path / "rows.gz"
    gz.write_bytes(gzip.compress(path.read_bytes()))
    zst = tmp_path / "rows.zst"
    zst.write_bytes(pa.compress(path.read_bytes(), "zstd", asbytes=True))
    for name, source in (("plain", path), ("gz", gz), ("zst", zst)):
        _prepare(source, tmp_path / name, format="criteo-kaggle")
    assert _contents(tmp_path / "plain") == _contents(tmp_path / "gz") == _contents(tmp_path / "zst")


def test_files_of_a_folder_come_in_natural_order_and_rows_are_numbered_through(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    for day in (0, 2, 10):
        _criteo(raw, 20 + day, seed=day, name=f"day_{day}")
    result = _prepare(raw, tmp_path / "out", format="criteo-terabyte", split="criteo-terabyte")
    assert [source["rows_read"] for source in result.manifest["sources"]] == [20, 22, 30]
    assert {part: entry["rows"] for part, entry in result.manifest["parts"].items()} == {
        "train": 42,
        "validation": 15,
        "test": 15,
    }
    assert _columns(tmp_path / "out").keys["row_id"].tolist() == list(range(42))
    assert _columns(tmp_path / "out", "test").keys["row_id"].tolist() == list(range(42, 57))
    text = "".join((raw / f"day_{day}").read_text() for day in (0, 2, 10))
    (tmp_path / "one.txt").write_text(text)
    whole = open_dataset(DataConfig(format="criteo", path=str(tmp_path / "one.txt")))
    np.testing.assert_array_equal(_ids(tmp_path / "out"), whole.train.columns.ids[:42])


def test_a_day_alone_is_no_terabyte(tmp_path: Path) -> None:
    path = _criteo(tmp_path / "raw", 20)
    with pytest.raises(ValueError, match="tests on the last file, and there is 1"):
        _prepare(path, tmp_path / "out", format="criteo-terabyte", split="criteo-terabyte")


def test_ids_by_frequency_with_a_threshold(tmp_path: Path) -> None:
    path = _criteo(tmp_path / "raw", 300)
    _prepare(path, tmp_path / "out", format="criteo-kaggle", vocabulary_order="frequency", min_count=9, oov=True)
    saved = Preprocessing.load(tmp_path / "out")
    cells = [line.split("\t")[14] for line in path.read_text().splitlines()]
    numbers = [int(cell or "0", 16) for cell in cells]
    counts = {value: numbers.count(value) for value in dict.fromkeys(numbers)}
    kept = sorted((value for value in counts if counts[value] >= 9), key=lambda value: -counts[value])
    assert saved.vocabularies["cat_1"].values.to_list() == kept
    assert 0 < len(kept) < len(counts)
    expected = [kept.index(number) + 1 if number in kept else 0 for number in numbers]
    np.testing.assert_array_equal(_ids(tmp_path / "out")[:, 0], expected)


def test_later_rows_with_the_same_ids_and_new_ones_behind(tmp_path: Path) -> None:
    first, second = _criteo(tmp_path / "raw", 60, seed=1), _criteo(tmp_path / "raw", 200, seed=2, name="later.txt")
    _prepare(first, tmp_path / "first", format="criteo-kaggle", oov=True)
    before = Preprocessing.load(tmp_path / "first").vocabularies
    options = {"format": "criteo-kaggle", "oov": True, "vocabularies": str(tmp_path / "first")}
    _prepare(second, tmp_path / "same", **options)
    assert Preprocessing.load(tmp_path / "same").spec == Preprocessing.load(tmp_path / "first").spec
    opened = open_rows(DataConfig(format="criteo"), second, Preprocessing.load(tmp_path / "first"))
    np.testing.assert_array_equal(_ids(tmp_path / "same"), opened.columns.ids)
    assert (_ids(tmp_path / "same") == 0).any()
    _prepare(second, tmp_path / "more", **options, extend=True)
    after = Preprocessing.load(tmp_path / "more").vocabularies
    for table, vocabulary in before.items():
        assert after[table].values.to_list()[: len(vocabulary.values)] == vocabulary.values.to_list()
    assert sum(each.size for each in after.values()) > sum(each.size for each in before.values())
    assert not (_ids(tmp_path / "more") == 0).any()
    known = _ids(tmp_path / "same") != 0
    np.testing.assert_array_equal(_ids(tmp_path / "more")[known], _ids(tmp_path / "same")[known])


@pytest.mark.parametrize("extend", [True, False])
def test_a_given_vocabulary_of_wider_numbers(extend: bool, tmp_path: Path) -> None:
    """Numbers of 32 bits are kept as such, and an earlier vocabulary may hold one of 44."""
    rows = sample.criteo_rows(30)
    rows[0][14] = "fffffffffff"
    (tmp_path / "first.txt").write_bytes(sample.criteo_text(rows))
    _prepare(tmp_path / "first.txt", tmp_path / "first", format="criteo-kaggle", oov=True)
    later = _criteo(tmp_path / "raw", 40, seed=1)
    options = {"format": "criteo-kaggle", "oov": True, "vocabularies": str(tmp_path / "first")}
    _prepare(later, tmp_path / "later", **options, extend=extend)
    if not extend:
        opened = open_rows(DataConfig(format="criteo"), later, Preprocessing.load(tmp_path / "first"))
        np.testing.assert_array_equal(_ids(tmp_path / "later"), opened.columns.ids)
    values = Preprocessing.load(tmp_path / "later").vocabularies["cat_1"].values.to_list()
    assert values[0] == 2**44 - 1


def test_a_value_not_seen_in_training_is_set_aside(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    rows = sample.criteo_rows(40)
    for row in rows:
        row[14] = "0000000a"
    rows[35][14] = "000000ff"
    (raw / "rows.txt").write_bytes(sample.criteo_text(rows))
    options = {"format": "criteo-kaggle", "split": "time", "train_fraction": 0.7}
    for column in range(15, 40):  # the others hold one value only
        for row in rows:
            row[column] = "0000000b"
    (raw / "rows.txt").write_bytes(sample.criteo_text(rows))
    with pytest.raises(BadRowError, match=r"line 36, column 'cat_1': the value was not seen in training"):
        _prepare(raw / "rows.txt", tmp_path / "error", **options)
    result = _prepare(raw / "rows.txt", tmp_path / "out", **options, bad_rows="quarantine")
    assert result.books == {"read": 40, "written": 39, "quarantined": 1, "sampled_out": 0}
    header, line = (tmp_path / "out" / "quarantine.tsv").read_text().splitlines()
    assert header.split("\t") == ["file", "line", "column", "reason", "raw"]
    assert line.split("\t")[1:4] == ["36", "cat_1", "the value was not seen in training"]
    assert "000000ff" in line


def test_splits_that_go_by_single_rows(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    rows = sample.sample_rows(600)
    path = sample.write_csv(raw / "rows.csv", rows)
    fractions = {"train_fraction": 0.5, "validation_fraction": 0.25}
    options = {"format": "csv", "schema": sample.SPEC, "oov": True, **fractions}
    parts = {}
    for split, column in (("random", None), ("hash", "user"), ("time-column", "user")):
        _prepare(path, tmp_path / split, split=split, split_column=column, bad_rows="quarantine", **options)
        parts[split] = {name: _columns(tmp_path / split, name).keys for name in ("train", "validation", "test")}
        numbers = np.concatenate([keys["row_id"] for keys in parts[split].values()])
        assert len(numbers) == len(set(numbers.tolist()))
        for name, share in (("train", 0.5), ("validation", 0.25), ("test", 0.25)):
            assert abs(len(parts[split][name]["row_id"]) / 600 - share) < 0.08, (split, name)
    for split in ("hash", "time-column"):
        users = [set(keys["user"].tolist()) for keys in parts[split].values()]
        assert not users[0] & users[1]
        assert not users[0] & users[2]
        assert not users[1] & users[2]
    times = [keys["user"] for keys in parts["time-column"].values()]
    assert times[0].max() < times[1].min()
    assert times[1].max() < times[2].min()
    _prepare(path, tmp_path / "other", split="random", seed=1, bad_rows="quarantine", **options)
    assert _columns(tmp_path / "other").keys["row_id"].tolist() != parts["random"]["train"]["row_id"].tolist()


def test_sampled_negatives(tmp_path: Path) -> None:
    path = _criteo(tmp_path / "raw", 2_000)
    options = {"format": "criteo-kaggle", "split": "time", "oov": True}
    _prepare(path, tmp_path / "all", **options)
    result = _prepare(path, tmp_path / "some", **options, keep_negatives=0.25)
    every, some = _columns(tmp_path / "all"), _columns(tmp_path / "some")
    positive = every.labels[:, 0] == 1
    assert (some.labels[:, 0] == 1).sum() == positive.sum()
    kept = (some.labels[:, 0] == 0).sum()
    assert abs(kept / (~positive).sum() - 0.25) < 0.05
    assert result.books["sampled_out"] == (~positive).sum() - kept
    np.testing.assert_array_equal(_columns(tmp_path / "all", "test").labels, _columns(tmp_path / "some", "test").labels)
    assert result.manifest["sampling"] == {"keep_negatives": 0.25, "logit_offset": pytest.approx(np.log(0.25))}
    # the share of positives among the sampled rows, put right by the offset, is the true one
    logit = np.log(positive.sum() / kept) + result.manifest["sampling"]["logit_offset"]
    assert 1 / (1 + np.exp(-logit)) == pytest.approx(positive.mean(), abs=0.02)


def test_mlperf_bags(tmp_path: Path) -> None:
    path = _criteo(tmp_path / "raw", 100)
    _prepare(path, tmp_path / "one", format="criteo-kaggle")
    _prepare(path, tmp_path / "bags", format="criteo-kaggle", multi_hot="mlperf-dcnv2")
    splits = open_prepared(tmp_path / "bags")
    hotness = [column.hotness for column in splits.spec.categorical]
    assert hotness == [3, 2, 1, 2, 6, 1, 1, 1, 1, 7, 3, 8, 1, 6, 9, 5, 1, 1, 1, 12, 100, 27, 10, 3, 1, 1]
    bags, single = _ids(tmp_path / "bags"), _ids(tmp_path / "one")
    starts = np.cumsum([0, *hotness[:-1]])
    np.testing.assert_array_equal(bags[:, starts], single)
    sizes = list(splits.spec.vocabulary_sizes.values())
    for place, (start, width) in enumerate(zip(starts, hotness, strict=True)):
        assert bags[:, start : start + width].max() < sizes[place]
    features, _ = next(iter(splits.train.batches(10)))
    assert features["cat_21"].shape == (10, 100)


def test_other_file_formats_hold_the_same_rows(tmp_path: Path) -> None:
    path = sample.write_csv(tmp_path / "rows.csv", ROWS)
    options = {"format": "csv", "schema": sample.SPEC, "bad_rows": "quarantine"}
    for form in ("arrow", "parquet", "tfrecord"):
        _prepare(path, tmp_path / form, output=form, **options)
    with pa.memory_map(str(tmp_path / "arrow/train/part-00000.arrow")) as stream:
        table = pa.ipc.open_file(stream).read_all()
    assert pq.read_table(tmp_path / "parquet/train/part-00000.parquet").equals(table)
    records = list(tf.data.TFRecordDataset(str(tmp_path / "tfrecord/train/part-00000.tfrecord")))
    assert len(records) == table.num_rows
    for row, record in enumerate(records):
        feature = tf.train.Example.FromString(record.numpy()).features.feature
        for name in table.column_names:
            value = table[name][row].as_py()
            found = getattr(feature[name], feature[name].WhichOneof("kind") or "int64_list").value
            values = value if isinstance(value, list) else [value]
            values = [each.encode() if isinstance(each, str) else each for each in values]
            assert list(found) == (pytest.approx(values) if values and isinstance(values[0], float) else values)
    with pytest.raises(ValueError, match="holds tfrecord files, for other programs"):
        prepared_dataset(tmp_path / "tfrecord")


def test_avazu(tmp_path: Path) -> None:
    spec = avazu_feature_spec()
    header = ["id", "click", "hour", *spec.feature_names]
    lines = [",".join(header)]
    lines += [",".join([str(10**18 + row), str(row % 2), "14102100", *[f"{row % 3}x"] * 21]) for row in range(30)]
    (tmp_path / "train.csv").write_text("\n".join(lines) + "\n")
    _prepare(tmp_path / "train.csv", tmp_path / "out", format="avazu", split="time")
    columns = _columns(tmp_path / "out")
    assert columns.ids[:4, 0].tolist() == [1, 2, 3, 1]
    assert columns.keys["id"].tolist()[0] == 10**18
    assert columns.labels[:, 0].tolist()[:2] == [0.0, 1.0]


def test_ids_are_kept_as_narrow_as_their_table(tmp_path: Path) -> None:
    path = _criteo(tmp_path / "raw", 50)
    _prepare(path, tmp_path / "out", format="criteo-kaggle")
    with pa.memory_map(str(tmp_path / "out/train/part-00000.arrow")) as stream:
        schema = pa.ipc.open_file(stream).schema
    assert schema.field("cat_1").type == pa.uint8()
    assert schema.field("label").type == pa.uint8()
    assert schema.field("int_1").type == pa.float32()


def test_the_manifest_says_how_and_from_what(tmp_path: Path) -> None:
    path = _criteo(tmp_path / "raw", 50)
    prepare(PrepareConfig(format="criteo-kaggle"), [path], tmp_path / "out", command=["tfdlrm", "data", "prepare"])
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["command"] == ["tfdlrm", "data", "prepare"]
    assert manifest["sources"][0]["bytes"] == path.stat().st_size
    [file] = manifest["parts"]["train"]["files"]
    content = (tmp_path / "out" / file["name"]).read_bytes()
    import hashlib

    assert file["sha256"] == hashlib.sha256(content).hexdigest()
    assert (file["rows"], file["bytes"]) == (50, len(content))


def test_later_rows_have_the_tables_of_the_earlier_ones(tmp_path: Path) -> None:
    """Of whole numbers, too, whose largest id may be smaller or larger there."""
    schema = FeatureSpec(labels=("y",), categorical=(CategoricalColumn(name="item"),))
    for name, items in (("first", (0, 4)), ("less", (1, 2)), ("more", (3, 9))):
        (tmp_path / f"{name}.csv").write_text("y,item\n" + "".join(f"{k % 2},{item}\n" for k, item in enumerate(items)))
    prepare(PrepareConfig(format="csv", schema=schema), [tmp_path / "first.csv"], tmp_path / "first")
    options = {"format": "csv", "schema": schema, "vocabularies": str(tmp_path / "first")}
    prepare(PrepareConfig(**options), [tmp_path / "less.csv"], tmp_path / "less")
    assert FeatureSpec.load(tmp_path / "less") == FeatureSpec.load(tmp_path / "first")
    with pytest.raises(BadRowError, match=r"more\.csv, line 3, column 'item': the id is not in \[0, 5\)"):
        prepare(PrepareConfig(**options), [tmp_path / "more.csv"], tmp_path / "more")
    prepare(PrepareConfig(**options, extend=True), [tmp_path / "more.csv"], tmp_path / "extended")
    assert FeatureSpec.load(tmp_path / "extended").vocabulary_sizes["item"] == 10
