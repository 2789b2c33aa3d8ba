"""From raw columns to what the model was trained on, with stock TensorFlow ops: the same transforms and vocabularies.

`tfdlrm.data.transforms` and `tfdlrm.data.encode` are the training side of it; `savedmodels.recording` compares both
on every export.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from savedmodels.inputs import InputColumn, Raw, parse_examples
from savedmodels.names import DENSE, UNSEEN_POLICIES
from savedmodels.serving_rows import StoredArray
from savedmodels.vocabulary_lookup import VocabularyLookup
from tfdlrm.checks import quoted
from tfdlrm.data.preprocessing import Preprocessing
from tfdlrm.data.times import Ops, ids_of_seconds, seconds_of
from tfdlrm.data.vocabulary import UNSEEN
from tfdlrm.embeddings.ids import stop_if
from tfdlrm.hashing import hash_to_buckets
from tfdlrm.schema import TIME_IDS, CategoricalColumn, DenseColumn

_HEX_DIGITS = 16
_NO_DIGIT = 255


class Lookup(Protocol):
    """A vocabulary: `default` is the id of an unseen value, `UNSEEN` where it has none."""

    default: int

    def lookup(self, values: tf.Tensor) -> tf.Tensor:
        """int64 ids of values of any shape."""


class RawEncoder(tf.Module):
    """Encodes raw batches.

    Args:
        preprocessing: of the training run.
        unseen: what becomes of a value that is not in a vocabulary without an out-of-vocabulary row: "error" names it,
            "zero" lets it add nothing to its bag; None leaves the id `UNSEEN`.
        lookups: table -> its vocabulary, where it is not that of `preprocessing`.
        moments: mean and standard deviation, float64 `[num_dense]` each, where they are not those of its schema.
        edges: column of bins -> their edges, float32, where they are not those of its schema.

    Raises:
        ValueError: an unknown policy.
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        unseen: str | None = "error",
        *,
        lookups: Mapping[str, Lookup] | None = None,
        moments: tuple[tf.Tensor, tf.Tensor] | None = None,
        edges: Mapping[str, tf.Tensor] | None = None,
    ):
        super().__init__(name="raw_encoder")
        if unseen is not None and unseen not in UNSEEN_POLICIES:
            raise ValueError(f"unseen={quoted(unseen)} is unknown. Use one of: {', '.join(UNSEEN_POLICIES)}.")
        self.preprocessing = preprocessing
        self.unseen = unseen
        self._own = {
            table: VocabularyLookup(f"vocabulary_{number}", vocabulary)
            for number, (table, vocabulary) in enumerate(preprocessing.vocabularies.items())
        }
        self.lookups: Mapping[str, Lookup] = self._own if lookups is None else lookups
        self._moments = moments
        self._edges = dict(edges or {})
        self._place = {column.name: place for place, column in enumerate(preprocessing.spec.dense)}

    def arrays(self) -> Iterator[StoredArray]:
        """What the variables hold."""
        for lookup in self._own.values():
            yield from lookup.arrays()

    def variables_by_name(self) -> dict[str, tf.Variable]:
        """Name in the module -> variable, of those whose content is written later."""
        return {name: v for lookup in self._own.values() for name, v in lookup.variables_by_name().items()}

    def parts(self) -> list[Any]:
        """What else TensorFlow has to save; nothing."""
        return []

    def example_dtypes(self) -> dict[str, tf.DType]:
        """Raw column -> dtype of its values in a `tf.train.Example`, where it is not the usual one; nowhere."""
        return {}

    def encode_examples(self, examples: tf.Tensor, columns: Sequence[InputColumn]) -> dict[str, Any]:
        """The model's inputs for serialized `tf.train.Example`s `[B]`."""
        dense = [column.name for column in self.preprocessing.spec.dense]
        return self.encode(parse_examples(examples, columns, len(dense), dense))

    def encode(self, raw: Raw) -> dict[str, Any]:
        """The model's inputs."""
        features: dict[str, Any] = {}
        if DENSE in raw:
            features[DENSE] = transform_dense_columns(self.preprocessing.spec.dense, raw[DENSE], self._moments)
        for column in self.preprocessing.spec.categorical:
            if column.raw_name in raw:
                features[column.name] = self._column(column, raw[column.raw_name])
            elif DENSE in raw and column.raw_name in self._place:
                features[column.name] = self._column(column, raw[DENSE][:, self._place[column.raw_name]])
        return features

    def _column(self, column: CategoricalColumn, value: Any) -> Any:
        given, weights = value if isinstance(value, tuple) else (value, None)
        tokens = given.flat_values if isinstance(given, tf.RaggedTensor) else given
        if column.hotness == 1:
            tokens = _hide_missing(tokens, self.preprocessing.spec.raw.missing)
        ids = self._ids(column, tokens)
        if column.table in self.lookups:
            unknown = ids < 0
            if self.unseen == "error":
                ids = _refuse_unseen(column, tokens, ids, unknown)
            elif self.unseen == "zero":
                ids = tf.maximum(ids, 0)
                known = tf.cast(~unknown, tf.float32)
                if weights is None:
                    weights = _like(given, known)
                else:
                    flat = weights.flat_values if isinstance(weights, tf.RaggedTensor) else weights
                    weights = _like(given, flat * known)
        found = _like(given, ids)
        return found if weights is None else (found, weights)

    def tokens(self, column: CategoricalColumn, values: tf.Tensor) -> tf.Tensor:
        """What ids are made of: text, or of integer and hex ids int64, modulo `id_modulo`."""
        modulo = self.preprocessing.id_modulo
        if column.encoding in ("vocabulary", "hash") and self.preprocessing.spec.raw.strip:
            return tf.strings.strip(values)
        if column.encoding == "hex" and values.dtype == tf.string:
            values = parse_hex(column.name, values)
        if column.encoding in ("integer", "hex") and modulo is not None:
            values = tf.math.floormod(values, tf.constant(modulo, tf.int64))
        return values

    def _ids(self, column: CategoricalColumn, tokens: tf.Tensor) -> tf.Tensor:
        if column.encoding == "bins":
            return _bins(column, tokens, self._edges.get(column.name))
        if column.encoding in TIME_IDS:
            return time_ids(column, tokens)
        if column.encoding == "hash":
            return hash_to_buckets(self.tokens(column, tokens), self.preprocessing.spec.vocabulary_sizes[column.table])
        tokens = self.tokens(column, tokens)
        if column.table not in self.lookups:
            return tokens
        lookup = self.lookups[column.table]
        ids = lookup.lookup(tokens)
        if lookup.default != UNSEEN and column.id_policy != "oov":
            # another column of the table keeps an out-of-vocabulary row; this one did not ask for it
            ids = tf.where(ids == lookup.default, tf.constant(UNSEEN, tf.int64), ids)
        return ids


