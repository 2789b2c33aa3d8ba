"""DLRMConfig: what it refuses, how it takes a schema, what it gives its tables."""

from __future__ import annotations

import dataclasses
import re

import pytest

from tests.config_samples import model, table
from tfdlrm.config import DLRMConfig, FeatureConfig, MixedDimensionConfig, QuotientRemainderConfig
from tfdlrm.embeddings import optimizers
from tfdlrm.schema import CategoricalColumn, DenseColumn, FeatureSpec, criteo_feature_spec


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"architecture": "dcn"}, "architecture='dcn' is not known, did you mean 'dcnv2'"),
        ({"num_dense": -1}, "num_dense=-1 is too small"),
        ({"embedding_dim": 0}, "embedding_dim=0 is too small"),
        ({"bottom_mlp": (16, 4)}, "bottom_mlp=[16, 4] does not end in embedding_dim=8"),
        ({"bottom_mlp": ()}, "bottom_mlp=[] does not end in embedding_dim=8"),
        ({"bottom_mlp": "16-8"}, "bottom_mlp='16-8' is a str. Give a list"),
        ({"bottom_mlp": (16.0, 8)}, "bottom_mlp[0]=16.0 is a float"),
        ({"bottom_mlp": (0, 8)}, "bottom_mlp[0]=0 is too small"),
        ({"top_mlp": (4,)}, "top_mlp=[4] does not end in 1"),
        ({"top_mlp": ()}, "top_mlp=[] does not end in 1"),
        ({"interaction": "mul"}, "interaction='mul' is not known"),
        ({"interact_itself": "yes"}, "interact_itself='yes' is a str"),
        ({"interaction_padding": 0}, "interaction_padding=0 is too small"),
        ({"cross_layers": 0}, "cross_layers=0 is too small"),
        ({"cross_rank": 1.5}, "cross_rank=1.5 is a float"),
        ({"dropout": 1.0}, "dropout=1.0 is out of range. Give a finite number >= 0 and < 1"),
        ({"normalization": "group"}, "normalization='group' is not known"),
        ({"pooling_weights": "none"}, "pooling_weights='none' is not known"),
        ({"combiner": None}, "combiner=None is not known"),
        ({"tasks": ()}, "tasks is empty"),
        ({"tasks": ("a", "a")}, "tasks has 'a' twice"),
        ({"seed": -1}, "seed=-1 is too small"),
        (
            {"tables": (table(), table()), "features": (FeatureConfig(name="item"),)},
            "tables has 'item' twice",
        ),
        ({"features": (FeatureConfig(name="user"),) * 2}, "features has 'user' twice"),
        ({"features": (FeatureConfig(name="dense", table="item"),)}, "a feature is named 'dense'"),
        (
            {"features": (FeatureConfig(name="viewed", table="itme"), FeatureConfig(name="user"))},
            "feature 'viewed' reads table 'itme', which is not in tables, did you mean 'item'?",
        ),
        ({"features": (FeatureConfig(name="user"),)}, "table 'item' is read by no feature"),
        (
            {"tables": (table(embedding_dim=4),), "features": (FeatureConfig(name="item"),)},
            "table 'item': embedding_dim=4 differs from the model's embedding_dim=8",
        ),
        (
            {"tables": (table(embedding_dim=8, output_dim=4),), "features": (FeatureConfig(name="item"),)},
            "table 'item': output_dim=4 differs from the model's embedding_dim=8",
        ),
        (
            {
                "features": (
                    FeatureConfig(name="viewed", table=table(vocabulary_size=5)),
                    FeatureConfig(name="user"),
                )
            },
            "feature 'viewed' carries a table 'item' that differs",
        ),
        (
            {"quotient_remainder": QuotientRemainderConfig(), "mixed_dimension": MixedDimensionConfig()},
            "quotient_remainder and mixed_dimension are both given",
        ),
        (
            {"quotient_remainder": QuotientRemainderConfig(), "pooling_weights": "learned"},
            "quotient_remainder and pooling_weights are both given",
        ),
        (
            {
                "quotient_remainder": QuotientRemainderConfig(threshold=0),
                "tables": (table(pooling_weights="fixed"),),
                "features": (FeatureConfig(name="item"),),
            },
            "table 'item': quotient_remainder and pooling_weights='fixed' are both given",
        ),
        (
            {
                "embedding_dim": 7,
                "bottom_mlp": (7,),
                "tables": (),
                "features": (),
                "quotient_remainder": QuotientRemainderConfig(operation="concat"),
            },
            "embedding_dim=7 is odd",
        ),
        ({"quotient_remainder": {"collisions": 4}}, "is a dict. Give a QuotientRemainderConfig"),
        ({"tables": "item"}, "tables='item' is a str"),
        ({"features": ("item",)}, "features[0]='item' is a str. Give a FeatureConfig"),
    ],
)
def test_a_bad_model_is_refused(fields, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        model(**fields)


def test_features_may_carry_their_table():
    item = table()
    config = model(tables=(), features=(FeatureConfig(name="a", table=item), FeatureConfig(name="b", table=item)))
    assert config.tables == (item,)
    assert [feature.table for feature in config.features] == ["item", "item"]


def test_model_options_are_resolved_into_tables():
    split = QuotientRemainderConfig(collisions=2)
    own = QuotientRemainderConfig(collisions=9, threshold=0)
    tables = (table(), table(name="small", vocabulary_size=200), table(name="own", quotient_remainder=own))
    features = tuple(FeatureConfig(name=one.name) for one in tables)
    config = model(tables=tables, features=features, quotient_remainder=split)
    assert [one.quotient_remainder for one in config.resolved_tables()] == [split, None, own]
    assert [f.table.quotient_remainder for f in config.resolved_features()] == [split, None, own]

    tables = (table(), table(name="own", pooling_weights="fixed"))
    config = model(tables=tables, features=tuple(FeatureConfig(name=t.name) for t in tables), pooling_weights="learned")
    assert [one.pooling_weights for one in config.resolved_tables()] == ["learned", "fixed"]


SPEC = FeatureSpec(
    labels=("click", "buy"),
    dense=(DenseColumn(name="age"),),
    categorical=(
        CategoricalColumn(name="viewed", table="item", hotness=None, id_policy="oov"),
        CategoricalColumn(name="bought", table="item"),
        CategoricalColumn(name="city"),
    ),
    vocabulary_sizes={"item": 50, "city": 5},
)


def test_from_schema():
    config = DLRMConfig.from_schema(SPEC, embedding_dim=8, bottom_mlp=(8,), top_mlp=(1,), combiner="mean")
    assert config.num_dense == 1
    assert [(t.name, t.vocabulary_size, t.embedding_dim, t.combiner) for t in config.tables] == [
        ("item", 50, 8, "mean"),
        ("city", 5, 8, "mean"),
    ]
    assert config.features == (
        FeatureConfig(name="viewed", table="item", hotness=None, id_policy="oov"),
        FeatureConfig(name="bought", table="item"),
        FeatureConfig(name="city"),
    )
    assert config.tasks == ("click", "buy")


def test_with_schema_keeps_what_is_said_about_a_table():
    mine = table(trainable=False, optimizer=optimizers.FTRL(0.1))
    config = model(tables=(mine,), features=(FeatureConfig(name="item"),)).with_schema(SPEC)
    assert config.tables[0] == dataclasses.replace(mine, vocabulary_size=50)
    assert [t.name for t in config.tables] == ["item", "city"]


def test_with_schema_needs_vocabulary_sizes():
    with pytest.raises(ValueError, match="no vocabulary size for table 'cat_1'"):
        model().with_schema(criteo_feature_spec())
