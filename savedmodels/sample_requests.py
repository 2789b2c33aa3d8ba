"""Requests made up for a model: raw values that it knows and a few it does not, and what the live model says to them.

The live model's answers come by the way of training: the rows are written to a file, read and encoded by
`tfdlrm.data`, and scored by the model itself. An export that answers the same has no skew between training and serving.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from savedmodels.inputs import InputColumn
from savedmodels.names import DENSE, EMBED, EXAMPLES, PREDICT, RANK, ROW_LENGTHS, SERVING_DEFAULT, WEIGHTS
from tfdlrm.data.preprocessing import Preprocessing
from tfdlrm.models.dlrm import DLRM
from tfdlrm.schema import DERIVED, CategoricalColumn, FeatureSpec

Arrays = dict[str, np.ndarray]
Pairs = dict[str, list[tuple[Arrays, Arrays]]]
LONGEST_BAG = 4
_MISSING_SHARE = 0.1
_EVERY_MISSING = 11  # of values of a text column, one is the mark of a missing one


@dataclass(frozen=True)
class RawBag:
    """One cell: its values and, where the column has them, a weight for each."""

    values: list[Any]
    weights: list[float]


@dataclass(frozen=True)
class RawTable:
    """Rows in raw form.

    Args:
        dense: float32 `[B, num_dense]`, NaN where missing.
        cells: feature -> a cell a row.
    """

    dense: np.ndarray
    cells: Mapping[str, Sequence[RawBag]]

    @property
    def num_rows(self) -> int:
        return len(self.dense)

    def one_user(self, of_user: frozenset[str]) -> RawTable:
        """The rows with the first row's values in every column of the user."""
        cells = {n: [c[0]] * self.num_rows if n in of_user else c for n, c in self.cells.items()}
        return RawTable(np.repeat(self.dense[:1], self.num_rows, 0) if DENSE in of_user else self.dense, cells)


def draw_rows(
    model: DLRM,
    columns: Sequence[InputColumn],
    preprocessing: Preprocessing | None,
    num_rows: int,
    seed: int = 0,
    whole: frozenset[str] = frozenset(),
) -> RawTable:
    """Rows of values that training knew, of missing ones, and of unseen ones where the schema allows them.

    Args:
        model, columns, preprocessing: as for `sample_requests`.
        num_rows, seed: how many, and which.
        whole: dense columns whose values are whole numbers.
    """
    random = np.random.default_rng(seed)
    config = model.config
    dense = random.lognormal(0.0, 1.5, (num_rows, config.num_dense)).astype(np.float32)
    if preprocessing is not None:
        are_whole = np.array([column.name in whole for column in preprocessing.spec.dense], bool)
        dense[:, are_whole] = np.round(dense[:, are_whole])
        optional = np.array([column.missing is not None for column in preprocessing.spec.dense], bool)
        dense[(random.random(dense.shape) < _MISSING_SHARE) & optional] = np.nan
    sizes = {feature.name: _rows(feature.table, config) for feature in config.features}
    schema = {column.raw_name: column for column in preprocessing.spec.categorical} if preprocessing else {}
    cells = {}
    for column in columns:
        hotness = [column.hotness or int(random.integers(0, LONGEST_BAG + 1)) for _ in range(num_rows)]
        if column.hotness is None and num_rows > 1:
            hotness[num_rows // 2] = 0
        size = sizes.get(column.feature, 0)  # none of what bins and parts of times are made of
        values = _values(schema.get(column.feature), column, preprocessing, size, sum(hotness), random)
        weights = random.random(len(values)).astype(np.float32).tolist() if column.weights else []
        ends = np.cumsum([0, *hotness])
        spans = list(zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True))
        cells[column.feature] = [RawBag(values[a:b], weights[a:b]) for a, b in spans]
    return RawTable(dense, cells)


def _rows(table: Any, config: Any) -> int:
    by_name = {each.name: each.vocabulary_size for each in config.tables}
    return int(by_name[table] if isinstance(table, str) else table.vocabulary_size)


