"""What a signature takes: names, dtypes and shapes of its tensors, and how they become a batch of raw columns.

    dense                     float32 [B, num_dense], where there are dense columns; NaN where a number is missing
    <feature>                 int64 or string [B], or [B, H] for H ids a bag; float32 [B] of a raw number in bins
    <feature>                 [N] for bags of any length, all bags one after another, beside
    <feature>_row_lengths     int64 [B], ids of each bag
    <feature>_weights         float32, the shape of the ids, where the schema gives ids weights

A raw feature that is made of another column (`source` in the schema) has that column's input, which several may share,
and none of its own where that is a dense column.

TensorFlow allows letters, digits and `_` in these names; `input_name` says what becomes of others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from savedmodels.names import DENSE, ROW_LENGTHS, WEIGHTS, input_names, input_of_features
from tfdlrm.checks import quoted
from tfdlrm.config import DLRMConfig, FeatureConfig
from tfdlrm.schema import CategoricalColumn, FeatureSpec

Raw = dict[str, Any]
"""`"dense"` and each feature's values: `[B]`, `[B, H]` or ragged, alone or as `(values, weights)`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class InputColumn:
    """One feature of the inputs.

    Args:
        feature: its name in the model, in the schema and in a `tf.train.Example`; of raw values the raw column.
        name: of its tensor.
        dtype: of its values.
        example_dtype: of its values in a `tf.train.Example`: hex ids are text there, as in the raw files.
        hotness: ids a bag; None where it varies.
        weights: column of the weights, "" for none.
        weights_example_dtype: of the weights in a `tf.train.Example`.
    """

    feature: str
    name: str
    dtype: tf.DType
    example_dtype: tf.DType
    hotness: int | None
    weights: str
    weights_example_dtype: tf.DType = tf.float32

    def specs(self, batch_size: int | None = None) -> dict[str, tf.TensorSpec]:
        """Its tensors, by name."""
        ragged = self.hotness is None
        shape = [None] if ragged else [batch_size] if self.hotness == 1 else [batch_size, self.hotness]
        specs = {self.name: tf.TensorSpec(shape, self.dtype, name=self.name)}
        if ragged:
            name = self.name + ROW_LENGTHS
            specs[name] = tf.TensorSpec([batch_size], tf.int64, name=name)
        if self.weights:
            name = self.name + WEIGHTS
            specs[name] = tf.TensorSpec(shape, tf.float32, name=name)
        return specs

    def read(self, tensors: Mapping[str, tf.Tensor], batch_size: tf.Tensor) -> Any:
        """Values of the feature, or `(values, weights)`, from the signature's tensors."""
        values, weights = tensors[self.name], tensors[self.name + WEIGHTS] if self.weights else None
        if self.hotness is None:
            values = _bags(self.name, values, tensors[self.name + ROW_LENGTHS], batch_size)
            weights = None if weights is None else values.with_flat_values(weights)
        return values if weights is None else (values, weights)

    def parser(self) -> dict[str, Any]:
        """How `tf.io.parse_example` reads the column. An absent list is an empty bag, and of one id an empty cell."""
        if self.hotness is None:
            found: dict[str, Any] = {self.feature: tf.io.RaggedFeature(self.example_dtype, row_splits_dtype=tf.int64)}
            if self.weights:
                found[self.weights] = tf.io.RaggedFeature(tf.float32, row_splits_dtype=tf.int64)
            return found
        shape = [] if self.hotness == 1 else [self.hotness]
        default = {tf.string: "", tf.float32: float("nan")}.get(self.example_dtype) if self.hotness == 1 else None
        found = {self.feature: tf.io.FixedLenFeature(shape, self.example_dtype, default)}
        if self.weights:
            found[self.weights] = tf.io.FixedLenFeature(shape, tf.float32)
        return found

    def parsed(self, columns: Mapping[str, Any]) -> Any:
        """Values of the feature, or `(values, weights)`, from `tf.io.parse_example`."""
        return (columns[self.feature], columns[self.weights]) if self.weights else columns[self.feature]


