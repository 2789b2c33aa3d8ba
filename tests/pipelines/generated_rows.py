"""CSV files of generated clicks, with a column of every encoding, transform and hotness."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from tfdlrm import CategoricalColumn, DenseColumn, FeatureSpec
from tfdlrm.config import DLRMConfig, ExperimentConfig, TrainConfig
from tfdlrm.schema import RawCells

GENRES = ("drama", "comedy", "news", "sport")
ITEMS = 30
SPEC = FeatureSpec(
    labels=("click",),
    dense=(
        DenseColumn(name="age", transform="standardize"),
        DenseColumn(name="price", transform="log1p"),
        DenseColumn(name="delay", transform="clip", minimum=-1.0, maximum=2.5, missing=1.0),
        DenseColumn(name="score", transform="standardize", missing=None),
        DenseColumn(name="level"),
    ),
    categorical=(
        CategoricalColumn(name="user", encoding="vocabulary", id_policy="oov"),  # digits
        CategoricalColumn(name="genre", encoding="vocabulary", id_policy="oov"),  # text, some missing
        CategoricalColumn(name="code", encoding="hex", id_policy="oov"),
        CategoricalColumn(name="site", encoding="hash"),
        CategoricalColumn(name="item"),  # ids of a table of known size
        CategoricalColumn(name="shelf", id_policy="modulo"),
        CategoricalColumn(
            name="tags", table="tag", encoding="vocabulary", id_policy="oov", hotness=None, separator="|"
        ),
        CategoricalColumn(
            name="pair of tags",
            table="tag",
            encoding="vocabulary",
            id_policy="oov",
            hotness=2,
            separator="|",
            weights="pair weights",
        ),
        CategoricalColumn(name="width", encoding="bins", bins=6),
        CategoricalColumn(name="age in bins", source="age", encoding="bins", bins=8),
        CategoricalColumn(name="hour", source="when", encoding="hour"),
        CategoricalColumn(name="day", source="when", encoding="weekday"),
    ),
    vocabulary_sizes={"item": ITEMS, "shelf": 7, "site": 11},
    keys=("session", "line"),
    raw=RawCells(strip=True),
)
HEADER = (
    *SPEC.labels,
    *(column.name for column in SPEC.dense),
    *(column.name for column in SPEC.categorical if not column.source),
    "when",
    "pair weights",
    *SPEC.keys,
)


def small_config(**train: object) -> ExperimentConfig:
    """A small model, and an epoch or two."""
    options = {
        "optimizer": "adagrad",
        "global_batch_size": 64,
        "epochs": 2,
        "monitor": "val_auc",
        "deterministic": True,
    }
    return ExperimentConfig(
        model=DLRMConfig(embedding_dim=4, bottom_mlp=(8, 4), top_mlp=(8, 1)),
        train=TrainConfig(**{**options, **train}),
    )


def write_rows(folder: Path, num_rows: int, *, files: int = 2, seed: int = 0) -> Path:
    """Writes `num_rows` rows in so many files, and gives the folder back."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)

    def skewed(size: int) -> int:
        return int(size * random.random() ** 3)

    for number in range(files):
        with (folder / f"rows-{number}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(HEADER)
            for row in range(num_rows // files):
                user, item = skewed(100), skewed(ITEMS)
                genre = GENRES[skewed(len(GENRES))]
                click = int(random.random() < 0.1 + 0.2 * (user % 2) + 0.15 * (item % 3) + 0.1 * GENRES.index(genre))
                tags = [f"tag {skewed(12)}" for _ in range(int(random.integers(0, 4)))]
                writer.writerow(
                    [
                        click,
                        int(random.integers(18, 80)) if random.random() < 0.95 else "",
                        f"{random.random() * 10:.2f}" if random.random() < 0.9 else "",
                        f"{random.normal():.3f}" if random.random() < 0.8 else "",
                        f"{1000 + 3 * random.normal():.3f}",
                        skewed(9),
                        user,
                        genre if random.random() < 0.9 else "",
                        f"{0xA0000000 + 7919 * skewed(40):08x}",
                        f"{' ' * (row % 2)}site-{skewed(50)}.example",
                        item,
                        skewed(40) - 5,
                        "|".join(tags),
                        f"tag {skewed(12)}|tag {skewed(20)}",
                        f"{random.normal():.2f}" if random.random() < 0.9 else "",
                        f"2024-02-{1 + row % 29:02d} {row % 24:02d}:30:00" if random.random() < 0.9 else "",
                        f"{random.random():.3f}|{random.random():.3f}",
                        f"s{row // 20}",
                        f"{number}/{row}",
                    ]
                )
    return folder
