"""`python -m tests.distribute.processes_run`: what the coordinator finds out about its processes, as JSON."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import sys
from typing import Any
from unittest import mock

import keras
import numpy as np

import tfdlrm
from tests.distribute.asynchronous_run import refusal
from tfdlrm import DLRM, CategoricalColumn, DenseColumn, DLRMConfig, FeatureSpec, optimizers
from tfdlrm.config import SyntheticConfig
from tfdlrm.data.epochs import ResumableInput
from tfdlrm.data.synthetic import synthetic_dataset
from tfdlrm.distribute import LocalCluster, dispatch, fingerprint, parameter_server
from tfdlrm.native import loader


def model_of(rows: int) -> keras.Model:
    spec = FeatureSpec(
        labels=("click",),
        dense=(DenseColumn(name="age"),),
        categorical=(CategoricalColumn(name="user"),),
        vocabulary_sizes={"user": rows},
    )
    config = DLRMConfig.from_schema(spec, embedding_dim=64, bottom_mlp=(64,), top_mlp=(8, 1))
    model = DLRM(config, optimizers.Adagrad(0.1))
    model.compile("sgd", "mse")
    model.build()
    return model


def no_rows() -> tuple[Any, Any]:
    return {"dense": np.ones((0, 1), np.float32), "user": np.zeros(0, np.int64)}, np.ones((0, 1), np.float32)


def model_of_no_layers(strategy: Any) -> keras.Model:
    """One that is built by its first batch."""
    with strategy.scope():
        model = tfdlrm.Model(*_inputs_and_output())
        model.compile("sgd", "mse")
    return model


def _inputs_and_output() -> tuple[Any, Any]:
    dense, user = keras.Input((1,), name="dense"), keras.Input((), name="user", dtype="int64")
    return {"dense": dense, "user": user}, keras.layers.Dense(1, name="out")(dense)


def made_by_the_worker(strategy: Any) -> dict[str, Any]:
    """An epoch whose rows the worker makes: its loss, beside that of one process, and what the coordinator made."""
    rows = synthetic_dataset(SyntheticConfig(num_rows=50, num_dense=2, vocabulary_sizes=(20, 30)), 5, 50)
    losses, calls = [], []
    for scope in (strategy.scope, contextlib.nullcontext):
        with scope():
            model = DLRM(DLRMConfig.from_schema(rows.spec, embedding_dim=4, bottom_mlp=(8, 4), top_mlp=(1,)))
            model.compile(keras.optimizers.SGD(0.1), keras.losses.BinaryCrossentropy(from_logits=True))
        batches = ResumableInput(rows, 8, seed=1).dataset()
        with mock.patch.object(rows, "read_rows", wraps=rows.read_rows) as read:
            losses += model.fit(batches, verbose=0).history["loss"]
        calls.append([call.args[2:] for call in read.call_args_list])
    return {"losses": losses, "calls": calls}


def lose_the_worker(local: LocalCluster, model: keras.Model, x: Any) -> str:
    """What `fit` says once its only worker is gone."""

    class Kill(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            local.processes["worker 0"].kill()

    many = {name: np.repeat(values, 100, axis=0) for name, values in x.items()}
    with mock.patch.object(dispatch, "LOST_SECONDS", 1.0), mock.patch.object(dispatch, "LOOK_SECONDS", 0.2):
        return refusal(
            lambda: model.fit(many, np.ones((800, 1), np.float32), batch_size=8, verbose=0, callbacks=[Kill()])
        )


def main() -> None:
    found: dict[str, Any] = {}
    # a server and a worker of a machine without a compiler
    local = LocalCluster(1, 1, show=None, environment={**os.environ, loader.SETTING: "off"})
    with local as cluster:
        with contextlib.redirect_stderr(io.StringIO()) as said:
            strategy = parameter_server(cluster, max_staleness=1)
        found["said"] = said.getvalue()
        found["setting"] = os.environ[loader.SETTING]
        found["there"] = fingerprint.available_bytes(cluster.servers()[0])
        with strategy.scope():
            model = model_of(100)
            found["too large"] = refusal(lambda: model_of(4_000_000_000))
        x = {"dense": np.ones((8, 1), np.float32), "user": np.arange(8)}
        found["loss"] = model.fit(x, np.ones((8, 1), np.float32), verbose=0).history["loss"]

        found["read"] = made_by_the_worker(strategy)

        found["no rows"] = refusal(lambda: model_of_no_layers(strategy).fit(*no_rows(), verbose=0))
        wrong = {**x, "user": np.full(8, 100)}
        found["out of range"] = refusal(lambda: model.fit(wrong, np.ones((8, 1), np.float32), verbose=0))

        found["same"] = refusal(lambda: fingerprint.refuse_strangers(cluster))
        other = dataclasses.replace(cluster, workers=("10.0.0.1:2222",))
        found["other"] = refusal(lambda: fingerprint.refuse_strangers(other))
        with mock.patch.object(fingerprint, "__version__", "9.9"):
            found["version"] = refusal(lambda: fingerprint.refuse_strangers(cluster))
        with contextlib.redirect_stderr(io.StringIO()) as said:
            found["worker lost"] = lose_the_worker(local, model, x)
        found["said of it"] = said.getvalue()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)
