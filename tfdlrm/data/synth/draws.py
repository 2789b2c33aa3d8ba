"""The inputs of synthetic rows: ids by a power law that moves by days, bags, dense columns, empty cells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tfdlrm.config.data import SyntheticConfig
from tfdlrm.data.columns import RaggedColumn
from tfdlrm.data.power_law import PowerLaw
from tfdlrm.data.teacher import Bags

# Drift is counted in these: the ranks that get most draws. Half of Criteo's clicks are on so many ids or fewer.
NUM_HOT_IDS = 1000


@dataclass(frozen=True)
class DayBounds:
    """Contiguous days of equal size, the first get the remainder.

    Args:
        num_rows: rows of all days.
        num_days: days.

    Example:
        >>> [DayBounds(7, 3).rows(day) for day in range(3)]
        [(0, 3), (3, 5), (5, 7)]
    """

    num_rows: int
    num_days: int

    def rows(self, day: int) -> tuple[int, int]:
        """First row of a day, and the one after its last."""
        whole, rest = divmod(self.num_rows, self.num_days)
        start = day * whole + min(day, rest)
        return start, start + whole + (day < rest)

    def day_of(self, row: int) -> int:
        """The day of a row; the last day for rows beyond the end."""
        whole, rest = divmod(self.num_rows, self.num_days)
        long_rows = rest * (whole + 1)
        day = row // (whole + 1) if row < long_rows else rest + (row - long_rows) // whole
        return min(day, self.num_days - 1)

    def parts(self, start: int, stop: int) -> Iterator[tuple[int, slice]]:
        """(day, rows of it counted from `start`) of the rows [start, stop), in order."""
        row = start
        while row < stop:
            day = self.day_of(row)
            end = stop if day == self.num_days - 1 else min(stop, self.rows(day)[1])
            yield day, slice(row - start, end - start)
            row = end


@dataclass(frozen=True)
class TableDays:
    """The ids of one table over the days.

    The law draws a rank below `num_warm`; on day d that rank is the id (rank + d * step) mod num_warm. Above the warm
    ids stand pools of equal size, one for each day but the first: the ids that are new on it.

    Args:
        vocabulary_size: V.
        num_days: days.
        drift: see `SyntheticConfig`.
        has_cold_ids: whether pools are kept.

    Example:
        >>> table = TableDays(100, 5, 0.1, True)
        >>> table.num_warm, table.step, table.pool(1), table.pool(4)
        (60, 6, (60, 70), (90, 100))
    """

    vocabulary_size: int
    num_days: int
    drift: float
    has_cold_ids: bool

    @property
    def pool_size(self) -> int:
        """New ids of a day; all pools together are less than half of the table."""
        return self.vocabulary_size // (2 * self.num_days) if self.has_cold_ids else 0

    @property
    def num_warm(self) -> int:
        """Ids that the law draws from."""
        return self.vocabulary_size - (self.num_days - 1) * self.pool_size

    @property
    def step(self) -> int:
        """How far hot ids move from a day to the next; at least 1 if they do."""
        return max(1, round(self.drift * min(self.num_warm, NUM_HOT_IDS))) if self.drift else 0

    def pool(self, day: int) -> tuple[int, int]:
        """First new id of a day, and the one after its last."""
        start = self.num_warm + (day - 1) * self.pool_size
        return start, start + self.pool_size

    def ids(self, ranks: np.ndarray, day: int) -> np.ndarray:
        """The ids that ranks (any shape, below num_warm) have on a day; a new array."""
        shift = day * self.step % self.num_warm
        # subtracting first: the sum of two ids may not fit their dtype
        ids = ranks.astype(np.int64 if self.vocabulary_size > np.iinfo(np.int32).max else ranks.dtype)
        ids -= self.num_warm - shift
        ids[ids < 0] += self.num_warm
        return ids


# Dense columns take one of so many equally likely values: drawing is then one table look-up.
NUM_QUANTILES = 2**16


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Drawn inputs of n rows.

    Args:
        bags: by column, ranks of ids: [n, H], or ragged.
        dense: float32 [num_dense, n], transformed.
        empty_bags: by column, bool [n], the cell is empty; None where no cell is.
        empty_dense: bool [num_dense, n]; None where no cell is empty.
    """

    bags: list[Bags]
    dense: np.ndarray
    empty_bags: list[np.ndarray] | None
    empty_dense: np.ndarray | None


