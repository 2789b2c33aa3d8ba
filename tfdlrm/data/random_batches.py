"""The reference's random batches (facebookresearch/dlrm, `--data-generation=random`), number for number.

The order of draws is part of the definition: dense values, then bag by bag of table after table (its length, if that
varies, and its ids), then labels, all from one legacy NumPy generator. It is therefore drawn bag by bag, and meant for
comparisons with the reference; `synthetic` is the fast generator.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np


@dataclass(frozen=True, kw_only=True)
class RandomBatch:
    """One batch of the reference's generator.

    Args:
        dense: float32 [B, num_dense], uniform in [0, 1).
        labels: float32 [B, 1].
        ids: by table, int64 [total], ascending and distinct within a bag (uniform ids).
        offsets: by table, int64 [B]; bag b is `ids[offsets[b]:offsets[b + 1]]`.
    """

    dense: np.ndarray
    labels: np.ndarray
    ids: tuple[np.ndarray, ...]
    offsets: tuple[np.ndarray, ...]


@dataclass(frozen=True, kw_only=True)
class RandomBatches:
    """Iterable of batches; each iteration begins at the seed again.

    A bag has `ids_per_bag` draws, or, where `fixed` is false, round(u * min(V, ids_per_bag)) of them, at least 1, with
    u uniform. A uniform draw is the id round(u * (V - 1)), of which duplicates in a bag are dropped; a gaussian draw is
    normal(mean, std), clipped to [minimum, maximum], of which duplicates are dropped before it is cut to an integer.

    Args:
        vocabulary_sizes: V of each table.
        num_dense: dense columns.
        batch_size: B.
        num_batches: batches an iteration.
        ids_per_bag: draws a bag, or the largest number of them.
        fixed: the number of draws does not vary.
        round_labels: labels are 0 or 1, and not uniform in [0, 1).
        distribution: of the ids.
        minimum, maximum: bounds of gaussian ids.
        mean, std: of gaussian ids; None for the middle of the bounds.
        seed: of the legacy generator.

    Raises:
        ValueError: a number is too small, or gaussian ids would be out of range of a table.

    Example:
        >>> batches = RandomBatches(vocabulary_sizes=(40, 9), num_dense=5, batch_size=8, num_batches=3, ids_per_bag=4)
        >>> len(next(iter(batches)).ids)
        2
    """

    vocabulary_sizes: Sequence[int]
    num_dense: int
    batch_size: int
    num_batches: int
    ids_per_bag: int
    fixed: bool = True
    round_labels: bool = True
    distribution: Literal["uniform", "gaussian"] = "uniform"
    minimum: float = 1.0
    maximum: float = 1.0
    mean: float | None = None
    std: float = 1.0
    seed: int = 123

    def __post_init__(self) -> None:
        for name in ("batch_size", "num_batches", "ids_per_bag"):
            if getattr(self, name) < 1:
                raise ValueError(f"RandomBatches: {name}={getattr(self, name)} is too small. Give 1 or more.")
        if self.distribution not in ("uniform", "gaussian"):
            raise ValueError(
                f"RandomBatches: distribution={self.distribution!r} is not known. Use uniform or gaussian."
            )
        smallest = min(self.vocabulary_sizes)
        if self.distribution == "gaussian" and not 0 <= self.minimum <= self.maximum < smallest:
            raise ValueError(
                f"RandomBatches: minimum={self.minimum} and maximum={self.maximum} are not within [0, {smallest}), "
                "the smallest table. Give bounds that are rows of every table."
            )

    def __iter__(self) -> Iterator[RandomBatch]:
        generator = np.random.RandomState(self.seed)
        for _ in range(self.num_batches):
            dense = generator.rand(self.batch_size, self.num_dense).astype(np.float32)
            tables = [self._draw_table(generator, size) for size in self.vocabulary_sizes]
            labels = generator.rand(self.batch_size, 1).astype(np.float32)
            yield RandomBatch(
                dense=dense,
                labels=np.round(labels) if self.round_labels else labels,
                ids=tuple(np.concatenate(bags) for bags in tables),
                offsets=tuple(np.cumsum([0, *(len(bag) for bag in bags[:-1])], dtype=np.int64) for bags in tables),
            )

    def _draw_table(self, generator: np.random.RandomState, size: int) -> list[np.ndarray]:
        return [self._draw_bag(generator, size) for _ in range(self.batch_size)]

    def _draw_bag(self, generator: np.random.RandomState, size: int) -> np.ndarray:
        num_draws = self.ids_per_bag
        if not self.fixed:
            num_draws = int(np.round(max(1.0, generator.random_sample() * min(size, self.ids_per_bag))))
        if self.distribution == "uniform":
            return np.unique(np.round(generator.random_sample(num_draws) * (size - 1)).astype(np.int64))
        mean = (self.minimum + self.maximum) / 2 if self.mean is None else self.mean
        draws = np.clip(generator.normal(mean, self.std, num_draws), self.minimum, self.maximum)
        return np.unique(draws).astype(np.int64)
