"""The one interface between the engine and a placement of its rows.

See `docs/decisions/0001-engine-interface.md` for how parameter servers, all-to-all sharding, TPUEmbedding,
checkpoints and export use it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from tfdlrm.embeddings.planner import ShardingPlan, Stack


@dataclasses.dataclass(frozen=True, kw_only=True)
class IdGroup:
    """Ids of one or more features of one stack that are looked up and pooled together.

    `num_bags` = B * F_g bags, bag `b * F_g + f` being feature f of row b. Ids are rows of the *stack*, already
    checked against their table's range.

    Args:
        stack: index of the stack.
        ids: `[N]` int32 or int64.
        hotness: ids a bag where it is the same static number for all bags (then N = num_bags * hotness and ids
            are in bag order), else None.
        bag_index: `[N]`, the bag of each id, where `hotness` is None; else None.
        weights: `[N]` float32 per-id weights, or None for 1.
        num_bags: scalar.
        combiner: "sum", "mean" or "sqrtn".
    """

    stack: int
    ids: tf.Tensor
    hotness: int | None
    bag_index: tf.Tensor | None
    weights: tf.Tensor | None
    num_bags: tf.Tensor | int
    combiner: str


class RowGradients(NamedTuple):
    """Gradients of rows: ids `[N]` of one variable's rows (duplicates allowed) and `[N, width]` values."""

    ids: tf.Tensor
    values: tf.Tensor


class TableSlice(NamedTuple):
    """A contiguous piece of one logical array, for checkpoints: rows `[start, stop)` of `[total, width]`.

    `read(first, last)` gives rows `[start + first, start + last)`, `write(first, values)` overwrites rows from
    `start + first` on: both count from the slice's own first row. Values are float32, however rows are stored;
    `row_bytes` is what a row takes in memory. `device` is that of the process which holds the rows, or most of them,
    and shares the work of saving them; None for this one.
    """

    name: str
    total: int
    width: int
    start: int
    stop: int
    read: Any
    write: Any
    row_bytes: int
    device: str | None = None

    def ranges(self, num_bytes: int) -> Iterator[tuple[int, int]]:
        """Its rows `[start, stop)` of the logical array, at most `num_bytes` of float32 at a time, or one row."""
        rows = max(1, num_bytes // (self.width * 4))
        for start in range(self.start, self.stop, rows):
            yield start, min(start + rows, self.stop)


Gradients = Any
"""Gradients of a step as a nest of tensors, in whatever form the placement updates from."""

Residual = Any
"""What a placement keeps from a lookup for its update; opaque to everything else."""


class Placement(Protocol):
    """What the engine asks of a placement. All methods may be traced into a `tf.function`."""

    plan: ShardingPlan

    @property
    def home(self) -> str | None:
        """Device of the tables' own scalars; None for the one at hand."""

    @property
    def in_process(self) -> bool:
        """Whether this process holds all rows."""

    @property
    def takes_bags(self) -> bool:
        """Whether `lookup` wants `bags.BagGroup`s now, which need native kernels, rather than `IdGroup`s."""

    def build(self) -> None:
        """Creates rows, slots and pooling weights where they live, with their initial values."""

    def lookup(self, group: Any) -> tuple[tf.Tensor, Residual]:
        """Pooled vectors float32 and the residual. Empty bags give zeros.

        Args:
            group: an `IdGroup`, whose pooled vectors are `[num_bags, D]`; or, from a placement that `takes_bags`, a
                `bags.BagGroup`, whose pooled vectors are `[B, columns, D]`.
        """

    def lookup_all(self, groups: Sequence[Any]) -> list[tuple[tf.Tensor, Residual]]:
        """`lookup` of several groups, for a placement that can ask for all of them at once."""

    def gradients(self, pairs: list[tuple[Residual, tf.Tensor]]) -> Gradients:
        """Gradients of one replica's lookups.

        Args:
            pairs: (residual, gradient of the pooled vectors `[num_bags, D]`).
        """

    def merge(self, parts: list[Gradients]) -> Gradients:
        """The sum of several replicas' gradients."""

    def squared_norm(self, gradients: Gradients) -> tf.Tensor:
        """Sum of squares of the tables' gradients, duplicates summed first: for clipping by global norm."""

    def apply(
        self,
        gradients: Gradients,
        *,
        learning_rate: tf.Tensor | None,
        step: tf.Tensor,
        scale: tf.Tensor | None,
    ) -> None:
        """Updates each touched row once, with the sum over its duplicates and over what was held.

        Args:
            gradients: from `gradients` or `merge`.
            learning_rate: scalar for stacks whose optimizer has none of its own.
            step: int64 scalar, from 0.
            scale: scalar that multiplies every gradient (loss scale, clipping), or None for 1.
        """

    def prepare_holding(self) -> None:
        """Makes room for held gradients; called outside any graph."""

    def hold(self, gradients: Gradients) -> None:
        """Keeps gradients for the next `apply` (gradient accumulation)."""

    def slices(self) -> Iterator[TableSlice]:
        """Every row array and slot as contiguous slices of logical tables."""


def slot_arrays(stack: Stack) -> Mapping[str, tuple[int, float]]:
    """Slot name -> (width, initial value) of a stack's rows."""
    return {
        slot.name: (slot.width or stack.embedding_dim, slot.initial_value)
        for slot in (stack.optimizer.slots() if stack.trainable else ())
    }


def check_rows(name: str, values: np.ndarray, rows: int, width: int) -> None:
    """Refuses rows of another shape than the slice they are written to."""
    if tuple(values.shape) != (rows, width):
        raise ValueError(f"{name}: got rows of shape {tuple(values.shape)}, need {(rows, width)}.")
