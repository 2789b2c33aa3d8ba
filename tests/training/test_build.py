"""From a config to a compiled model, and that model in a .keras file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.devices import two_devices
from tests.training.small_run import SPEC, TRAIN_ROWS, assert_identical, numbers, rows, small_config, with_model
from tfdlrm.config import ExperimentConfig, TrainConfig
from tfdlrm.embeddings.optimizers import FTRL, SGD, Adagrad, LazyAdam, RowOptimizer
from tfdlrm.losses import MeanSquaredError, WeightedBinaryCrossentropy
from tfdlrm.models.dcnv2 import DLRMDCNv2
from tfdlrm.models.dlrm import DLRM
from tfdlrm.schema import FeatureSpec
from tfdlrm.training.build import build_model, steps_per_execution
from tfdlrm.training.schedules import WarmupPolynomialDecay


def test_the_config_decides() -> None:
    model = build_model(small_config(loss="wbce", loss_weights=(1.0, 3.0), global_clipnorm=2.0), SPEC)
    assert isinstance(model, DLRM)
    assert isinstance(model.loss, WeightedBinaryCrossentropy)
    assert isinstance(model.optimizer._learning_rate, WarmupPolynomialDecay)
    assert model.optimizer.global_clipnorm == 2.0
    assert list(model.get_metrics_result()) == ["loss", "auc", "accuracy"]
    config = with_model(small_config(loss="mse", schedule=None, learning_rate=0.25), architecture="dcnv2")
    other = build_model(config, SPEC)
    assert isinstance(other, DLRMDCNv2)
    assert isinstance(other.loss, MeanSquaredError)
    assert float(other.optimizer.learning_rate) == 0.25


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"optimizer": "sgd"}, SGD()),
        ({"optimizer": "adagrad"}, Adagrad()),
        ({"optimizer": "adam"}, LazyAdam()),
        ({"optimizer": "sgd", "row_optimizer": FTRL(0.1)}, FTRL(0.1)),
    ],
)
def test_rows_follow_the_dense_optimizer_unless_told(options: dict, expected: RowOptimizer) -> None:
    assert build_model(small_config(**options), SPEC).embeddings.tables.optimizer == expected


def test_precision() -> None:
    model = build_model(small_config(precision="mixed_float16"), SPEC)
    assert model.compute_dtype == "float16"
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert {str(piece.read(0, 1).dtype) for piece in model.embeddings.tables.slices()} == {"<dtype: 'float32'>"}
    assert keras.config.dtype_policy().name == "float32"


def test_tables_and_tasks_come_from_the_schema() -> None:
    spec = replace(SPEC, labels=("click", "buy"))
    model = build_model(small_config(), spec)
    assert sorted(model.embeddings.tables.configs) == ["item", "tags"]
    assert list(model.get_metrics_result()) == ["loss", "click_auc", "click_accuracy", "buy_auc", "buy_accuracy"]
    with pytest.raises(ValueError, match="no vocabulary size for table 'item'"):
        build_model(small_config(), FeatureSpec(labels=("click",), dense=SPEC.dense, categorical=SPEC.categorical))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"global_batch_size": 2048}, 1),
        ({"global_batch_size": 65536}, 1),
        ({"global_batch_size": 512}, 4),
        ({"global_batch_size": 1}, 16),
        ({"global_batch_size": 512, "gradient_accumulation_steps": 3}, 3),
        ({"global_batch_size": 2048, "gradient_accumulation_steps": 3}, 3),
        ({"global_batch_size": 2048, "steps_per_execution": 7}, 7),
        ({"global_batch_size": 128, "checkpoint_every_steps": 100}, 10),
        ({"global_batch_size": 128, "checkpoint_every_steps": 7}, 7),
    ],
)
def test_steps_per_execution(options: dict, expected: int) -> None:
    assert steps_per_execution(TrainConfig(**{"steps_per_execution": "auto", **options})) == expected


def test_one_step_an_execution_under_replicas() -> None:
    with two_devices().scope():
        assert steps_per_execution(TrainConfig(steps_per_execution="auto", global_batch_size=128)) == 1


def batches() -> tf.data.Dataset:
    return rows(TRAIN_ROWS, 1).batches(16, shuffle=True)


@pytest.mark.parametrize(
    "config",
    [small_config(), small_config(optimizer="adam", learning_rate=0.01, schedule=None, precision="mixed_float16")],
    ids=["adagrad-schedule", "adam-float16"],
)
def test_a_keras_file_carries_tables_slots_and_optimizers(tmp_path: Path, config: ExperimentConfig) -> None:
    """Saved, loaded and trained on, a model ends like the one that was not. (Keras does not save dropout's seeds.)"""
    model = build_model(with_model(config, dropout=0.0), SPEC)
    model.fit(batches(), shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_identical(_saved(numbers(loaded)), _saved(numbers(model)))
    features, _ = next(iter(batches()))
    np.testing.assert_array_equal(loaded(features), model(features))
    for either in (model, loaded):
        either.fit(batches(), shuffle=False, verbose=0)
    assert_identical(_saved(numbers(loaded)), _saved(numbers(model)))


def _saved(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What Keras saves: all but the metrics, which begin anew with each fit."""
    return {name: value for name, value in found.items() if not name.startswith("metrics/")}