def _values(
    column: CategoricalColumn | None,
    form: InputColumn,
    preprocessing: Preprocessing | None,
    size: int,
    count: int,
    random: np.random.Generator,
) -> list[Any]:
    if column is None or preprocessing is None or (column.encoding == "integer"):
        return random.integers(0, size, count).tolist()
    if column.encoding in DERIVED:
        missing = random.random(count) < _MISSING_SHARE
        if column.encoding == "bins":
            return np.where(missing, np.nan, random.lognormal(0.0, 1.5, count).astype(np.float32)).tolist()
        seconds = random.integers(0, 2**31, count).astype("datetime64[s]")
        return np.where(missing, "", np.datetime_as_string(seconds)).tolist()
    are_digits = form.dtype == tf.string and form.example_dtype == tf.int64

    def text(words: str) -> str:
        # graphs of a pipeline split texts at the separator, as they do cells of CSV files
        return words if form.hotness == 1 else words.replace(column.separator, "")

    if column.encoding == "hash":
        return [text(f"{'' if are_digits else 'value '}{number}") for number in random.integers(0, 10 * size, count)]
    vocabulary = preprocessing.vocabularies[column.table]
    known = vocabulary.values.gather(random.integers(0, max(1, len(vocabulary.values)), count).tolist())
    values = known.to_list()
    if column.id_policy == "oov":
        unseen: Any = 2**62 + 1
        if column.encoding == "vocabulary":
            unseen = "100000000000000000" if are_digits else text("never seen")
            if preprocessing.spec.raw.missing and form.hotness == 1 and not are_digits:
                values[::_EVERY_MISSING] = [preprocessing.spec.raw.missing[0]] * len(values[::_EVERY_MISSING])
        values = [unseen if draw < _MISSING_SHARE else v for v, draw in zip(values, random.random(count), strict=True)]
    return values


def columnar_arrays(columns: Sequence[InputColumn], rows: RawTable, names: frozenset[str] | None = None) -> Arrays:
    """The tensors of `predict` for rows.

    Args:
        columns: of the signature.
        rows: the rows.
        names: only these features, and "dense" where it is among them.
    """
    arrays: Arrays = {}
    if rows.dense.shape[1] and (names is None or DENSE in names):
        arrays[DENSE] = rows.dense
    for column in columns:
        if names is not None and column.feature not in names:
            continue
        cells = rows.cells[column.feature]
        values = _array([value for cell in cells for value in cell.values], column.dtype)
        weights = np.array([weight for cell in cells for weight in cell.weights], np.float32)
        shape = (-1,) if column.hotness in (None, 1) else (rows.num_rows, column.hotness)
        arrays[column.name] = values.reshape(shape)
        if column.hotness is None:
            arrays[column.name + ROW_LENGTHS] = np.array([len(cell.values) for cell in cells], np.int64)
        if column.weights:
            arrays[column.name + WEIGHTS] = weights.reshape(shape)
    return arrays


def _array(values: list[Any], dtype: tf.DType) -> np.ndarray:
    if dtype == tf.string:
        return np.array([value.encode() for value in values] or [], object)
    return np.array(values, dtype.as_numpy_dtype)


def examples(
    columns: Sequence[InputColumn], rows: RawTable, spec: FeatureSpec | None, whole: frozenset[str] = frozenset()
) -> np.ndarray:
    """Serialized `tf.train.Example`s of rows, `[B]` bytes.

    Args:
        columns: of the signature.
        rows: the rows.
        spec: the schema of raw columns; None where the dense numbers are one list.
        whole: dense columns whose values are whole numbers.
    """
    serialized = []
    hex_columns = {c.name for c in spec.categorical if c.encoding == "hex"} if spec is not None else set()
    for row in range(rows.num_rows):
        features: dict[str, tf.train.Feature] = {}
        if spec is None and rows.dense.shape[1]:
            features[DENSE] = _example_feature(rows.dense[row], tf.float32)
        for place, number in enumerate(spec.dense if spec is not None else ()):
            values = [float(value) for value in rows.dense[row, place : place + 1] if not np.isnan(value)]
            if values:
                features[number.name] = _example_feature(values, tf.int64 if number.name in whole else tf.float32)
        for column in columns:
            cell = rows.cells[column.feature][row]
            is_hex = column.dtype == tf.int64 and column.feature in hex_columns
            ids = [f"{value:x}" if is_hex else value for value in cell.values]
            if column.dtype == tf.float32 and np.isnan(ids[0]):
                continue  # a missing number is left out
            features[column.feature] = _example_feature(ids, column.example_dtype)
            if column.weights:
                features[column.weights] = _example_feature(cell.weights, column.weights_example_dtype)
        serialized.append(
            tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(deterministic=True)
        )
    return np.array(serialized or [], object)


def _example_feature(values: Sequence[Any], dtype: tf.DType) -> tf.train.Feature:
    if dtype == tf.string:
        texts = [value if isinstance(value, str) else repr(value) for value in values]
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[text.encode() for text in texts]))
    if dtype == tf.int64:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[int(value) for value in values]))
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def live_features(
    columns: Sequence[InputColumn], rows: RawTable, preprocessing: Preprocessing | None
) -> dict[str, Any]:
    """The model's inputs for rows, as training's reader and encoder make them."""
    if preprocessing is None:
        tensors = {name: tf.constant(array) for name, array in columnar_arrays(columns, rows).items()}
        dense = {DENSE: tensors[DENSE]} if DENSE in tensors else {}
        return dense | {c.feature: c.read(tensors, tf.constant(rows.num_rows)) for c in columns}
    from tfdlrm.config import DataConfig
    from tfdlrm.data.opening import open_rows

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.parquet"
        _write_parquet(file, columns, rows, preprocessing.spec)
        dataset = open_rows(DataConfig.from_dict({"format": "parquet"}), file, preprocessing)
        features, _ = next(iter(dataset.batches(rows.num_rows)))
        return dict(features)


