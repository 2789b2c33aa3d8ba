"""tf.tpu.experimental.embedding configs become ours, or are refused by name."""

from __future__ import annotations

import pytest
import tensorflow as tf

from tfdlrm.config import DLRMConfig, TableConfig
from tfdlrm.embeddings import initializers, optimizers
from tfdlrm.interop import from_tpu_feature_config

tpu = tf.tpu.experimental.embedding
UNIFORM = tf.random_uniform_initializer(-0.1, 0.1)


def table(**fields):
    return tpu.TableConfig(**{"vocabulary_size": 100, "dim": 8, "initializer": UNIFORM, "name": "item", **fields})


def feature(the_table=None, **fields):
    return tpu.FeatureConfig(table=the_table or table(), **fields)


def convert_table(**fields):
    (converted,), _ = from_tpu_feature_config(feature(table(**fields)))
    return converted


def test_nested_structure_keeps_order_names_and_shared_tables():
    item, user = table(name=None), table(name="user", combiner="sum")
    structure = {
        "z": [feature(item), feature(item, name="second")],
        "a": {"u": feature(user), "v": (feature(item),)},
    }
    tables, features = from_tpu_feature_config(structure)
    assert [t.name for t in tables] == ["z/0", "user"]
    assert [f.name for f in features] == ["z/0", "second", "a/u", "a/v/0"]
    assert [f.table_name for f in features] == ["z/0", "z/0", "user", "z/0"]
    assert features[0].table is features[1].table is tables[0]
    assert [f.hotness for f in features] == [None] * 4


def test_table_fields():
    assert convert_table(combiner="sqrtn") == TableConfig(
        name="item",
        vocabulary_size=100,
        embedding_dim=8,
        combiner="sqrtn",
        initializer=initializers.Uniform(low=-0.1, high=0.1),
    )


def test_the_result_builds_a_model_config():
    tables, features = from_tpu_feature_config([feature(name="x"), feature(table(name="other"), name="y")])
    config = DLRMConfig(num_dense=1, embedding_dim=8, bottom_mlp=(8,), top_mlp=(1,), tables=tables, features=features)
    assert [f.table for f in config.features] == ["item", "other"]
    assert DLRMConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (tpu.SGD(0.1), optimizers.SGD(0.1)),
        (
            tpu.SGD(0.5, weight_decay_factor=0.25, multiply_weight_decay_factor_by_learning_rate=True),
            optimizers.SGD(0.5, weight_decay=0.25),
        ),
        (tpu.SGD(0.5, weight_decay_factor=0.25), optimizers.SGD(0.5, weight_decay=0.5)),
        (tpu.Adagrad(0.1, 0.3), optimizers.Adagrad(0.1, epsilon=0.0, initial_accumulator_value=0.3)),
        (
            tpu.Adam(0.1, 0.8, 0.9, 0.5),
            optimizers.LazyAdam(0.1, beta_1=0.8, beta_2=0.9, epsilon=0.25, epsilon_placement="inside"),
        ),
        (tpu.Adam(0.1, epsilon=0.5, sum_inside_sqrt=False), optimizers.LazyAdam(0.1, epsilon=0.5)),
        (
            tpu.FTRL(0.1, -0.25, 0.01, 0.02, 0.03, 0.4),
            optimizers.FTRL(0.1, learning_rate_power=-0.25, l1=0.01, l2=0.02, beta=0.03, initial_accumulator_value=0.4),
        ),
        (None, None),
    ],
)
def test_optimizers(given, expected):
    assert convert_table(optimizer=given).optimizer == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (tf.random_uniform_initializer(-1, 2), initializers.Uniform(low=-1.0, high=2.0)),
        (tf.random_normal_initializer(0.5, 2), initializers.Normal(mean=0.5, stddev=2.0)),
        (tf.constant_initializer(3), initializers.Constant(value=3.0)),
        (tf.zeros_initializer(), initializers.Constant(value=0.0)),
        (tf.ones_initializer(), initializers.Constant(value=1.0)),
        (tf.initializers.RandomUniform(-1, 2), initializers.Uniform(low=-1.0, high=2.0)),
        (tf.initializers.RandomNormal(0.5, 2), initializers.Normal(mean=0.5, stddev=2.0)),
        (tf.initializers.Constant(3.0), initializers.Constant(value=3.0)),
        (tf.initializers.Zeros(), initializers.Constant(value=0.0)),
        (tf.initializers.Ones(), initializers.Constant(value=1.0)),
    ],
)
def test_initializers(given, expected):
    assert convert_table(initializer=given).initializer == expected


def test_a_table_that_states_none_is_a_truncated_normal():
    converted = convert_table(initializer=None, dim=16).initializer
    assert converted == initializers.TruncatedNormal(stddev=0.25)  # 1 / sqrt(dim)


def test_an_initializer_without_counterpart_needs_a_stand_in():
    other = feature(table(initializer=tf.initializers.VarianceScaling()))
    with pytest.raises(ValueError, match=r"table 'item': initializer=.*VarianceScaling.* no counterpart"):
        from_tpu_feature_config(other)
    stand_in = initializers.Normal(stddev=0.25)
    (converted,), _ = from_tpu_feature_config(other, initializer=stand_in)
    assert converted.initializer == stand_in


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"optimizer": tpu.AdagradMomentum(0.1)},
            r"table 'item': optimizer AdagradMomentum has no counterpart",
        ),
        ({"optimizer": tpu.SGD(lambda: 0.1)}, r"optimizer SGD: learning_rate=.* has no counterpart"),
        ({"optimizer": tpu.SGD(clip_weight_min=0.0)}, r"clip_weight_min=0.0 has no counterpart"),
        ({"optimizer": tpu.SGD(clipvalue=1.0)}, r"clip_gradient_min=-1.0 has no counterpart"),
        ({"optimizer": tpu.SGD(use_gradient_accumulation=False)}, r"use_gradient_accumulation=False"),
        ({"optimizer": tpu.SGD(0.0, weight_decay_factor=0.1)}, r"weight_decay_factor=0.1"),
        ({"optimizer": tpu.FTRL(weight_decay_factor=0.1)}, r"optimizer FTRL: weight_decay_factor=0.1"),
        ({"optimizer": tpu.Adam(lazy_adam=False)}, r"optimizer Adam: lazy_adam=False"),
        ({"optimizer": tpu.Adagrad(slot_variable_creation_fn=print)}, r"slot_variable_creation_fn"),
        (
            {"quantization_config": tpu.QuantizationConfig(4, -1.0, 1.0)},
            r"quantization_config=.* no counterpart",
        ),
        ({"dtype": tf.int32}, r"dtype=tf.int32 has no counterpart"),
        ({"initializer": tf.constant_initializer([1.0, 2.0])}, r"initializer=.* no counterpart"),
    ],
)
def test_table_options_without_counterpart_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        convert_table(**fields)


@pytest.mark.parametrize(
    ("structure", "message"),
    [
        (feature(name="f", max_sequence_length=3), r"feature 'f': max_sequence_length=3"),
        (feature(name="f", output_shape=[2]), r"feature 'f': output_shape="),
        ([feature(name="f"), feature(name="f")], r"two tables are named 'item'"),
        (dict.fromkeys("ab", feature(name="f")), r"two features are named 'f'"),
        ({"a": 3}, r"a: 3 is a int"),
        (None, r"structure: None is a NoneType"),
    ],
)
def test_features_without_counterpart_are_refused(structure, message):
    with pytest.raises(ValueError, match=message):
        from_tpu_feature_config(structure)
