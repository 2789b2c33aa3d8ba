"""Statistics of a categorical column: how many ids, and how the occurrences spread over them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tfdlrm.data.inspect.id_counts import CountTable, IdCounts
from tfdlrm.data.inspect.report import IdStats, TopValue
from tfdlrm.data.raw_rows import Tokens

_NUM_TOP = 10
_CURVE_POINTS = 60


class IdTally:
    """What is known of every row of a categorical column.

    Args:
        num_parts: parts counted apart.
        num_tasks: labels.
        max_distinct: distinct ids counted exactly.
    """

    def __init__(self, num_parts: int, num_tasks: int, max_distinct: int) -> None:
        self.counts = IdCounts(num_parts=num_parts, num_tasks=num_tasks, limit=max_distinct)
        self._rows = self._empty = 0
        self._shortest: int | None = None
        self._longest = 0

    def add(self, part: int, tokens: Tokens, empty: np.ndarray, labels: np.ndarray) -> None:
        """Take in a block.

        Args:
            part: number of the part.
            tokens: ids of N rows.
            empty: bool [N].
            labels: float32 [N, tasks].
        """
        self._rows += len(empty)
        self._empty += int(np.count_nonzero(empty))
        if tokens.lengths is not None:
            labels = np.repeat(labels, tokens.lengths, axis=0)
            if len(tokens.lengths):
                low, high = int(tokens.lengths.min()), int(tokens.lengths.max())
                self._shortest = low if self._shortest is None else min(self._shortest, low)
                self._longest = max(self._longest, high)
        self.counts.add(part, tokens.values, labels)

    def stats(self, name: str, table: CountTable, names: Callable[[list[object]], list[str]]) -> IdStats:
        """The statistics.

        Args:
            name: the column.
            table: of `counts`.
            names: how ids are written.
        """
        occurrences = int(self.counts.occurrences.sum())
        totals = table.totals
        bags = None
        if self._shortest is not None:
            bags = (self._shortest, occurrences / self._rows, self._longest)
        return IdStats(
            name=name,
            missing_rate=self._empty / self._rows if self._rows else None,
            occurrences=occurrences,
            distinct=table.distinct,
            exact=table.exact,
            relative_error=table.relative_error,
            top=_top(table, totals, occurrences, names),
            top_1_share=head_share(table, occurrences, 0.01),
            top_10_share=head_share(table, occurrences, 0.10),
            once_ids=table.once / table.distinct if table.distinct else None,
            once_share=table.once / occurrences if occurrences else None,
            curve=_curve(table, totals),
            bag_length=bags,
        )


def head_share(table: CountTable, occurrences: int, fraction: float) -> float | None:
    """Occurrences of the most frequent ids / all.

    Args:
        table: ids in falling order of count.
        occurrences: of all ids.
        fraction: of the distinct ids, rounded up to whole ones.
    """
    if not occurrences:
        return None
    # 0.1 * 30 is a little above 3 in binary
    num_ids = math.ceil(round(fraction * table.distinct, 6))
    before = np.cumsum(table.weights) - table.weights
    taken = np.clip(num_ids - before, 0.0, table.weights)
    return min(1.0, float((taken * table.totals).sum()) / occurrences)


def _top(
    table: CountTable, totals: np.ndarray, occurrences: int, names: Callable[[list[object]], list[str]]
) -> tuple[TopValue, ...]:
    ids = table.tokens[:_NUM_TOP].to_list()
    return tuple(
        TopValue(value=value, count=count, share=count / occurrences, undercount=undercount)
        for value, count, undercount in zip(
            names(ids), totals[:_NUM_TOP].tolist(), table.undercounts[:_NUM_TOP].tolist(), strict=True
        )
    )


def _curve(table: CountTable, totals: np.ndarray) -> tuple[tuple[int, int], ...]:
    if not len(totals):
        return ()
    ends = np.cumsum(table.weights)
    ranks = np.unique(np.geomspace(1, max(1, table.distinct), _CURVE_POINTS).round().astype(np.int64))
    places = np.minimum(np.searchsorted(ends, ranks - 0.5), len(totals) - 1)
    return tuple(zip(ranks.tolist(), totals[places].tolist(), strict=True))
