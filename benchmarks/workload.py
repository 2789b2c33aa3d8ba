"""The one workload every side of `train_step.py` runs: DLRM on tables of Criteo-Kaggle's sizes.

NumPy only, so that it imports in the peers' environments too. All sides get the same arrays in the same
order: 33.8M rows in 26 tables, one id a feature drawn from a power law, 13 dense values, a quarter of the
labels 1.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass

import numpy as np

# Rows a table of Criteo-Kaggle after the reference's preprocessing (NUMERICS: known runs).
CRITEO_KAGGLE_ROWS = (
    1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194,
    27, 14992, 5461306, 10, 5652, 2173, 4, 7046547, 18, 15, 286181, 105, 142572,
)  # fmt: skip
NUM_DENSE = 13
LEARNING_RATE = 0.1
# id = floor(V * u**4): half of all ids fall in the first 1/16 of a table, a tenth in its first 1/10,000.
POWER_LAW_EXPONENT = 4
POSITIVE_RATE = 0.25


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One batch: `dense` [B, 13] float32, `ids` [B, F] int64, `labels` [B] float32."""

    dense: np.ndarray
    ids: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Sizes of the benchmark model and its input.

    Args:
        batch_size: Rows a batch, B.
        embedding_dim: Width of every table, D; also the last layer of the bottom MLP.
        max_rows: Cap on rows a table, to fit wide tables into memory; None for the full 33.8M rows.
        table_rows: Rows of each table before the cap.
        num_batches: Different batches; a run cycles through them.
        seed: Of the generator of ids, dense values and labels.

    Raises:
        ValueError: A size is not positive.
    """

    batch_size: int = 2048
    embedding_dim: int = 16
    max_rows: int | None = None
    table_rows: tuple[int, ...] = CRITEO_KAGGLE_ROWS
    num_batches: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        for field in ("batch_size", "embedding_dim", "num_batches"):
            if getattr(self, field) < 1:
                raise ValueError(f"Workload.{field} must be at least 1. Received: {getattr(self, field)}")
        if self.max_rows is not None and self.max_rows < 1:
            raise ValueError(f"Workload.max_rows must be at least 1 or None. Received: {self.max_rows}")

    @property
    def vocabulary_sizes(self) -> tuple[int, ...]:
        """Rows of each table, capped."""
        cap = self.max_rows
        return self.table_rows if cap is None else tuple(min(rows, cap) for rows in self.table_rows)

    @property
    def num_features(self) -> int:
        return len(self.table_rows)

    @property
    def bottom_mlp(self) -> tuple[int, ...]:
        return (512, 256, 64, self.embedding_dim)

    @property
    def top_mlp(self) -> tuple[int, ...]:
        return (512, 256, 1)

    @property
    def interaction_width(self) -> int:
        """Width of the top MLP's input: D + P with P = F(F+1)/2 pairs of the F + 1 vectors."""
        return self.embedding_dim + self.num_features * (self.num_features + 1) // 2

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(f"C{index + 1}" for index in range(self.num_features))

    def batches(self) -> list[Batch]:
        """The `num_batches` batches, the same on every side."""
        generator = np.random.default_rng(self.seed)
        rows = np.array(self.vocabulary_sizes)
        batches = []
        for _ in range(self.num_batches):
            dense = np.log1p(generator.exponential(3, (self.batch_size, NUM_DENSE))).astype(np.float32)
            uniform = generator.random((self.batch_size, self.num_features))
            ids = np.minimum((rows * uniform**POWER_LAW_EXPONENT).astype(np.int64), rows - 1)
            labels = (generator.random(self.batch_size) < POSITIVE_RATE).astype(np.float32)
            batches.append(Batch(dense=dense, ids=ids, labels=labels))
        return batches

    def to_dict(self) -> dict[str, int | None]:
        """What to print beside a result."""
        return {
            "batch_size": self.batch_size,
            "embedding_dim": self.embedding_dim,
            "max_rows": self.max_rows,
            "total_rows": sum(self.vocabulary_sizes),
        }


def add_workload_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of a single-batch-size run; environment variables B, D and CAP are their defaults."""
    cap = os.environ.get("CAP")
    parser.add_argument("--batch-size", type=int, default=int(os.environ.get("B", 2048)))
    parser.add_argument("--embedding-dim", type=int, default=int(os.environ.get("D", 16)))
    parser.add_argument("--max-rows", type=int, default=int(cap) if cap else None, help="cap on rows a table")


def workload_from_arguments(arguments: argparse.Namespace) -> Workload:
    """The workload the flags of `add_workload_arguments` describe."""
    return Workload(batch_size=arguments.batch_size, embedding_dim=arguments.embedding_dim, max_rows=arguments.max_rows)
