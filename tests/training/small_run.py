"""A run so small that it trains in a blink, with everything in it that a checkpoint has to carry."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfdlrm.config import DataConfig, DLRMConfig, ExperimentConfig, LearningRateConfig, TrainConfig
from tfdlrm.data.columns import Columns, RaggedColumn
from tfdlrm.data.dataset import Books, InMemoryDataset
from tfdlrm.data.preprocessing import Preprocessing
from tfdlrm.data.splits import Splits
from tfdlrm.schema import CategoricalColumn, DenseColumn, FeatureSpec
from tfdlrm.training.checkpoints import Checkpoints
from tfdlrm.training.model_state import model_places, tables_of

SPEC = FeatureSpec(
    labels=("click",),
    dense=(DenseColumn(name="age"), DenseColumn(name="price")),
    categorical=(
        CategoricalColumn(name="item"),
        CategoricalColumn(name="seen", table="item", hotness=2),
        CategoricalColumn(name="tags", hotness=None, id_policy="oov"),
    ),
    keys=("user",),
    vocabulary_sizes={"item": 40, "tags": 9},
)
TRAIN_ROWS, VALIDATION_ROWS, BATCH_SIZE = 150, 60, 16  # 10 batches an epoch, the last of 6 rows


def small_config(**train: Any) -> ExperimentConfig:
    """Dropout, batch normalization, a schedule, a row optimizer with state: nothing a checkpoint may forget."""
    options: dict[str, Any] = {
        "optimizer": "adagrad",
        "learning_rate": 0.1,
        "schedule": LearningRateConfig(warmup_steps=5, decay_start_step=12, num_decay_steps=40),
        "global_batch_size": BATCH_SIZE,
        "steps_per_execution": 1,
        "epochs": 3,
        "deterministic": True,
        "checkpoint_every_minutes": None,
        **train,
    }
    model = DLRMConfig(
        embedding_dim=4,
        bottom_mlp=(8, 4),
        top_mlp=(8, 1),
        dropout=0.2,
        normalization="batch",
        num_dense=2,
    )
    return ExperimentConfig(model=model, train=TrainConfig(**options), data=DataConfig())


def with_model(config: ExperimentConfig, **fields: Any) -> ExperimentConfig:
    return replace(config, model=replace(config.model, **fields))


def rows(num_rows: int, seed: int, spec: FeatureSpec = SPEC) -> InMemoryDataset:
    """Learnable rows: the label follows from the item and the first dense column."""
    random = np.random.default_rng(seed)
    items = random.integers(0, spec.vocabulary_sizes["item"], [num_rows, 3])
    dense = random.normal(size=[num_rows, spec.num_dense])
    label = ((items[:, 0] % 3 == 0) * 2.0 + dense[:, 0] + random.normal(size=num_rows)) > 0.7
    lengths = random.integers(0, 4, num_rows)
    tags = RaggedColumn(
        values=random.integers(0, spec.vocabulary_sizes["tags"] + 2, lengths.sum()),
        row_splits=np.concatenate([[0], np.cumsum(lengths)]),
    )
    columns = Columns(
        dense=dense.astype(np.float32),
        labels=np.repeat(label[:, None], len(spec.labels), 1).astype(np.float32),
        ids=items.astype(np.int64),
        weights=np.zeros([num_rows, 0], np.float32),
        ragged={"tags": tags},
        keys={"row_id": np.arange(num_rows), "user": random.integers(0, 5, num_rows)},
    )
    return InMemoryDataset(spec, columns)


def small_splits(*, validation: bool = True, test: bool = False, spec: FeatureSpec = SPEC) -> Splits:
    total = TRAIN_ROWS + VALIDATION_ROWS * (validation + test)
    return Splits(
        train=rows(TRAIN_ROWS, 1, spec),
        validation=rows(VALIDATION_ROWS, 2, spec) if validation else None,
        test=rows(VALIDATION_ROWS, 3, spec) if test else None,
        preprocessing=Preprocessing(spec=spec),
        books=Books(read=total, used=total, set_aside=0),
    )


def numbers(model: keras.Model) -> dict[str, np.ndarray]:
    """Every number of a model: tables, slots, weights, optimizer, metrics, random state."""
    found = {f"{p.key} {p.label}": np.asarray(tf.convert_to_tensor(p.variable)) for p in model_places(model)}
    for tables in tables_of(model):
        found["iterations"] = tables.iterations.numpy()
        found.update({piece.name: piece.read(0, piece.total).numpy() for piece in tables.slices()})
    return found


def assert_identical(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> None:
    assert list(left) == list(right)
    for name in left:
        assert left[name].tobytes() == right[name].tobytes(), f"{name} differs"


def saved_numbers(model_dir: Path, name: str | None = None) -> dict[str, bytes]:
    """Every number of a checkpoint on disk as its bytes, by default of the newest."""
    return {key: array.tobytes() for key, array in saved_arrays(model_dir, name).items()}


def saved_arrays(model_dir: Path, name: str | None = None) -> dict[str, np.ndarray]:
    """Every number of a checkpoint on disk, by default of the newest."""
    checkpoints = Checkpoints(model_dir / "checkpoints")
    folder = checkpoints.path(name or checkpoints.names()[-1])
    with np.load(folder / "variables.npz", allow_pickle=False) as arrays:
        found = {key: arrays[key] for key in arrays.files}
    reader = tf.train.load_checkpoint(str(folder / "tables"))
    for key in reader.get_variable_to_shape_map():
        found[key] = np.asarray(reader.get_tensor(key))
    return found


class StopAfter(keras.callbacks.Callback):
    """Ends training after so many steps of this session, as if the process had died there; or sends it a signal."""

    def __init__(self, steps: int, signal_number: int | None = None) -> None:
        super().__init__()
        self._left, self._signal = steps, signal_number

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._left -= 1
        if self._left == 0:
            if self._signal is None:
                raise KeyboardInterrupt
            os.kill(os.getpid(), self._signal)
