"""Spaces: what a file may say, and what is refused before a search begins."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from tfdlrm.config import preset
from tfdlrm.tuning.space import Space, with_values
from tfdlrm.yaml_text import dump_yaml, parse_yaml

CONFIG = preset("dlrm")


def test_values_are_drawn_from_the_space() -> None:
    space = Space.from_dict(
        {
            "train.learning_rate": {"low": 0.001, "high": 0.1, "log": True},
            "model.top_mlp": [[32, 1], [64, 32, 1]],
            "train.epochs": {"low": 1, "high": 3},
            "train.optimizer": {"choices": ["adagrad", "sgd"]},
        }
    )
    space.check(CONFIG)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [space.draw(study.ask()) for _ in range(40)]
    assert {each["train.epochs"] for each in drawn} == {1, 2, 3}
    assert {tuple(each["model.top_mlp"]) for each in drawn} == {(32, 1), (64, 32, 1)}
    rates = [each["train.learning_rate"] for each in drawn]
    assert all(0.001 <= rate <= 0.1 for rate in rates)
    assert 8 <= sum(rate < 0.01 for rate in rates) <= 32  # even on the logarithm
    config = with_values(CONFIG, drawn[0])
    assert config.train.learning_rate == rates[0]
    assert list(config.model.top_mlp) == drawn[0]["model.top_mlp"]


def test_the_bottom_mlp_follows_the_width_of_vectors() -> None:
    config = with_values(CONFIG, {"model.embedding_dim": 32})
    assert (config.model.embedding_dim, config.model.bottom_mlp) == (32, (64, 32))
    own = with_values(CONFIG, {"model.embedding_dim": 8, "model.bottom_mlp": [16, 8]})
    assert own.model.bottom_mlp == (16, 8)


@pytest.mark.parametrize("name", ["dlrm", "dcnv2", "movielens-100k", "quickstart", "avazu"])
def test_the_default_space_fits_every_preset(name: str) -> None:
    config = preset(name)
    space = Space.default(config)
    space.check(config)
    again = Space.from_dict(parse_yaml(dump_yaml(space.to_dict()), "space"))
    assert again.to_dict() == space.to_dict()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "is empty"),
        ([1], "the document"),
        ({"train.epochs": 3}, "the entry"),
        ({"train.epochs": {"low": 1}}, "high is missing"),
        ({"train.epochs": {"low": 3, "high": 1}}, "Swap them"),
        ({"train.epochs": {"low": 0.0, "high": 1, "log": True}}, "has no logarithm"),
        ({"train.epochs": {"choices": [1], "low": 1}}, "Give one of them"),
        ({"train.epochs": []}, "choices is empty"),
        ({"train.epochs": {"lo": 1, "high": 2}}, "'lo'"),
        ({"train.epochs": {"low": "a", "high": 2}}, "low"),
        ({"train.epochs": {"low": 1, "high": 2, "log": "yes"}}, "log"),
    ],
)
def test_what_is_no_space_is_refused(given: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Space.from_dict(given)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("train.learning_rat", [0.1], "learning_rate"),
        ("model.dropout", [0.1, 1.5], "space: model.dropout=1.5"),
        ("train.optimizer", ["adagrad", "adamax"], "space: train.optimizer='adamax'"),
        ("model.bottom_mlp", [[64, 8]], "space: model.bottom_mlp"),
    ],
)
def test_values_that_do_not_fit_the_config_are_named(key: str, value: list, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Space.from_dict({key: value}).check(CONFIG)


def test_a_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text("train.epochs: {low: 1}\n")
    with pytest.raises(ValueError, match=r"train\.epochs: high is missing"):
        Space.load(file)
    file.write_text("a: [")
    with pytest.raises(ValueError, match=r"space\.yaml"):
        Space.load(file)
