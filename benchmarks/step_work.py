"""What a training step must do at least: operations of its matrix products, bytes of rows moved. Pure computation."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import numpy as np
from workload import CROSS_LAYERS, CROSS_RANK, NUM_DENSE, Workload

BYTES_PER_VALUE = 4
LINE_BYTES = 64  # of memory that moves with one 4-byte slot of row-wise Adagrad


@dataclass(frozen=True, kw_only=True)
class StepWork:
    """A training step with row-wise Adagrad.

    Args:
        flops: Of the matrix products, forward and backward.
        read_bytes: Of rows looked up.
        update_bytes: Of rows and slots that the update reads and writes, each row once.
    """

    flops: float
    read_bytes: float
    update_bytes: float

    @property
    def row_bytes(self) -> float:
        return self.read_bytes + self.update_bytes


def step_work(workload: Workload) -> StepWork:
    """The work of a step on the mean batch of a workload."""
    bytes_per_row = workload.embedding_dim * BYTES_PER_VALUE
    touched = statistics.mean(unique_rows(workload, batch.ids) for batch in workload.batches())
    return StepWork(
        flops=workload.batch_size * flops_per_sample(workload),
        read_bytes=workload.batch_size * workload.ids_per_row * bytes_per_row,
        update_bytes=touched * 2 * (bytes_per_row + LINE_BYTES),
    )


def flops_per_sample(workload: Workload) -> int:
    """Operations a sample: of each weight 2 forward and 4 backward, of the first layer 2 backward.

    Nobody needs the gradient of the first layer's input. A dot interaction multiplies its P pairs of vectors once
    forward and, for the gradients of both, twice backward.
    """
    if workload.model == "dcnv2":
        interaction = CROSS_LAYERS * 2 * CROSS_RANK * workload.interaction_width
    else:
        interaction = workload.embedding_dim * workload.num_features * (workload.num_features + 1) // 2
    bottom = weights_of(NUM_DENSE, workload.bottom_mlp)
    top = weights_of(workload.interaction_width, workload.top_mlp)
    return 6 * (bottom + interaction + top) - 2 * NUM_DENSE * workload.bottom_mlp[0]


def weights_of(input_width: int, widths: tuple[int, ...]) -> int:
    """Numbers in the kernels of an MLP."""
    return sum(m * n for m, n in zip((input_width, *widths), widths, strict=False))


def unique_rows(workload: Workload, ids: np.ndarray) -> int:
    """Rows of all tables that a batch's ids [B, ids a row] touch."""
    return sum(len(np.unique(ids[:, columns])) for columns in workload.id_columns)
