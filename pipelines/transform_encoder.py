"""TransformEncoder: the graph that Transform made, inside of an export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from pipelines.raw_columns import cells_of
from pipelines.tfx_extra import tft
from savedmodels.inputs import InputColumn, Raw
from savedmodels.names import DENSE, input_of_features
from tfdlrm.data.preprocessing import Preprocessing
from tfdlrm.embeddings.ids import stop_if
from tfdlrm.schema import DERIVED, CategoricalColumn

_HEX_DIGITS = 16


class TransformEncoder:
    """Encodes raw columns, or examples as the pipeline read them, by the graph of Transform.

    A `savedmodels.signatures.Encoder`. It keeps the graph's tables alive, so keep it as long as what is traced with it.

    Args:
        output: of Transform.
        preprocessing: from `read_preprocessing`.

    Example:
        >>> encoder = TransformEncoder(output, read_preprocessing(output, config))
        >>> export(model, "exports/clicks", encoder=encoder)
    """

    def __init__(self, output: tft.TFTransformOutput, preprocessing: Preprocessing) -> None:
        self.preprocessing = preprocessing
        self._layer = output.transform_features_layer()
        spec = preprocessing.spec
        weights = [column.weights for column in spec.categorical if column.weights]
        raw_names = (column.raw_name for column in spec.categorical)
        features = {*(column.name for column in spec.dense), *raw_names, *weights}
        self._raw_spec = {name: each for name, each in output.raw_feature_spec().items() if name in features}

    def parts(self) -> list[Any]:
        """See `Encoder`."""
        return [self._layer]

    def arrays(self) -> list[Any]:
        """See `Encoder`; vocabularies are in assets."""
        return []

    def variables_by_name(self) -> dict[str, tf.Variable]:
        """See `Encoder`."""
        return {}

    def example_dtypes(self) -> Mapping[str, tf.DType]:
        """See `Encoder`."""
        return {name: tf.as_dtype(each.dtype) for name, each in self._raw_spec.items()}

    def encode_examples(self, examples: tf.Tensor, columns: Sequence[InputColumn]) -> dict[str, Any]:
        """See `Encoder`."""
        return self._features(tf.io.parse_example(examples, self._raw_spec))

    def encode(self, raw: Raw) -> dict[str, Any]:
        """See `Encoder`."""
        spec = self.preprocessing.spec
        inputs: dict[str, Any] = {}
        # the graph checks every column that it has, so that those which nobody asks for get a value as well
        num_rows = _num_rows(next(iter(raw.values())))
        dense = raw[DENSE] if DENSE in raw else tf.zeros([num_rows, spec.num_dense])
        for column, values in zip(spec.dense, tf.unstack(dense, axis=1), strict=True):
            inputs[column.name] = self._as_read(column.name, _present(values))
        for categorical in spec.categorical:
            name = categorical.raw_name
            if name in inputs:
                continue
            value = raw[name] if name in raw else self._any_value(categorical, num_rows)
            value, weights = value if isinstance(value, tuple) else (value, None)
            cells = _present(value) if categorical.encoding in DERIVED else cells_of(value)
            inputs[name] = self._as_read(name, cells.with_flat_values(self._in_type_of(categorical, cells.flat_values)))
            if weights is not None:
                inputs[categorical.weights] = self._as_read(categorical.weights, cells_of(weights))
        features = self._features(inputs)
        given = input_of_features(spec)
        return {name: value for name, value in features.items() if given.get(name, name) in raw}

    def _any_value(self, column: CategoricalColumn, num_rows: tf.Tensor) -> Any:
        """A value that the column may have, in every row."""
        if column.encoding in DERIVED:
            return tf.fill([num_rows], float("nan") if column.encoding == "bins" else "")
        vocabulary = self.preprocessing.vocabularies.get(column.table)
        known = vocabulary.values.head(1).to_list() if vocabulary is not None else []
        is_number = column.encoding in ("integer", "hex")
        value: Any = known[0] if known else (0 if is_number else "0")
        if self._raw_spec[column.name].dtype == tf.int64 and not is_number and not str(value).isdecimal():
            value = "0"
        shape = [num_rows, 0 if column.hotness is None else column.hotness]
        cells = tf.fill(shape, tf.constant(value, tf.int64 if is_number else tf.string))
        return (cells, tf.ones(shape)) if column.weights else cells

    def _features(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The model's inputs, from columns as the pipeline read them."""
        spec = self.preprocessing.spec
        outputs = self._layer(dict(inputs))
        features: dict[str, Any] = {}
        if spec.dense:
            features[DENSE] = tf.stack([outputs[column.name] for column in spec.dense], axis=1)
        for column in spec.categorical:
            value = self._known(column, outputs[column.name])
            features[column.name] = (value, outputs[column.weights]) if column.weights else value
        return features

    def _known(self, column: CategoricalColumn, ids: Any) -> Any:
        """Refuses ids of values that training did not see, where the column's policy has no row for them."""
        if column.table not in self.preprocessing.vocabularies or column.id_policy == "oov":
            return ids
        message = (
            f"feature '{column.name}': a value was not seen in training. Train with id_policy: oov for the column."
        )
        return tf.ragged.map_flat_values(lambda flat: stop_if(flat < 0, lambda: [message], flat), ids)

    def _as_read(self, name: str, cells: tf.RaggedTensor) -> Any:
        """A column in the form in which examples are parsed, in their type."""
        spec = self._raw_spec[name]
        if spec.dtype == tf.string and cells.dtype == tf.float32:
            cells = cells.with_flat_values(tf.strings.as_string(cells.flat_values, precision=9, scientific=True))
        elif cells.dtype != spec.dtype:
            cells = tf.cast(cells, spec.dtype)
        if isinstance(spec, tf.io.VarLenFeature):
            return cells.to_sparse()
        if isinstance(spec, tf.io.RaggedFeature):
            return cells
        default = "" if spec.dtype == tf.string else 0
        return tf.reshape(cells.to_tensor(default), [-1, *spec.shape])

    def _in_type_of(self, column: CategoricalColumn, values: tf.Tensor) -> tf.Tensor:
        """Values of a signature, in the type that examples have."""
        dtype = self._raw_spec[column.raw_name].dtype
        if values.dtype == dtype or values.dtype == tf.float32:
            return values
        if values.dtype == tf.string:
            wrong = ~tf.strings.regex_full_match(values, r"-?\d{1,18}")

            def message() -> list[tf.Tensor | str]:
                first = tf.boolean_mask(values, wrong)[0]
                return [f"feature '{column.name}': '", first, "' is no integer, as all values of the pipeline are."]

            values = stop_if(wrong, message, values)
            return tf.strings.to_number(tf.where(wrong, "0", values), tf.int64)
        return _hex_text(values) if column.encoding == "hex" else tf.strings.as_string(values)


def _num_rows(value: Any) -> tf.Tensor:
    value = value[0] if isinstance(value, tuple) else value
    return value.nrows(tf.int32) if isinstance(value, tf.RaggedTensor) else tf.shape(value)[0]


def _present(values: tf.Tensor) -> tf.RaggedTensor:
    """Numbers or texts `[B]` as cells; of NaN and of the empty text an empty one."""
    is_there = tf.strings.strip(values) != "" if values.dtype == tf.string else ~tf.math.is_nan(values)
    return tf.RaggedTensor.from_row_lengths(tf.boolean_mask(values, is_there), tf.cast(is_there, tf.int64))


def _hex_text(values: tf.Tensor) -> tf.Tensor:
    """Hex digits of int64 numbers, 16 each."""
    shifts = np.arange(4 * (_HEX_DIGITS - 1), -1, -4, dtype=np.int64)
    digits = tf.bitwise.bitwise_and(tf.bitwise.right_shift(values[:, tf.newaxis], shifts), tf.constant(15, tf.int64))
    return tf.strings.reduce_join(tf.gather(tf.constant(list("0123456789abcdef")), digits), axis=1)
