"""DLRM and DLRM-DCNv2: against the NumPy model on random shapes, and as users use them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import reference as oracle
from tests.devices import two_devices
from tests.models.golden_runs import GoldenRun, read_weight
from tests.reference import Bags
from tests.reference_dlrm import ReferenceDLRM
from tfdlrm import losses
from tfdlrm.config import DLRMConfig, FeatureConfig, TableConfig, preset
from tfdlrm.embeddings.optimizers import SGD, RowwiseAdagrad
from tfdlrm.models import DLRM, DLRMDCNv2

COMPRESSIONS: list[dict[str, Any]] = [
    {},
    {"qr": {"op": "mult", "collisions": 3, "threshold": 10}},
    {"dims": [2, 6, 3]},
    {"pooling": "learned"},
]


def stored_form(rng: np.random.Generator, **options: Any) -> GoldenRun:
    """A made-up run in the form of the stored ones, so that both models are built by code that reads those."""
    config = {
        "rows": [17, 4, 90],
        "dim": 6,
        "dims": None,
        "n_dense": 3,
        "bottom": [9, 6],
        "top": [8, 5, 1],
        "interaction": "dot",
        "itself": False,
        "loss": "bce",
        "loss_weights": "1.0-1.0",
        "threshold": 0.0,
        "qr": None,
        "md": None,
        "pooling": None,
        "optimizer": "sgd",
        "learning_rate": 0.05,
        "steps": 3,
        "batch": 7,
        "schedule": None,
        **options,
    }
    arrays: dict[str, np.ndarray] = {}
    for number in range(config["steps"]):
        prefix = f"step_{number}"
        arrays[f"{prefix}/dense"] = rng.normal(size=(config["batch"], config["n_dense"])).astype(np.float32)
        arrays[f"{prefix}/label"] = (rng.random((config["batch"], 1)) < 0.5).astype(np.float32)
        for k, rows in enumerate(config["rows"]):
            lengths = rng.integers(0, 4, config["batch"])
            arrays[f"{prefix}/ids_{k}"] = rng.integers(0, rows, lengths.sum())
            arrays[f"{prefix}/offsets_{k}"] = np.cumsum([0, *lengths])
    return GoldenRun(config, arrays)


def weight_names(run: GoldenRun) -> list[str]:
    config, names = run.config, []
    for k, rows in enumerate(config["rows"]):
        if config["qr"] and rows > config["qr"]["threshold"]:
            names += [f"table_{k}_quotient", f"table_{k}_remainder"]
        else:
            names.append(f"table_{k}")
        if config["dims"] and config["dims"][k] != config["dim"]:
            names.append(f"table_{k}_projection")
        if config["pooling"]:
            names.append(f"pooling_{k}")
    for kind in ("bottom", "top") if config["n_dense"] else ("top",):
        names += [f"{kind}_{i}_{part}" for i in range(len(config[kind])) for part in ("kernel", "bias")]
    return names


@pytest.mark.parametrize("compression", COMPRESSIONS, ids=str)
@pytest.mark.parametrize("interaction", [{}, {"itself": True}, {"interaction": "cat"}], ids=str)
@pytest.mark.parametrize("optimizer", ["sgd", "adagrad"])
def test_every_combination_equals_the_numpy_model(compression, interaction, optimizer) -> None:
    equals_the_numpy_model(stored_form(np.random.default_rng(11), **compression, **interaction, optimizer=optimizer))


@pytest.mark.parametrize(("interaction", "width"), [({}, 3), ({"itself": True}, 6), ({"interaction": "cat"}, 18)])
def test_without_dense_columns_the_interaction_is_of_the_features_alone(interaction, width) -> None:
    run = stored_form(np.random.default_rng(12), n_dense=0, **interaction)
    model = equals_the_numpy_model(run)
    assert model.bottom_mlp is None
    assert model.top_mlps[0].trainable_weights[0].shape == (width, 8)


def equals_the_numpy_model(run: GoldenRun) -> DLRM:
    model = run.model()
    names = weight_names(run)
    reference = ReferenceDLRM(run.config, {name: read_weight(model, name) for name in names})
    for inputs, labels, stored in run.steps():
        bags = [Bags(stored[f"ids_{k}"], stored[f"offsets_{k}"]) for k in range(len(run.config["rows"]))]
        expected = reference.forward(stored["dense"], bags)["logits"]
        np.testing.assert_allclose(model(inputs), expected, rtol=1e-4, atol=1e-5)
        loss = reference.train_step(stored["dense"], bags, labels, run.config["learning_rate"])
        assert model.train_on_batch(inputs, labels) == pytest.approx(loss, rel=1e-4)
        model.reset_metrics()
    for name in names:
        # Adagrad's first steps divide by |g|: a gradient of rounding size moves a weight by lr
        np.testing.assert_allclose(read_weight(model, name), reference.weights[name], rtol=1e-3, atol=1e-4)
    return model


def small_config(**options: Any) -> DLRMConfig:
    tables = (
        TableConfig(name="user", vocabulary_size=50, embedding_dim=8),
        TableConfig(name="item", vocabulary_size=30, embedding_dim=8),
    )
    fields = {
        "num_dense": 2,
        "tables": tables,
        "features": (
            FeatureConfig(name="user", table="user"),
            FeatureConfig(name="shown", table="item"),
            FeatureConfig(name="history", table="item", hotness=3),
        ),
        "embedding_dim": 8,
        "bottom_mlp": (16, 8),
        "top_mlp": (16, 1),
        **options,
    }
    return DLRMConfig(**fields)


def batch(
    rows: int, tasks: int = 1, seed: int = 0, *, num_dense: int = 2, features: Any = True, **_: Any
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(seed)
    dense = {"dense": rng.normal(size=(rows, num_dense)).astype(np.float32)} if num_dense else {}
    if not features:
        return dense, (rng.random((rows, tasks)) < 0.5).astype(np.float32)
    x = dense | {
        "user": rng.integers(0, 50, rows),
        "shown": rng.integers(0, 30, rows),
        "history": rng.integers(0, 30, (rows, 3)),
    }
    return x, (rng.random((rows, tasks)) < 0.5).astype(np.float32)


def compiled(config: DLRMConfig, **options: Any) -> DLRM:
    kind = DLRMDCNv2 if config.architecture == "dcnv2" else DLRM
    model = kind(config, RowwiseAdagrad(0.05))
    model.compile(keras.optimizers.SGD(0.05), losses.loss_from_config("bce"), **options)
    return model


CROSS = {"architecture": "dcnv2", "cross_layers": 2, "cross_rank": 4}
NO_DENSE = {"num_dense": 0}
NO_FEATURES = {"tables": (), "features": ()}
MODELS = pytest.mark.parametrize(
    "options",
    [{}, CROSS, NO_DENSE, CROSS | NO_DENSE, NO_FEATURES, CROSS | NO_FEATURES],
    ids=["dlrm", "dcnv2", "dlrm, no dense", "dcnv2, no dense", "dlrm, no features", "dcnv2, no features"],
)


@MODELS
@pytest.mark.parametrize("rows", [1, 33])
def test_fit_evaluate_predict(options, rows) -> None:
    model = compiled(small_config(**options))
    x, y = batch(rows, **options)
    history = model.fit(x, y, batch_size=8, epochs=8, verbose=0).history["loss"]
    assert history[-1] < history[0]
    assert model.evaluate(x, y, verbose=0) == pytest.approx(history[-1], rel=0.2)
    logits = model.predict(x, verbose=0)
    assert logits.shape == (rows, 1)
    probability = model.predict_probability(x, verbose=0)
    np.testing.assert_allclose(probability, 1 / (1 + np.exp(-logits.astype(np.float64))), rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"interaction": "cat"}, CROSS], ids=["dot", "cat", "cross"])
def test_one_feature_alone_is_its_vector(options) -> None:
    """It has no pairs."""
    config = small_config()
    only = {"num_dense": 0, "tables": config.tables[:1], "features": config.features[:1]}
    model = compiled(small_config(**only, **options))
    x, y = batch(40)
    model.build()
    assert model.top_mlps[0].trainable_weights[0].shape == (8, 16)
    history = model.fit({"user": x["user"]}, y, batch_size=8, epochs=4, verbose=0).history["loss"]
    assert history[-1] < history[0]


@pytest.mark.parametrize(
    "options", [{}, {"interaction": "cat"}, {"interact_itself": True}, CROSS], ids=["dot", "cat", "itself", "cross"]
)
def test_without_features_the_interaction_is_of_the_dense_vector_alone(options) -> None:
    model = compiled(small_config(**options, **NO_FEATURES))
    x, y = batch(40, **NO_FEATURES)
    history = model.fit(x, y, batch_size=8, epochs=4, verbose=0).history["loss"]
    assert history[-1] < history[0]
    values = {weight.path.split("/", 1)[1]: weight.numpy() for weight in model.trainable_weights}
    named = {
        kind: [v for name, v in values.items() if name.startswith(kind)] for kind in ("bottom", "top", "interaction")
    }
    layers = {kind: list(zip(v[::2], v[1::2], strict=True)) for kind, v in named.items() if kind != "interaction"}
    vector = oracle.mlp(x["dense"].astype(np.float64), layers["bottom"], "relu")[-1]
    none = np.zeros((40, 0, 8))
    if options is CROSS:
        cross = named["interaction"]
        joined = oracle.low_rank_cross(vector, [tuple(cross[k : k + 3]) for k in range(0, len(cross), 3)])[-1]
    elif "interaction" in options:
        joined = oracle.concat_interaction(vector, none)
    else:
        joined = oracle.dot_interaction(vector, none, "interact_itself" in options)
    logits = oracle.mlp(joined, layers["top"], None)[-1]
    np.testing.assert_allclose(model.predict(x, verbose=0), logits, rtol=0, atol=1e-5)


def test_dcnv2_feeds_the_cross_output_alone_to_the_top_mlp() -> None:
    model = compiled(small_config(**CROSS))
    model.build()
    x, _ = batch(5)
    width = 4 * 8
    assert model.top_mlps[0].trainable_weights[0].shape == (width, 16)
    dense = model.bottom_mlp(x["dense"])
    vectors = model.embeddings({name: x[name] for name in ("user", "shown", "history")})
    x0 = np.concatenate([dense, np.reshape(vectors, (5, -1))], axis=1)
    weights = [weight.numpy() for weight in model.interaction.trainable_weights]
    layers = [tuple(weights[i : i + 3]) for i in range(0, len(weights), 3)]
    shapes = [tuple(array.shape for array in layer) for layer in layers]
    assert shapes == [((width, 4), (4, width), (width,))] * 2
    crossed = oracle.low_rank_cross(x0, layers)[-1]
    np.testing.assert_allclose(model.top_mlps[0](crossed.astype(np.float32)), model(x), rtol=1e-4, atol=1e-5)


@MODELS
def test_keras_file_round_trip(tmp_path, options) -> None:
    model = compiled(small_config(**options))
    x, y = batch(64, **options)
    model.fit(x, y, batch_size=16, verbose=0)
    model.save(tmp_path / "model.keras")
    restored = keras.models.load_model(tmp_path / "model.keras")
    assert restored.config == model.config
    np.testing.assert_array_equal(restored.predict(x, verbose=0), model.predict(x, verbose=0))
    for one in (model, restored):
        one.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
    np.testing.assert_array_equal(restored.predict(x, verbose=0), model.predict(x, verbose=0))


@pytest.mark.parametrize("num_dense", [2, 0])
def test_as_a_block_of_a_functional_model(num_dense) -> None:
    from tfdlrm import Model

    config = small_config(num_dense=num_dense)
    inputs = {"dense": keras.Input((2,), name="dense")} if num_dense else {}
    inputs |= {
        "user": keras.Input((), dtype="int64", name="user"),
        "shown": keras.Input((), dtype="int64", name="shown"),
        "history": keras.Input((3,), dtype="int64", name="history"),
    }
    block = DLRM(config, RowwiseAdagrad(0.05))
    scaled = keras.layers.Rescaling(0.5)(block(inputs))
    model = Model(inputs, scaled)
    model.compile(keras.optimizers.SGD(0.05), losses.loss_from_config("bce"))
    x, y = batch(32, num_dense=num_dense)
    before = block.embeddings.tables.rows("user").numpy()
    np.testing.assert_allclose(model.predict(x, verbose=0), block(x) * 0.5, rtol=1e-6)
    model.fit(x, y, batch_size=8, verbose=0)
    moved = np.abs(block.embeddings.tables.rows("user").numpy() - before).max(axis=1) > 0
    assert set(np.flatnonzero(moved)) == set(x["user"])


def test_several_labels() -> None:
    model = compiled(small_config(tasks=("click", "buy")))
    x, y = batch(64, tasks=2)
    model.fit(x, y, batch_size=16, epochs=2, verbose=0)
    assert model.predict_probability(x, verbose=0).shape == (64, 2)
    assert [mlp.name for mlp in model.top_mlps] == ["top_mlp_click", "top_mlp_buy"]


@MODELS
def test_two_mirrored_devices_equal_one(options) -> None:
    x, y = batch(64, **options)
    single = compiled(small_config(**options))
    with two_devices().scope():
        mirrored = compiled(small_config(**options))
    for model in (single, mirrored):
        model.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
    np.testing.assert_allclose(mirrored.predict(x, verbose=0), single.predict(x, verbose=0), rtol=0, atol=2e-6)
    tables = [model.embeddings.tables for model in (single, mirrored)]
    assert [int(table.iterations.numpy()) for table in tables] == [8 if single.config.features else 0] * 2
    if single.config.features:
        np.testing.assert_allclose(tables[1].rows("item"), tables[0].rows("item"), rtol=0, atol=1e-6)


def test_mirrored_fit_reads_each_batch_once() -> None:
    """A batch read to build from would be one of an iterator that is dropped while it reads ahead."""
    x, y = batch(64)
    read: list[int] = []

    def rows() -> Iterator[Any]:
        for start in range(0, 64, 16):
            read.append(start)
            yield {name: values[start : start + 16] for name, values in x.items()}, y[start : start + 16]

    specs = [tf.nest.map_structure(lambda a: tf.TensorSpec([None, *a.shape[1:]], a.dtype), part) for part in (x, y)]
    with two_devices().scope():
        model = compiled(small_config())
    data = tf.data.Dataset.from_generator(rows, output_signature=tuple(specs))
    data = data.apply(tf.data.experimental.assert_cardinality(4))
    model.fit(data, epochs=2, validation_data=data, shuffle=False, verbose=0)
    model.evaluate(data, verbose=0)
    assert read == [0, 16, 32, 48] * 5


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains(precision) -> None:
    x, y = batch(64)
    model = DLRM(small_config(), RowwiseAdagrad(0.05), dtype=precision)
    model.compile(keras.optimizers.SGD(0.05), losses.loss_from_config("bce"))
    history = model.fit(x, y, batch_size=16, epochs=5, verbose=0).history["loss"]
    assert np.isfinite(history).all()
    assert history[-1] < history[0]
    assert model.embeddings.tables.rows("user").dtype == tf.float32


def test_dropout_and_normalization_train() -> None:
    x, y = batch(64)
    for normalization in ("batch", "layer"):
        model = compiled(small_config(dropout=0.2, normalization=normalization))
        assert np.isfinite(model.fit(x, y, batch_size=16, verbose=0).history["loss"]).all()


def test_a_model_and_its_optimizer_go_through_json() -> None:
    model = DLRM(small_config(), SGD(0.1, clipnorm=2.0))
    config = json.loads(json.dumps(model.get_config()))
    assert DLRM.from_config(config).get_config() == model.get_config()


def test_what_cannot_be_built_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="architecture='dcnv2' is not 'dlrm'"):
        DLRM(small_config(**CROSS))
    with pytest.raises(ValueError, match="no features"):
        DLRM(preset("movielens-100k").model)
    for num_dense, said in ((2, r"Give a dict: 'dense' \[B, 2\], and the ids"), (0, "Give a dict: the ids of each")):
        with pytest.raises(TypeError, match=said):
            DLRM(small_config(num_dense=num_dense))(tf.zeros([2, 3]))
    model = compiled(small_config())
    x, _ = batch(4)
    del x["shown"]
    with pytest.raises(ValueError, match=r"inputs lack the features \['shown'\]"):
        model(x)