def draw_inputs(
    config: SyntheticConfig,
    laws: list[PowerLaw],
    quantiles: np.ndarray,
    generator: np.random.Generator,
    follow_generator: np.random.Generator,
    num_rows: int,
) -> Inputs:
    """The inputs of `num_rows` rows.

    An empty categorical cell reads as rank 0, or as an empty bag where lengths vary; an empty dense cell as 0.

    Args:
        config: lengths, fractions.
        laws: one a categorical column.
        quantiles: float32 [num_dense, NUM_QUANTILES].
        generator: draws everything but correlations.
        follow_generator: draws which rows have a correlated id, so that the other draws are the same without.
        num_rows: n.
    """
    missing = config.missing_fraction
    bags: list[Bags] = []
    empty_bags: list[np.ndarray] = []
    shapes = zip(laws, config.hotness_per_feature, config.ragged_per_feature, strict=True)
    for law, hotness, ragged in shapes:
        if ragged:
            lengths = _draw_lengths(config, hotness, generator, num_rows)
            empty = generator.random(num_rows, dtype=np.float32) < missing if missing else None
            if empty is not None:
                lengths[empty] = 0
            bags.append(_ragged(law.draw(generator, int(lengths.sum())), lengths))
        else:
            ranks = law.draw(generator, num_rows * hotness).reshape(num_rows, hotness)
            empty = generator.random(num_rows, dtype=np.float32) < missing if missing else None
            if empty is not None:
                ranks[empty] = 0
            bags.append(ranks)
        if empty is not None:
            empty_bags.append(empty)
    if config.correlation:
        _follow(config.correlation, bags, laws, empty_bags, follow_generator)
    dense = np.empty((config.num_dense, num_rows), np.float32)
    empty_dense = np.empty((config.num_dense, num_rows), bool) if missing else None
    for column in range(config.num_dense):
        picks = generator.integers(0, NUM_QUANTILES, num_rows, dtype=np.uint16)
        np.take(quantiles[column], picks, out=dense[column], mode="clip")  # "raise" makes a copy first
        if empty_dense is not None:
            np.less(generator.random(num_rows, dtype=np.float32), missing, out=empty_dense[column])
            dense[column, empty_dense[column]] = 0.0
    return Inputs(bags=bags, dense=dense, empty_bags=empty_bags or None, empty_dense=empty_dense)


def _draw_lengths(config: SyntheticConfig, hotness: int, generator: np.random.Generator, num_rows: int) -> np.ndarray:
    """int64 [num_rows]."""
    if config.hotness_distribution == "uniform":
        return generator.integers(0, hotness + 1, num_rows)
    # NumPy counts trials, from 1; of the failures before a success of probability p, 1/p - 1 are expected
    return generator.geometric(1.0 / (1.0 + hotness), num_rows) - 1


def _ragged(values: np.ndarray, lengths: np.ndarray) -> RaggedColumn:
    return RaggedColumn(values=values, row_splits=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def _follow(
    fraction: float,
    bags: list[Bags],
    laws: list[PowerLaw],
    empty_bags: list[np.ndarray],
    generator: np.random.Generator,
) -> None:
    """Replaces the first rank of some bags by that of the column before, modulo the number of ranks; in place."""
    sources, has_source = _first_ranks(bags[0])
    for column in range(1, len(bags)):
        bag = bags[column]
        rows = (generator.random(len(sources), dtype=np.float32) < fraction) & has_source
        if isinstance(bag, RaggedColumn):
            starts = bag.row_splits[:-1]
            rows &= bag.row_splits[1:] > starts
            bag.values[starts[rows]] = sources[rows] % np.int64(laws[column].vocabulary_size)
        else:
            if empty_bags:
                rows &= ~empty_bags[column]
            bag[rows, 0] = sources[rows] % np.int64(laws[column].vocabulary_size)
        sources, has_source = _first_ranks(bag)


def _first_ranks(bag: Bags) -> tuple[np.ndarray, np.ndarray]:
    """[n] the first rank of each bag (0 where there is none), and bool [n] whether there is one."""
    if not isinstance(bag, RaggedColumn):
        return bag[:, 0], np.ones(len(bag), bool)
    present = bag.row_splits[1:] > bag.row_splits[:-1]
    first = np.zeros(bag.num_rows, bag.values.dtype)
    first[present] = bag.values[bag.row_splits[:-1][present]]
    return first, present
