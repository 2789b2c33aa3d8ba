"""What a model goes by, on rows whose teacher is known; drift that was planted; tables that were trained in part."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import log_loss

from tests.training.small_run import SPEC, rows, small_config
from tfdlrm.config import DataConfig, DLRMConfig, ExperimentConfig, SyntheticConfig, TrainConfig
from tfdlrm.data.columns import RaggedColumn
from tfdlrm.data.dataset import InMemoryDataset
from tfdlrm.data.opening import open_dataset
from tfdlrm.data.preprocessing import Preprocessing
from tfdlrm.metrics.evaluation import probability_of
from tfdlrm.report.drift import drifted, find_drift
from tfdlrm.report.groups import ValueNames
from tfdlrm.report.importance import REPEATS, find_importance, permuted_together
from tfdlrm.report.model_report import make_report
from tfdlrm.report.scored_rows import ScoredRows, score_rows
from tfdlrm.report.table_usage import table_usage
from tfdlrm.schema import CategoricalColumn, DenseColumn, FeatureSpec
from tfdlrm.training.background import background_of
from tfdlrm.training.build import build_model
from tfdlrm.training.model_dir import ModelDir
from tfdlrm.training.run import train

NAMES = ("item", "seen", "tags")


class Linear(keras.Model):
    """Logits are a sum of what single columns say."""

    def call(self, features, training=False):
        del training
        item = tf.cast(features["item"] % 2, tf.float32)
        seen = tf.reduce_sum(tf.cast(features["seen"] % 2, tf.float32), axis=1)
        return tf.reshape(2.0 * item + 0.3 * seen + 0.8 * features["dense"][:, 0] - 1.8, [-1, 1])


def scored(num_rows: int = 6000) -> tuple[Linear, ScoredRows]:
    model, dataset = Linear(), rows(num_rows, 1)
    logits = model(
        {"item": dataset.columns.ids[:, 0], "seen": dataset.columns.ids[:, 1:], "dense": dataset.columns.dense}
    )
    labels = np.random.default_rng(5).random(num_rows) < probability_of(logits.numpy()[:, 0])
    columns = replace(dataset.columns, labels=labels[:, None].astype("f4"))
    return model, score_rows(model, InMemoryDataset(SPEC, columns), batch_size=512, sample_rows=10**6)


def test_importance_is_the_loss_of_permuted_columns() -> None:
    model, found = scored()
    names = ValueNames(Preprocessing(spec=SPEC), found.sample)
    importance, effects = find_importance(model, found, names, batch_size=500, seed=3)
    by_name = {each.name: each for each in importance}
    # `seen` shares the table of `item`, and both are permuted together
    assert set(by_name) == {"age", "price", "item, seen (table item)", "tags"}
    assert [each.name for each in importance][:2] == ["item, seen (table item)", "age"]
    for name in ("price", "tags"):
        assert by_name[name].loss_increase == 0.0
        assert by_name[name].auc_drop == 0.0
    # the same by scikit-learn's loss, with permutations of its own
    random, losses = np.random.default_rng(0), []
    for _ in range(20):
        order = random.permutation(found.num_rows)
        features = {
            "item": found.sample.ids[order, 0],
            "seen": found.sample.ids[order, 1:],
            "dense": found.sample.dense,
        }
        losses.append(log_loss(found.labels, probability_of(model(features).numpy()[:, 0])))
    expected = np.mean(losses) - log_loss(found.labels, found.probabilities)
    low, high = by_name["item, seen (table item)"].interval
    assert low < expected < high
    assert high - low < 0.5 * expected
    # odd items are above the others by 2, of which half the rows have some
    item = [each for each in effects if each.column == "item"]
    assert item
    for each in item:
        assert each.effect == pytest.approx(1.0 if int(each.value) % 2 else -1.0, abs=0.25)
    assert REPEATS > 1


def test_importance_finds_the_order_of_a_planted_teacher(tmp_path: Path) -> None:
    """A trained model's importance is that of the teacher that drew the labels."""
    synthetic = SyntheticConfig(num_rows=60_000, vocabulary_sizes=(8, 8, 8, 8), num_dense=2, seed=4)
    config = ExperimentConfig(
        model=DLRMConfig(embedding_dim=8, bottom_mlp=(16, 8), top_mlp=(32, 1)),
        train=TrainConfig(optimizer="adagrad", learning_rate=0.05, global_batch_size=256, epochs=2),
        data=DataConfig(format="synthetic", synthetic=synthetic, split="time"),
    )
    train(config, tmp_path / "model", verbose=0)
    report = make_report(tmp_path / "model")
    assert report.best is not None
    assert report.best["auc"] >= report.metrics["auc"] - 0.01
    # by the teacher's own probabilities: how much its log odds differ between the values of a column
    test = open_dataset(config.data).test
    assert test is not None
    columns = test.sample(10**6)
    odds = np.log(columns.keys["teacher_probability"] / (1 - columns.keys["teacher_probability"]))
    told = {}
    for place, name in enumerate(test.spec.feature_names):
        means = np.array([odds[columns.ids[:, place] == k].mean() for k in np.unique(columns.ids[:, place])])
        counts = np.array([(columns.ids[:, place] == k).sum() for k in np.unique(columns.ids[:, place])])
        told[name] = float(counts @ (means - odds.mean()) ** 2 / counts.sum())
    found = {each.name: each.loss_increase for each in report.importance if each.name in told}
    by_teacher = sorted(told, key=lambda name: -told[name])
    by_model = sorted(found, key=lambda name: -found[name])
    assert by_model[0] == by_teacher[0]
    assert by_model[-1] == by_teacher[-1]


