"""A run trained on a CSV file of 400 rows, for what reads a model folder back: evaluation, prediction, the commands."""

from __future__ import annotations

import csv
import functools
from pathlib import Path

import numpy as np

from tfdlrm.config import DataConfig, DLRMConfig, ExperimentConfig, TrainConfig
from tfdlrm.schema import CategoricalColumn, DenseColumn, FeatureSpec
from tfdlrm.training.run import train

SPEC = FeatureSpec(
    labels=("click",),
    dense=(DenseColumn(name="age", transform="standardize"),),
    categorical=(
        CategoricalColumn(name="user", encoding="vocabulary", id_policy="oov"),
        CategoricalColumn(name="tags", encoding="vocabulary", id_policy="oov", hotness=None),
    ),
    keys=("session",),
)
NUM_ROWS = 400


def write_rows(file: Path, num_rows: int, *, seed: int = 0, labelled: bool = True) -> Path:
    """Rows whose label follows from user and age, of about 20 rows a session."""
    random = np.random.default_rng(seed)
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["session", "user", "age", "tags", *(["click"] if labelled else [])])
        for row in range(num_rows):
            user, age = int(random.integers(12)), round(float(random.normal(40, 10)), 2)
            tags = " ".join(f"t{tag}" for tag in random.integers(0, 5, random.integers(0, 4)))
            click = int((user % 3 == 0) + (age - 40) / 10 + random.normal() > 0.5)
            writer.writerow([f"s{row // 20}", f"u{user}", age, tags, *([click] if labelled else [])])
    return file


def csv_config(file: Path) -> ExperimentConfig:
    """Two epochs over the first 80 % of the file."""
    return ExperimentConfig(
        model=DLRMConfig(embedding_dim=4, bottom_mlp=(8, 4), top_mlp=(8, 1)),
        train=TrainConfig(
            optimizer="adagrad", global_batch_size=32, steps_per_execution=1, epochs=2, group_by="session"
        ),
        data=DataConfig(format="csv", path=str(file), split="time", schema=SPEC),
    )


@functools.cache
def csv_run(temporary: Path) -> Path:
    """The model folder of a run in `<temporary>/csv-run`, trained once for all tests that read it.

    Args:
        temporary: of this session of tests, from `tmp_path_factory.getbasetemp()`.
    """
    folder = temporary / "csv-run"
    folder.mkdir()
    train(csv_config(write_rows(folder / "rows.csv", NUM_ROWS)), folder / "model", verbose=0)
    return folder / "model"
