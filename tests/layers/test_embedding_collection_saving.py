"""What of an EmbeddingCollection is in a `.keras` file, and what in a SavedModel."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from tests.layers.test_embedding_collection import IDS, LABELS, assert_same, fit, functional, two_lookups, weights_of
from tfdlrm.layers import EmbeddingCollection
from tfdlrm.models import Model


def test_keras_file_keeps_tables_slots_and_steps(tmp_path) -> None:
    model = functional(Model)
    fit(model, epochs=1)
    model.save(tmp_path / "model.keras")
    restored = keras.models.load_model(tmp_path / "model.keras")
    assert_same(weights_of(restored), weights_of(model), tolerance=0)
    restored.fit(IDS, LABELS, batch_size=16, shuffle=False, verbose=0)
    assert_same(weights_of(restored), fit(functional(Model)))


def test_shared_tables_survive_saving(tmp_path) -> None:
    model = two_lookups(Model, shared=True)
    fit(model, epochs=1)
    model.save(tmp_path / "model.keras")
    restored = keras.models.load_model(tmp_path / "model.keras")
    layers = [layer for layer in restored.layers if isinstance(layer, EmbeddingCollection)]
    assert layers[0].tables is layers[1].tables
    np.testing.assert_array_equal(restored.predict(IDS, verbose=0), model.predict(IDS, verbose=0))


def test_export_reads_rows_and_leaves_slots_out(tmp_path) -> None:
    model = functional(Model)
    fit(model, epochs=1)
    model.export(tmp_path / "exported", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "exported")
    np.testing.assert_allclose(loaded.serve(tf.constant(IDS)), model.predict(IDS, verbose=0), atol=1e-7)
    names = [name for name, _ in tf.train.list_variables(str(tmp_path / "exported" / "variables" / "variables"))]
    assert names
    assert not [name for name in names if "slots" in name]
