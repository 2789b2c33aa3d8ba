"""`preprocessing_fn` of TFX's Transform, made from the schema of everything else: the same transforms and encodings.

    Transform(..., preprocessing_fn="pipelines.preprocessing.preprocessing_fn", custom_config=transform_config(spec))

Raw columns become the columns of prepared data, under their names: labels, dense numbers, ids, weights and keys.
Vocabularies, means, deviations and table sizes come from the analysis of the training rows; `read_preprocessing` gives
them as the `Preprocessing` that training, evaluation and export know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from pipelines.tfx_extra import tft
from savedmodels.inputs import DENSE, Raw
from savedmodels.raw_encoding import RawEncoder, fill_missing
from tfdlrm.checks import quoted
from tfdlrm.data.polars_extra import pl
from tfdlrm.data.prepared_folders import key_column
from tfdlrm.data.preprocessing import Preprocessing, check_size, has_vocabulary, needs_size
from tfdlrm.data.vocabulary import UNSEEN, Vocabulary, unescaped
from tfdlrm.embeddings.ids import stop_if
from tfdlrm.schema import OOV_ID, ROW_ID, CategoricalColumn, DenseColumn, FeatureSpec

SCHEMA, MIN_COUNT, ID_MODULO, SPLIT_CELLS = "schema", "min_count", "id_modulo", "split_cells"
_STATISTICS = "statistics"
_PREFIX = ":"  # of texts in vocabularies: Transform would drop an empty one

Inputs = Mapping[str, Any]


def transform_config(
    spec: FeatureSpec, *, min_count: int = 1, id_modulo: int | None = None, split_cells: bool = True
) -> dict[str, Any]:
    """The `custom_config` of Transform.

    Args:
        spec: the columns; what it leaves open (means, deviations, sizes of tables) is learned.
        min_count: rarer values have no id of their own; above 1, columns with a vocabulary need `id_policy: oov`.
        id_modulo: of integer and hex ids; None for no modulo.
        split_cells: a text in a column of bags is split at the column's separator, as cells of CSV files are; False
            where examples hold lists.

    Raises:
        ValueError: an option that the schema does not allow.
    """
    for column in spec.categorical:
        if min_count > 1 and column.encoding in ("vocabulary", "hex") and column.id_policy != "oov":
            raise ValueError(
                f"column {quoted(column.name)}: min_count={min_count} leaves rare values without an id, "
                f"and id_policy is {quoted(column.id_policy)}. Set id_policy: oov for it."
            )
    for table in _open_tables(spec):
        needs_size(table, _columns_of(spec, table))
    return {SCHEMA: spec.to_dict(), MIN_COUNT: min_count, ID_MODULO: id_modulo, SPLIT_CELLS: split_cells}


def preprocessing_fn(inputs: Inputs, custom_config: Mapping[str, Any]) -> dict[str, Any]:
    """Called by Transform.

    Args:
        inputs: raw columns as the schema of the examples has them: sparse, ragged or dense.
        custom_config: from `transform_config`.

    Returns:
        float32 `[B]` a label and a dense column; int64 ids `[B]`, `[B, H]` or ragged a feature, `UNSEEN` for a value
        that a vocabulary without an out-of-vocabulary row does not have; weights alike; keys.

    Raises:
        ValueError: a column is missing, or of a type that it cannot have.
    """
    spec = FeatureSpec.from_dict(custom_config[SCHEMA])
    columns = _RawColumns(spec, inputs, split_cells=custom_config[SPLIT_CELLS])
    raw = columns.raw()
    unfitted = Preprocessing(spec=spec, id_modulo=custom_config[ID_MODULO])
    plain = RawEncoder(unfitted)
    lookups = _analyze_vocabularies(plain, raw, custom_config[MIN_COUNT])
    moments = _analyze_statistics(plain, raw)
    # checks of what was learned would fail while it is being learned: who reads the ids makes them
    features = RawEncoder(unfitted, None, lookups=lookups, moments=moments).encode(raw)
    outputs: dict[str, Any] = {name: columns.label(name) for name in spec.labels}
    if spec.dense:
        for column, values in zip(spec.dense, tf.unstack(features[DENSE], axis=1), strict=True):
            outputs[column.name] = values
    for categorical in spec.categorical:
        value = features[categorical.name]
        if categorical.weights:
            value, outputs[categorical.weights] = value
        outputs[categorical.name] = _within_table(spec, categorical, value)
    outputs |= {key_column(spec, name): columns.key(name) for name in spec.keys if name != ROW_ID or name in inputs}
    return outputs


def _within_table(spec: FeatureSpec, column: CategoricalColumn, ids: Any) -> Any:
    """Refuses integer ids that the table does not have, where that is the column's policy."""
    size = spec.vocabulary_sizes.get(column.table)
    if column.encoding != "integer" or column.id_policy != "error" or size is None:
        return ids

    def checked(flat: tf.Tensor) -> tf.Tensor:
        wrong = (flat < 0) | (flat >= size)

        def message() -> list[tf.Tensor | str]:
            first = tf.strings.as_string(tf.boolean_mask(flat, wrong)[0])
            return [f"column '{column.name}': the id ", first, f" is not in [0, {size}), the rows of '{column.table}'."]

        return stop_if(wrong, message, flat)

    return tf.ragged.map_flat_values(checked, ids)


