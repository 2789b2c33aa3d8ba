"""RowSample: a uniform sample of rows of fixed size, for quantiles, histograms and drift of dense columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


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
