"""Models that are made, used and dropped in a loop leave nothing behind: a tuner, folds, seeds."""

from __future__ import annotations

import gc
import pathlib
import weakref
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import ops

from tests.keras_contract.test_saving import dlrm
from tests.keras_contract.twins import IDS, LABELS, compile_twin, fit, our_twin, scores, tfdlrm_twin
from tests.training.csv_run import csv_config, write_rows
from tfdlrm.cli.program import main, own_commands
from tfdlrm.embeddings.recording import record_lookups
from tfdlrm.embeddings.tables import EmbeddingTables
from tfdlrm.models.base import tables_of

ROWS = {
    "dense": np.ones((8, 1), np.float32),
    "fixed": np.arange(8),
    "ragged": tf.ragged.constant([[1], []] * 4, dtype=tf.int64),
    "several": np.ones((8, 3), np.int64),
}


def fitted(make: Callable[..., keras.Model], **options) -> keras.Model:
    model = compile_twin(make(), **options)
    fit(model)
    return model


def predicted() -> keras.Model:
    model = our_twin()
    scores(model)
    return model


def called_in_a_graph() -> keras.Model:
    model = our_twin()
    tf.function(lambda x: model(x))({name: tf.constant(ids) for name, ids in IDS.items()})
    return model


def trained_by_a_loop_of_ones_own() -> keras.Model:
    model, optimizer = our_twin(), keras.optimizers.SGD(0.1)

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape, record_lookups(tape) as recorder:
            loss = tf.reduce_mean(tf.square(model(x, training=True) - y))
        dense, pooled = tape.gradient(loss, [model.trainable_variables, recorder.leaves])
        recorder.update(pooled, 0.1)
        optimizer.apply(dense, model.trainable_variables)

    step({name: tf.constant(ids) for name, ids in IDS.items()}, tf.constant(LABELS))
    return model


def mirrored() -> keras.Model:
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        model = compile_twin(tfdlrm_twin())
    fit(model)
    return model


def accumulated() -> keras.Model:
    model = tfdlrm_twin()
    model.compile(keras.optimizers.SGD(0.1, gradient_accumulation_steps=2), "mse")
    fit(model)
    return model


def dlrm_exported(folder: pathlib.Path) -> keras.Model:
    model = dlrm()
    model.compile("adam", keras.losses.BinaryCrossentropy(from_logits=True))
    model.fit(ROWS, np.ones((8, 1)), verbose=0)
    model.evaluate(ROWS, np.ones((8, 1)), verbose=0)
    model.export(folder / "export", verbose=False)
    return model


def loaded(folder: pathlib.Path) -> keras.Model:
    dlrm_exported(folder).save(folder / "model.keras")
    return keras.models.load_model(folder / "model.keras")


KINDS: dict[str, Callable[[pathlib.Path], keras.Model]] = {
    "plain": lambda _: fitted(our_twin),
    "tfdlrm": lambda _: fitted(tfdlrm_twin),
    "plain, eager": lambda _: fitted(our_twin, run_eagerly=True),
    "tfdlrm, eager": lambda _: fitted(tfdlrm_twin, run_eagerly=True),
    "predicted": lambda _: predicted(),
    "called in a graph": lambda _: called_in_a_graph(),
    "loop of one's own": lambda _: trained_by_a_loop_of_ones_own(),
    "mirrored": lambda _: mirrored(),
    "accumulated": lambda _: accumulated(),
    "dlrm, exported": dlrm_exported,
    "loaded": loaded,
}


def registered() -> set[str]:
    return {name for name in ops.gradient_registry.list() if name.startswith("CustomGradient")}


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_dropped_model_is_gone(kind: str, tmp_path: pathlib.Path) -> None:
    before = registered()
    model = KINDS[kind](tmp_path)
    tables = [weakref.ref(one) for one in tables_of(model)]
    variables = [weakref.ref(store.rows.variable) for one in tables_of(model) for store in one.placement.stores]
    del model
    gc.collect()
    assert tables
    assert variables
    assert not [one for one in (*tables, *variables) if one() is not None]
    if kind != "loop of one's own":  # Keras's optimizer registers a gradient there, that owns the graph without tables
        assert registered() == before


def test_seeds_leave_no_tables_behind(tmp_path: pathlib.Path) -> None:
    def alive() -> int:
        gc.collect()
        return sum(isinstance(one, EmbeddingTables) for one in gc.get_objects())

    config, before = tmp_path / "config.yaml", alive()
    config.write_text(csv_config(write_rows(tmp_path / "rows.csv", 100)).to_yaml())
    flags = ["--model-dir", str(tmp_path / "runs"), "--seeds", "0,1", "--set", "train.epochs=1", "--quiet"]
    assert main(["train", str(config), *flags], own_commands()) == 0
    assert alive() == before
