"""Writes the model that all sides of the serving benchmark serve: our export, its weights as arrays, and its answers.

python benchmarks/serving_export.py build/benchmarks/serving --max-rows 1000000

FOLDER/
  workload.json         flags of the workload
  export/1/             this project's SavedModel
  plain/                the same model written down in plain TensorFlow
  weights.npz           table_k [V, D], bottom_kernel_k, bottom_bias_k, top_kernel_k, top_bias_k
  answers.npz           the live model's probabilities for the timed queries
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
import tensorflow as tf
from serving_requests import Query, candidate_features, feature_names
from serving_side import ANSWERS_FILE, EXPORT_FOLDER, ROWS, WEIGHTS_FILE, WORKLOAD_FILE, timed_queries
from workload import NUM_DENSE, Workload, add_workload_arguments, workload_from_arguments

import tfdlrm
from savedmodels.export import ExportOptions, export
from tfdlrm.embeddings.initializers import Normal

# The initial values of training (scaled uniform) would make all products of rows nearly nothing, and a wrong order of
# pairs would not show in the answers.
ROW_STDDEV = 0.3
BIAS_STDDEV = 0.1


def build_model(workload: Workload) -> tfdlrm.DLRM:
    """The preset criteo-kaggle with random weights, tables as large as the workload says."""
    names = feature_names(workload.num_features)
    features = tuple(
        tfdlrm.FeatureConfig(
            name=name,
            table=tfdlrm.TableConfig(
                name=name,
                vocabulary_size=rows,
                embedding_dim=workload.embedding_dim,
                initializer=Normal(stddev=ROW_STDDEV),
            ),
        )
        for name, rows in zip(names, workload.vocabulary_sizes, strict=True)
    )
    model = tfdlrm.DLRM(
        tfdlrm.DLRMConfig(
            num_dense=NUM_DENSE,
            features=features,
            embedding_dim=workload.embedding_dim,
            bottom_mlp=workload.bottom_mlp,
            top_mlp=workload.top_mlp,
        )
    )
    model.build()
    generator = np.random.default_rng(0)
    for mlp in (model.bottom_mlp, model.top_mlps[0]):
        for layer in mlp.dense_layers:
            layer.bias.assign(generator.normal(0, BIAS_STDDEV, layer.bias.shape).astype(np.float32))
    return model


def write_export(model: tfdlrm.DLRM, folder: Path, workload: Workload) -> None:
    """This project's SavedModel: `predict`, and `rank` of candidates."""
    version = export(
        model, folder.parent, version=int(folder.name), options=ExportOptions(candidates=candidate_features(workload))
    )
    assert version == folder


def weights_of(model: tfdlrm.DLRM, workload: Workload) -> dict[str, np.ndarray]:
    """All weights by the names of `WEIGHTS_FILE`."""
    names = feature_names(workload.num_features)
    weights = {f"table_{k}": model.embeddings.tables.rows(name).numpy() for k, name in enumerate(names)}
    for part, mlp in (("bottom", model.bottom_mlp), ("top", model.top_mlps[0])):
        for k, layer in enumerate(mlp.dense_layers):
            weights[f"{part}_kernel_{k}"], weights[f"{part}_bias_{k}"] = map(np.asarray, (layer.kernel, layer.bias))
    return weights


class PlainDLRM(tf.Module):
    """The model as a plain TensorFlow program has it: a `tf.gather` a table, stack, matmul, gather of pairs."""

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        super().__init__()
        count = sum(name.startswith("table_") for name in weights)
        self.tables = [tf.Variable(weights[f"table_{k}"]) for k in range(count)]
        self.mlps = {
            part: [
                (tf.Variable(weights[f"{part}_kernel_{k}"]), tf.Variable(weights[f"{part}_bias_{k}"]))
                for k in range(sum(name.startswith(f"{part}_kernel_") for name in weights))
            ]
            for part in ("bottom", "top")
        }
        i, j = np.tril_indices(count + 1, -1)
        self.pairs = (i * (count + 1) + j).astype(np.int32)

    @tf.function(autograph=False)
    def __call__(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        x = inputs["dense"]
        for kernel, bias in self.mlps["bottom"]:
            x = tf.nn.relu(tf.nn.bias_add(tf.matmul(x, kernel), bias))
        names = feature_names(len(self.tables))
        rows = [tf.gather(table, inputs[name]) for table, name in zip(self.tables, names, strict=True)]
        vectors = tf.stack([x, *rows], axis=1)
        products = tf.reshape(tf.matmul(vectors, vectors, transpose_b=True), [-1, (len(rows) + 1) ** 2])
        y = tf.concat([x, tf.gather(products, self.pairs, axis=1)], axis=1)
        for k, (kernel, bias) in enumerate(self.mlps["top"]):
            y = tf.nn.bias_add(tf.matmul(y, kernel), bias)
            y = tf.nn.relu(y) if k < len(self.mlps["top"]) - 1 else y
        return {"probability": tf.sigmoid(y), "logit": y}


def write_plain(weights: Mapping[str, np.ndarray], folder: Path) -> None:
    """`PlainDLRM` as a SavedModel with the signature `predict`."""
    model = PlainDLRM(weights)
    specs = {"dense": tf.TensorSpec([None, NUM_DENSE], tf.float32, name="dense")}
    specs |= {name: tf.TensorSpec([None], tf.int64, name=name) for name in feature_names(len(model.tables))}
    tf.saved_model.save(model, str(folder), signatures={"predict": model.__call__.get_concrete_function(specs)})


def answers_of(model: tfdlrm.DLRM, queries: list[Query]) -> list[np.ndarray]:
    """The live model's probabilities, `[N]` a query."""
    return [
        tf.sigmoid(model({k: tf.constant(v) for k, v in query.columns(once=False).items()}, training=False)).numpy()[
            :, 0
        ]
        for query in queries
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    add_workload_arguments(parser)
    arguments = parser.parse_args()
    workload, folder = workload_from_arguments(arguments), arguments.folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    keras.utils.set_random_seed(0)
    model = build_model(workload)
    write_export(model, folder / EXPORT_FOLDER, workload)
    answers = {
        f"{rows}_{index}": answer
        for rows in ROWS
        for index, answer in enumerate(answers_of(model, timed_queries(workload, rows)))
    }
    np.savez(folder / ANSWERS_FILE, **answers)
    weights = weights_of(model, workload)
    np.savez(folder / WEIGHTS_FILE, **weights)
    write_plain(weights, folder / "plain")
    (folder / WORKLOAD_FILE).write_text(json.dumps(workload.to_flags()))


if __name__ == "__main__":
    main()
