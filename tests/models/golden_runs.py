"""The reference's stored runs (`tests/golden/README.md`) as models, weights and batches of this project."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfdlrm import losses
from tfdlrm.config import DLRMConfig, FeatureConfig, LearningRateConfig, QuotientRemainderConfig, TableConfig
from tfdlrm.embeddings import optimizers as row_optimizers
from tfdlrm.models import DLRM
from tfdlrm.training.dense_optimizers import Adagrad
from tfdlrm.training.schedules import WarmupPolynomialDecay


@dataclasses.dataclass(frozen=True)
class GoldenRun:
    """One stored run: its config and everything the reference computed."""

    config: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @classmethod
    def load(cls, path: Path) -> GoldenRun:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in stored.files}
        return cls(json.loads(str(arrays.pop("config"))), arrays)

    def section(self, name: str) -> dict[str, np.ndarray]:
        prefix = f"{name}/"
        return {key[len(prefix) :]: value for key, value in self.arrays.items() if key.startswith(prefix)}

    def steps(self) -> Iterator[tuple[dict[str, Any], np.ndarray, dict[str, np.ndarray]]]:
        """(model inputs, labels `[B, 1]`, what came out) of each step."""
        for step in range(self.config["steps"]):
            stored = self.section(f"step_{step}")
            inputs: dict[str, Any] = {"dense": tf.constant(stored["dense"])}
            for k in range(len(self.config["rows"])):
                splits = tf.constant(stored[f"offsets_{k}"])
                inputs[f"c{k}"] = tf.RaggedTensor.from_row_splits(tf.constant(stored[f"ids_{k}"]), splits)
            yield inputs, stored["label"], stored

    def dlrm_config(self) -> DLRMConfig:
        """The model that the reference ran."""
        config = self.config
        split = config["qr"]
        # with concatenation the reference's `dim` is the width of each half
        width = config["dim"] * 2 if split and split["op"] == "concat" else config["dim"]
        tables = []
        for k, rows in enumerate(config["rows"]):
            dim = config["dims"][k] if config["dims"] else width
            tables.append(
                TableConfig(
                    name=f"c{k}",
                    vocabulary_size=rows,
                    embedding_dim=dim,
                    output_dim=None if dim == width else width,
                    pooling_weights=config["pooling"],
                )
            )
        return DLRMConfig(
            num_dense=config["n_dense"],
            tables=tuple(tables),
            features=tuple(FeatureConfig(name=table.name, table=table.name, hotness=None) for table in tables),
            embedding_dim=width,
            bottom_mlp=tuple(config["bottom"]),
            top_mlp=tuple(config["top"]),
            interaction=config["interaction"],
            interact_itself=config["itself"],
            quotient_remainder=QuotientRemainderConfig(
                operation=split["op"], collisions=split["collisions"], threshold=split["threshold"]
            )
            if split
            else None,
        )

    def model(self) -> DLRM:
        """The compiled model at the run's initial weights."""
        config = self.config
        rate: Any = config["learning_rate"]
        if config["schedule"]:
            warmup, start, steps = config["schedule"]
            settings = LearningRateConfig(warmup_steps=warmup, decay_start_step=start, num_decay_steps=steps)
            rate = WarmupPolynomialDecay.from_policy(rate, settings)
        row = {
            "sgd": row_optimizers.SGD,
            "adagrad": row_optimizers.Adagrad,
            "rwsadagrad": row_optimizers.RowwiseAdagrad,
        }[config["optimizer"]]
        dense = (
            keras.optimizers.SGD(rate)
            if config["optimizer"] == "sgd"
            else Adagrad(rate, epsilon_placement="outside", epsilon=1e-10, initial_accumulator_value=0.0)
        )
        model = DLRM(self.dlrm_config(), row())
        weights = tuple(float(weight) for weight in config["loss_weights"].split("-"))
        model.compile(dense, losses.loss_from_config(config["loss"], weights, config["threshold"]))
        model.build()
        for name, value in self.section("initial").items():
            write_weight(model, name, value)
        return model


def _parts(name: str) -> tuple[str, int, str]:
    kind, index, *rest = name.split("_")
    return kind, int(index), rest[0] if rest else ""


def write_weight(model: DLRM, name: str, value: np.ndarray) -> None:
    """Sets one weight by its golden name."""
    kind, index, part = _parts(name)
    tables = model.embeddings.tables
    if kind == "table" and part == "projection":
        model.embeddings.projections[f"c{index}"].assign(value)
    elif kind == "table":
        tables.assign_rows(f"c{index}" + (f"/{part}" if part else ""), value)
    elif kind == "pooling":
        tables.assign_pooling_weights(f"c{index}", value)
    else:
        dense_weight(model, kind, index, part).assign(value)


def read_weight(model: DLRM, name: str) -> np.ndarray:
    """Reads one weight by its golden name."""
    kind, index, part = _parts(name)
    tables = model.embeddings.tables
    if kind == "table" and part == "projection":
        return model.embeddings.projections[f"c{index}"].numpy()
    if kind == "table":
        return tables.rows(f"c{index}" + (f"/{part}" if part else "")).numpy()
    if kind == "pooling":
        piece = tables.array(f"c{index}/pooling_weights")
        return piece.read(0, piece.total).numpy()[:, 0]
    return dense_weight(model, kind, index, part).numpy()


def dense_weight(model: DLRM, kind: str, index: int, part: str) -> keras.Variable:
    """`bottom_i_kernel` and the like."""
    mlp = model.bottom_mlp if kind == "bottom" else model.top_mlps[0]
    kernels = [weight for weight in mlp.trainable_weights if weight.name == part]
    return kernels[index]
