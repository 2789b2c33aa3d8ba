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

from pipelines.raw_columns import Inputs, RawColumns
from pipelines.tfx_extra import tft
from savedmodels.inputs import Raw
from savedmodels.names import DENSE
from savedmodels.raw_encoding import RawEncoder, fill_missing
from tfdlrm.checks import quoted
from tfdlrm.data.polars_extra import pl
from tfdlrm.data.prepared_folders import key_column
from tfdlrm.data.preprocessing import Preprocessing, check_size, has_vocabulary, needs_edges, needs_size
from tfdlrm.data.transforms import SORTED_VALUES
from tfdlrm.data.vocabulary import UNSEEN, Vocabulary, unescaped
from tfdlrm.embeddings.ids import stop_if
from tfdlrm.schema import OOV_ID, ROW_ID, CategoricalColumn, DenseColumn, FeatureSpec

SCHEMA, MIN_COUNT, ID_MODULO, SPLIT_CELLS = "schema", "min_count", "id_modulo", "split_cells"
_STATISTICS = "statistics"
_PREFIX = ":"  # of texts in vocabularies: Transform would drop an empty one


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
    columns = RawColumns(spec, inputs, split_cells=custom_config[SPLIT_CELLS])
    raw = columns.raw()
    unfitted = Preprocessing(spec=spec, id_modulo=custom_config[ID_MODULO])
    plain = RawEncoder(unfitted)
    lookups = _analyze_vocabularies(plain, raw, custom_config[MIN_COUNT])
    edges = _analyze_edges(spec, raw)
    moments = _analyze_statistics(plain, raw, edges)
    # checks of what was learned would fail while it is being learned: who reads the ids makes them
    features = RawEncoder(unfitted, None, lookups=lookups, moments=moments, edges=edges).encode(raw)
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


def _analyze_edges(spec: FeatureSpec, raw: Raw) -> dict[str, tf.Tensor]:
    """Column of bins -> its edges: those of `fit_bins`, but that Transform's sorted values are not exact."""
    found = {}
    place = {column.name: number for number, column in enumerate(spec.dense)}
    for column in _unfitted_bins(spec):
        name = column.raw_name
        values = raw[DENSE][:, place[name]] if name in place else raw[name]
        there = tf.boolean_mask(values, ~tf.math.is_nan(values))
        quantiles = tf.reshape(tft.quantiles(there, SORTED_VALUES, epsilon=0.1 / SORTED_VALUES), [-1])
        found[column.name] = graph_bin_edges(tf.sort(tf.boolean_mask(quantiles, tf.math.is_finite(quantiles))), column)
    return found


def graph_bin_edges(values: tf.Tensor, column: CategoricalColumn) -> tf.Tensor:
    """As `tfdlrm.data.transforms.bin_edges`."""
    bins = column.bins or 0
    distinct, place, counts = tf.unique_with_counts(values)
    by_count = tf.argsort(-counts, stable=True)[: (bins - 1) // 2]
    heavy = tf.sort(tf.boolean_mask(by_count, tf.gather(counts, by_count) * bins > tf.size(values)))
    is_heavy = tf.scatter_nd(heavy[:, tf.newaxis], tf.ones_like(heavy), [tf.size(distinct)]) > 0
    rest = tf.boolean_mask(values, ~tf.gather(is_heavy, place))
    parts = bins - 2 * tf.size(heavy)
    cuts = tf.gather(rest, tf.range(1, tf.where(tf.size(rest) > 0, parts, 1)) * tf.size(rest) // parts)
    behind = tf.gather(distinct, tf.boolean_mask(heavy, heavy + 1 < tf.size(distinct)) + 1)
    edges = tf.unique(tf.sort(tf.concat([tf.gather(distinct, heavy), behind, cuts], 0)))[0]
    return tf.boolean_mask(edges, edges > tf.reduce_min(values))


def _unfitted_bins(spec: FeatureSpec) -> list[CategoricalColumn]:
    return [column for column in spec.categorical if needs_edges(column)]


def _analyze_statistics(
    encoder: RawEncoder, raw: Raw, edges: Mapping[str, tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor] | None:
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
    for own in edges.values():
        texts.append(tf.strings.reduce_join(tf.strings.as_string(own, precision=9, scientific=True), separator=" "))
    if texts:
        num_rows = tf.shape(raw[DENSE])[0] if spec.dense else tf.shape(_flat(next(iter(raw.values()))))[0]
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
    if open_columns or _open_tables(spec) or _unfitted_bins(spec):
        texts = output.vocabulary_by_name(_STATISTICS)[0].decode().split(",")
    for place in open_columns:
        dense[place] = replace(dense[place], mean=float(texts.pop(0)), std=float(texts.pop(0)))
    sizes = dict(spec.vocabulary_sizes) | {table: int(texts.pop(0)) + 1 for table in _open_tables(spec)}
    edges = {column.name: tuple(float(edge) for edge in texts.pop(0).split()) for column in _unfitted_bins(spec)}
    categorical = tuple(
        replace(column, edges=edges[column.name]) if column.name in edges else column for column in spec.categorical
    )
    vocabularies = {}
    for table in spec.table_names:
        columns = _columns_of(spec, table)
        if has_vocabulary(table, columns):
            values = output.vocabulary_by_name(_vocabulary_name(spec, table))
            vocabularies[table] = vocabulary = Vocabulary(_series(table, columns, values), has_oov=_has_oov(columns))
            check_size(table, sizes.setdefault(table, vocabulary.size), vocabulary.size)
    fitted = replace(spec, dense=tuple(dense), categorical=categorical).with_vocabulary_sizes(sizes)
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
