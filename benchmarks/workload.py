"""The workloads that every side runs: sizes of tables, bags and layers, and the same random batches for all.

NumPy only, so that it imports in the peers' environments too. `dlrm` is the Criteo-Kaggle run: 33.8M rows in 26
tables, one id a feature drawn from a power law, 13 dense values, a quarter of the labels 1. `dcnv2` is MLPerf's
DLRM-DCNv2 with its multi-hot bags, rows capped. `bags` is tables alone, the workload of the DLRM paper's profile.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

# Rows a table of Criteo-Kaggle after the reference's preprocessing (NUMERICS: known runs).
CRITEO_KAGGLE_ROWS = (
    1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194,
    27, 14992, 5461306, 10, 5652, 2173, 4, 7046547, 18, 15, 286181, 105, 142572,
)  # fmt: skip
# MLPerf Training DLRM-DCNv2: rows a table of Criteo Terabyte, and ids a bag of its synthetic multi-hot features.
MLPERF_DCNV2_ROWS = (
    40000000, 39060, 17295, 7424, 20265, 3, 7122, 1543, 63, 40000000, 3067956, 405282, 10,
    2209, 11938, 155, 4, 976, 14, 40000000, 40000000, 40000000, 590152, 12973, 108, 36,
)  # fmt: skip
MLPERF_DCNV2_HOTNESS = (3, 2, 1, 2, 6, 1, 1, 1, 1, 7, 3, 8, 1, 6, 9, 5, 1, 1, 1, 12, 100, 27, 10, 3, 1, 1)
CROSS_LAYERS = 3
CROSS_RANK = 512
NUM_DENSE = 13
# Hidden layers of the bottom and top MLP, and the learning rate, of each model; `bags` has no layers.
HIDDEN_LAYERS = {"dlrm": ((512, 256, 64), (512, 256)), "dcnv2": ((512, 256), (1024, 1024, 512, 256)), "bags": ((), ())}
LEARNING_RATES = {"dlrm": 0.1, "dcnv2": 0.005, "bags": 0.1}
# id = floor(V * u**4): half of all ids fall in the first 1/16 of a table, a tenth in its first 1/10,000.
POWER_LAW_EXPONENT = 4
UNIFORM = 1  # what MLPerf's generator of multi-hot ids draws
POSITIVE_RATE = 0.25


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One batch: `dense` [B, 13] float32, `ids` [B, ids a row] int64 feature by feature, `labels` [B] float32."""

    dense: np.ndarray
    ids: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Sizes of the benchmark model and its input.

    Args:
        batch_size: Rows a batch, B.
        embedding_dim: Width of every table, D; also the last layer of the bottom MLP.
        max_rows: Cap on rows a table, to fit wide tables into memory; None for the full sizes.
        model: `dlrm`, `dcnv2`, or `bags`: tables without a model.
        table_rows: Rows of each table before the cap.
        hotness: Ids a bag of each feature; None for one id each.
        id_exponent: Of the power law of ids; 1 is uniform.
        num_batches: Different batches; a run cycles through them.
        seed: Of the generator of ids, dense values and labels.

    Raises:
        ValueError: A size is not positive, the model is unknown, or hotness is not one number a table.
    """

    batch_size: int = 2048
    embedding_dim: int = 16
    max_rows: int | None = None
    model: str = "dlrm"
    table_rows: tuple[int, ...] = CRITEO_KAGGLE_ROWS
    hotness: tuple[int, ...] | None = None
    id_exponent: int = POWER_LAW_EXPONENT
    num_batches: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        for field in ("batch_size", "embedding_dim", "num_batches", "id_exponent"):
            if getattr(self, field) < 1:
                raise ValueError(f"Workload.{field} must be at least 1. Received: {getattr(self, field)}")
        if self.max_rows is not None and self.max_rows < 1:
            raise ValueError(f"Workload.max_rows must be at least 1 or None. Received: {self.max_rows}")
        if self.model not in HIDDEN_LAYERS:
            raise ValueError(f"Workload.model must be one of {', '.join(HIDDEN_LAYERS)}. Received: {self.model!r}")
        if not self.table_rows or min(self.table_rows) < 1:
            raise ValueError(f"Workload.table_rows must be positive numbers. Received: {self.table_rows}")
        if self.hotness is not None and (len(self.hotness) != len(self.table_rows) or min(self.hotness) < 1):
            raise ValueError(
                f"Workload.hotness must be {len(self.table_rows)} positive numbers, one a table. "
                f"Received: {self.hotness}"
            )

    @property
    def vocabulary_sizes(self) -> tuple[int, ...]:
        """Rows of each table, capped."""
        cap = self.max_rows
        return self.table_rows if cap is None else tuple(min(rows, cap) for rows in self.table_rows)

    @property
    def num_features(self) -> int:
        return len(self.table_rows)

    @property
    def bag_sizes(self) -> tuple[int, ...]:
        """Ids a bag of each feature."""
        return self.hotness or (1,) * self.num_features

    @property
    def ids_per_row(self) -> int:
        return sum(self.bag_sizes)

    @property
    def id_columns(self) -> tuple[slice, ...]:
        """Where the ids of each feature stand in a row of `Batch.ids`."""
        ends = np.cumsum(self.bag_sizes)
        return tuple(slice(int(end) - size, int(end)) for end, size in zip(ends, self.bag_sizes, strict=True))

    @property
    def learning_rate(self) -> float:
        return LEARNING_RATES[self.model]

    @property
    def bottom_mlp(self) -> tuple[int, ...]:
        return (*HIDDEN_LAYERS[self.model][0], self.embedding_dim)

    @property
    def top_mlp(self) -> tuple[int, ...]:
        return (*HIDDEN_LAYERS[self.model][1], 1)

    @property
    def interaction_width(self) -> int:
        """Width of the top MLP's input: D + P with P = F(F+1)/2 pairs of the F + 1 vectors; (F + 1) D for dcnv2."""
        if self.model == "dcnv2":
            return (self.num_features + 1) * self.embedding_dim
        return self.embedding_dim + self.num_features * (self.num_features + 1) // 2

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(f"C{index + 1}" for index in range(self.num_features))

    def batches(self) -> list[Batch]:
        """The `num_batches` batches, the same on every side."""
        generator = np.random.default_rng(self.seed)
        rows = np.repeat(self.vocabulary_sizes, self.bag_sizes)
        batches = []
        for _ in range(self.num_batches):
            dense = np.log1p(generator.exponential(3, (self.batch_size, NUM_DENSE))).astype(np.float32)
            uniform = generator.random((self.batch_size, self.ids_per_row))
            ids = np.minimum((rows * uniform**self.id_exponent).astype(np.int64), rows - 1)
            labels = (generator.random(self.batch_size) < POSITIVE_RATE).astype(np.float32)
            batches.append(Batch(dense=dense, ids=ids, labels=labels))
        return batches

    def to_dict(self) -> dict[str, int | None]:
        """What to print beside a result."""
        return {
            "batch_size": self.batch_size,
            "embedding_dim": self.embedding_dim,
            "max_rows": self.max_rows,
            "tables": self.num_features,
            "total_rows": sum(self.vocabulary_sizes),
            "ids_per_row": self.ids_per_row,
        }

    def to_flags(self) -> list[str]:
        """The flags that `workload_from_arguments` makes this workload of."""
        flags = []
        for field in FLAGS:
            value = getattr(self, field)
            if value is not None:
                values = value if isinstance(value, tuple) else (value,)
                flags += ["--" + field.replace("_", "-"), *map(str, values)]
        return flags