def _write_parquet(file: Path, columns: Sequence[InputColumn], rows: RawTable, spec: FeatureSpec) -> None:
    from tfdlrm.data.polars_extra import pl

    frame: dict[str, Any] = {}
    for place, number in enumerate(spec.dense):
        values = [None if np.isnan(value) else float(value) for value in rows.dense[:, place]]
        frame[number.name] = pl.Series(values, dtype=pl.Float64)
    for column in columns:
        dtype = {tf.string: pl.String, tf.float32: pl.Float64}.get(column.dtype, pl.Int64)
        cells = rows.cells[column.feature]
        kinds: list[tuple[str, list[list[Any]], Any]] = [(column.feature, [cell.values for cell in cells], dtype)]
        if column.weights:
            kinds.append((column.weights, [cell.weights for cell in cells], pl.Float64))
        for name, bags, kind in kinds:
            if column.hotness == 1:
                firsts = [None if bag[0] != bag[0] else bag[0] for bag in bags]  # NaN is a missing number
                frame[name] = pl.Series(firsts, dtype=kind)
            else:
                frame[name] = pl.Series(bags, dtype=pl.List(kind))
    for key in spec.keys:
        frame.setdefault(key, pl.Series(range(rows.num_rows), dtype=pl.Int64))
    pl.DataFrame(frame).write_parquet(file)


def sample_requests(
    model: DLRM,
    columns: Sequence[InputColumn],
    preprocessing: Preprocessing | None,
    signatures: Sequence[str],
    of_user: frozenset[str] = frozenset(),
    whole: frozenset[str] = frozenset(),
    *,
    batch_sizes: Sequence[int] = (1, 7),
) -> Pairs:
    """Requests of every signature and the live model's answers.

    Args:
        model: the live model, with its own rows.
        columns: of the signatures.
        preprocessing: of raw values; None where inputs are encoded already.
        signatures: names.
        of_user: for `rank`: the user's inputs.
        whole: dense columns that are whole numbers in a `tf.train.Example`.
        batch_sizes: a request each.
    """
    pairs: Pairs = {name: [] for name in signatures}
    spec = preprocessing.spec if preprocessing is not None else None
    for seed, batch_size in enumerate(batch_sizes):
        rows = draw_rows(model, columns, preprocessing, batch_size, seed, whole)
        features = live_features(columns, rows, preprocessing)
        answers = live_scores(model, features)
        if SERVING_DEFAULT in pairs:
            pairs[SERVING_DEFAULT].append(({EXAMPLES: examples(columns, rows, spec, whole)}, answers))
        if PREDICT in pairs:
            pairs[PREDICT].append((columnar_arrays(columns, rows), answers))
        if EMBED in pairs:
            pairs[EMBED].append((columnar_arrays(columns, rows), live_vectors(model, features)))
        if RANK in pairs:
            pairs[RANK].append(_rank_request(model, columns, preprocessing, rows, of_user))
    return pairs


def live_scores(model: DLRM, features: dict[str, Any]) -> Arrays:
    """`probability` and `logit` `[B, tasks]` of the live model."""
    logit = tf.cast(model(features, training=False), tf.float32)
    return {"probability": model.probability(logit).numpy(), "logit": logit.numpy()}


def live_vectors(model: DLRM, features: dict[str, Any]) -> Arrays:
    """What `embed` gives."""
    vectors = {
        "embeddings": model.embeddings({f.name: features[f.name] for f in model.config.features}, training=False)
    }
    if model.bottom_mlp is not None:
        vectors["dense_vector"] = model.bottom_mlp(features[DENSE], training=False)
    return {name: tf.cast(vector, tf.float32).numpy() for name, vector in vectors.items()}


def _rank_request(
    model: DLRM,
    columns: Sequence[InputColumn],
    preprocessing: Preprocessing | None,
    rows: RawTable,
    of_user: frozenset[str],
) -> tuple[Arrays, Arrays]:
    whole = rows.one_user(of_user)
    answers = live_scores(model, live_features(columns, whole, preprocessing))
    first = RawTable(whole.dense[:1], {name: cells[:1] for name, cells in whole.cells.items()})
    names = frozenset({DENSE, *whole.cells}) - of_user
    # the order of near equal scores may differ by rounding, so the top is not among what is compared
    inputs = {**columnar_arrays(columns, whole, names), **columnar_arrays(columns, first, of_user)}
    return {**inputs, "k": np.array(min(3, rows.num_rows), np.int32)}, answers