def _bins(column: CategoricalColumn, numbers: tf.Tensor, edges: tf.Tensor | None) -> tf.Tensor:
    """As `tfdlrm.data.transforms.bin_ids`; an infinite number is refused."""

    def message() -> list[tf.Tensor | str]:
        first = tf.strings.as_string(tf.boolean_mask(numbers, tf.math.is_inf(numbers))[0])
        return [f"column '{column.raw_name}': ", first, " is not a finite number. Give one, or NaN for a missing one."]

    numbers = stop_if(tf.math.is_inf(numbers), message, numbers)
    edges = tf.constant(column.edges, tf.float32) if edges is None else edges
    # without an edge there is nothing to search
    places = tf.searchsorted(tf.concat([[-np.inf], edges], 0), numbers, side="right", out_type=tf.int64)
    return tf.where(tf.math.is_nan(numbers), tf.constant(0, tf.int64), places)


def time_ids(column: CategoricalColumn, texts: tf.Tensor) -> tf.Tensor:
    """Ids of times as `tfdlrm.data.times` reads them; an empty text is 0, and any other is refused."""

    def groups(pattern: str, number: int) -> tuple[tf.Tensor, list[tf.Tensor]]:
        whole = rf"[ \t]*{pattern}[ \t]*"
        matched = tf.strings.regex_full_match(texts, whole)
        form = tf.where(matched, texts, "")

        def group(place: int) -> tf.Tensor:
            part = tf.strings.regex_replace(form, f"^{whole}$", rf"\{place}", replace_global=False)
            part = tf.where(part == "-", "1", tf.where((part == "+") | (part == ""), "0", part))
            return tf.strings.to_number(part, tf.int64)

        return matched, [group(place) for place in range(1, number + 1)]

    seconds, is_time = seconds_of(Ops(groups, tf.where))
    is_empty = tf.strings.strip(texts) == ""
    wrong = ~is_time & ~is_empty

    def message() -> list[tf.Tensor | str]:
        first = tf.boolean_mask(texts, wrong)[0]
        return [f"column '{column.raw_name}': '", first, "' is not a time. Give one such as 2024-01-31 23:59:59."]

    seconds = stop_if(wrong, message, seconds)
    return tf.where(is_time, ids_of_seconds(column.encoding, seconds), tf.constant(0, tf.int64))


def _like(given: Any, flat: tf.Tensor) -> Any:
    return given.with_flat_values(flat) if isinstance(given, tf.RaggedTensor) else flat


def _hide_missing(tokens: tf.Tensor, missing: Sequence[str]) -> tf.Tensor:
    """Texts, with those that stand for a missing value empty, as `tfdlrm.data.cells.hide_missing` has them."""
    if not missing or tokens.dtype != tf.string:
        return tokens
    is_missing = tf.reduce_any(tf.strings.strip(tokens)[..., tf.newaxis] == tf.constant(list(missing)), axis=-1)
    return tf.where(is_missing, "", tokens)


def _refuse_unseen(column: CategoricalColumn, tokens: tf.Tensor, ids: tf.Tensor, unknown: tf.Tensor) -> tf.Tensor:
    def message() -> list[tf.Tensor | str]:
        text = tokens if tokens.dtype == tf.string else tf.strings.as_string(tokens)
        first = tf.boolean_mask(text, unknown)[0]
        fix = "was not seen in training. Train with id_policy: oov for the column, or export with --unseen zero."
        return [f"feature '{column.name}': the value '", first, f"' {fix}"]

    return stop_if(unknown, message, ids)


