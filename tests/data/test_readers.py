"""Contract of every reader: the same rows give the same tensors, and the books balance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.data import sample_rows as sample
from tfdlrm import CategoricalColumn, DenseColumn, FeatureSpec
from tfdlrm.config import DataConfig
from tfdlrm.data import BadRowError, Preprocessing, from_frame, open_dataset, open_rows
from tfdlrm.data.columns import Columns
from tfdlrm.data.prepare.config import PrepareConfig
from tfdlrm.data.prepare.in_memory import prepare_in_memory
from tfdlrm.data.quarantine import Quarantine
from tfdlrm.data.tabular import csv_source
from tfdlrm.hashing import hash_to_buckets

NUM_ROWS = 60
ROWS = sample.sample_rows(NUM_ROWS)
REVERSED = list(reversed(list(ROWS[0])))

READERS = {
    "csv": ("csv", lambda folder, rows: sample.write_csv(folder / "rows.csv", rows)),
    "csv, columns in another order": (
        "csv",
        lambda folder, rows: sample.write_csv(folder / "rows.csv", rows, columns=REVERSED),
    ),
    "tabs": ("csv", lambda folder, rows: sample.write_csv(folder / "rows.tsv", rows, separator="\t")),
    "semicolons": ("csv", lambda folder, rows: sample.write_csv(folder / "rows.csv", rows, separator=";")),
    "bars": ("csv", lambda folder, rows: sample.write_csv(folder / "rows.csv", rows, separator="|")),
    "crlf": ("csv", lambda folder, rows: sample.write_csv(folder / "rows.csv", rows, newline="\r\n")),
    "gzip": ("csv", lambda folder, rows: sample.write_csv(folder / "rows.csv.gz", rows)),
    "parquet with lists": ("parquet", lambda folder, rows: sample.write_parquet(folder / "rows.parquet", rows)),
    "arrow": ("arrow", lambda folder, rows: sample.write_arrow(folder / "rows.feather", rows)),
    "parquet with text": (
        "parquet",
        lambda folder, rows: sample.write_parquet(folder / "rows.parquet", rows, as_lists=False),
    ),
}


def _expected(rows: list[sample.Row], train: int) -> Columns:
    """The encoding, row by row in plain Python."""
    log = [np.log(np.float32(max(row["price"] or 0, 0)) + np.float32(1)) for row in rows]
    ages = np.array([30.0 if row["age"] is None else row["age"] for row in rows])
    # float32 first, as requests are
    age = (ages.astype(np.float32).astype(np.float64) - ages[:train].mean()) / ages[:train].std()
    score = np.clip([row["score"] for row in rows], -1, 1)
    dense = np.stack([log, age, score, [row["plain"] for row in rows]], axis=1).astype(np.float32)

    def first_appearance(bags: list[list], start: int) -> list[list[int]]:
        ids: dict = {}
        for bag in bags[:train]:
            for token in bag:
                ids.setdefault(token, len(ids) + start)
        return [[ids.get(token, 0) for token in bag] for bag in bags]

    cities = first_appearance([[row["city"]] for row in rows], 1)
    codes = first_appearance([[int(row["code"] or "0", 16)] for row in rows], 0)
    pages = hash_to_buckets(tf.constant([row["page"] for row in rows]), 13).numpy()
    ids = [
        [row["item"], *city, *code, page, *row["pair"]]
        for row, city, code, page in zip(rows, cities, codes, pages, strict=True)
    ]

    def ragged(bags: list[list], weights: list[list] | None = None) -> sample.RaggedColumn:
        return sample.RaggedColumn(
            values=np.array([i for bag in bags for i in bag], np.int32),
            row_splits=np.cumsum([0, *map(len, bags)], dtype=np.int64),
            weights=None if weights is None else np.array([w for bag in weights for w in bag], np.float32),
        )

    return Columns(
        dense=dense,
        labels=np.array([[row["click"], row["buy"]] for row in rows], np.float32),
        ids=np.array(ids, np.int32),
        weights=np.zeros((len(rows), 0), np.float32),
        ragged={
            "tags": ragged(first_appearance([row["tags"] for row in rows], 1)),
            "seen": ragged([row["seen"] for row in rows], [row["seen_weights"] for row in rows]),
        },
        keys={
            "user": np.array([row["user"] for row in rows]),
            "city": np.array([row["city"] for row in rows], object),
            "row_id": np.arange(len(rows)),
        },
    )


@pytest.mark.parametrize("reader", READERS)
def test_same_rows_same_tensors(reader: str, tmp_path: Path) -> None:
    form, write = READERS[reader]
    # codes are hex without an out-of-vocabulary row: all of them must be seen in training
    splits = open_dataset(DataConfig(format=form, path=str(write(tmp_path, ROWS)), schema=sample.SPEC))
    sample.assert_same_columns(splits.train.columns, _expected(ROWS, NUM_ROWS))
    assert (splits.books.read, splits.books.used, splits.books.set_aside) == (NUM_ROWS, NUM_ROWS, 0)
    assert splits.spec.vocabulary_sizes["city"] == 1 + len({row["city"] for row in ROWS})


@pytest.mark.parametrize("reader", READERS)
def test_vocabularies_and_statistics_come_from_the_training_part(reader: str, tmp_path: Path) -> None:
    form, write = READERS[reader]
    rows = [{**row, "code": "ff"} for row in ROWS]
    # Values of the last rows are unknown to the first.
    for row in rows[50:]:
        row["city"], row["age"], row["tags"] = "Oslo", 500.0, ["violet", "red"]
    config = DataConfig(
        format=form, path=str(write(tmp_path, rows)), schema=sample.SPEC, split="time", train_fraction=0.7
    )
    splits = open_dataset(config)
    expected = _expected(rows, 42)
    bounds = {"train": (0, 42), "validation": (42, 48), "test": (48, 60)}
    assert set(splits.parts) == set(bounds)
    for name, (start, stop) in bounds.items():
        sample.assert_same_columns(splits.parts[name].columns, expected.slice(start, stop))
    assert splits.test is not None
    assert (splits.test.columns.ids[2:, 1] == 0).all()


@pytest.mark.parametrize("chunk_bytes", [1, 64, 1000, 2**20])
def test_the_size_of_chunks_does_not_matter(chunk_bytes: int, tmp_path: Path) -> None:
    path = sample.write_csv(tmp_path / "rows.csv", ROWS)
    quarantine = Quarantine()
    source, _ = csv_source(path, sample.SPEC, quarantine, chunk_bytes=chunk_bytes)
    read = prepare_in_memory(PrepareConfig(format="csv"), source, sample.SPEC, quarantine)
    assert read.rows_read == NUM_ROWS
    sample.assert_same_columns(read.parts["train"], _expected(ROWS, NUM_ROWS))


def test_labels_that_some_blocks_lack(tmp_path: Path) -> None:
    spec = FeatureSpec(labels=("y", "z"), categorical=(CategoricalColumn(name="word", encoding="vocabulary"),))
    path = tmp_path / "rows.csv"
    path.write_text("y,z,word\n" + "".join(f"{'' if row < 3 else row % 2},1,w{row % 4}\n" for row in range(20)))
    quarantine = Quarantine()
    source, _ = csv_source(path, spec, quarantine, chunk_bytes=16)
    read = prepare_in_memory(PrepareConfig(format="csv"), source, spec, quarantine, empty_labels=True)
    labels = read.parts["train"].labels
    assert labels.dtype == np.float32
    np.testing.assert_array_equal(labels[:, 0], [np.nan] * 3 + [row % 2 for row in range(3, 20)])
    assert (labels[:, 1] == 1).all()


def test_unseen_values_are_named_by_their_own_row_in_any_order() -> None:
    words = [f"w{row}" for row in range(40)]
    spec = FeatureSpec(labels=("y",), categorical=(CategoricalColumn(name="word", encoding="vocabulary"),))
    frame = {"y": [row % 2 for row in range(40)], "word": words}
    splits = from_frame(frame, spec, split="random", bad_rows="quarantine", seed=3)
    assert splits.test is None
    assert splits.validation is None
    assert len(splits.bad_rows) == splits.books.set_aside == 8
    assert [row.value for row in splits.bad_rows] == [words[row.line - 1] for row in splits.bad_rows]
    assert [row.raw.split(b"\t")[1].decode() for row in splits.bad_rows] == [row.value for row in splits.bad_rows]
    kept = splits.train.columns.keys["row_id"]
    assert {*kept.tolist(), *(row.line - 1 for row in splits.bad_rows)} == set(range(40))


@pytest.mark.parametrize("reader", READERS)
def test_a_saved_preprocessing_encodes_new_rows_the_same(reader: str, tmp_path: Path) -> None:
    form, write = READERS[reader]
    config = DataConfig(format=form, path=str(write(tmp_path, ROWS)), schema=sample.SPEC)
    splits = open_dataset(config)
    splits.preprocessing.save(tmp_path / "saved")
    loaded = Preprocessing.load(tmp_path / "saved")
    assert loaded.spec == splits.spec
    again = open_rows(DataConfig(format=form), config.path or "", loaded)
    sample.assert_same_columns(again.columns, splits.train.columns)


def test_rows_without_labels_can_be_scored(tmp_path: Path) -> None:
    preprocessing = open_dataset(
        DataConfig(format="csv", path=str(sample.write_csv(tmp_path / "rows.csv", ROWS)), schema=sample.SPEC)
    ).preprocessing
    unlabelled = [{name: cell for name, cell in row.items() if name not in ("click", "buy")} for row in ROWS]
    for form, path in (
        ("csv", sample.write_csv(tmp_path / "new.csv", unlabelled)),
        ("parquet", sample.write_parquet(tmp_path / "new.parquet", unlabelled)),
    ):
        dataset = open_rows(DataConfig(format=form), path, preprocessing)
        assert np.isnan(dataset.columns.labels).all()
        np.testing.assert_array_equal(dataset.columns.ids, _expected(ROWS, NUM_ROWS).ids)


def test_max_rows_reads_no_more(tmp_path: Path) -> None:
    path = sample.write_csv(tmp_path / "rows.csv", ROWS)
    splits = open_dataset(DataConfig(format="csv", path=str(path), schema=sample.SPEC, max_rows=7))
    assert splits.train.num_rows == 7
    assert splits.books.read == 7
    sample.assert_same_columns(splits.train.columns, _expected(ROWS[:7], 7))


def test_separate_files_are_the_parts(tmp_path: Path) -> None:
    paths = {
        name: str(sample.write_csv(tmp_path / f"{name}.csv", [{**row, "code": "1"} for row in rows]))
        for name, rows in (("train", ROWS[:30]), ("validation", ROWS[30:40]), ("test", ROWS[40:]))
    }
    config = DataConfig(
        format="csv",
        path=paths["train"],
        validation_path=paths["validation"],
        test_path=paths["test"],
        schema=sample.SPEC,
    )
    splits = open_dataset(config)
    assert {name: part.num_rows for name, part in splits.parts.items()} == {"train": 30, "validation": 10, "test": 20}
    assert splits.books.read == 60


def test_separate_files_are_encoded_by_what_the_first_taught(tmp_path: Path) -> None:
    spec = FeatureSpec(
        labels=("y",),
        dense=(DenseColumn(name="x", transform="standardize"),),
        categorical=(CategoricalColumn(name="item"), CategoricalColumn(name="b", encoding="bins", source="z", bins=3)),
    )
    texts = {"train": "y,x,z,item\n0,1,1,0\n1,3,2,4\n0,5,3,2\n", "test": "y,x,z,item\n1,3,9,9\n1,7,1,3\n"}
    for name, text in texts.items():
        (tmp_path / f"{name}.csv").write_text(text)
    options = {"path": str(tmp_path / "train.csv"), "test_path": str(tmp_path / "test.csv"), "schema": spec}
    config = DataConfig(format="csv", **options)
    with pytest.raises(BadRowError, match=r"test\.csv, line 2, column 'item': the id is not in \[0, 5\), the rows of"):
        open_dataset(config)
    splits = open_dataset(config, bad_rows="quarantine")
    assert splits.spec.vocabulary_sizes["item"] == 5
    assert splits.test is not None
    assert splits.test.spec == splits.train.spec
    assert splits.books.set_aside == splits.test.num_rows == 1
    assert splits.test.columns.ids[0].tolist() == [3, 1]
    assert splits.test.columns.dense[0, 0] == pytest.approx((7 - 3) / np.std([1, 3, 5]))


def test_a_file_of_row_ids_keeps_them(tmp_path: Path) -> None:
    rows = [{**row, "row_id": f"r{i:03d}"} for i, row in enumerate(ROWS)]
    path = sample.write_csv(tmp_path / "rows.csv", rows)
    dataset = open_dataset(DataConfig(format="csv", path=str(path), schema=sample.SPEC)).train
    (_, _, keys) = next(iter(dataset.batches(4, with_keys=True)))
    assert keys["row_id"].numpy().tolist() == [b"r000", b"r001", b"r002", b"r003"]


def test_the_schema_beside_the_data_is_taken(tmp_path: Path) -> None:
    path = sample.write_csv(tmp_path / "rows.csv", ROWS)
    with pytest.raises(ValueError, match="needs a schema"):
        open_dataset(DataConfig(format="csv", path=str(path)))
    sample.SPEC.save(tmp_path)
    assert open_dataset(DataConfig(format="csv", path=str(path))).train.num_rows == NUM_ROWS


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("quoted", ["8", '"8"', '"\n8"'])
def test_lines_may_end_in_any_way(end, quoted, tmp_path) -> None:
    schema = FeatureSpec(
        labels=("click",),
        dense=(DenseColumn(name="price"),),
        categorical=(CategoricalColumn(name="item"),),
        vocabulary_sizes={"item": 9},
    )
    path = tmp_path / "rows.csv"
    path.write_bytes(end.join(["click,price,item", "1,0.5,3", f"0,1.5,{quoted}", ""]).encode())
    data = open_dataset(DataConfig(format="csv", path=str(path), split="none", schema=schema))
    features, labels = next(iter(data.train.batches(9)))
    assert features["item"].numpy().reshape(-1).tolist() == [3, 8]
    assert labels.numpy().reshape(-1).tolist() == [1.0, 0.0]
