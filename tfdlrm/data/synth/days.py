"""Days of a synthetic dataset: which rows they have, where hot ids have moved to, and which ids are new."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

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
