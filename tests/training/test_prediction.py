"""A file of scores has every row once, in order, beside its keys, and the model's own numbers."""

from __future__ import annotations

import csv
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.training.csv_run import SPEC, csv_run, write_rows
from tfdlrm.data.opening import open_rows
from tfdlrm.data.prepare import PrepareConfig, prepare
from tfdlrm.training.prediction import (
    ScoredBatch,
    load_run,
    open_file,
    predict_file,
    score_frame,
    scored_batches,
)
from tfdlrm.training.run_evaluation import evaluate_run


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory) -> Path:
    return csv_run(tmp_path_factory.getbasetemp())


def read(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t" if file.suffix == ".tsv" else ","))


def test_every_row_is_scored_once_in_order(model_dir, tmp_path):
    data = write_rows(tmp_path / "new.csv", 50, seed=9)
    prediction = predict_file(model_dir, data, tmp_path / "scores.csv", batch_size=16)
    found, given = read(tmp_path / "scores.csv"), read(data)
    assert list(found[0]) == ["row_id", "session", "click", "probability", "logit"]
    assert [int(row["row_id"]) for row in found] == list(range(50))
    assert [row["session"] for row in found] == [row["session"] for row in given]
    assert [float(row["click"]) for row in found] == [float(row["click"]) for row in given]
    assert prediction.labelled
    assert (prediction.books.read, prediction.books.used, prediction.books.set_aside) == (50, 50, 0)
    assert prediction.quarantine is None


def test_rows_whose_label_is_empty_are_scored(model_dir, tmp_path):
    """As the rows to be predicted often come: with the column, and nothing in it."""
    data = write_rows(tmp_path / "new.csv", 30, seed=9)
    predict_file(model_dir, data, tmp_path / "scores.csv")
    expected = [row["probability"] for row in read(tmp_path / "scores.csv")]
    lines = data.read_text().splitlines()
    for kept, name in ((0, "none"), (10, "some")):
        rows = [line if place <= kept else line[:-1] for place, line in enumerate(lines)]
        (tmp_path / f"{name}.csv").write_text("\n".join(rows) + "\n")
        found = predict_file(model_dir, tmp_path / f"{name}.csv", tmp_path / "scores.csv")
        assert [row["probability"] for row in read(tmp_path / "scores.csv")] == expected
        assert found.labelled == (kept > 0)
        with pytest.raises(ValueError, match="the label is not 0 or 1"):
            evaluate_run(model_dir, data=tmp_path / f"{name}.csv")
    assert [row["click"] for row in read(tmp_path / "scores.csv")][10:] == [""] * 20


def test_parts_of_prepared_data_are_scored_by_name(model_dir, tmp_path):
    data = write_rows(tmp_path / "rows.csv", 60, seed=4)
    kept = {"vocabularies": str(model_dir)}
    for split, name in (("time", "three"), ("none", "one")):
        config = PrepareConfig(format="csv", schema=load_run(model_dir)[2].spec, split=split, **kept)
        prepare(config, [data], tmp_path / name, bad_rows="quarantine")
    ids = {}
    for part in (None, "train", "validation", "test", "all"):
        found = predict_file(model_dir, tmp_path / "three", tmp_path / "scores.csv", part=part)
        ids[part] = [int(row["row_id"]) for row in read(tmp_path / "scores.csv")]
        names = ["train", "validation", "test"] if part == "all" else [part or "test"]
        assert found.rows_of == ", ".join(str(tmp_path / "three" / name) for name in names)
        assert found.books.used == len(ids[part])
    assert ids[None] == ids["test"]
    assert ids["all"] == ids["train"] + ids["validation"] + ids["test"]
    assert sorted(ids["all"]) == ids["all"]
    only = predict_file(model_dir, tmp_path / "one", tmp_path / "scores.csv")
    assert only.rows_of == str(tmp_path / "one" / "train")
    with pytest.raises(ValueError, match=r"one: has no 'test' part, but train\. Choose one of these, or all"):
        predict_file(model_dir, tmp_path / "one", tmp_path / "scores.csv", part="test")
    with pytest.raises(ValueError, match=r"rows\.csv: part='all' has a meaning only with a folder of prepared data"):
        predict_file(model_dir, data, tmp_path / "scores.csv", part="all")


def test_scores_are_the_models_own(model_dir, tmp_path):
    data = write_rows(tmp_path / "new.csv", 20, seed=9)
    predict_file(model_dir, data, tmp_path / "scores.csv")
    model, config, preprocessing = load_run(model_dir)
    features, _ = next(iter(open_rows(config.data, data, preprocessing).batches(20)))
    logits = model(features, training=False).numpy()[:, 0]
    found = read(tmp_path / "scores.csv")
    np.testing.assert_allclose([float(row["logit"]) for row in found], logits, rtol=0, atol=1e-6)
    probabilities = 1 / (1 + np.exp(-logits.astype("f8")))
    np.testing.assert_allclose([float(row["probability"]) for row in found], probabilities, rtol=0, atol=1e-6)


def test_scores_do_not_depend_on_the_batch_size(model_dir, tmp_path):
    data = write_rows(tmp_path / "new.csv", 15, seed=3)
    model, config, preprocessing = load_run(model_dir)
    dataset = open_file(config, data, preprocessing)
    whole = next(scored_batches(model, dataset, 15)).logits
    for batch_size, sizes in ((1, [1] * 15), (7, [7, 7, 1]), (4096, [15])):
        batches = list(scored_batches(model, dataset, batch_size))
        assert [len(batch.logits) for batch in batches] == sizes
        np.testing.assert_allclose(np.concatenate([batch.logits for batch in batches]), whole, rtol=0, atol=1e-6)


def test_rows_without_labels_are_scored(model_dir, tmp_path):
    labelled = write_rows(tmp_path / "a.csv", 12, seed=4)
    unlabelled = write_rows(tmp_path / "b.csv", 12, seed=4, labelled=False)
    predict_file(model_dir, labelled, tmp_path / "a.tsv")
    assert not predict_file(model_dir, unlabelled, tmp_path / "b.tsv").labelled
    with_labels, without = read(tmp_path / "a.tsv"), read(tmp_path / "b.tsv")
    assert list(without[0]) == ["row_id", "session", "probability", "logit"]
    assert [row["logit"] for row in with_labels] == [row["logit"] for row in without]


def test_parquet_holds_the_same_as_csv(model_dir, tmp_path):
    data = write_rows(tmp_path / "new.csv", 30, seed=5)
    predict_file(model_dir, data, tmp_path / "scores.csv", batch_size=8)
    predict_file(model_dir, data, tmp_path / "scores.parquet", batch_size=8)
    table = pl.read_parquet(tmp_path / "scores.parquet")
    assert table.schema["row_id"] == pl.Int64
    assert table["session"].to_list() == [row["session"] for row in read(tmp_path / "scores.csv")]
    # CSV writes the shortest text that reads back as the same float32
    assert table["logit"].to_list() == [float(np.float32(row["logit"])) for row in read(tmp_path / "scores.csv")]


def test_parquet_data_are_scored_by_a_model_of_csv(model_dir, tmp_path):
    data = write_rows(tmp_path / "new.csv", 10, seed=6)
    table = pl.read_csv(data, schema_overrides={"tags": pl.String}).with_columns(pl.col("tags").fill_null(""))
    table.write_parquet(tmp_path / "new.parquet")
    predict_file(model_dir, data, tmp_path / "a.csv")
    predict_file(model_dir, tmp_path / "new.parquet", tmp_path / "b.csv")
    assert read(tmp_path / "a.csv") == read(tmp_path / "b.csv")


def test_bad_rows_are_set_aside_and_the_ids_of_others_stay(model_dir, tmp_path):
    data = write_rows(tmp_path / "new.csv", 6, seed=7)
    lines = data.read_text().splitlines()
    lines[3] = lines[3].replace(lines[3].split(",")[2], "old")  # the age of row 2
    data.write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=r"new\.csv, line 4, column 'age'.*'old'"):
        predict_file(model_dir, data, tmp_path / "scores.csv")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["new.csv"]
    prediction = predict_file(model_dir, data, tmp_path / "scores.csv", bad_rows="quarantine")
    assert [int(row["row_id"]) for row in read(tmp_path / "scores.csv")] == [0, 1, 3, 4, 5]
    assert (prediction.books.read, prediction.books.used, prediction.books.set_aside) == (6, 5, 1)
    assert "old" in (prediction.quarantine / "quarantine.tsv").read_text()


