"""Statistics of a dense column: exact moments and bounds of all rows, quantiles and histogram of a sample."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfdlrm.data.inspect.id_stats import CountTable, IdCounts
from tfdlrm.data.inspect.report import DenseStats, Histogram, TopValue
from tfdlrm.data.polars_extra import pl
from tfdlrm.schema import DenseColumn


class RowSample:
    """Keeps the rows with the smallest random keys (bottom-k sampling); all rows while they fit.

    The rows of several samples that have the smallest keys of all are a uniform sample of all their rows.
    A quantile of a sample of n rows has a rank error of about sqrt(q (1 - q) / n): 0.1 % at n = 262,144.

    Args:
        capacity: rows kept.
        num_columns: numbers a row.
        random: source of the keys.
    """

    def __init__(self, capacity: int, num_columns: int, random: np.random.Generator) -> None:
        self._capacity = capacity
        self._random = random
        self._keys = np.zeros(0)
        self._rows = np.zeros((0, num_columns))
        self._pending: list[tuple[np.ndarray, np.ndarray]] = []
        self._num_pending = 0
        self._threshold = 1.0
        self.seen = 0

    def add(self, rows: np.ndarray) -> None:
        """Offer rows, float64 [n, columns]."""
        keys = self._random.random(len(rows))
        self.seen += len(rows)
        chosen = keys < self._threshold
        self._pending.append((keys[chosen], rows[chosen]))
        self._num_pending += int(chosen.sum())
        if self._num_pending > self._capacity:
            self._merge()

    def rows(self) -> np.ndarray:
        """float64 [k, columns], k the smaller of capacity and rows seen."""
        self._merge()
        return self._rows

    @property
    def complete(self) -> bool:
        """Whether every row seen is kept."""
        return self.seen <= self._capacity

    @classmethod
    def merged(cls, samples: Sequence[RowSample]) -> RowSample:
        """A sample of the rows of all samples, which have one capacity."""
        for sample in samples:
            sample._merge()
        first = samples[0]
        whole = cls(first._capacity, first._rows.shape[1], first._random)
        whole._pending = [(sample._keys, sample._rows) for sample in samples]
        whole.seen = sum(sample.seen for sample in samples)
        whole._merge()
        return whole

    def _merge(self) -> None:
        keys = np.concatenate([self._keys, *(keys for keys, _ in self._pending)])
        rows = np.concatenate([self._rows, *(rows for _, rows in self._pending)])
        self._pending, self._num_pending = [], 0
        if len(keys) > self._capacity:
            kept = np.argpartition(keys, self._capacity - 1)[: self._capacity]
            keys, rows = keys[kept], rows[kept]
            self._threshold = float(keys.max())
        self._keys, self._rows = keys, rows


# Distinct values counted; a column of more is taken for a continuous one, whose frequent values a sample shows.
MAX_DENSE_DISTINCT = 100_000
QUANTILES = {"1%": 0.01, "25%": 0.25, "50%": 0.5, "75%": 0.75, "99%": 0.99}

_NUM_TOP = 5
_NUM_BINS = 30


class DenseTally:
    """What is known of every row of a dense column.

    Args:
        num_parts: parts counted apart.
        num_tasks: labels.

    Attributes:
        rows, present: rows, and those whose cell is not empty.
        mean, m2: of present values, and the sum of squared deviations from it.
        low, high: float64 [tasks, 2], bounds of the present values of rows with label 0 and 1.
        present_by_label, missing_by_label: int64 [tasks, 2].
        same, opposite: bool [tasks], every present value is the label, or 1 - label.
    """

    def __init__(self, num_parts: int, num_tasks: int) -> None:
        self.rows = self.present = 0
        self.mean = self.m2 = 0.0
        self.minimum, self.maximum = np.inf, -np.inf
        self.low = np.full((num_tasks, 2), np.inf)
        self.high = np.full((num_tasks, 2), -np.inf)
        self.present_by_label = np.zeros((num_tasks, 2), np.int64)
        self.missing_by_label = np.zeros((num_tasks, 2), np.int64)
        self.same = np.ones(num_tasks, bool)
        self.opposite = np.ones(num_tasks, bool)
        self._counts: IdCounts | None = IdCounts(num_parts=num_parts, num_tasks=num_tasks, limit=MAX_DENSE_DISTINCT)

    def add(self, part: int, values: np.ndarray, labels: np.ndarray) -> None:
        """Take in a block.

        Args:
            part: number of the part.
            values: float64 [N], NaN where the cell is empty.
            labels: float32 [N, tasks].
        """
        self.rows += len(values)
        there = ~np.isnan(values)
        for task in range(labels.shape[1]):
            for label in (0, 1):
                rows = labels[:, task] == label
                found = values[rows & there]
                self.present_by_label[task, label] += len(found)
                self.missing_by_label[task, label] += np.count_nonzero(rows & ~there)
                if len(found):
                    low, high = found.min(), found.max()
                    self.low[task, label] = min(self.low[task, label], low)
                    self.high[task, label] = max(self.high[task, label], high)
                    self.same[task] &= low == high == label
                    self.opposite[task] &= low == high == 1 - label
        values, labels = values[there], labels[there]
        if not len(values):
            return
        self._add_moments(values)
        if self._counts is not None:
            self._counts.add(part, pl.Series(values), labels)
            if not self._counts.exact:
                self._counts = None

    def table(self) -> CountTable | None:
        """Every distinct value, None if there are more than `MAX_DENSE_DISTINCT`."""
        if self._counts is None:
            return None
        table = self._counts.table()
        return table if table.exact else None

    def _add_moments(self, values: np.ndarray) -> None:
        # Chan, Golub and LeVeque 1979: exact for any sizes of the two sets
        num, mean = len(values), float(values.mean())
        m2 = float(np.square(values - mean).sum())
        total = self.present + num
        shift = mean - self.mean
        self.m2 += m2 + shift * shift * self.present * num / total
        self.mean += shift * num / total
        self.present = total
        self.minimum = min(self.minimum, float(values.min()))
        self.maximum = max(self.maximum, float(values.max()))


def dense_stats(
    column: DenseColumn, tally: DenseTally, samples: dict[str, np.ndarray], whole: np.ndarray, *, sampled: bool
) -> DenseStats:
    """The statistics of one column.

    Args:
        column: the column.
        tally: of all rows.
        samples: part -> float64, its cells in sampled rows, NaN where empty.
        whole: the same for all parts together.
        sampled: whether `whole` is not every row.
    """
    values = whole[~np.isnan(whole)]
    table = tally.table()
    quantiles = {}
    if tally.present:
        inner = np.quantile(values, list(QUANTILES.values())) if len(values) else []
        quantiles = {"min": tally.minimum, **dict(zip(QUANTILES, map(float, inner), strict=False))}
        quantiles["max"] = tally.maximum
    return DenseStats(
        name=column.name,
        missing_rate=1.0 - tally.present / tally.rows if tally.rows else None,
        distinct=MAX_DENSE_DISTINCT if table is None else table.distinct,
        exact_counts=table is not None,
        top=_top_of_sample(values, tally.present) if table is None else _top_of_table(table, tally.present),
        mean=tally.mean if tally.present else None,
        std=float(np.sqrt(tally.m2 / tally.present)) if tally.present else None,
        quantiles=quantiles,
        sampled=sampled,
        histogram=_histogram(column, values, samples),
    )


def number_text(value: float) -> str:
    """A number as people write it, with nine digits where it needs them."""
    return f"{value:.9g}"


def _top_of_table(table: CountTable, present: int) -> tuple[TopValue, ...]:
    totals = table.totals[:_NUM_TOP]
    return tuple(
        TopValue(value=number_text(float(value)), count=int(count), share=count / present)
        for value, count in zip(table.tokens[:_NUM_TOP], totals.tolist(), strict=True)
    )


def _top_of_sample(values: np.ndarray, present: int) -> tuple[TopValue, ...]:
    found, counts = np.unique(values, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:_NUM_TOP]
    return tuple(
        TopValue(
            value=number_text(float(found[place])),
            count=round(int(counts[place]) / len(values) * present),
            share=int(counts[place]) / len(values),
        )
        for place in order
    )


def _histogram(column: DenseColumn, values: np.ndarray, samples: dict[str, np.ndarray]) -> Histogram | None:
    if not len(values):
        return None
    # a column of this transform is skewed: its model sees the logarithm
    scale = "log1p" if column.transform == "log1p" and values.max() > 1.0 else "linear"

    def scaled(cells: np.ndarray) -> np.ndarray:
        cells = cells[~np.isnan(cells)]
        return np.log1p(np.maximum(cells, 0.0)) if scale == "log1p" else cells

    low, high = np.quantile(scaled(values), [0.01, 0.99])
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, _NUM_BINS + 1)
    shares: dict[str, tuple[float, ...]] = {}
    for part, sample in samples.items():
        cells = scaled(sample)
        if len(cells):
            counts, _ = np.histogram(np.clip(cells, low, high), edges)
            shares[part] = tuple((counts / len(cells)).tolist())
    return Histogram(scale=scale, edges=tuple(edges.tolist()), shares=shares)
