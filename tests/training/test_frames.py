"""Frames in, probabilities out: the same as by files, whatever kind of frame it is."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

import tfdlrm
from tfdlrm import FeatureSpec
from tfdlrm.data import BadRowError, from_frame
from tfdlrm.data.typed import to_polars
from tfdlrm.training.prediction import predict_file

ROWS = 900
RANDOM = np.random.default_rng(3)
KIND = RANDOM.choice(["red", "green", "blue"], ROWS)
PRICE = RANDOM.uniform(0, 9, ROWS).round(3)
FRAME = pl.DataFrame(
    {
        "clicked": np.where(RANDOM.random(ROWS) < np.where(KIND == "red", 0.8, 0.2) + PRICE / 50, "yes", "no"),
        "kind": KIND,
        "price": pl.Series(PRICE).set(pl.Series(np.arange(ROWS) % 10 == 0), None),
        "tags": [["a", "b", "c"][: k % 4] for k in range(ROWS)],
        "when": [datetime.datetime(2024, 1, 1) + datetime.timedelta(hours=k) for k in range(ROWS)],
        "old": [k % 3 == 0 for k in range(ROWS)],
    }
)
SMALL = ["train.epochs=2", "model.top_mlp=[8,1]", "train.global_batch_size=64"]


@pytest.fixture(scope="module")
def trained() -> tfdlrm.TrainedModel:
    return tfdlrm.fit(FRAME, label="clicked", overrides=SMALL)


def test_fit_learns_and_load_brings_it_back(trained: tfdlrm.TrainedModel) -> None:
    scores = trained.predict(FRAME)
    assert scores.shape == (ROWS,)
    assert scores.dtype == np.float32
    is_red = (FRAME["kind"] == "red").to_numpy()
    assert scores[is_red].mean() > scores[~is_red].mean() + 0.1
    metrics = trained.evaluate(FRAME)
    assert metrics["rows"] == ROWS
    assert metrics["auc"] > 0.7
    np.testing.assert_array_equal(tfdlrm.load(trained.model_dir).predict(FRAME), scores)


def test_every_kind_of_frame_is_scored_alike(trained: tfdlrm.TrainedModel) -> None:
    expected = trained.predict(FRAME)
    pandas = FRAME.to_pandas()
    kinds = {
        "pyarrow": FRAME.to_arrow(),
        "mapping": FRAME.to_dict(),
        "pandas": pandas,
        "an index of its own": pandas.set_index(pd.Index(range(5, ROWS + 5), name="number")),
        "nullable types": pandas.convert_dtypes(),
        "categories": pandas.astype({"kind": "category", "old": "boolean"}),
        "other order, no label": FRAME.select("old", "when", "tags", "price", "kind"),
    }
    for name, frame in kinds.items():
        np.testing.assert_array_equal(trained.predict(frame), expected, err_msg=name)


def test_frames_and_files_give_the_same(trained: tfdlrm.TrainedModel, tmp_path: Path) -> None:
    FRAME.write_parquet(tmp_path / "rows.parquet")
    predict_file(trained.model_dir, tmp_path / "rows.parquet", tmp_path / "scores.parquet", data_format="parquet")
    found = pl.read_parquet(tmp_path / "scores.parquet")["probability"].to_numpy()
    np.testing.assert_allclose(trained.predict(FRAME), found, rtol=0, atol=1e-6)


def test_splits_of_a_frame() -> None:
    spec = FeatureSpec.infer(FRAME, "clicked")
    rows = {}
    for split in ("random", "time", "none"):
        splits = from_frame(FRAME, spec, split=split, train_fraction=0.6, validation_fraction=0.2)
        rows[split] = {name: part.columns.keys["row_id"].tolist() for name, part in splits.parts.items()}
        assert sorted(row for part in rows[split].values() for row in part) == list(range(ROWS))
        part = splits.train.columns
        labels = (FRAME["clicked"] == "yes").to_numpy()[part.keys["row_id"]]
        np.testing.assert_array_equal(part.labels[:, 0], labels)
    assert rows["time"]["train"] == list(range(540))
    assert list(rows["none"]) == ["train"]
    assert len(rows["random"]["validation"]) == 180
    assert rows["random"]["train"] != rows["time"]["train"]
    again = from_frame(FRAME, spec, train_fraction=0.6, validation_fraction=0.2)
    assert again.train.columns.keys["row_id"].tolist() == rows["random"]["train"]
    other = from_frame(FRAME, spec, train_fraction=0.6, validation_fraction=0.2, seed=1)
    assert other.train.columns.keys["row_id"].tolist() != rows["random"]["train"]


def test_bad_rows_are_named_or_left_out(trained: tfdlrm.TrainedModel) -> None:
    spec = FeatureSpec.infer(FRAME, "clicked")
    bad = FRAME.with_columns(clicked=pl.Series(["maybe", *FRAME["clicked"][1:-1], None]))
    says = "frame, line 1, column 'clicked': the label is not 'no' or 'yes'"
    with pytest.raises(BadRowError, match=f'{says}.*aside: bad_rows="quarantine"'):
        from_frame(bad, spec, split="time")
    books = from_frame(bad, spec, bad_rows="quarantine").books
    assert (books.read, books.used, books.set_aside) == (ROWS, ROWS - 2, 2)
    with pytest.raises(ValueError, match="column 'price' has dtype"):
        trained.predict(FRAME.with_columns(price=pl.Series([[1.0]] * ROWS)))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda frame: frame.drop("price"), "frame: column 'price' of the schema is missing"),
        (lambda frame: frame.with_columns(more=1), "frame: column 'more' is not in the schema"),
        (lambda frame: frame.head(0), "frame: no usable row. Give at least one.$"),
        (
            lambda frame: frame.with_columns(price=pl.lit(1e300)),
            "frame, line 1, column 'price': NaN, infinite .*missing one.$",
        ),
        (
            lambda frame: frame.to_pandas().assign(kind=[1, "a"] * (ROWS // 2)),
            "frame: column 'kind': .*Give it values of one type",
        ),
        (
            lambda frame: pd.concat([frame.to_pandas(), frame.to_pandas()[["price"]]], axis=1),
            "frame: 2 columns are called 'price'. Rename all but one.",
        ),
    ],
)
def test_frames_that_do_not_fit(trained: tfdlrm.TrainedModel, change, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        trained.predict(change(FRAME))


def test_a_second_prediction_traces_nothing(trained: tfdlrm.TrainedModel) -> None:
    first = trained.predict(FRAME)
    (function,) = trained._traced.values()
    traces = function.experimental_get_tracing_count()
    np.testing.assert_array_equal(trained.predict(FRAME.to_pandas()), first)
    np.testing.assert_allclose(trained.predict(FRAME.head(3)), first[:3], rtol=1e-6)
    assert list(trained._traced.values()) == [function]
    assert function.experimental_get_tracing_count() == traces == 1


def test_what_is_refused(trained: tfdlrm.TrainedModel) -> None:
    with pytest.raises(ValueError, match=r"frame: no column of labels \(clicked\), and metrics need them"):
        trained.evaluate(FRAME.drop("clicked"))
    with pytest.raises(ValueError, match="fit: give either label"):
        tfdlrm.fit(FRAME)
    with pytest.raises(ValueError, match="fit: give either label"):
        tfdlrm.fit(FRAME, "clicked", schema=trained.spec)
    with pytest.raises(ValueError, match="split='hash'"):
        tfdlrm.fit(FRAME, "clicked", split="hash")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="rows are a ndarray"):
        to_polars(np.zeros(3))


def test_a_validation_part_of_one_kind_of_labels_leaves_the_last_epoch() -> None:
    rows = pl.DataFrame({"y": [1, 0, 0, 0, 0, 0, 0, 0, 0, 0], "x": np.arange(10) * 0.5})
    small = ["train.epochs=1", "model.embedding_dim=4", "model.bottom_mlp=[4]", "model.top_mlp=[4,1]"]
    model = tfdlrm.fit(rows, label="y", split="time", overrides=small)
    assert model.predict(rows).shape == (10,)
