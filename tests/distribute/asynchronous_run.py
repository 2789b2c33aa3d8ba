"""`python -m tests.distribute.asynchronous_run`: what an asynchronous cluster of 2 x 2 processes does, as JSON."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import sys
import tempfile
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfdlrm
from tests.distribute import every_option
from tests.distribute.in_process import start_cluster
from tfdlrm import EmbeddingCollection, FeatureConfig, TableConfig, optimizers
from tfdlrm.distribute import parameter_server
from tfdlrm.embeddings.initializers import Constant

NUM_ROWS, BATCH_SIZE, EPOCHS, VOCABULARY = 1003, 32, 3, 50


@keras.saving.register_keras_serializable(package="tests")
class Counting(tfdlrm.Model):
    """Adds 1 to an id's row each time that the id is trained on, whatever the order."""

    def __init__(self) -> None:
        super().__init__()
        table = TableConfig(
            name="t",
            vocabulary_size=VOCABULARY,
            embedding_dim=1,
            initializer=Constant(value=0.0),
            optimizer=optimizers.SGD(1.0),
        )
        self.embeddings = EmbeddingCollection([FeatureConfig(name="f", table=table)])

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return self.embeddings(inputs, training=training)[:, 0]


class Batches(keras.callbacks.Callback):
    """Counts what `fit` tells."""

    def __init__(self) -> None:
        super().__init__()
        self.ends, self.epochs = 0, 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.ends += 1

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.epochs += 1


@keras.saving.register_keras_serializable(package="tests")
class MinusSum(keras.losses.Loss):
    """Its gradient by every score is -1."""

    def __init__(self) -> None:
        super().__init__(reduction="sum")

    def call(self, labels: Any, scores: Any) -> Any:
        return -scores * keras.ops.ones_like(labels)


def refusal(action: Any) -> str:
    try:
        action()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def run_out(scope: Any) -> list[float]:
    """Rows after three epochs of five steps over nine batches: what Keras does where data run out."""
    ids = np.random.default_rng(1).integers(0, VOCABULARY, 9 * 16)
    data = tf.data.Dataset.from_tensor_slices(({"f": ids}, np.ones([len(ids), 1], np.float32))).batch(16)
    with scope():
        model = Counting()
        model.compile(keras.optimizers.SGD(0.0), MinusSum())
    model.fit(data, steps_per_epoch=5, epochs=3, verbose=0)
    return every_option.table_arrays(model)["t/rows"][:, 0].tolist()


def saved_and_loaded(model: keras.Model, scope: Any) -> list[list[float]]:
    """Rows that `load_weights` brings to other servers, and to this process."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        model.save_weights(f"{folder}/m.weights.h5")
        for place in (scope, contextlib.nullcontext):
            with place():
                other = Counting()
                other.embeddings.build()
            other.built = True
            other.load_weights(f"{folder}/m.weights.h5")
            found.append(every_option.table_arrays(other)["t/rows"][:, 0].tolist())
    return found


def summed_loss(scope: Any, ids: np.ndarray) -> list[Any]:
    """Rows after an epoch whose loss is the sum of the rows', and the loss; parts of the batches are uneven."""
    with scope():
        model = Counting()
        model.compile(keras.optimizers.SGD(0.0), MinusSum())
    history = model.fit({"f": ids}, np.ones([len(ids), 1], np.float32), batch_size=333, shuffle=False, verbose=0)
    return [every_option.table_arrays(model)["t/rows"][:, 0].tolist(), history.history["loss"]]


def loss_of_a_batch(labels: Any, scores: Any) -> Any:
    return keras.ops.sum(keras.ops.square(labels - scores))


