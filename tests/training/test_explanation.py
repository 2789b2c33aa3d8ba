"""Contributions of columns: what the model's own layers give with one column at its mean; the background they need."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import tfdlrm
from tests.training.csv_run import csv_run, write_rows
from tests.training.small_run import SPEC, rows, small_config, with_model
from tfdlrm.cli import main
from tfdlrm.config import SyntheticConfig
from tfdlrm.data.dataset import InMemoryDataset
from tfdlrm.data.synthetic import synthetic_dataset
from tfdlrm.schema import FeatureSpec
from tfdlrm.training.background import background_of, load_background, save_background
from tfdlrm.training.build import build_model
from tfdlrm.training.explanation import Explainer

NO_DENSE = FeatureSpec(
    labels=("click",), categorical=SPEC.categorical, keys=("user",), vocabulary_sizes=SPEC.vocabulary_sizes
)
ONLY_DENSE = FeatureSpec(labels=("click",), dense=SPEC.dense)
TWO_LABELS = replace(SPEC, labels=("click", "buy"))
CROSS = {"architecture": "dcnv2", "cross_layers": 2, "cross_rank": 3}
NO_BOTTOM = {"num_dense": 0}


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return csv_run(tmp_path_factory.getbasetemp())


@pytest.mark.parametrize(
    ("spec", "fields"), [(SPEC, {}), (SPEC, CROSS), (TWO_LABELS, {}), (NO_DENSE, NO_BOTTOM)],
    ids=["dot", "cross", "two labels", "without dense columns"],
)  # fmt: skip
def test_contributions_are_those_of_the_layers(spec: FeatureSpec, fields: dict) -> None:
    model = build_model(with_model(small_config(), **fields), spec)
    for weight in model.weights:
        if "top_mlp" in weight.path and "kernel" in weight.path:
            weight.assign(np.random.default_rng(1).normal(size=weight.shape) * 0.7)
    dataset = rows(50, 4, SPEC)
    columns = replace(dataset.columns, dense=dataset.columns.dense[:, : spec.num_dense])
    columns = replace(columns, labels=np.repeat(columns.labels, len(spec.labels), axis=1))
    background = background_of(InMemoryDataset(spec, columns), seed=3)
    explainer = Explainer(model, spec, background)
    features, _ = next(iter(InMemoryDataset(spec, columns).batches(50)))
    found = explainer.contributions(features)
    assert found.shape == (50, len(spec.labels), spec.num_dense + 3)
    assert explainer.columns == (*(column.name for column in spec.dense), "item", "seen", "tags")

    ids = {name: features[name] for name in spec.feature_names}
    pooled = model.embeddings(ids, training=False).numpy()
    whole = model(features, training=False).numpy()
    for f in range(3):
        e = pooled.copy()
        e[:, f] = pooled[:, f].mean(axis=0)  # the background has the very same rows, in other orders
        x = model.bottom_mlp(features["dense"], training=False) if spec.num_dense else None
        expected = whole - model.logits_of(x, e, training=False).numpy()
        np.testing.assert_allclose(found[:, :, spec.num_dense + f], expected, atol=2e-6)
    for d in range(spec.num_dense):
        dense = columns.dense.copy()
        dense[:, d] = dense[:, d].mean()
        expected = whole - model({**features, "dense": dense}, training=False).numpy()
        np.testing.assert_allclose(found[:, :, d], expected, atol=2e-6)
    assert np.abs(found).max() > 0.05
    everything = model.logits_of(
        model.bottom_mlp(columns.dense.mean(axis=0, keepdims=True), training=False) if spec.num_dense else None,
        pooled.mean(axis=0, keepdims=True),
        training=False,
    )
    np.testing.assert_allclose(explainer.mean_logit(), everything.numpy()[0], atol=2e-6)


def test_dense_columns_alone_are_explained() -> None:
    model = build_model(small_config(), ONLY_DENSE)
    dataset = rows(20, 4)
    columns = replace(dataset.columns, ids=np.zeros([20, 0], "i4"), ragged={})
    own = InMemoryDataset(ONLY_DENSE, columns)
    explainer = Explainer(model, ONLY_DENSE, background_of(own))
    features, _ = next(iter(own.batches(20)))
    assert explainer.contributions(features).shape == (20, 1, 2)
    assert explainer.mean_logit().shape == (1,)


def test_the_background_shuffles_each_column_and_comes_back(tmp_path: Path) -> None:
    dataset = rows(150, 7)
    background = background_of(dataset, seed=1)
    columns = dataset.columns
    np.testing.assert_array_equal(np.sort(background.dense, axis=0), np.sort(columns.dense, axis=0))
    assert (background.dense != columns.dense).any(axis=0).all()
    # the ids of a bag stay together, and no two columns have one order
    assert sorted(map(tuple, background.ids[:, 1:])) == sorted(map(tuple, columns.ids[:, 1:]))
    pairs = set(zip(columns.dense[:, 0].tolist(), columns.dense[:, 1].tolist(), strict=True))
    assert len(pairs & set(zip(*background.dense.T.tolist(), strict=True))) < 10
    assert np.isnan(background.labels).all()
    save_background(tmp_path / "b.npz", SPEC, background)
    again = load_background(tmp_path / "b.npz", SPEC)
    assert again is not None
    np.testing.assert_array_equal(again.dense, background.dense)
    np.testing.assert_array_equal(again.ids, background.ids)
    np.testing.assert_array_equal(again.ragged["tags"].values, background.ragged["tags"].values)
    assert load_background(tmp_path / "none.npz", SPEC) is None
    with pytest.raises(ValueError, match=r"b\.npz: not the background"):
        load_background(tmp_path / "b.npz", NO_DENSE)
    with np.load(tmp_path / "b.npz", allow_pickle=False) as arrays:
        changed = {**arrays, "row_splits_2": arrays["row_splits_2"][::-1]}
    np.savez(tmp_path / "b.npz", **changed)
    with pytest.raises(ValueError, match="do not fit"):
        load_background(tmp_path / "b.npz", SPEC)
    (tmp_path / "b.npz").write_bytes((tmp_path / "b.npz").read_bytes()[:100])
    with pytest.raises(ValueError, match=r"b\.npz: not the background .* Remove it"):
        load_background(tmp_path / "b.npz", SPEC)


def test_samples_come_from_all_over() -> None:
    config = SyntheticConfig(num_rows=400_000, vocabulary_sizes=(50,))
    dataset = synthetic_dataset(config)
    sample = dataset.sample(500, 1)
    numbers = sample.keys["row_id"]
    assert len(numbers) == len(np.unique(numbers)) == 500
    assert numbers.max() - numbers.min() > 200_000
    assert (np.diff(numbers) > 0).all()
    few = synthetic_dataset(SyntheticConfig(num_rows=30, vocabulary_sizes=(50,)))
    assert few.sample(500).num_rows == 30


def test_frames_are_explained(model_dir: Path, tmp_path: Path) -> None:
    model = tfdlrm.load(model_dir)
    frame = pl.read_csv(write_rows(tmp_path / "rows.csv", 30))
    found = model.explain(frame)
    assert found.columns == ("age", "user", "tags")
    assert found.contributions.shape == (30, 3)
    np.testing.assert_allclose(1 / (1 + np.exp(-found.logits)), model.predict(frame), atol=1e-6)
    # a row whose age is the mean of training owes its age nothing
    mean = model.spec.dense[0].mean
    at_mean = model.explain(frame.with_columns(age=pl.lit(mean)))
    assert np.abs(at_mean.contributions[:, 0]).max() < 0.02 * np.abs(found.contributions[:, 0]).max() + 1e-4
    name, largest = found.top(0)[0]
    assert abs(largest) == np.abs(found.contributions[0]).max()
    assert name in found.columns
    for row in (30, -1):
        with pytest.raises(ValueError, match=f"row={row} is not one of the 30 rows"):
            found.top(row)


def test_predict_writes_contributions(model_dir: Path, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.csv", 25)
    output = tmp_path / "scores.csv"
    assert main(["predict", str(model_dir), "--data", str(file), "--output", str(output), "--explain"]) == 0
    scores = pl.read_csv(output)
    names = ["contribution_age", "contribution_user", "contribution_tags"]
    assert scores.columns[-3:] == names
    expected = tfdlrm.load(model_dir).explain(pl.read_csv(file)).contributions
    np.testing.assert_allclose(scores.select(names).to_numpy(), expected, atol=1e-5)


def test_without_a_background_the_training_data_are_read(model_dir: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(model_dir, folder)
    frame = pl.read_csv(write_rows(tmp_path / "rows.csv", 10))
    expected = tfdlrm.load(folder).explain(frame).contributions
    (folder / "background.npz").unlink()
    np.testing.assert_allclose(tfdlrm.load(folder).explain(frame).contributions, expected, atol=1e-5)
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace("rows.csv", "gone.csv"))
    with pytest.raises(ValueError, match=r"background\.npz: is not there, and the run's training data"):
        tfdlrm.load(folder).explain(frame)
