"""Callbacks, files and checkpoints of Keras and TensorFlow: what they keep and bring back is the whole model."""

from __future__ import annotations

import pathlib
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.keras_contract.twins import (
    IDS,
    LABELS,
    VALIDATION_IDS,
    VALIDATION_LABELS,
    assert_same_weights,
    compile_twin,
    fit,
    keras_twin,
    our_twin,
    scores,
    tfdlrm_twin,
    twins,
)
from tfdlrm import CategoricalColumn, DenseColumn, FeatureSpec
from tfdlrm.config import DLRMConfig, FeatureConfig, MixedDimensionConfig, TableConfig
from tfdlrm.embeddings.optimizers import SGD, Adagrad, LazyAdam
from tfdlrm.layers import EmbeddingCollection
from tfdlrm.models import DLRM, DLRMDCNv2

OURS = [our_twin, tfdlrm_twin]
BIGGER = {"user": (30, 4), "item": (25, 4)}
WIDER = {"user": (30, 4), "item": (20, 4), "more": (20, 4)}


def loss_of(model: keras.Model) -> float:
    return float(model.evaluate(VALIDATION_IDS, VALIDATION_LABELS, verbose=0))


@pytest.mark.parametrize("ours", OURS)
def test_early_stopping_brings_the_best_epoch_back(ours) -> None:
    theirs, mine = twins(ours)
    for model in (theirs, mine):
        stop = keras.callbacks.EarlyStopping("val_loss", patience=3, restore_best_weights=True)
        history = fit(compile_twin(model, rate=4.0), epochs=8, validated=True, callbacks=[stop]).history["val_loss"]
        assert history[-1] > min(history) + 0.05
        assert loss_of(model) == pytest.approx(min(history), abs=1e-6)
    assert_same_weights(mine, theirs, tolerance=1e-5)


@pytest.mark.parametrize("options", [{}, {"save_weights_only": True}, {"save_best_only": True}, {"save_freq": 2}])
@pytest.mark.parametrize("ours", OURS)
def test_model_checkpoint(ours, options, tmp_path) -> None:
    mine = compile_twin(ours(optimizer=Adagrad(1.0)), rate=1.0)
    suffix = ".weights.h5" if options.get("save_weights_only") else ".keras"
    path = tmp_path / f"{{epoch:02d}}{suffix}"
    if "save_freq" in options:
        path = tmp_path / f"{{epoch:02d}}-{{batch:02d}}{suffix}"
    losses: list[float] = []
    keep = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: losses.append(loss_of(mine)))
    checkpoint = keras.callbacks.ModelCheckpoint(path, monitor="val_loss", **options)
    fit(mine, epochs=6, validated=True, callbacks=[keep, checkpoint])
    files = sorted(tmp_path.iterdir())
    if "save_best_only" in options:
        best = [k for k in range(6) if losses[k] == min(losses[: k + 1])]
        assert [file.name[:2] for file in files] == [f"{k + 1:02d}" for k in best]
    assert len(files) == {"save_freq": 12, "save_best_only": len(files)}.get(next(iter(options), ""), 6)
    for file in files:
        if suffix == ".keras":
            other = keras.models.load_model(file)
        else:
            other = compile_twin(ours(optimizer=Adagrad(1.0)))
            other.load_weights(file)
        if "save_freq" not in options:
            assert loss_of(other) == pytest.approx(losses[int(file.name[:2]) - 1], abs=1e-6)
    assert loss_of(other) == pytest.approx(min(losses) if "save_best_only" in options else losses[-1], abs=1e-6)


@pytest.mark.parametrize("ours", OURS)
def test_a_killed_fit_goes_on_from_its_backup(ours, tmp_path) -> None:
    def make() -> keras.Model:
        return compile_twin(ours(optimizer=Adagrad(0.5)))

    class Killed(Exception):
        pass

    def kill(epoch: int, _: object) -> None:
        if epoch == 2:
            raise Killed

    whole, killed, again = make(), make(), make()
    start = whole.get_weights()
    for model in (killed, again):
        model.set_weights(start)
    fit(whole, epochs=5)
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    with pytest.raises(Killed):
        fit(killed, epochs=5, callbacks=[backup, keras.callbacks.LambdaCallback(on_epoch_begin=kill)])
    fit(again, epochs=5, callbacks=[keras.callbacks.BackupAndRestore(tmp_path / "backup")])
    assert_same_weights(again, whole, tolerance=0)


