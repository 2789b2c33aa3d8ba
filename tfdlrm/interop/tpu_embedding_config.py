"""`tf.tpu.experimental.embedding` table, feature, optimizer and initializer objects to tfdlrm's configs.

What has the same meaning is converted; what has no counterpart is refused by name, never dropped. Options
that only lay a table out in a TPU's memory (`low_dimensional_packing_status`) are left behind: placement is
invisible to numerics here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

from tfdlrm.checks import quoted
from tfdlrm.config.tables import FeatureConfig, TableConfig
from tfdlrm.embeddings.initializers import Constant, Initializer, Normal, TruncatedNormal, Uniform
from tfdlrm.embeddings.optimizers import FTRL, SGD, Adagrad, LazyAdam, RowOptimizer

_tpu = tf.tpu.experimental.embedding


def from_tpu_feature_config(
    structure: Any, *, initializer: Initializer | None = None
) -> tuple[tuple[TableConfig, ...], tuple[FeatureConfig, ...]]:
    """Tables and features of a nested structure of `tf.tpu.experimental.embedding.FeatureConfig`.

    Features keep the order of the structure (of a dict: the order it was written in). A feature is named by
    its `name`, otherwise by its path (`"user/clicked"`); a table by its `name`, otherwise by its first
    feature. Tables are shared where features share the object. The hotness is not part of a TPU config, so
    bags are ragged.

    Differences worth knowing (TensorFlow's optimization_parameters.proto): TPU's Adam leaves the bias
    correction to the learning rate, ours makes it; TPU's Adagrad has no epsilon, and neither has the
    converted one.

    Args:
        structure: one FeatureConfig, or dicts, lists and tuples of them.
        initializer: stands in where a table's own initializer has no counterpart; None refuses such a table.

    Returns:
        Tables in order of first use, and features that carry their tables.

    Raises:
        ValueError: an option that has no counterpart; the message names the table or feature, the option and
            its value.

    Example:
        >>> table = tf.tpu.experimental.embedding.TableConfig(
        ...     vocabulary_size=100, dim=8, combiner="sum", name="item",
        ...     initializer=tf.initializers.RandomUniform(-0.1, 0.1))
        >>> tables, features = from_tpu_feature_config(
        ...     {"viewed": tf.tpu.experimental.embedding.FeatureConfig(table=table),
        ...      "bought": tf.tpu.experimental.embedding.FeatureConfig(table=table)})
        >>> [table.name for table in tables], [feature.name for feature in features]
        (['item'], ['viewed', 'bought'])
    """
    tables: dict[int, TableConfig] = {}
    features = []
    for path, feature in _leaves(structure, ()):
        name = feature.name or "/".join(path) or "feature"
        _check_feature(name, feature)
        key = id(feature.table)
        if key not in tables:
            tables[key] = _convert_table(feature.table.name or name, feature.table, initializer)
        features.append(FeatureConfig(name=name, table=tables[key], hotness=None))
    _check_names(tables.values(), features)
    return tuple(tables.values()), tuple(features)


def _leaves(structure: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(structure, _tpu.FeatureConfig):
        yield path, structure
    elif isinstance(structure, Mapping):
        for key, value in structure.items():
            yield from _leaves(value, (*path, str(key)))
    elif isinstance(structure, (list, tuple)):
        for index, value in enumerate(structure):
            yield from _leaves(value, (*path, str(index)))
    else:
        where = "/".join(path) or "structure"
        raise ValueError(
            f"{where}: {quoted(structure)} is a {type(structure).__name__}. Give "
            "tf.tpu.experimental.embedding.FeatureConfig objects, or dicts and lists of them."
        )


def _check_names(tables: Any, features: list[FeatureConfig]) -> None:
    for kind, names in (
        ("table", [table.name for table in tables]),
        ("feature", [feature.name for feature in features]),
    ):
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two {kind}s are named {quoted(twice)}. Give each a name of its own.")


def _refuse(owner: str, option: str, value: object, fix: str) -> None:
    raise ValueError(f"{owner}: {option}={quoted(value)} has no counterpart in tfdlrm. {fix}")


def _check_feature(name: str, feature: Any) -> None:
    owner = f"feature {quoted(name)}"
    if feature.max_sequence_length:
        _refuse(owner, "max_sequence_length", feature.max_sequence_length, "Set it to 0: features are pooled.")
    if feature.output_shape.rank is not None:
        _refuse(owner, "output_shape", feature.output_shape, "Leave it out: a feature gives [B, D].")


def _convert_table(name: str, table: Any, stand_in: Initializer | None) -> TableConfig:
    owner = f"table {quoted(name)}"
    if not isinstance(table.combiner, str):
        _refuse(owner, "combiner", table.combiner, "Use 'sum', 'mean' or 'sqrtn'.")
    if table.quantization_config is not None:
        _refuse(
            owner,
            "quantization_config",
            table.quantization_config,
            "Leave it out: rows are trained in float32.",
        )
    if table.layout is not None:
        _refuse(owner, "layout", table.layout, "Leave it out: the planner places tables.")
    if table.dtype != tf.float32:
        _refuse(owner, "dtype", table.dtype, "Use tf.float32.")
    return TableConfig(
        name=name,
        vocabulary_size=table.vocabulary_size,
        embedding_dim=table.dim,
        combiner=table.combiner,
        initializer=_convert_initializer(owner, table.initializer, stand_in),
        optimizer=None if table.optimizer is None else _convert_optimizer(owner, table.optimizer),
    )


def _convert_initializer(owner: str, given: Any, stand_in: Initializer | None) -> Initializer:
    if isinstance(given, (keras.initializers.Zeros, tf.zeros_initializer)):
        return Constant(value=0.0)
    if isinstance(given, (keras.initializers.Ones, tf.ones_initializer)):
        return Constant(value=1.0)
    if isinstance(given, (keras.initializers.Constant, tf.constant_initializer)):
        if not isinstance(given.value, (int, float)):
            _refuse(owner, "initializer", given, "Give a constant that is one number, and assign rows afterwards.")
        return Constant(value=float(given.value))
    if isinstance(given, (keras.initializers.RandomUniform, tf.random_uniform_initializer)):
        return Uniform(low=float(given.minval), high=float(given.maxval))
    if isinstance(given, (keras.initializers.RandomNormal, tf.random_normal_initializer)):
        return Normal(mean=float(given.mean), stddev=float(given.stddev))
    # what a table has that states none; by name, because TensorFlow's own class is private
    if type(given).__name__ == "TruncatedNormal":
        return TruncatedNormal(mean=float(given.mean), stddev=float(given.stddev))
    if stand_in is None:
        _refuse(
            owner,
            "initializer",
            given,
            "Use a random uniform, normal, truncated normal or constant initializer, or pass "
            "from_tpu_feature_config(..., initializer=...) to choose one for such tables.",
        )
    assert stand_in is not None
    return stand_in


def _convert_optimizer(owner: str, given: Any) -> RowOptimizer:
    kind = type(given).__name__
    owner = f"{owner}: optimizer {kind}"
    _check_optimizer(owner, given)
    rate = float(given.learning_rate)
    decay = _weight_decay(owner, given, rate)
    if isinstance(given, _tpu.SGD):
        return SGD(learning_rate=rate, weight_decay=decay)
    if isinstance(given, _tpu.Adagrad):
        return Adagrad(
            learning_rate=rate,
            weight_decay=decay,
            epsilon=0.0,
            initial_accumulator_value=given.initial_accumulator_value,
        )
    if isinstance(given, _tpu.Adam):
        if not given.lazy_adam:
            _refuse(owner, "lazy_adam", False, "Use lazy_adam=True: only touched rows are updated.")
        # TPU's "sum inside the root" is sqrt(v + epsilon^2)
        epsilon = given.epsilon**2 if given.sum_inside_sqrt else given.epsilon
        return LazyAdam(
            learning_rate=rate,
            weight_decay=decay,
            beta_1=given.beta_1,
            beta_2=given.beta_2,
            epsilon=epsilon,
            epsilon_placement="inside" if given.sum_inside_sqrt else "outside",
        )
    if isinstance(given, _tpu.FTRL):
        if decay:
            # TPU decays before FTRL reads the weight, ours after: not the same update
            _refuse(owner, "weight_decay_factor", given.weight_decay_factor, "Use l2_regularization_strength.")
        return FTRL(
            learning_rate=rate,
            l1=given.l1_regularization_strength,
            l2=given.l2_regularization_strength,
            beta=given.beta,
            learning_rate_power=given.learning_rate_power,
            initial_accumulator_value=given.initial_accumulator_value,
        )
    raise ValueError(f"{owner} has no counterpart in tfdlrm. Use SGD, Adagrad, Adam (lazy) or FTRL.")


def _check_optimizer(owner: str, given: Any) -> None:
    if callable(given.learning_rate):
        _refuse(
            owner,
            "learning_rate",
            given.learning_rate,
            "Give a number, and set a schedule on the converted optimizer.",
        )
    for option in ("clip_weight_min", "clip_weight_max", "clip_gradient_min", "clip_gradient_max"):
        if getattr(given, option) is not None:
            _refuse(owner, option, getattr(given, option), "Leave it out; clipnorm limits a table's gradient.")
    if not given.use_gradient_accumulation:
        _refuse(owner, "use_gradient_accumulation", False, "Use True: gradients of one row are summed first.")
    if given.slot_variable_creation_fn is not None:
        _refuse(owner, "slot_variable_creation_fn", given.slot_variable_creation_fn, "Leave it out.")


def _weight_decay(owner: str, given: Any, rate: float) -> float:
    """Ours is `w -= lr * weight_decay * w`; TPU's factor comes with or without the learning rate in it."""
    factor = given.weight_decay_factor
    if not factor:
        return 0.0
    if given.multiply_weight_decay_factor_by_learning_rate:
        return float(factor)
    if rate == 0:
        _refuse(owner, "weight_decay_factor", factor, "It decays weights at learning_rate=0, which ours does not.")
    return float(factor) / rate
