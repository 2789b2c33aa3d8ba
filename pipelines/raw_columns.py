"""Raw columns of TFX's examples, whatever their type and form, as the schema says they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from savedmodels.inputs import Raw
from savedmodels.names import DENSE, input_of_features
from tfdlrm.checks import quoted
from tfdlrm.embeddings.ids import stop_if
from tfdlrm.schema import DERIVED, CategoricalColumn, FeatureSpec

Inputs = Mapping[str, Any]


class RawColumns:
    """Raw columns of examples, whatever their type and form, as the schema says they are.

    Args:
        spec: the schema.
        inputs: of `preprocessing_fn`.
        split_cells: see `transform_config`.
    """

    def __init__(self, spec: FeatureSpec, inputs: Inputs, *, split_cells: bool) -> None:
        self._spec, self._inputs, self._split = spec, inputs, split_cells

    def raw(self) -> Raw:
        """Dense numbers as one matrix, NaN where missing, and the values of each feature."""
        raw: Raw = {}
        if self._spec.dense:
            raw[DENSE] = tf.stack([self._number(column.name) for column in self._spec.dense], axis=1)
        inputs = input_of_features(self._spec)
        for column in self._spec.categorical:
            name = inputs[column.name]
            if name not in raw:
                raw[name] = self._derived(column) if column.encoding in DERIVED else self._values(column)
        return raw

    def label(self, name: str) -> tf.Tensor:
        """float32 `[B]`, 0 or 1."""
        values = self._number(name)
        wrong = ~((values == 0.0) | (values == 1.0))

        def message() -> list[tf.Tensor | str]:
            first = tf.strings.as_string(tf.boolean_mask(values, wrong)[0], shortest=True)
            return [f"label '{name}': ", first, " in an example, and 0 or 1 is expected."]

        return stop_if(wrong, message, values)

    def key(self, name: str) -> tf.Tensor:
        """`[B]`: float32 of floats; of all else string, an empty one where there is none."""
        cells = self._cells(name)
        if cells.dtype == tf.float32:
            return _first(cells, float("nan"))
        return _first(_as_text(cells), "")

    def _cells(self, name: str) -> tf.RaggedTensor:
        """All values of a column, `[B, None]`."""
        if name not in self._inputs:
            raise ValueError(
                f"column {quoted(name)} of the schema is not in the examples: {', '.join(sorted(self._inputs))}."
            )
        return cells_of(self._inputs[name])

    def _number(self, name: str) -> tf.Tensor:
        """float32 `[B]`, NaN where missing."""
        cells = self._cells(name)
        if cells.dtype == tf.string:
            raise ValueError(f"column {quoted(name)} holds text in the examples, and numbers are expected.")
        cells = self._at_most_one(name, cells)
        return _first(tf.cast(cells, tf.float32), float("nan"))

    def _at_most_one(self, name: str, cells: tf.RaggedTensor) -> tf.RaggedTensor:
        values = stop_if(
            cells.row_lengths() > 1, lambda: [f"column '{name}' has several values in an example."], cells.flat_values
        )
        return cells.with_flat_values(values)

    def _derived(self, column: CategoricalColumn) -> tf.Tensor:
        """`[B]`: float32 numbers, NaN where missing, or texts of times, empty where missing."""
        if column.encoding == "bins":
            return self._number(column.raw_name)
        cells = self._at_most_one(column.raw_name, self._cells(column.raw_name))
        if cells.dtype == tf.float32:
            raise ValueError(
                f"column {quoted(column.raw_name)} holds floats in the examples, which have not all digits of a time. "
                "Write times as text or whole numbers."
            )
        return _first(_as_text(cells), "")

    def _values(self, column: CategoricalColumn) -> Any:
        cells = self._cells(column.name)
        if cells.dtype == tf.float32:
            raise ValueError(f"column {quoted(column.name)} holds floats in the examples; ids are integers or text.")
        if column.encoding == "integer" and cells.dtype == tf.string and not (self._split and column.hotness != 1):
            raise ValueError(f"column {quoted(column.name)} holds text in the examples, and its encoding is 'integer'.")
        if column.encoding == "hex" and cells.dtype == tf.int64 and self._split:
            raise ValueError(
                f"column {quoted(column.name)}: every value looks like a whole number, and CsvExampleGen has "
                "taken them for such, so they are no hex text any more. Set encoding: vocabulary for it."
            )
        if column.hotness == 1:
            cells = self._at_most_one(column.name, cells)
            values = self._one_id(column, cells)
            return (values, _finite(column, self._number(column.weights))) if column.weights else values
        cells = self._pieces(column, cells)
        weights = None
        if column.weights:
            weights = tf.cast(_as_numbers(self._pieces(column, self._cells(column.weights)), tf.float32), tf.float32)
            message = f"column '{column.weights}' has another number of weights than '{column.name}' has ids."
            flat = stop_if(weights.row_lengths() != cells.row_lengths(), lambda: [message], weights.flat_values)
            weights = cells.with_flat_values(_finite(column, flat))
        cells = _as_numbers(cells, tf.int64) if column.encoding == "integer" else _tokens_of(column, cells)
        if column.hotness is None:
            return cells if weights is None else (cells, weights)
        message = f"column '{column.name}' has an example with another number of ids than {column.hotness}."
        shape = [-1, column.hotness]
        flat = stop_if(cells.row_lengths() != column.hotness, lambda: [message], cells.flat_values)
        fixed = tf.reshape(flat, shape)
        return fixed if weights is None else (fixed, tf.reshape(weights.flat_values, shape))

    def _one_id(self, column: CategoricalColumn, cells: tf.RaggedTensor) -> tf.Tensor:
        if column.encoding != "integer":
            cells = _tokens_of(column, cells)
            return _first(cells, "" if cells.dtype == tf.string else 0)  # an empty cell is a value, and of hex 0
        message = f"column '{column.name}' has an example without an id."
        values = stop_if(cells.row_lengths() == 0, lambda: [message], cells.flat_values)
        return _first(cells.with_flat_values(values), 0)

    def _pieces(self, column: CategoricalColumn, cells: tf.RaggedTensor) -> tf.RaggedTensor:
        """Cells of text split at the column's separator; blank pieces are none."""
        if cells.dtype != tf.string or not self._split:
            return cells
        pieces = tf.strings.split(cells.flat_values, column.separator)
        pieces = tf.ragged.boolean_mask(pieces, tf.strings.strip(pieces) != "")
        return cells.with_values(pieces).merge_dims(1, 2)


