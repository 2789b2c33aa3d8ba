"""Names of labels, features and tables may be any text."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from savedmodels.export import export
from savedmodels.inputs import input_columns
from savedmodels.names import input_names
from savedmodels.verify import verify
from tfdlrm import CategoricalColumn, DenseColumn, FeatureSpec
from tfdlrm.config import DLRMConfig, FeatureConfig, MixedDimensionConfig, TableConfig
from tfdlrm.embeddings.checkpoint import restore_tables, save_tables
from tfdlrm.embeddings.optimizers import Adagrad
from tfdlrm.layers.tracking import scope_name
from tfdlrm.models import DLRM
from tfdlrm.training.build import step_metrics

NAMES = (
    "a b", "a.b", "a/b", "a|b", "a_b", "a%2Fb", "a>20>b", "😀", "中文", "é", "e\u0301", "1st", "_u", "-", "Item",
    "item", "self", "inputs", "training", "loss", "kernel", "name", "label", "predict", "serving_default",
    "id_policy_counts", "a\\b", "x:0", "a'b", 'a"b', "a{b}", "a,b", "user/rows", "iterations", "CON", "item_weights",
    "item_row_lengths",
)  # fmt: skip
ROWS, VOCABULARY = 32, 9
RNG = np.random.default_rng(2)


def batch(features: tuple[str, ...], tasks: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    x = {"dense": RNG.random((ROWS, 1), np.float32)}
    x |= {name: RNG.integers(0, VOCABULARY, ROWS) for name in features}
    return x, (RNG.random((ROWS, tasks)) < 0.5).astype(np.float32)


def spec(features: tuple[str, ...], labels: tuple[str, ...]) -> FeatureSpec:
    return FeatureSpec(
        labels=labels,
        dense=(DenseColumn(name="age"),),
        categorical=tuple(CategoricalColumn(name=name) for name in features),
        vocabulary_sizes=dict.fromkeys(features, VOCABULARY),
    )


def built(features: tuple[str, ...], labels: tuple[str, ...], **options) -> DLRM:
    config = DLRMConfig.from_schema(spec(features, labels), embedding_dim=4, bottom_mlp=(4,), top_mlp=(8, 1), **options)
    return DLRM(config, Adagrad(0.1))


def test_every_name_at_once(tmp_path) -> None:
    features, labels = (
        NAMES,
        ("A b", "A/b", "A.b", "A_b", "😀!", "中文!", "1", "x:1", 'A"b', "A'b", "Loss", "LOSS"),
    )
    model = built(features, labels)
    x, y = batch(features, len(labels))
    model.compile("adam", "bce", metrics=step_metrics(labels))
    history = model.fit(x, y, verbose=0, validation_data=(x, y)).history
    assert f"{labels[0]}_auc" in history
    expected = model.predict(x, verbose=0)

    model.save(tmp_path / "m.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "m.keras").predict(x, verbose=0), expected)
    others = [built(features, labels) for _ in range(3)]
    for other in others:
        other.build()
        assert np.abs(other.predict(x, verbose=0) - expected).max() > 0
        other.set_weights([np.zeros(w.shape, np.float32) for w in other.weights])
    model.save_weights(tmp_path / "m.weights.h5")
    others[0].load_weights(tmp_path / "m.weights.h5")
    tf.train.Checkpoint(model=others[1]).restore(tf.train.Checkpoint(model=model).save(tmp_path / "c"))
    save_tables(model.embeddings.tables, tmp_path / "t")
    restore_tables(others[2].embeddings.tables, tmp_path / "t")
    for other in others[:2]:
        np.testing.assert_array_equal(other.predict(x, verbose=0), expected)
    assert [w.path for w in others[2].weights] == [w.path.replace(model.name, others[2].name) for w in model.weights]
    assert len({w.path for w in model.weights}) == len(model.weights)
    for name in features:
        np.testing.assert_array_equal(others[2].embeddings.tables.rows(name), model.embeddings.tables.rows(name))

    model.export(tmp_path / "k", verbose=False)
    loaded = tf.saved_model.load(str(tmp_path / "k"))
    np.testing.assert_allclose(
        loaded.serve({name: tf.constant(value) for name, value in x.items()}), expected, atol=1e-5
    )


def test_exports_verify_and_score(tmp_path) -> None:
    features, labels = NAMES, ("a b/c",)
    model = built(features, labels)
    model.build()
    x, _ = batch(features, 1)
    folder = export(model, tmp_path / "e", spec=spec(features, labels))
    columns = input_columns(model.config, spec(features, labels), raw=False)
    given = {column.name: tf.constant(x[column.feature]) for column in columns}
    predict = tf.saved_model.load(str(folder)).signatures["predict"]
    found = predict(dense=tf.constant(x["dense"]), **given)
    np.testing.assert_allclose(found["logit"], model.predict(x, verbose=0), atol=1e-5)
    report = verify(folder, c_api=False)
    assert report.passed, report


def test_names_in_signatures_are_never_one() -> None:
    names = input_names(NAMES)
    taken = [f"{name}{suffix}" for name in names.values() for suffix in ("", "_weights", "_row_lengths")]
    assert len({name.lower() for name in taken}) == len(taken)  # TensorFlow does not tell capitals apart there
    assert all(name.isidentifier() and name.isascii() for name in names.values())
    assert (names["Item"], names["item"]) == ("Item", "item_2")
    assert names["a_b"] == "a_b"
    assert input_names(["item_weights", "item"]) != {"item_weights": "item_weights", "item": "item"}


def test_names_in_scopes_are_never_one() -> None:
    assert len({scope_name(name) for name in NAMES}) == len(NAMES)
    assert scope_name("a_b-c-1") == "a_b-c-1"
    for one, other in itertools.combinations([".", ".2e.", "2e", " ", ".20."], 2):
        assert scope_name(one) != scope_name(other)


def test_narrow_tables_of_any_name() -> None:
    features = tuple(
        FeatureConfig(name=name, table=TableConfig(name=name, vocabulary_size=4 * 8**k, embedding_dim=4))
        for k, name in enumerate(("a b/c", "😀", "x:0"))
    )
    config = DLRMConfig(
        num_dense=1,
        features=features,
        embedding_dim=4,
        bottom_mlp=(4,),
        top_mlp=(8, 1),
        mixed_dimension=MixedDimensionConfig(),
    )
    model = DLRM(config)
    model.compile("sgd", "bce")
    model.fit(
        {"dense": np.ones((8, 1)), **{f.name: np.zeros(8, np.int64) for f in features}}, np.ones((8, 1)), verbose=0
    )
    assert any("projection" in w.path for w in model.weights)


@pytest.mark.parametrize("name", [" a", "a ", "", "dense"])
def test_what_is_no_name_is_refused_and_the_next_model_is_whole(name) -> None:
    with pytest.raises(ValueError, match="name"):
        built((name, "other"), ("click",))
    model = built(("other",), ("click",))
    model.compile("sgd", "bce")
    model.fit(*batch(("other",), 1), verbose=0)
