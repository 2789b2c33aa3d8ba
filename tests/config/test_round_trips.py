"""Configs through dict and YAML and back."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings

from tests.config_samples import experiment, model, table
from tests.strategies import EXPERIMENTS
from tfdlrm.config import ExperimentConfig, FeatureConfig, TrainConfig
from tfdlrm.embeddings import initializers, optimizers


@given(EXPERIMENTS)
@settings(max_examples=60)
def test_round_trips_through_dict_and_yaml(config):
    assert ExperimentConfig.from_dict(config.to_dict()) == config
    assert ExperimentConfig.from_yaml(config.to_yaml()) == config
    assert hash(ExperimentConfig.from_yaml(config.to_yaml())) == hash(config)
    assert ExperimentConfig.from_yaml(config.to_yaml()).to_yaml() == config.to_yaml()


def test_configs_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        model().embedding_dim = 4
    with pytest.raises(TypeError):
        TrainConfig("sgd")  # positional


def test_lists_become_tuples():
    config = model(bottom_mlp=[16, 8], tables=[table()], features=[FeatureConfig(name="item")], tasks=["y"])
    assert config.bottom_mlp == (16, 8)
    assert isinstance(config.tables, tuple)
    assert isinstance(config.tasks, tuple)


def test_short_forms_in_yaml():
    config = ExperimentConfig.from_yaml(
        """
        model:
          embedding_dim: 8
          bottom_mlp: [8]
          top_mlp: [1]
          tables:
            - {name: item, vocabulary_size: 10, initializer: scaled_uniform, optimizer: rowwise_adagrad}
          features:
            - {name: item}
        train:
          row_optimizer: {name: adagrad, learning_rate: 1e-2}
        """
    )
    (item,) = config.model.tables
    assert item.embedding_dim == 8  # the model's
    assert item.initializer == initializers.ScaledUniform()
    assert item.optimizer == optimizers.RowwiseAdagrad()
    assert config.train.row_optimizer == optimizers.Adagrad(0.01)
    assert config.model.features[0].table == "item"


def test_a_schedule_cannot_be_written():
    config = experiment(train=TrainConfig(row_optimizer=optimizers.SGD(lambda step: 0.1)))
    with pytest.raises(ValueError, match="is a schedule and cannot be written to YAML"):
        config.to_yaml()