class _RawColumns:
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
        for column in self._spec.categorical:
            raw[column.name] = self._values(column)
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


class _AnalyzedVocabulary:
    """A vocabulary that Transform learns; a `Lookup`."""

    def __init__(self, file_name: str, tokens: tf.Tensor, min_count: int, *, has_oov: bool) -> None:
        self.default = OOV_ID if has_oov else UNSEEN
        self._first_id = int(has_oov)
        self._file = tft.vocabulary(_line(tokens), frequency_threshold=min_count, vocab_filename=file_name)

    def lookup(self, values: tf.Tensor) -> tf.Tensor:
        """See `Lookup`."""
        ids = tft.apply_vocabulary(_line(values), self._file, default_value=-1)
        return tf.where(ids < 0, tf.constant(self.default, tf.int64), ids + self._first_id)


def _line(tokens: tf.Tensor) -> tf.Tensor:
    """Tokens as lines of Transform's file of a vocabulary: hex ids in decimal; of text, line ends are escaped."""
    if tokens.dtype != tf.string:
        return tf.strings.as_string(tokens)
    for given, written in (("\\\\", "\\\\\\\\"), ("\n", "\\\\n"), ("\r", "\\\\r")):
        tokens = tf.strings.regex_replace(tokens, given, written)
    return tf.strings.join([_PREFIX, tokens])


def _vocabulary_name(spec: FeatureSpec, table: str) -> str:
    """Tables may have any name, files of Transform not."""
    return f"vocabulary_{spec.table_names.index(table)}"


def _columns_of(spec: FeatureSpec, table: str) -> list[CategoricalColumn]:
    return [column for column in spec.categorical if column.table == table]


def _has_oov(columns: Sequence[CategoricalColumn]) -> bool:
    return any(column.id_policy == "oov" for column in columns)


def _analyze_vocabularies(encoder: RawEncoder, raw: Raw, min_count: int) -> dict[str, _AnalyzedVocabulary]:
    spec = encoder.preprocessing.spec
    found = {}
    for table in spec.table_names:
        columns = _columns_of(spec, table)
        if has_vocabulary(table, columns):
            found[table] = _AnalyzedVocabulary(
                _vocabulary_name(spec, table), _tokens(encoder, table, raw), min_count, has_oov=_has_oov(columns)
            )
    return found


def _tokens(encoder: RawEncoder, table: str, raw: Raw) -> tf.Tensor:
    """`[n]`, of all columns of a table."""
    columns = _columns_of(encoder.preprocessing.spec, table)
    return tf.concat([tf.reshape(encoder.tokens(column, _flat(raw[column.name])), [-1]) for column in columns], 0)


def _flat(value: Any) -> tf.Tensor:
    value = value[0] if isinstance(value, tuple) else value
    return value.flat_values if isinstance(value, tf.RaggedTensor) else value


