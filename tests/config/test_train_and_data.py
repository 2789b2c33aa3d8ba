"""TrainConfig, DataConfig and SyntheticConfig: what they refuse."""

from __future__ import annotations

import dataclasses
import re

import pytest

from tfdlrm.config import DataConfig, LearningRateConfig, SyntheticConfig, TrainConfig


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"optimizer": "Adagrad"}, "optimizer='Adagrad' is not known, did you mean 'adagrad'"),
        ({"learning_rate": -0.1}, "learning_rate=-0.1 is out of range"),
        ({"learning_rate": "fast"}, "learning_rate='fast' is a str"),
        ({"learning_rate": float("nan")}, "learning_rate=nan is out of range"),
        ({"row_optimizer": "sgd"}, "row_optimizer='sgd' is a str. Give a RowOptimizer"),
        ({"schedule": 3}, "schedule=3 is a int. Give a LearningRateConfig"),
        ({"loss": "bse"}, "loss='bse' is not known"),
        ({"loss_weights": (1.0,)}, "loss_weights=[1.0] has 1 items"),
        ({"loss_weights": (1.0, -1.0)}, "loss_weights[1]=-1.0 is out of range"),
        ({"loss_weights": 1.0}, "loss_weights=1.0 is a float. Give a list"),
        ({"probability_clamp": 0.5}, "probability_clamp=0.5 is out of range"),
        ({"global_batch_size": 0}, "global_batch_size=0 is too small"),
        ({"epochs": 1.5}, "epochs=1.5 is a float"),
        ({"steps_per_epoch": 0}, "steps_per_epoch=0 is too small"),
        ({"shuffle": "False"}, "shuffle='False' is a str. Give true or false"),
        ({"deterministic": 1}, "deterministic=1 is a int"),
        ({"seed": -1}, "seed=-1 is too small"),
        ({"global_clipnorm": 0.0}, "global_clipnorm=0.0 is out of range. Give a finite number > 0"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps=0 is too small"),
        ({"precision": "float16"}, "precision='float16' is not known, did you mean"),
        ({"steps_per_execution": "always"}, "steps_per_execution='always' is a str"),
        ({"checkpoint_every_steps": 0}, "checkpoint_every_steps=0 is too small"),
        ({"checkpoint_every_minutes": 0}, "checkpoint_every_minutes=0 is out of range"),
        ({"keep_checkpoints": 0}, "keep_checkpoints=0 is too small"),
        ({"monitor": ""}, "monitor='' is not a name"),
        ({"monitor_mode": "auto"}, "monitor_mode='auto' is not known"),
        ({"early_stopping_patience": 0}, "early_stopping_patience=0 is too small"),
        ({"bad_rows": "skip"}, "bad_rows='skip' is not known"),
        ({"group_by": ""}, "group_by='' is not a name"),
    ],
)
def test_a_bad_training_is_refused(fields, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        TrainConfig(**fields)


def test_a_decay_starts_after_the_warmup():
    with pytest.raises(ValueError, match="decay_start_step=5 is before the end of the warmup, warmup_steps=10"):
        LearningRateConfig(warmup_steps=10, decay_start_step=5, num_decay_steps=1)
    assert LearningRateConfig(warmup_steps=10).num_decay_steps == 0
    with pytest.raises(ValueError, match="warmup_steps=-1 is too small"):
        LearningRateConfig(warmup_steps=-1)


SYNTHETIC = SyntheticConfig(num_rows=10, vocabulary_sizes=(5, 6))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format": "tsv"}, "format='tsv' is not known, did you mean 'csv'"),
        ({"split": "random"}, "split='random' is not known"),
        ({"format": "csv", "path": ""}, "path='' is not a name"),
        ({"train_fraction": 0.0}, "train_fraction=0.0 is out of range"),
        ({"train_fraction": 0.9, "validation_fraction": 0.2}, "add up to more than 1"),
        ({"id_modulo": 0}, "id_modulo=0 is too small"),
        ({"max_rows": 0}, "max_rows=0 is too small"),
        ({"schema": {"labels": ["y"]}}, "is a dict. Give a FeatureSpec"),
        ({"format": "csv", "synthetic": SYNTHETIC}, "synthetic is given with format='csv'"),
        ({"format": "synthetic", "path": "x.csv"}, "path='x.csv' is given with format='synthetic'"),
    ],
)
def test_a_bad_data_config_is_refused(fields, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        DataConfig(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_rows": 0}, "num_rows=0 is too small"),
        ({"vocabulary_sizes": ()}, "vocabulary_sizes is empty"),
        ({"vocabulary_sizes": (5, 0)}, "vocabulary_sizes[1]=0 is too small"),
        ({"hotness": (1,)}, "hotness has 1 numbers for 2 vocabulary_sizes"),
        ({"hotness": 0}, "hotness=0 is too small"),
        ({"hotness": (1, 0)}, "hotness[1]=0 is too small"),
        ({"power_law_exponent": -1}, "power_law_exponent=-1 is out of range"),
        ({"positive_rate": 1.0}, "positive_rate=1.0 is out of range"),
        ({"missing_fraction": 1.0}, "missing_fraction=1.0 is out of range"),
        ({"teacher_dim": 0}, "teacher_dim=0 is too small"),
    ],
)
def test_bad_synthetic_data_is_refused(fields, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        SyntheticConfig(**{"num_rows": 10, "vocabulary_sizes": (5, 6), **fields})


def test_hotness_per_feature():
    assert dataclasses.replace(SYNTHETIC, hotness=3).hotness_per_feature == (3, 3)
    assert dataclasses.replace(SYNTHETIC, hotness=[3, 1]).hotness_per_feature == (3, 1)