def test_columns_of_one_source_or_table_are_permuted_together() -> None:
    spec = FeatureSpec(
        labels=("y",),
        dense=(DenseColumn(name="age"), DenseColumn(name="price")),
        categorical=(
            CategoricalColumn(name="age_bins", source="age", encoding="bins", edges=(1.0, 2.0)),
            CategoricalColumn(name="hour", source="when", encoding="hour"),
            CategoricalColumn(name="day", source="when", encoding="weekday"),
            CategoricalColumn(name="item"),
            CategoricalColumn(name="seen", table="item"),
            CategoricalColumn(name="city"),
        ),
    )
    assert permuted_together(spec) == [
        ("age", ("age", "age_bins")),
        ("price", ("price",)),
        ("when", ("hour", "day")),
        ("item, seen (table item)", ("item", "seen")),
        ("city", ("city",)),
    ]
    # a table that joins what were two
    third = CategoricalColumn(name="third", table="item", source="age", encoding="bins", edges=(1.0, 2.0))
    both = permuted_together(replace(spec, categorical=(*spec.categorical, third)))
    assert both[0][1] == ("age", "age_bins", "item", "seen", "third")
    assert len(both) == 4


def test_drift_that_was_planted_is_found() -> None:
    _, found = scored()
    background = background_of(rows(5000, 2))
    drift, tails = find_drift(found, background)
    assert not any(drifted(each) for each in drift)
    assert [each.column for each in tails] == list(NAMES)
    tags = found.sample.ragged["tags"]
    moved = replace(
        found.sample,
        dense=found.sample.dense + np.array([1.0, 0.0], "f4"),
        ragged={"tags": RaggedColumn(values=np.minimum(tags.values, 1), row_splits=tags.row_splits)},
    )
    drift, _ = find_drift(replace(found, sample=moved), background)
    assert {each.name for each in drift if drifted(each)} == {"age", "tags"}


def test_head_and_tail_are_told_apart() -> None:
    _, found = scored()
    columns = background_of(rows(5000, 2))
    ids = columns.ids.copy()
    ids[:3000, 0] = 7  # the head is this id alone
    _, tails = find_drift(found, replace(columns, ids=ids))
    item = tails[0]
    has = found.sample.ids[:, 0] == 7
    assert (item.head_ids, item.rows) == (1, (int(has.sum()), int((~has).sum())))
    p = found.probabilities
    assert item.ratios[0] == pytest.approx(p[has].sum() / found.labels[has].sum())
    seen = tails[1]
    assert seen.rows[0] + seen.rows[1] == found.num_rows
    assert item.unseen == 0.0


@pytest.mark.parametrize("row_dtype", ["float32", "bfloat16"])
def test_untrained_rows_are_counted(row_dtype: str) -> None:
    spec = replace(SPEC, vocabulary_sizes={"item": 40, "tags": 9000})
    config = small_config()
    config = replace(config, model=replace(config.model, row_dtype=row_dtype))
    model = build_model(config, spec)
    usage = {each.table: each for each in table_usage(model)}
    assert (usage["item"].untrained, usage["tags"].untrained) == (40, 9000)
    assert usage["item"].norm == 0.0
    dataset = rows(64, 1)  # of 11 tags
    features, labels = next(iter(dataset.batches(64)))
    model.fit(features, labels, epochs=1, batch_size=64, verbose=0)
    usage = {each.table: each for each in table_usage(model)}
    tags, items = (np.unique(values) for values in (dataset.columns.ragged["tags"].values, dataset.columns.ids))
    # at most what was looked at; gradients of a few may vanish, or round away
    assert 9000 - len(tags) <= usage["tags"].untrained < 9000
    assert 40 - len(items) <= usage["item"].untrained < 40
    assert usage["item"].norm > 0.0


def test_a_run_without_background_says_so(tmp_path: Path) -> None:
    from tests.training.csv_run import csv_config, write_rows

    train(csv_config(write_rows(tmp_path / "rows.csv", 400)), tmp_path / "model", verbose=0)
    (ModelDir(tmp_path / "model").background_file).unlink()
    assert make_report(tmp_path / "model").drift is not None  # the run's data are there
    (tmp_path / "rows.csv").rename(tmp_path / "moved.csv")
    report = make_report(tmp_path / "model", data=tmp_path / "moved.csv")
    assert report.drift is None
    assert any("Drift from the training rows is not told" in note for note in report.notes)