def test_a_failure_leaves_the_old_scores(model_dir, tmp_path, monkeypatch):
    data = write_rows(tmp_path / "new.csv", 40, seed=8)
    output = tmp_path / "scores.csv"
    output.write_text("old\n")

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        predict_file(model_dir, data, output)
    assert output.read_text() == "old\n"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["new.csv", "scores.csv"]


@pytest.mark.parametrize(
    ("output", "error", "message"),
    [
        ("scores.xlsx", ValueError, r"\.xlsx is not a format of scores.*\.csv, \.tsv, \.parquet"),
        ("scores", ValueError, "no suffix"),
        ("missing/scores.csv", FileNotFoundError, "folder .*missing does not exist"),
        ("new.csv", ValueError, "would replace the data"),
        ("folder.csv", IsADirectoryError, "a folder"),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_any_work(tmp_path, output, error, message):
    data = write_rows(tmp_path / "new.csv", 3)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(error, match=message):
        predict_file(tmp_path / "no model", data, tmp_path / output)


def test_of_several_tasks_each_has_columns_of_its_own():
    spec = replace(SPEC, labels=("click", "buy"))
    logits = np.array([[0.0, 1.0], [2.0, -1.0]], np.float32)
    keys = {"session": np.array([b"a", b"b"], object), "row_id": np.array([0, 1])}
    batch = ScoredBatch(labels=np.array([[0, 1], [1, 0]], np.float32), logits=logits, keys=keys)
    frame = score_frame(batch, spec, labelled=True)
    tasks = ["probability_click", "probability_buy", "logit_click", "logit_buy"]
    assert frame.columns == ["row_id", "session", "click", "buy", *tasks]
    assert frame["logit_buy"].to_list() == [1.0, -1.0]
    assert frame["session"].to_list() == ["a", "b"]
    with pytest.raises(ValueError, match="two columns 'session'"):
        score_frame(batch, replace(spec, labels=("session", "buy")), labelled=True)


def test_a_folder_without_a_run_is_named(tmp_path):
    data = write_rows(tmp_path / "new.csv", 3)
    with pytest.raises(FileNotFoundError, match="no run there"):
        predict_file(tmp_path, data, tmp_path / "scores.csv")


def test_an_unknown_checkpoint_is_refused_with_those_there_are(model_dir, tmp_path):
    data = write_rows(tmp_path / "new.csv", 3)
    with pytest.raises(FileNotFoundError, match=r"step-7: no checkpoint.*step-000000010, step-000000020"):
        predict_file(model_dir, data, tmp_path / "scores.csv", checkpoint="step-7")


def test_data_of_another_schema_are_refused(model_dir, tmp_path):
    data = tmp_path / "new.csv"
    data.write_text("session,user,tags,click\ns1,u1,t1,0\n")
    with pytest.raises(ValueError, match="column 'age' of the schema is missing"):
        predict_file(model_dir, data, tmp_path / "scores.csv")


def test_empty_data_are_refused(model_dir, tmp_path):
    (tmp_path / "new.csv").touch()
    with pytest.raises(ValueError, match=r"new\.csv: the file is empty"):
        predict_file(model_dir, tmp_path / "new.csv", tmp_path / "scores.csv")