DEFAULTS: Mapping[str, Workload] = {
    "dlrm": Workload(),
    "dcnv2": Workload(
        model="dcnv2",
        embedding_dim=128,
        max_rows=300_000,
        table_rows=MLPERF_DCNV2_ROWS,
        hotness=MLPERF_DCNV2_HOTNESS,
        id_exponent=UNIFORM,
    ),
    "bags": Workload(
        model="bags",
        embedding_dim=64,
        table_rows=(1_000_000,) * 8,
        hotness=(100,) * 8,
        id_exponent=UNIFORM,
        num_batches=4,  # 13 MB of ids each
    ),
}
FLAGS = ("model", "batch_size", "embedding_dim", "max_rows", "table_rows", "hotness", "id_exponent", "num_batches")


def add_workload_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of a single-batch-size run; environment variables B, D and CAP are their defaults."""

    def given(variable: str) -> int | None:
        return int(os.environ[variable]) if os.environ.get(variable) else None

    parser.add_argument("--model", choices=tuple(DEFAULTS), default="dlrm", help="whose sizes are the defaults")
    parser.add_argument("--batch-size", type=int, default=given("B"))
    parser.add_argument("--embedding-dim", type=int, default=given("D"))
    parser.add_argument("--max-rows", type=int, default=given("CAP"), help="cap on rows a table")
    parser.add_argument("--table-rows", type=int, nargs="+", help="rows of each table")
    parser.add_argument("--hotness", type=int, nargs="+", help="ids a bag of each table")
    parser.add_argument("--id-exponent", type=int, help="of the ids' power law; 1 is uniform")
    parser.add_argument("--num-batches", type=int, help="different batches to cycle through")


def workload_from_arguments(arguments: argparse.Namespace) -> Workload:
    """The workload the flags of `add_workload_arguments` describe."""
    given: dict[str, Any] = {}
    for field in FLAGS:
        value = getattr(arguments, field)
        if value is not None:
            given[field] = tuple(value) if isinstance(value, list) else value
    return replace(DEFAULTS[arguments.model], **given)
