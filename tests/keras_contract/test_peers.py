"""What keras-rs and TensorFlow Recommenders ask of their embedding, dot and cross layers, asked of ours."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfdlrm.config import FeatureConfig, TableConfig
from tfdlrm.embeddings.optimizers import SGD
from tfdlrm.layers import DotInteraction, EmbeddingCollection, LowRankCross
from tfdlrm.models import Model

X0 = np.array([[0.1, 0.2, 0.3]], np.float32)
VECTORS = np.array([[[0.1, -4.3, 0.2, 1.1, 0.3], [2.0, 3.2, -1.0, 0.0, 1.0], [0.0, 1.0, -3.0, -2.2, -0.2]]], np.float32)


def cross(num_layers: int = 1, bias: float = 0.0) -> LowRankCross:
    layer = LowRankCross(num_layers=num_layers, rank=1)
    layer.build((None, 3))
    layer.set_weights([np.full(w.shape, bias if "bias" in w.name else 1.0) for w in layer.weights])
    return layer


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (cross(), [[0.16, 0.32, 0.48]]),
        (cross(bias=1.0), [[0.26, 0.52, 0.78]]),
        (cross(num_layers=2), [[0.256, 0.512, 0.768]]),  # x0 (0.96) + x1
    ],
)
def test_cross_of_ones(layer, expected) -> None:
    np.testing.assert_allclose(layer(X0), expected, rtol=1e-6)
    assert {tuple(w.shape) for w in layer.weights} == {(3, 1), (1, 3), (3,)}


def test_cross_takes_one_vector_a_row() -> None:
    with pytest.raises(ValueError, match=r"\[B, N\]"):
        LowRankCross(1, 1).build((None, 4, 3))
    for wrong in ({"num_layers": 0}, {"rank": -1}, {"rank": 1.5}):
        with pytest.raises(ValueError, match="is not a count"):
            LowRankCross(**{"num_layers": 1, "rank": 1, **wrong})


@pytest.mark.parametrize("itself", [False, True])
@pytest.mark.parametrize("stacked", [False, True])
def test_dot_products_in_order(itself, stacked) -> None:
    f1, f2, f3 = VECTORS[0]
    pairs = [f1 @ f2, f1 @ f3, f2 @ f3]
    if itself:
        pairs = [f1 @ f1, f1 @ f2, f2 @ f2, f1 @ f3, f2 @ f3, f3 @ f3]
    inputs = [VECTORS[:, 0], VECTORS[:, 1:]] if stacked else [VECTORS[:, k] for k in range(3)]
    output = DotInteraction(interact_itself=itself)(inputs)
    np.testing.assert_allclose(output, [[*f1, *pairs]], rtol=1e-5)


def test_dot_refuses_what_it_cannot_pair() -> None:
    for wrong in ([np.ones(3), np.ones(3)], [np.ones((1, 3)), np.ones((1, 4))], [np.ones((1, 3)), np.ones((1, 2, 4))]):
        with pytest.raises(ValueError, match="layer 'dot"):
            DotInteraction(name="dot")([one.astype(np.float32) for one in wrong])


@pytest.mark.parametrize("make", [lambda: DotInteraction(), lambda: LowRankCross(2, 3)])
def test_serialized_predicted_and_saved(make, tmp_path) -> None:
    layer = make()
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert again.get_config() == layer.get_config()
    inputs = [keras.Input((5,)) for _ in range(3)] if isinstance(layer, DotInteraction) else keras.Input((5,))
    model = keras.Model(inputs, keras.layers.Dense(1)(layer(inputs)))
    rows = [np.random.default_rng(k).random((4, 5), np.float32) for k in range(3)]
    rows = rows if isinstance(layer, DotInteraction) else rows[0]
    expected = model.predict(rows, batch_size=2, verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded.predict(rows, batch_size=2, verbose=0), expected)  # rounding goes by the batch


IDS = [[1, 2], [4, 4], [7, 0]]
WEIGHTS = [[1.0, 3.0], [2.0, 2.0], [0.5, 1.5]]


def collection(combiner: str, hotness: int | None, **options) -> EmbeddingCollection:
    table = TableConfig(name="t", vocabulary_size=9, embedding_dim=3, combiner=combiner)
    layer = EmbeddingCollection([FeatureConfig(name="a", table=table, hotness=hotness)], optimizer=SGD(0.1), **options)
    layer.build()
    layer.tables.assign_rows("t", np.arange(27, dtype=np.float32).reshape(9, 3))
    return layer


@pytest.mark.parametrize("combiner", ["sum", "mean", "sqrtn"])
@pytest.mark.parametrize("form", ["dense", "ragged", "sparse"])
@pytest.mark.parametrize("weighted", [False, True])
def test_pooled_as_the_combiner_says(combiner, form, weighted) -> None:
    rows = np.arange(27, dtype=np.float64).reshape(9, 3)
    weights = np.array(WEIGHTS if weighted else np.ones((3, 2)))
    total = np.einsum("bhd,bh->bd", rows[np.array(IDS)], weights)
    scale = {"sum": 1.0, "mean": weights.sum(1), "sqrtn": np.sqrt((weights**2).sum(1))}[combiner]
    expected = total / (np.ones(3) * scale)[:, None]

    def shaped(values):
        if form == "sparse":
            places = [[bag, place] for bag in range(3) for place in range(2)]
            return tf.SparseTensor(places, np.reshape(values, -1), [3, 2])
        return tf.ragged.constant(values) if form == "ragged" else tf.constant(values)

    given = (shaped(IDS), shaped(WEIGHTS)) if weighted else shaped(IDS)
    layer = collection(combiner, 2 if form == "dense" else None)
    np.testing.assert_allclose(layer({"a": given})[:, 0], expected, rtol=1e-5)


@pytest.mark.parametrize("form", ["dense", "ragged"])
@pytest.mark.parametrize("cls", [keras.Model, Model])
def test_fit_on_a_dataset(form, cls) -> None:
    ids = np.random.default_rng(0).integers(0, 9, (64, 2))
    labels = (ids.sum(axis=1, keepdims=True) > 8).astype(np.float32)

    class Pooled(cls):
        def __init__(self):
            super().__init__()
            self.table = collection("mean", 2 if form == "dense" else None)
            self.head = keras.layers.Dense(1)

        def call(self, inputs, training=None):
            return self.head(self.table(inputs, training=training)[:, 0])

    data = tf.data.Dataset.from_tensor_slices((ids, labels)).batch(16)
    data = data.map(lambda x, y: ({"a": tf.RaggedTensor.from_tensor(x) if form == "ragged" else x}, y))
    model = Pooled()
    model.compile(keras.optimizers.SGD(0.001), keras.losses.BinaryCrossentropy(from_logits=True))
    history = model.fit(data, epochs=5, shuffle=False, verbose=0).history["loss"]
    assert history[-1] < history[0]
    assert model.predict(data, verbose=0).shape == (64, 1)


def test_a_table_of_two_features_is_one() -> None:
    table = TableConfig(name="t", vocabulary_size=9, embedding_dim=3)
    layer = EmbeddingCollection([FeatureConfig(name=name, table=table) for name in ("a", "b")])
    output = layer({"a": np.array([1, 2]), "b": np.array([2, 1])})
    np.testing.assert_array_equal(output[0, 0], output[1, 1])
    assert len(layer.weights) == 1
