"""The reference's random batches (facebookresearch/dlrm, `--data-generation=random`), number for number.

The order of draws is part of the definition: dense values, then bag by bag of table after table (its length, if that
varies, and its ids), then labels, all from one legacy NumPy generator. Whole tables are drawn at once where that gives
the same numbers: everywhere but for gaussian ids in bags that vary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tfdlrm.checks import quoted


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
                f"RandomBatches: distribution={quoted(self.distribution)} is not known. Use uniform or gaussian."
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
                ids=tuple(ids for ids, _ in tables),
                offsets=tuple(offsets for _, offsets in tables),
            )

    def _draw_table(self, generator: np.random.RandomState, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids of all bags, one after another, and where each begins."""
        whole = size if self.distribution == "uniform" else None
        if self.fixed:
            draws = self._draws(generator, size, self.batch_size * self.ids_per_bag)
            return _distinct(draws, np.full(self.batch_size, self.ids_per_bag), whole)
        if self.distribution == "uniform":
            return _distinct(*self._uniform_bags(generator, size), whole)
        # the legacy generator makes normal numbers in pairs, so that lengths and ids cannot be drawn at once
        bags = []
        for _ in range(self.batch_size):
            length = np.round(max(1.0, generator.random_sample() * min(size, self.ids_per_bag)))
            bags.append(self._draws(generator, size, int(length)))
        return _distinct(np.concatenate(bags), np.array([len(bag) for bag in bags]), None)

    def _draws(self, generator: np.random.RandomState, size: int, count: int) -> np.ndarray:
        """float64 [count], not yet distinct, nor cut to integers."""
        if self.distribution == "uniform":
            return np.round(generator.random_sample(count) * (size - 1))
        mean = (self.minimum + self.maximum) / 2 if self.mean is None else self.mean
        return np.clip(generator.normal(mean, self.std, count), self.minimum, self.maximum)

    def _uniform_bags(self, generator: np.random.RandomState, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Draws of all bags and the number in each: a bag's length is one draw, its ids are those that follow."""
        longest = min(size, self.ids_per_bag)
        state = generator.get_state()
        stream = generator.random_sample(self.batch_size * (1 + longest))
        # as if every number of the stream were a length; those that are follow from each other
        lengths_at = np.maximum(1, np.round(stream * longest)).astype(np.int64)
        jumps: list[int] = lengths_at.tolist()
        places: list[int] = []
        place = 0
        for _ in range(self.batch_size):
            places.append(place)
            place += 1 + jumps[place]
        generator.set_state(state)
        generator.random_sample(place)  # the next table goes on behind the last number used
        is_id = np.ones(place, bool)
        is_id[places] = False
        return np.round(stream[:place][is_id] * (size - 1)), lengths_at[places]


def _distinct(draws: np.ndarray, lengths: np.ndarray, size: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Each bag's draws ascending and without duplicates, as int64, and where each bag begins.

    Args:
        draws: float64, bag after bag.
        lengths: of the bags.
        size: draws are whole numbers below this; None where they are any numbers.
    """
    rows = np.repeat(np.arange(len(lengths)), lengths)
    if size is not None:
        # one number for bag and id sorts several times faster than the two
        keys = np.sort(rows * size + draws.astype(np.int64))
        is_first = np.ones(len(keys), bool)
        is_first[1:] = keys[1:] != keys[:-1]
        rows, ids = np.divmod(keys[is_first], size)
    else:
        if len(draws) == len(lengths) * lengths[0] and (lengths == lengths[0]).all():
            ordered = np.sort(draws.reshape(len(lengths), -1), axis=1).ravel()
        else:
            ordered = draws[np.lexsort((draws, rows))]
        is_first = np.ones(len(draws), bool)
        is_first[1:] = (ordered[1:] != ordered[:-1]) | (rows[1:] != rows[:-1])
        rows, ids = rows[is_first], ordered[is_first].astype(np.int64)
    kept = np.bincount(rows, minlength=len(lengths))
    return ids, np.cumsum(kept) - kept
