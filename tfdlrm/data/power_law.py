"""Power-law ids at speed: id k of V with probability proportional to (k + 1)^-a."""

from __future__ import annotations

import numpy as np

# Ids whose probabilities are summed exactly; beyond, neighbouring ids are nearly equally likely and the continuous
# law stands in for them.
NUM_EXACT_IDS = 2**13

# The unit interval in so many cells; a cell that lies within one id needs no search. 256 kB: the table stays in
# the processor's second-level cache.
_NUM_CELLS = 2**16
_SEARCH = -1


class PowerLaw:
    """Draws ids by inverting the distribution function, most of them with one table look-up.

    In the tail, id k has the probability of [k + 1/2, k + 3/2) under the density x^-a.

    Args:
        vocabulary_size: V.
        exponent: a; 0 is uniform.

    Example:
        >>> PowerLaw(1000, 1.05).draw(np.random.default_rng(0), 3).dtype
        dtype('int32')
    """

    def __init__(self, vocabulary_size: int, exponent: float) -> None:
        self.vocabulary_size = vocabulary_size
        self.exponent = exponent
        self.num_exact = min(vocabulary_size, NUM_EXACT_IDS)
        weights = np.arange(1, self.num_exact + 1, dtype=np.float64) ** -exponent
        tail = self._integral(self.num_exact + 0.5, vocabulary_size + 0.5)
        total = weights.sum() + tail
        # of each of the first ids, in a draw from all V
        self.head_probabilities = weights / total
        self._cumulative = np.cumsum(self.head_probabilities)
        if not tail:
            self._cumulative[-1] = 1.0  # and not a rounding error below, where there would be no id
        # the id at the lower edge of each cell, num_exact where the tail has begun
        edges = np.searchsorted(self._cumulative, np.arange(_NUM_CELLS) / _NUM_CELLS, side="right")
        dtype = np.int32 if vocabulary_size < 2**31 else np.int64
        self._first = np.minimum(edges, self.num_exact).astype(dtype)
        upper = np.append(self._first[1:], self.num_exact if tail else self.num_exact - 1)
        self._cells = np.where((self._first == upper) & (upper < self.num_exact), self._first, _SEARCH).astype(dtype)

    def draw(self, generator: np.random.Generator, size: int) -> np.ndarray:
        """[size] ids, int32 (int64 if V needs it)."""
        cells = generator.integers(0, _NUM_CELLS, size, dtype=np.uint16)
        ids = np.take(self._cells, cells, mode="clip")  # no cell is beyond the table, and "raise" would look for it
        searched = np.flatnonzero(ids == _SEARCH)
        if len(searched):
            cells = np.take(cells, searched)
            quantiles = (cells + generator.random(len(searched))) / _NUM_CELLS
            ids[searched] = self._search(np.take(self._first, cells), quantiles)
        return ids

    def _search(self, ids: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
        """Invert the distribution function, upwards from the first id of the quantile's cell."""
        behind = np.flatnonzero(ids < self.num_exact)
        while len(behind):
            behind = behind[np.take(self._cumulative, np.take(ids, behind)) <= np.take(quantiles, behind)]
            ids[behind] += 1
            behind = behind[np.take(ids, behind) < self.num_exact]
        tail = np.flatnonzero(ids == self.num_exact)
        start = self._cumulative[-1]
        ids[tail] = self._invert_tail((np.take(quantiles, tail) - start) / (1.0 - start))
        return ids

    def _invert_tail(self, quantiles: np.ndarray) -> np.ndarray:
        low, high, power = self.num_exact + 0.5, self.vocabulary_size + 0.5, 1.0 - self.exponent
        if abs(power) < 1e-9:
            x = low * np.exp(quantiles * np.log(high / low))
        else:
            # exp(log) rather than a power: NumPy has vector instructions for these two
            x = np.exp(np.log(low**power + quantiles * (high**power - low**power)) / power)
        # rounding of the last bit may step over either end
        return np.clip((x + 0.5).astype(np.int64) - 1, self.num_exact, self.vocabulary_size - 1)

    def _integral(self, low: float, high: float) -> float:
        """Of x^-a over [low, high]."""
        power = 1.0 - self.exponent
        if abs(power) < 1e-9:
            return float(np.log(high / low))
        return float((high**power - low**power) / power)