@pytest.mark.parametrize("name", ["model.keras", "model.weights.h5", "checkpoint"])
@pytest.mark.parametrize("ours", OURS)
def test_files_hold_rows_and_the_state_of_row_optimizers(ours, name, tmp_path) -> None:
    mine = compile_twin(ours(optimizer=Adagrad(0.3)))
    fit(mine)
    path = str(tmp_path / name)
    other = compile_twin(ours(optimizer=Adagrad(0.3)))
    if name == "checkpoint":
        path = tf.train.Checkpoint(model=mine).save(path)
        tf.train.Checkpoint(model=other).restore(path).assert_existing_objects_matched()
    elif name == "model.keras":
        mine.save(path)
        other = keras.models.load_model(path)
    else:
        mine.save_weights(path)
        other.optimizer.build(other.trainable_variables)
        other.load_weights(path)
    np.testing.assert_array_equal(scores(other), scores(mine))
    for model in (mine, other):
        fit(model, epochs=1)
    assert_same_weights(other, mine, tolerance=0)


def test_a_checkpoint_restored_before_the_model_is_built(tmp_path) -> None:
    class Subclassed(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            features = [
                FeatureConfig(name=name, table=TableConfig(name=name, vocabulary_size=20 + k, embedding_dim=4))
                for k, name in enumerate(("user", "item"))
            ]
            self.tables = EmbeddingCollection(features, optimizer=Adagrad(0.3))

        def call(self, inputs, training=None):
            return self.tables(inputs, training=training)

    ids = {name: tf.constant([1, 2, 19]) for name in ("user", "item")}
    first = Subclassed()
    expected = first(ids)
    path = tf.train.Checkpoint(model=first).save(tmp_path / "c")
    second = Subclassed()
    second.tables.tables.seed = 1
    status = tf.train.Checkpoint(model=second).restore(path)
    np.testing.assert_array_equal(second(ids), expected)
    status.assert_existing_objects_matched()


# Keras says so of every functional model whose file it could not load
@pytest.mark.filterwarnings("ignore:Skipping nested container")
@pytest.mark.parametrize("sizes", [BIGGER, WIDER, {"user": (30, 5), "item": (20, 5)}])
@pytest.mark.parametrize("ours", OURS)
def test_files_of_another_vocabulary_are_refused(ours, sizes, tmp_path) -> None:
    path = tmp_path / "model.weights.h5"
    ours().save_weights(path)
    other = ours(sizes)
    before = other.get_weights()
    table, saved, here = {
        (25, 4): ("item", "[20, 4]", "[25, 4]"),
        (20, 5): ("user", "[30, 4]", "[30, 5]"),
        (20, 4): ("more", "not in the file", "[20, 4]"),
    }[sizes["item"]]
    with pytest.raises(ValueError, match=f"table '{table}'") as caught:
        other.load_weights(path)
    assert saved in str(caught.value)
    assert here in str(caught.value)
    for one, value in zip(other.weights, before, strict=True):
        np.testing.assert_array_equal(one.numpy(), value)
    with warnings.catch_warnings(record=True) as caught_warnings:
        warnings.simplefilter("always")
        other.load_weights(path, skip_mismatch=True)
    assert any("layer 'tables'" in str(warning.message) for warning in caught_warnings)
    for one, value in list(zip(other.weights, before, strict=True))[: len(sizes)]:
        np.testing.assert_array_equal(one.numpy(), value)


@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_files_of_another_row_optimizer_are_refused(tmp_path) -> None:
    path = tmp_path / "model.weights.h5"
    our_twin(optimizer=Adagrad(0.1)).save_weights(path)
    with pytest.raises(ValueError, match=r"\['item%2Faccumulator', 'user%2Faccumulator'\].*row optimizer"):
        our_twin(optimizer=SGD(0.1)).load_weights(path)
    our_twin(optimizer=SGD(0.1)).save_weights(path)
    with pytest.raises(ValueError, match=r"table 'user': its accumulator \[30, 4\] are not in the file"):
        our_twin(optimizer=Adagrad(0.1)).load_weights(path)


@pytest.mark.parametrize(
    ("size", "optimizer", "says"),
    [
        (101, Adagrad(0.1), r"table 'user': its rows are \[100, 4\] in the file, and \[101, 4\] here"),
        (
            100,
            LazyAdam(0.1),
            r"table 'user': its momentum \[100, 4\] are not in the file, which has \['user%2Faccumulator'",
        ),
    ],
)
def test_a_model_that_is_reached_twice_says_what_is_wrong_with_the_file(size, optimizer, says, tmp_path) -> None:
    """Keras comes to a layer of a DLRM by two paths, and the file has it under the first."""

    def made(size, optimizer):
        spec = FeatureSpec(
            labels=("click",),
            dense=(DenseColumn(name="price"),),
            categorical=(CategoricalColumn(name="user"),),
            vocabulary_sizes={"user": size},
        )
        model = DLRM(DLRMConfig.from_schema(spec, embedding_dim=4, bottom_mlp=(4,), top_mlp=(4, 1)), optimizer)
        model.build()
        model.build()  # a second time it is nothing
        return model

    made(100, Adagrad(0.1)).save_weights(tmp_path / "model.weights.h5")
    other = made(size, optimizer)
    with pytest.raises(ValueError, match=says):
        other.load_weights(tmp_path / "model.weights.h5")
    made(size, optimizer).save_weights(tmp_path / "right.weights.h5")
    other.load_weights(tmp_path / "right.weights.h5")


def test_a_checkpoint_of_another_vocabulary_is_refused(tmp_path) -> None:
    # the two tables together have as many rows
    path = tf.train.Checkpoint(model=our_twin({"user": (30, 4), "item": (20, 4)})).save(tmp_path / "c")
    with pytest.raises(ValueError, match=r"table '(user|item)': its rows are \[\d+, 4\], and were given as \[\d+, 4\]"):
        tf.train.Checkpoint(model=our_twin({"user": (20, 4), "item": (30, 4)})).restore(path)


def test_custom_object_scopes(tmp_path) -> None:
    @keras.saving.register_keras_serializable(package="mine")
    class Own(EmbeddingCollection):
        pass

    class Unregistered(EmbeddingCollection):
        pass

    for cls in (Own, Unregistered):
        layer = cls([FeatureConfig(name="a", table=TableConfig(name="t", vocabulary_size=9, embedding_dim=2))])
        ids = keras.Input((), dtype="int64", name="a")
        model = keras.Model(ids, layer({"a": ids}))
        model.save(tmp_path / "model.keras")
        with keras.saving.custom_object_scope({"Unregistered": Unregistered}):
            other = keras.models.load_model(tmp_path / "model.keras")
        assert type(other.layers[-1]) is cls
        np.testing.assert_array_equal(other.get_weights()[0], model.get_weights()[0])


@pytest.mark.parametrize("options", [{}, {"architecture": "dcnv2", "cross_layers": 2, "cross_rank": 4}])
def test_a_checkpoint_holds_all_weights_of_a_dlrm(options, tmp_path) -> None:
    narrow = [TableConfig(name=f"t{k}", vocabulary_size=4 * 8**k, embedding_dim=8) for k in range(3)]
    config = DLRMConfig(
        num_dense=2,
        features=tuple(FeatureConfig(name=table.name, table=table) for table in narrow),
        embedding_dim=8,
        bottom_mlp=(16, 8),
        top_mlp=(16, 1),
        mixed_dimension=MixedDimensionConfig(),
        normalization="batch",
        **options,
    )
    kind = DLRMDCNv2 if options else DLRM
    model, other = kind(config), kind(config)
    for one in (model, other):
        one.build()
    assert any("projection" in weight.path for weight in model.weights)
    model.set_weights([np.full(weight.shape, k + 1, np.float32) for k, weight in enumerate(model.weights)])
    tf.train.Checkpoint(model=other).restore(tf.train.Checkpoint(model=model).save(tmp_path / "c"))
    assert_same_weights(other, model, tolerance=0)


def dlrm() -> DLRM:
    names = ("fixed", "ragged", "several")
    spec = FeatureSpec(
        labels=("click",),
        dense=(DenseColumn(name="d"),),
        categorical=tuple(
            CategoricalColumn(name=name, hotness=hotness) for name, hotness in zip(names, (1, None, 3), strict=True)
        ),
        vocabulary_sizes=dict.fromkeys(names, 40),
    )
    return DLRM(DLRMConfig.from_schema(spec, embedding_dim=4, bottom_mlp=(4,), top_mlp=(8, 1)))


def test_export_of_a_dlrm_needs_no_signature(tmp_path: pathlib.Path) -> None:
    model = dlrm()
    inputs = {
        "dense": tf.constant([[0.5], [1.5]]),
        "fixed": tf.constant([3, 39], tf.int64),
        "ragged": tf.ragged.constant([[], [1, 39]], dtype=tf.int64),
        "several": tf.constant([[1, 2, 3], [4, 5, 39]], tf.int64),
    }
    expected = model(inputs)
    model.export(tmp_path / "export", verbose=False)
    loaded = tf.saved_model.load(str(tmp_path / "export"))
    np.testing.assert_allclose(loaded.serve(inputs), expected, atol=1e-6)


@pytest.mark.parametrize("ours", OURS)
def test_export_of_a_functional_model(ours, tmp_path) -> None:
    theirs, mine = twins(ours)
    for name, model in (("theirs", theirs), ("mine", mine)):
        model.export(tmp_path / name, verbose=False)
        loaded = tf.saved_model.load(str(tmp_path / name))
        inputs = {key: tf.constant(value) for key, value in IDS.items()}
        np.testing.assert_allclose(loaded.serve(inputs), model.predict(IDS, verbose=0), atol=1e-6)
        assert sum(file.stat().st_size for file in (tmp_path / name).rglob("*data*")) < 3000


def test_train_on_batch_and_evaluate_agree() -> None:
    theirs, mine = twins(tfdlrm_twin)
    found = [[m.train_on_batch(IDS, LABELS), loss_of(m)] for m in (compile_twin(theirs), compile_twin(mine))]
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    assert keras_twin().count_params() == mine.count_params()
