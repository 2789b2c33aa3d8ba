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

from tests.distribute.asynchronous_run import refusal
from tfdlrm import DLRM, CategoricalColumn, DenseColumn, DLRMConfig, FeatureSpec, optimizers
from tfdlrm.distribute import LocalCluster, fingerprint, parameter_server
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


def main() -> None:
    found: dict[str, Any] = {}
    # a server and a worker of a machine without a compiler
    local = LocalCluster(1, 1, show=None, environment={**os.environ, loader.SETTING: "off"})
    with local as cluster:
        with contextlib.redirect_stderr(io.StringIO()) as said:
            strategy = parameter_server(cluster)
        found["said"] = said.getvalue()
        found["setting"] = os.environ[loader.SETTING]
        found["there"] = fingerprint.available_bytes("ps", 0)
        with strategy.scope():
            model = model_of(100)
            found["too large"] = refusal(lambda: model_of(4_000_000_000))
        x = {"dense": np.ones((8, 1), np.float32), "user": np.arange(8)}
        found["loss"] = model.fit(x, np.ones((8, 1), np.float32), verbose=0).history["loss"]

        found["same"] = refusal(lambda: fingerprint.refuse_strangers(cluster))
        other = dataclasses.replace(cluster, workers=("10.0.0.1:2222",))
        found["other"] = refusal(lambda: fingerprint.refuse_strangers(other))
        with mock.patch.object(fingerprint, "__version__", "9.9"):
            found["version"] = refusal(lambda: fingerprint.refuse_strangers(cluster))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)