def transform_dense_columns(
    columns: tuple[DenseColumn, ...], raw: tf.Tensor, moments: tuple[tf.Tensor, tf.Tensor] | None = None
) -> tf.Tensor:
    """Transformed dense numbers, float32 `[B, num_dense]`; the formulas of `tfdlrm.data.transforms`.

    Args:
        columns: in order.
        raw: float32 `[B, num_dense]`, NaN where a number is missing.
        moments: mean and standard deviation, float64 `[num_dense]`, of columns that do not say theirs.
    """
    x = fill_missing(columns, raw)
    for transform, apply in _TRANSFORMS.items():
        mask = np.array([column.transform == transform for column in columns])
        if not mask.any():
            continue
        found = _standardized(x, *moments) if transform == "standardize" and moments else apply(columns, x)
        x = found if mask.all() else tf.where(mask, found, x)
    return x


def fill_missing(columns: tuple[DenseColumn, ...], raw: tf.Tensor) -> tf.Tensor:
    """Dense numbers with the schema's values for missing ones; what is not finite, or has none, is refused.

    Args:
        columns: in order.
        raw: float32 `[B, num_dense]`, NaN where a number is missing.
    """
    required = [column.missing is None for column in columns]
    x = raw
    is_missing = tf.math.is_nan(raw)
    fill = np.array([0.0 if column.missing is None else column.missing for column in columns], np.float32)
    x = tf.where(is_missing, fill, x)
    wrong = tf.math.is_inf(x)
    if any(required):
        wrong = wrong | (is_missing & np.array(required))
    return _refuse_numbers(columns, raw, wrong, x)


def _refuse_numbers(columns: tuple[DenseColumn, ...], raw: tf.Tensor, wrong: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    def message() -> list[tf.Tensor | str]:
        where = tf.where(wrong)[0]
        name = tf.gather([column.name for column in columns], where[1])
        number, row = tf.strings.as_string(tf.gather_nd(raw, where)), tf.strings.as_string(where[0])
        fix = "is not a finite number. Give one, or leave it out where the schema has a value for missing ones."
        return ["dense column '", name, "': ", number, " in row ", row, f" {fix}"]

    return stop_if(wrong, message, x)


def _log1p(columns: tuple[DenseColumn, ...], x: tf.Tensor) -> tf.Tensor:
    return tf.math.log(tf.maximum(x, 0.0) + 1.0)


def _standardize(columns: tuple[DenseColumn, ...], x: tf.Tensor) -> tf.Tensor:
    mean = np.array([column.mean or 0.0 for column in columns])
    std = np.array([column.std or 1.0 for column in columns])
    return _standardized(x, mean, std)


def _standardized(x: tf.Tensor, mean: Any, std: Any) -> tf.Tensor:
    return tf.cast((tf.cast(x, tf.float64) - mean) / std, tf.float32)


def _clip(columns: tuple[DenseColumn, ...], x: tf.Tensor) -> tf.Tensor:
    low = np.array([-np.inf if c.minimum is None else c.minimum for c in columns], np.float32)
    high = np.array([np.inf if c.maximum is None else c.maximum for c in columns], np.float32)
    return tf.minimum(tf.maximum(x, low), high)


_TRANSFORMS: dict[str, Callable[[tuple[DenseColumn, ...], tf.Tensor], tf.Tensor]] = {
    "log1p": _log1p,
    "standardize": _standardize,
    "clip": _clip,
}


def parse_hex(column: str, texts: tf.Tensor) -> tf.Tensor:
    """int64 of hex text, an empty one as 0; other text, and more than 63 bits, are refused by the column's name.

    Args:
        column: for the message.
        texts: string, any shape.
    """
    flat = tf.strings.strip(tf.reshape(texts, [-1]))
    length = tf.strings.length(flat)
    padded = tf.strings.substr(tf.strings.join(["0" * _HEX_DIGITS, flat]), -_HEX_DIGITS, _HEX_DIGITS)
    codes = tf.cast(tf.io.decode_raw(padded, tf.uint8, fixed_length=_HEX_DIGITS), tf.int32)  # [N, 16]
    values = np.full(256, _NO_DIGIT, np.int64)
    for digits in (b"0123456789abcdef", b"0123456789ABCDEF"):
        values[np.frombuffer(digits, np.uint8)] = np.arange(16)
    digit = tf.gather(tf.constant(values), codes)
    wrong = tf.reduce_any(digit == _NO_DIGIT, axis=1) | (length > _HEX_DIGITS) | (digit[:, 0] > 7)

    def message() -> list[tf.Tensor | str]:
        first = tf.boolean_mask(flat, wrong)[0]
        return [f"feature '{column}': '", first, "' is not a hex number of at most 63 bits. Correct it."]

    digit = stop_if(wrong, message, digit)
    shifts = np.left_shift(np.int64(1), 4 * np.arange(_HEX_DIGITS - 1, -1, -1, dtype=np.int64))
    return tf.reshape(tf.reduce_sum(digit * shifts, axis=1), tf.shape(texts))