def parse_examples(
    examples: tf.Tensor, columns: Sequence[InputColumn], num_dense: int, dense: Sequence[str] | None = None
) -> Raw:
    """Raw columns of serialized `tf.train.Example`s.

    Args:
        examples: string `[B]`.
        columns: the features.
        num_dense: of the model.
        dense: names of the dense columns, of which any may be missing; None where they are one list, "dense".
    """
    parsers: dict[str, Any] = {}
    for column in columns:
        parsers |= column.parser()
    if dense is not None:
        parsers |= {name: tf.io.FixedLenFeature([], tf.float32, float("nan")) for name in dense}
    elif num_dense:
        parsers[DENSE] = tf.io.FixedLenFeature([num_dense], tf.float32)
    parsed = tf.io.parse_example(examples, parsers)
    raw: Raw = {column.feature: column.parsed(parsed) for column in columns}
    if num_dense:
        raw[DENSE] = parsed[DENSE] if dense is None else tf.stack([parsed[name] for name in dense], axis=1)
    return raw


def input_columns(
    config: DLRMConfig, spec: FeatureSpec | None, *, raw: bool, example_dtypes: Mapping[str, tf.DType] | None = None
) -> tuple[InputColumn, ...]:
    """The features of a model, in its order.

    Args:
        config: of the model.
        spec: the schema it was trained on; without one no feature has weights.
        raw: whether values are those of the raw columns, which may be text, or ids.
        example_dtypes: raw column -> dtype of its values in a `tf.train.Example`, where it is not the usual one.
    """
    columns = {column.name: column for column in spec.categorical} if spec else {}
    given = example_dtypes or {}
    weights = {name: column.weights for name, column in columns.items()}
    source = input_of_features(spec) if raw and spec else {}
    features: dict[str, FeatureConfig] = {}
    for feature in config.features:
        features.setdefault(source.get(feature.name, feature.name), feature)
    features.pop(DENSE, None)
    names = input_names(list(features))
    return tuple(
        InputColumn(
            feature=name,
            name=names[name],
            dtype=_raw_dtype(columns[feature.name]) if raw else tf.as_dtype(tf.int64),
            example_dtype=given.get(name) or (_example_dtype(columns[feature.name]) if raw else tf.as_dtype(tf.int64)),
            hotness=feature.hotness,
            weights=weights.get(feature.name, ""),
            weights_example_dtype=given.get(weights.get(feature.name, ""), tf.as_dtype(tf.float32)),
        )
        for name, feature in features.items()
    )


def _raw_dtype(column: CategoricalColumn) -> tf.DType:
    kinds = {"integer": tf.int64, "hex": tf.int64, "bins": tf.float32}
    return tf.as_dtype(kinds.get(column.encoding, tf.string))


def _example_dtype(column: CategoricalColumn) -> tf.DType:
    return tf.as_dtype({"integer": tf.int64, "bins": tf.float32}.get(column.encoding, tf.string))


def dense_spec(config: DLRMConfig, batch_size: int | None = None) -> tf.TensorSpec:
    """Of the dense numbers."""
    return tf.TensorSpec([batch_size, config.num_dense], tf.float32, name=DENSE)


def columnar_specs(
    config: DLRMConfig, columns: Sequence[InputColumn], single: frozenset[str] = frozenset()
) -> dict[str, tf.TensorSpec]:
    """Inputs of a columnar signature, by name.

    Args:
        config: of the model.
        columns: its features.
        single: features, and perhaps "dense", that have one row whatever the batch: the user's, in `rank`.
    """
    specs = {DENSE: dense_spec(config, 1 if DENSE in single else None)} if config.num_dense else {}
    for column in columns:
        specs |= column.specs(1 if column.feature in single else None)
    return specs


def _bags(name: str, values: tf.Tensor, lengths: tf.Tensor, batch_size: tf.Tensor) -> tf.RaggedTensor:
    lengths_name = name + ROW_LENGTHS
    checks = [
        tf.debugging.assert_equal(
            tf.reduce_sum(lengths),
            tf.size(values, tf.int64),
            message=f"input {quoted(lengths_name)} does not add up to the number of ids in {quoted(name)}.",
        ),
        tf.debugging.assert_equal(
            tf.size(lengths, tf.int64),
            tf.cast(batch_size, tf.int64),
            message=f"input {quoted(lengths_name)} has not one number for each row of the batch.",
        ),
        tf.debugging.assert_non_negative(lengths, message=f"input {quoted(lengths_name)} holds a negative number."),
    ]
    with tf.control_dependencies(checks):
        return tf.RaggedTensor.from_row_lengths(tf.identity(values), tf.identity(lengths), validate=False)