def cells_of(values: Any) -> tf.RaggedTensor:
    """`[B, None]` of sparse, ragged, `[B]` or `[B, H]` values."""
    if isinstance(values, tf.SparseTensor):
        return tf.RaggedTensor.from_sparse(values)
    if isinstance(values, tf.RaggedTensor):
        return values
    return tf.RaggedTensor.from_tensor(values[:, tf.newaxis] if values.shape.rank == 1 else values)


def _first(cells: tf.RaggedTensor, default: Any) -> tf.Tensor:
    """`[B]`: the first value of each cell."""
    return cells.to_tensor(default, shape=[None, 1])[:, 0]


def _finite(column: CategoricalColumn, weights: tf.Tensor) -> tf.Tensor:
    message = f"column '{column.weights}' has a weight that is missing or not finite."
    return stop_if(~tf.math.is_finite(weights), lambda: [message], weights)


def _as_text(cells: tf.RaggedTensor) -> tf.RaggedTensor:
    flat = cells.flat_values
    return cells if flat.dtype == tf.string else cells.with_flat_values(tf.strings.as_string(flat))


def _tokens_of(column: CategoricalColumn, cells: tf.RaggedTensor) -> tf.RaggedTensor:
    """Text, but of hex ids that are numbers already."""
    return cells if column.encoding == "hex" else _as_text(cells)


def _as_numbers(cells: tf.RaggedTensor, dtype: tf.DType) -> tf.RaggedTensor:
    flat = cells.flat_values
    return cells.with_flat_values(tf.strings.to_number(flat, dtype)) if flat.dtype == tf.string else cells
