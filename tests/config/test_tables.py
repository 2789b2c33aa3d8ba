"""TableConfig, FeatureConfig and their parts: what they refuse, and their widths."""

from __future__ import annotations

import re

import pytest

from tests.config_samples import table
from tfdlrm.config import FeatureConfig, MixedDimensionConfig, QuotientRemainderConfig


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": ""}, "TableConfig: name='' is not a name"),
        (
            {"vocabulary_size": 0},
            "table 'item': vocabulary_size=0 is too small. Give an integer of 1 or more",
        ),
        ({"vocabulary_size": -5}, "vocabulary_size=-5 is too small"),
        ({"vocabulary_size": 1e6}, "vocabulary_size=1000000.0 is a float"),
        ({"embedding_dim": "16"}, "embedding_dim='16' is a str"),
        ({"embedding_dim": True}, "embedding_dim=True is a bool"),
        ({"combiner": "avg"}, "combiner='avg' is not known. Choose one of: sum, mean, sqrtn"),
        ({"initializer": "scaled_uniform"}, "initializer='scaled_uniform' is a str. Give a Initializer"),
        ({"optimizer": 0.1}, "optimizer=0.1 is a float. Give a RowOptimizer"),
        ({"output_dim": 0}, "output_dim=0 is too small"),
        ({"pooling_weights": "learn"}, "pooling_weights='learn' is not known, did you mean 'learned'"),
        ({"trainable": "False"}, "trainable='False' is a str. Give true or false"),
        ({"quotient_remainder": 4}, "quotient_remainder=4 is a int. Give a QuotientRemainderConfig"),
        (
            {"embedding_dim": 7, "quotient_remainder": QuotientRemainderConfig(operation="concat")},
            "embedding_dim=7 is odd, and quotient-remainder 'concat'",
        ),
        (
            {"quotient_remainder": QuotientRemainderConfig(), "output_dim": 8},
            "quotient_remainder and output_dim=8 (mixed dimension) are both given",
        ),
        (
            {"quotient_remainder": QuotientRemainderConfig(), "pooling_weights": "fixed"},
            "quotient_remainder and pooling_weights='fixed' are both given",
        ),
    ],
)
def test_a_bad_table_is_refused(fields, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        table(**fields)


def test_stored_and_output_widths():
    concat = QuotientRemainderConfig(operation="concat", threshold=200)
    assert table(quotient_remainder=concat).is_split
    assert table(quotient_remainder=concat).stored_dim == 4
    assert table(quotient_remainder=concat).output_width == 8
    assert not table(quotient_remainder=concat, vocabulary_size=200).is_split
    assert table(quotient_remainder=concat, vocabulary_size=200).stored_dim == 8
    assert table(quotient_remainder=QuotientRemainderConfig()).stored_dim == 8
    assert table(embedding_dim=2, output_dim=8).output_width == 8
    assert table(embedding_dim=2, output_dim=8).stored_dim == 2


@pytest.mark.parametrize(
    ("cls", "fields", "message"),
    [
        (QuotientRemainderConfig, {"collisions": 0}, "collisions=0 is too small"),
        (
            QuotientRemainderConfig,
            {"operation": "multiply"},
            "operation='multiply' is not known, did you mean 'mult'",
        ),
        (QuotientRemainderConfig, {"threshold": -1}, "threshold=-1 is too small"),
        (
            QuotientRemainderConfig,
            {"initializer": "papers"},
            "initializer='papers' is not known, did you mean 'paper'",
        ),
        (MixedDimensionConfig, {"alpha": -0.1}, "alpha=-0.1 is out of range. Give a finite number >= 0"),
        (MixedDimensionConfig, {"alpha": float("inf")}, "alpha=inf is out of range"),
        (MixedDimensionConfig, {"round_to_power_of_two": 1}, "round_to_power_of_two=1 is a int"),
        (FeatureConfig, {"name": None}, "name=None is not a name"),
        (
            FeatureConfig,
            {"name": "f", "table": 3},
            "feature 'f': table=3 is a int. Give a TableConfig or its name",
        ),
        (FeatureConfig, {"name": "f", "hotness": 0}, "hotness=0 is too small"),
        (
            FeatureConfig,
            {"name": "f", "id_policy": "mod"},
            "id_policy='mod' is not known, did you mean 'modulo'",
        ),
    ],
)
def test_a_bad_part_is_refused(cls, fields, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        cls(**fields)