def _analyze_statistics(encoder: RawEncoder, raw: Raw) -> tuple[tf.Tensor, tf.Tensor] | None:
    """Mean and deviation of dense columns; keeps all numbers that were learned where `read_preprocessing` finds them.

    A vocabulary of one value is the one thing of any precision that Transform writes down.
    """
    spec = encoder.preprocessing.spec
    texts: list[tf.Tensor] = []
    means: list[Any] = []
    deviations: list[Any] = []
    values = tf.cast(fill_missing(spec.dense, raw[DENSE]), tf.float64) if spec.dense else None
    for place, column in enumerate(spec.dense):
        if column.is_fitted:
            means.append(tf.constant(column.mean or 0.0, tf.float64))
            deviations.append(tf.constant(column.std or 1.0, tf.float64))
            continue
        assert values is not None
        mean = tft.mean(values[:, place], output_dtype=tf.float64)
        deviation = tf.sqrt(tft.var(values[:, place], output_dtype=tf.float64))
        deviation = tf.where(deviation > 0.0, deviation, tf.ones_like(deviation))
        means.append(mean)
        deviations.append(deviation)
        texts += [tf.strings.as_string(each, precision=17, scientific=True) for each in (mean, deviation)]
    for table in _open_tables(spec):
        texts.append(tf.strings.as_string(tft.max(_tokens(encoder, table, raw))))
    if texts:
        num_rows = tf.shape(raw[DENSE])[0] if spec.dense else tf.shape(_flat(raw[spec.categorical[0].name]))[0]
        tft.vocabulary(tf.fill([num_rows], tf.strings.join(texts, ",")), vocab_filename=_STATISTICS)
    return (tf.stack(means), tf.stack(deviations)) if spec.dense else None


def _open_tables(spec: FeatureSpec) -> list[str]:
    """Tables of integer ids whose size the schema leaves open."""
    return [
        table
        for table in spec.table_names
        if table not in spec.vocabulary_sizes and not has_vocabulary(table, _columns_of(spec, table))
    ]


def read_preprocessing(output: tft.TFTransformOutput, config: Mapping[str, Any]) -> Preprocessing:
    """What Transform learned.

    Args:
        output: of the component.
        config: its `custom_config`.

    Raises:
        ValueError: a table is too small for its vocabulary, or a value is no UTF-8.
    """
    spec = FeatureSpec.from_dict(config[SCHEMA])
    texts: list[str] = []
    dense: list[DenseColumn] = list(spec.dense)
    open_columns = [place for place, column in enumerate(dense) if not column.is_fitted]
    if open_columns or _open_tables(spec):
        texts = output.vocabulary_by_name(_STATISTICS)[0].decode().split(",")
    for place in open_columns:
        dense[place] = replace(dense[place], mean=float(texts.pop(0)), std=float(texts.pop(0)))
    sizes = dict(spec.vocabulary_sizes) | {table: int(texts.pop(0)) + 1 for table in _open_tables(spec)}
    vocabularies = {}
    for table in spec.table_names:
        columns = _columns_of(spec, table)
        if has_vocabulary(table, columns):
            values = output.vocabulary_by_name(_vocabulary_name(spec, table))
            vocabularies[table] = vocabulary = Vocabulary(_series(table, columns, values), has_oov=_has_oov(columns))
            check_size(table, sizes.setdefault(table, vocabulary.size), vocabulary.size)
    fitted = replace(spec, dense=tuple(dense)).with_vocabulary_sizes(sizes)
    return Preprocessing(spec=fitted, vocabularies=vocabularies, id_modulo=config[ID_MODULO])


def _series(table: str, columns: Sequence[CategoricalColumn], values: Sequence[bytes]) -> pl.Series:
    if columns[0].encoding == "hex":
        return pl.Series("value", np.array([int(value) for value in values], np.int64))
    try:
        return pl.Series("value", [unescaped(value.decode()[len(_PREFIX) :]) for value in values], pl.String)
    except UnicodeDecodeError as error:
        names = ", ".join(column.name for column in columns)
        raise ValueError(
            f"table {quoted(table)}: a value of column {names} is not UTF-8: "
            f"{quoted(error.object)}. Convert the column."
        ) from error
