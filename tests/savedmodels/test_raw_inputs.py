"""Raw values in: every encoding and transform of training, in graph form, gives what training's reader gives."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from savedmodels.export import ExportOptions, export
from savedmodels.inputs import input_columns
from savedmodels.raw_encoding import RawEncoder, parse_hex, time_ids, transform_dense_columns
from savedmodels.recorded import read_requests
from savedmodels.sample_requests import columnar_arrays, draw_rows, examples, live_features
from savedmodels.vocabulary_lookup import VocabularyLookup
from tfdlrm.config import DLRMConfig
from tfdlrm.data.preprocessing import Preprocessing
from tfdlrm.data.times import ids_of_seconds, seconds_of_cells
from tfdlrm.data.transforms import transform_dense
from tfdlrm.data.vocabulary import Vocabulary
from tfdlrm.models.dlrm import DLRM
from tfdlrm.schema import CategoricalColumn, DenseColumn, FeatureSpec, RawCells

SPEC = FeatureSpec(
    labels=("click",),
    dense=(
        DenseColumn(name="count", transform="log1p"),
        DenseColumn(name="age", transform="standardize", mean=40.0, std=3.0, missing=40.0),
        DenseColumn(name="price", transform="clip", minimum=0.5, maximum=2.0, missing=None),
        DenseColumn(name="score"),
    ),
    categorical=(
        CategoricalColumn(name="city", encoding="vocabulary", id_policy="oov"),
        CategoricalColumn(name="home", encoding="vocabulary", table="city"),
        CategoricalColumn(name="device id", encoding="hex"),
        CategoricalColumn(name="tags", encoding="vocabulary", id_policy="oov", hotness=None, weights="tag_weights"),
        CategoricalColumn(name="query", encoding="hash", hotness=2),
        CategoricalColumn(name="item", id_policy="modulo", hotness=None),
        CategoricalColumn(name="slot"),
        CategoricalColumn(name="age in bins", source="age", encoding="bins", bins=4, edges=(20.0, 30.5, 60.0)),
        CategoricalColumn(name="width", encoding="bins", bins=3, edges=(-1.5, 0.1)),
        CategoricalColumn(name="hour", source="seen at", encoding="hour"),
        CategoricalColumn(name="seen at", encoding="weekday"),
    ),
    vocabulary_sizes={"city": 5, "device id": 6, "tags": 4, "query": 13, "item": 7, "slot": 3},
    raw=RawCells(missing=("?", "NA")),
)
VOCABULARIES = {
    "city": Vocabulary(pl.Series(["Rome", "Oslo\n", "", "naïve, \\"]), has_oov=True),
    "device id": Vocabulary(pl.Series([2**63 - 1, 0, 0x68FD1E64, 17, 3, 99]), has_oov=False),
    "tags": Vocabulary(pl.Series(["a", "b", "c"]), has_oov=True),
}
PREPROCESSING = Preprocessing(spec=SPEC, vocabularies=VOCABULARIES)


@pytest.fixture(scope="module")
def raw_model() -> DLRM:
    model = DLRM(DLRMConfig.from_schema(SPEC, embedding_dim=4, bottom_mlp=(8, 4), top_mlp=(8, 1)))
    model.build()
    return model


def test_sample_requests_hold_no_value_that_a_cell_would_be_split_at(raw_model) -> None:
    """Graphs of a pipeline split texts of a bag at the separator, and the reader of recorded requests does not."""
    columns = input_columns(raw_model.config, SPEC, raw=True, example_dtypes={})
    rows = draw_rows(raw_model, columns, PREPROCESSING, 200)
    bags = [column for column in SPEC.categorical if column.hotness != 1 and column.encoding != "integer"]
    values = {column.name: {value for cell in rows.cells[column.name] for value in cell.values} for column in bags}
    assert values.keys() == {"tags", "query"}
    assert not any(column.separator in value for column in bags for value in values[column.name])
    assert len(values["tags"] - {"a", "b", "c"}) == 1  # one that nobody has seen
    assert len(values["query"]) > 20


def test_sample_requests_hold_missing_numbers_and_times(raw_model) -> None:
    columns = input_columns(raw_model.config, SPEC, raw=True)
    rows = draw_rows(raw_model, columns, PREPROCESSING, 200)
    assert 0 < sum(cell.values[0] != cell.values[0] for cell in rows.cells["width"]) < 50
    assert 0 < sum(cell.values == [""] for cell in rows.cells["seen at"]) < 50
    features = live_features(columns, rows, PREPROCESSING)
    encoder = RawEncoder(PREPROCESSING)
    for array in encoder.arrays():
        encoder.variables_by_name()[array.name].assign(array.read(0, array.rows))
    tensors = {name: tf.constant(array) for name, array in columnar_arrays(columns, rows).items()}
    ids = encoder.encode({c.feature: c.read(tensors, tf.constant(200)) for c in columns})
    given = encoder.encode_examples(tf.constant(examples(columns, rows, SPEC)), columns)
    for name in ("width", "hour", "seen at"):
        for found in (ids, given):
            np.testing.assert_array_equal(tf.reshape(features[name], [-1]), tf.reshape(found[name], [-1]))
        assert not ids[name].numpy().all()


def load(folder: Path) -> dict:
    return tf.saved_model.load(str(folder)).signatures


def differences(folder: Path) -> dict[str, float]:
    """Largest difference of any output to what was recorded, by signature."""
    signatures, found = load(folder), {}
    for name, requests in read_requests(folder).items():
        worst = 0.0
        for inputs, outputs in requests:
            tensors = {key: tf.constant(value.tolist(), _dtype(value)) for key, value in inputs.items()}
            answers = signatures[name](**tensors)
            worst = max([worst, *(float(np.abs(answers[k].numpy() - v).max(initial=0)) for k, v in outputs.items())])
        found[name] = worst
    return found


def _dtype(value: np.ndarray) -> tf.DType:
    return tf.as_dtype(tf.string if value.dtype == object else value.dtype)


@pytest.mark.parametrize("quantize", ["none", "int8"])
def test_raw_values_give_the_numbers_of_trainings_reader(raw_model, tmp_path, quantize):
    options = ExportOptions(candidates=("item", "tags", "seen at", "hour"), quantize=quantize)
    folder = export(raw_model, tmp_path, preprocessing=PREPROCESSING, options=options)
    found = differences(folder)
    assert set(found) == {"serving_default", "predict", "rank", "embed"}
    assert max(found.values()) <= 1e-6, found


def request(**changes) -> dict:
    inputs = {
        "dense": [[1.0, 40.0, 1.0, 0.0]],
        "city": ["Rome"],
        "home": ["Rome"],
        "device_id": [17],
        "tags": ["a", "b"],
        "tags_row_lengths": [2],
        "tags_weights": [1.0, 0.5],
        "query": [["x", "y"]],
        "item": [3],
        "item_row_lengths": [1],
        "slot": [2],
        "width": [0.5],
        "seen_at": ["2024-01-31 23:59:59"],
        **changes,
    }
    dtypes = {"dense": tf.float32, "tags_weights": tf.float32, "width": tf.float32}
    text = ("city", "home", "tags", "query", "seen_at")
    return {k: tf.constant(v, dtypes.get(k, tf.string if k in text else tf.int64)) for k, v in inputs.items()}


@pytest.fixture(scope="module")
def predict(raw_model, tmp_path_factory):
    folder = export(raw_model, tmp_path_factory.mktemp("raw"), preprocessing=PREPROCESSING)
    return load(folder)["predict"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"home": ["Bergen"]}, "feature 'home': the value 'Bergen' was not seen in training"),
        ({"device_id": [5]}, "feature 'device id': the value '5' was not seen in training"),
        ({"slot": [3]}, "feature 'slot' (table 'slot'): id 3 in row 0"),
        ({"dense": [[1.0, 40.0, float("nan"), 0.0]]}, "dense column 'price': nan in row 0 is not a finite number"),
        ({"dense": [[1.0, 40.0, 1.0, float("inf")]]}, "dense column 'score': inf in row 0"),
        ({"tags_row_lengths": [1]}, "tags_row_lengths"),
        ({"width": [float("-inf")]}, "column 'width': -inf is not a finite number"),
        ({"seen_at": ["2023-02-29"]}, "column 'seen at': '2023-02-29' is not a time"),
    ],
)
def test_bad_values_are_refused_by_name(predict, changes, message):
    assert predict(**request())["probability"].shape == (1, 1)
    with pytest.raises(tf.errors.InvalidArgumentError) as refused:
        predict(**request(**changes))
    assert message in refused.value.message.replace("\\'", "'")


@pytest.mark.parametrize("transform", ["standardize", "identity", "log1p"])
def test_digits_that_float32_does_not_have_are_unknown_to_training_too(transform):
    """Of 10^9 and a half exports see 10^9; a model that knew the half would answer otherwise when it is served."""
    moments = {"mean": 1e9 + 150.0, "std": 87.0} if transform == "standardize" else {}
    column = DenseColumn(name="x", transform=transform, **moments)
    values = 1e9 + 0.5 + np.arange(300.0)
    trained = transform_dense(column, values)
    served = transform_dense_columns((column,), tf.constant(values[:, None], tf.float32)).numpy()[:, 0]
    np.testing.assert_allclose(served, trained, rtol=1e-6, atol=1e-6)


def test_a_mark_of_a_missing_value_is_the_empty_text(predict):
    """`city` and `home` have the empty text in their vocabulary; a value of a bag is what it is."""
    expected = predict(**request(city=[""], home=[""]))["probability"].numpy()
    for mark in ("?", " NA "):
        np.testing.assert_array_equal(predict(**request(city=[mark], home=[mark]))["probability"].numpy(), expected)
    assert predict(**request(city=["unseen"], home=[""]))["probability"].numpy() != expected


EDGES = ["0001-01-01", "1899123123", "1900010100", "2099123123", "21000101", "19991231", "99123123", "24022923"]
NO_TIMES = ["", " ", "-", "2024-1-1", "2024-01-01 24:00", "99999999", "1e9", "-1700000000", "2024-02-30", "x2024-01-01"]


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.datetimes().map(str)
        | st.datetimes().map(lambda moment: moment.strftime("%Y%m%d%H%M%S")[: 8 + 2 * (moment.second % 4)])
        | st.datetimes(timezones=st.timezones()).map(lambda moment: moment.isoformat(timespec="minutes")[:22])
        | st.integers(10**7, 2**63 - 1).map(str)
        | st.from_regex(r"[ \t]?[0-9]{8}(?:[0-9]{2}){0,3}\.?", fullmatch=True)
        | st.sampled_from([*EDGES, *NO_TIMES]),
        min_size=1,
    )
)
def test_times_are_read_as_in_training(texts):
    """Each by itself, as a graph refuses all where one is no time."""
    seconds, is_time = seconds_of_cells(pl.Series(texts))
    for encoding in ("hour", "weekday"):
        column = CategoricalColumn(name="at", encoding=encoding)
        good = [text for text, is_one in zip(texts, is_time, strict=True) if is_one]
        expected = ids_of_seconds(encoding, seconds[is_time])
        assert time_ids(column, tf.constant([*good, ""], tf.string)).numpy().tolist() == [*expected.tolist(), 0]
    for text in {text for text, is_one in zip(texts, is_time, strict=True) if not is_one and text.strip()}:
        with pytest.raises(tf.errors.InvalidArgumentError, match="is not a time"):
            time_ids(column, tf.constant([text]))


def test_inputs_of_one_raw_column_belong_to_one_side(raw_model, tmp_path):
    for candidates, message in (
        (("hour",), r"features \['hour', 'seen at'\] are made of one raw input, 'seen at'"),
        (("age in bins", "item"), r"features \['age in bins', 'dense'\] are made of one raw input, 'dense'"),
    ):
        with pytest.raises(ValueError, match=message):
            export(raw_model, tmp_path, preprocessing=PREPROCESSING, options=ExportOptions(candidates=candidates))


def test_unseen_values_add_nothing_where_the_export_says_so(raw_model, tmp_path):
    folder = export(raw_model, tmp_path, preprocessing=PREPROCESSING, options=ExportOptions(unseen="zero"))
    embeddings = load(folder)["embed"](**request(home=["Bergen"], city=["Bergen"]))["embeddings"].numpy()[0]
    np.testing.assert_array_equal(embeddings[1], 0)  # home: no row
    np.testing.assert_array_equal(embeddings[0], raw_model.embeddings.tables.rows("city", 0, 1).numpy()[0])  # row 0
    with pytest.raises(ValueError, match=r"unseen='skip' is unknown. Use one of: error, zero"):
        export(raw_model, tmp_path, preprocessing=PREPROCESSING, options=ExportOptions(unseen="skip"))


def test_missing_columns_of_an_example_take_the_schemas_value(raw_model, tmp_path):
    signatures = load(export(raw_model, tmp_path, preprocessing=PREPROCESSING))

    def feature(value):
        kind = {float: "float", int: "int64", bytes: "bytes"}[type(value[0])]
        lists = {"float": tf.train.FloatList, "int64": tf.train.Int64List, "bytes": tf.train.BytesList}
        return tf.train.Feature(**{f"{kind}_list": lists[kind](value=value)})

    columns = {
        "width": [0.5],
        "seen at": [b"2024-01-31 23:59:59"],
        "price": [1.0],
        "device id": [b"11"],
        "query": [b"x", b"y"],
        "slot": [2],
        "home": [b"Rome"],
    }
    given = tf.train.Example(features=tf.train.Features(feature={k: feature(v) for k, v in columns.items()}))
    found = signatures["serving_default"](examples=tf.constant([given.SerializeToString()]))
    nan = float("nan")
    same = request(dense=[[nan, nan, 1.0, nan]], city=[""], tags=[], tags_row_lengths=[0], tags_weights=[])
    same |= {"item": tf.constant([], tf.int64), "item_row_lengths": tf.constant([0], tf.int64)}
    np.testing.assert_allclose(found["logit"], signatures["predict"](**same)["logit"], rtol=0, atol=1e-6)


def test_blanks_around_texts_do_not_count_where_the_schema_says_so(raw_model, tmp_path):
    spec = dataclasses.replace(SPEC, raw=RawCells(strip=True))
    cities = Vocabulary(pl.Series(["Rome", "Oslo", "", "naïve, \\"]), has_oov=True)
    preprocessing = Preprocessing(spec=spec, vocabularies={**VOCABULARIES, "city": cities})
    folder = export(raw_model, tmp_path, preprocessing=preprocessing)
    answer = load(folder)["predict"]
    expected = answer(**request())["logit"].numpy()
    blank = request(city=[" Rome\t"], home=["Rome "], tags=[" a", "b\n"], query=[["x ", " y"]])
    np.testing.assert_array_equal(answer(**blank)["logit"].numpy(), expected)
    assert max(differences(folder).values()) <= 1e-6


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**63 - 1)), st.booleans())
def test_hex_text_is_its_number(numbers, upper):
    texts = [f" {n:X} " if upper else f"{n:x}" for n in numbers]
    found = parse_hex("id", tf.constant([*texts, ""], tf.string))
    assert found.numpy().tolist() == [*numbers, 0]


@pytest.mark.parametrize("text", ["8000000000000000", "12345678901234567", "g", "-1", "0x1", "é", "1 2"])
def test_other_text_is_no_hex_number(text):
    with pytest.raises(tf.errors.InvalidArgumentError, match="feature 'id'"):
        parse_hex("id", tf.constant(["1", text]))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.text(max_size=3), unique=True) | st.lists(st.integers(0, 9), unique=True), st.booleans(), st.data())
def test_a_vocabulary_gives_trainings_ids(values, has_oov, data):
    is_text = bool(values) and isinstance(values[0], str)
    vocabulary = Vocabulary(pl.Series(values, dtype=pl.String if is_text else pl.Int64), has_oov=has_oov)
    lookup = VocabularyLookup("v", vocabulary)
    for array in lookup.arrays():
        lookup.variables_by_name()[array.name].assign(array.read(0, array.rows))
    asked = data.draw(st.lists(st.text(max_size=3) if is_text else st.integers(-3, 12)))
    wanted = [*values, *asked]
    tokens = tf.constant([v.encode() for v in wanted] if is_text else wanted, tf.string if is_text else tf.int64)
    ids = {value: place + has_oov for place, value in enumerate(values)}
    assert lookup.lookup(tokens).numpy().tolist() == [ids.get(value, 0 if has_oov else -1) for value in wanted]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False), min_size=4, max_size=4))
def test_dense_numbers_are_transformed_as_in_training(numbers):
    raw = np.array([numbers], np.float32)
    found = transform_dense_columns(SPEC.dense, tf.constant(raw)).numpy()[0]
    for place, column in enumerate(SPEC.dense):
        expected = transform_dense(column, raw[:, place].astype(np.float64))
        # ln differs in its last bit between NumPy and TensorFlow
        np.testing.assert_allclose(found[place], expected[0], rtol=3e-7)
