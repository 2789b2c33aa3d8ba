"""Small valid configs that the config tests vary."""

from __future__ import annotations

from tfdlrm.config import DLRMConfig, ExperimentConfig, FeatureConfig, TableConfig


def table(**fields):
    return TableConfig(**{"name": "item", "vocabulary_size": 1000, "embedding_dim": 8, **fields})


def model(**fields):
    defaults = {
        "num_dense": 2,
        "embedding_dim": 8,
        "bottom_mlp": (16, 8),
        "top_mlp": (4, 1),
        "tables": (table(), table(name="user", vocabulary_size=10)),
        "features": (FeatureConfig(name="viewed", table="item", hotness=3), FeatureConfig(name="user")),
    }
    return DLRMConfig(**{**defaults, **fields})


def experiment(**fields):
    return ExperimentConfig(**{"model": model(), **fields})