def main() -> None:
    alone = run_out(contextlib.nullcontext)
    summed = summed_loss(contextlib.nullcontext, np.random.default_rng(0).integers(0, VOCABULARY, NUM_ROWS))
    strategy = parameter_server(start_cluster(2, 2), min_shard_bytes=0, max_staleness=4)
    random = np.random.default_rng(0)
    ids, labels = random.integers(0, VOCABULARY, NUM_ROWS), np.ones([NUM_ROWS, 1], np.float32)
    with strategy.scope():
        model = Counting()
        model.compile(keras.optimizers.SGD(0.0), MinusSum())
    batches = Batches()
    history = model.fit({"f": ids}, labels, batch_size=BATCH_SIZE, epochs=EPOCHS, verbose=0, callbacks=[batches])
    counted = every_option.table_arrays(model)["t/rows"][:, 0]
    scores = model.predict({"f": np.arange(VOCABULARY)}, batch_size=7, verbose=0)[:, 0]
    results: dict[str, Any] = {
        "counts": [counted.tolist(), (np.bincount(ids, minlength=VOCABULARY) * EPOCHS).tolist()],
        "scores": scores.tolist(),
        "batches": [batches.ends, batches.epochs],
        "history": len(history.history["loss"]),
    }

    results["whole tables"] = [
        refusal(model.get_weights),
        refusal(lambda: model.set_weights([np.zeros((VOCABULARY, 1))])),
    ]
    results["weights"] = [counted.tolist(), *saved_and_loaded(model, strategy.scope)]

    results["run out"] = [run_out(strategy.scope), alone]

    with strategy.scope():
        uncompiled = Counting()
    results["uncompiled"] = uncompiled.predict({"f": ids[:5]}, verbose=0)[:, 0].tolist()
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        model.evaluate({"f": ids}, labels, batch_size=BATCH_SIZE, verbose=2)
        model.fit({"f": ids}, labels, batch_size=BATCH_SIZE, verbose=1)
    results["shown"] = shown.getvalue()

    with strategy.scope():
        learner = every_option.build_model()
    x, y = every_option.rows(800)
    stopper = keras.callbacks.EarlyStopping("val_loss", patience=0, min_delta=1e9)  # nothing is ever good enough
    fitted = learner.fit(
        x, y, batch_size=40, epochs=9, verbose=0, validation_data=every_option.rows(200, 1), callbacks=[stopper]
    )
    results["logs"] = {name: len(values) for name, values in fitted.history.items()}
    before = learner.evaluate(*every_option.rows(800), batch_size=40, verbose=0, return_dict=True)["loss"]
    functions = strategy.training_loop(learner)._step.functions
    traced = set(functions)
    learner.fit(x, y, batch_size=40, epochs=3, verbose=0)
    results["traced again"] = sorted(name for name, _ in set(functions) - traced)
    results["traced"] = sorted(name for name, _ in traced)
    after = learner.evaluate(*every_option.rows(800), batch_size=40, verbose=0, return_dict=True)["loss"]
    results["losses"] = [before, after]

    wrong = {"f": np.where(np.arange(NUM_ROWS) == 700, VOCABULARY, ids)}
    results["out of range"] = refusal(lambda: model.fit(wrong, labels, batch_size=BATCH_SIZE, verbose=0))
    model.fit({"f": ids}, labels, batch_size=BATCH_SIZE, verbose=0)  # and the next one goes on
    results["no rows"] = refusal(lambda: model.predict({"f": ids[:0]}, verbose=0))

    def compile_with(**options: Any) -> Any:
        def action() -> None:
            with strategy.scope():
                Counting().compile(keras.optimizers.SGD(0.1, **options), "mse")

        return action

    def fit_with(loss: Any) -> None:
        with strategy.scope():
            counting = Counting()
            counting.compile(keras.optimizers.SGD(0.1), loss)
        counting.fit({"f": ids}, labels, batch_size=BATCH_SIZE, verbose=0)

    def no_batches() -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices(({"f": ids[:5]}, labels[:5])).batch(9, drop_remainder=True)

    results["refused"] = {
        "accumulation": refusal(compile_with(gradient_accumulation_steps=2)),
        "scaling": refusal(compile_with(loss_scale_factor=2.0)),
    }
    strategy.options = dataclasses.replace(strategy.options, synchronous=True)
    results["refused"]["clipping"] = refusal(compile_with(global_clipnorm=1.0))
    results["summed"] = [summed, summed_loss(strategy.scope, ids)]
    for name, loss in {
        "weighted mean": keras.losses.MeanSquaredError(reduction="mean_with_sample_weight"),
        "no reduction": keras.losses.MeanSquaredError(reduction=None),
        "of a batch": loss_of_a_batch,
    }.items():
        results["refused"][name] = refusal(lambda loss=loss: fit_with(loss))
    results["refused"]["no batch"] = refusal(lambda: model.fit(no_batches(), verbose=0))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # the threads of the cluster would wait for each other
