"""The published algorithms on plain lists, one access after another: what the fast ones are compared with.

Hassan, Harris, Topham, Efthymiou, "Synthetic Trace-Driven Simulation of Cache Memory", AINAM 2007, with conventions of
facebookresearch/dlrm: distance 0 for a first access, 1 for the same id again at once.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import numpy as np


def profile(trace: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
    """The stack at the end (the top last), the distance of each access, ids in the order of first accesses."""
    stack: list[int] = []
    distances: list[int] = []
    first: list[int] = []
    for id_ in trace:
        if id_ in stack:
            place = stack.index(id_)
            distances.append(len(stack) - place)
            del stack[place]
        else:
            distances.append(0)
            first.append(id_)
        stack.append(id_)
    return stack, distances, first


def distribution(distances: Sequence[int], padding: bool = False) -> tuple[list[int], list[float]]:
    """The distances that occur, ascending, and the fraction of accesses up to each, added one by one."""
    padded = list(distances)
    if padding:
        padded += [0] * int(np.ceil(len(distances) / max(distances)))
    values = sorted(set(padded))
    cumulative: list[float] = []
    for value in values:
        fraction = padded.count(value) / float(len(padded))
        cumulative.append(fraction if not cumulative else cumulative[-1] + fraction)
    return values, cumulative


class DistanceDraws:
    """One distance after another from a distribution, by the legacy generator."""

    def __init__(self, values: Sequence[int], cumulative: Sequence[float], seed: int, padding: bool) -> None:
        self._values, self._cumulative, self._padding = list(values), list(cumulative), padding
        self._random = np.random.RandomState(seed)

    def draw(self, num_new: int) -> int:
        quantile = self._random.rand(1)[0]
        if num_new < self._values[-1]:
            quantile *= self._cumulative[bisect.bisect(self._values, num_new) - 1]
        elif self._padding:
            quantile = (1.0 - self._cumulative[0]) * quantile + self._cumulative[0]
        for value, fraction in zip(self._values, self._cumulative, strict=True):
            if quantile <= fraction:
                return value
        return self._values[-1]


def generate(
    lines: Sequence[int],
    values: Sequence[int],
    cumulative: Sequence[float],
    num_ids: int,
    *,
    seed: int,
    padding: bool,
    moves: bool,
) -> list[int]:
    """The generator `lru` (an id that was drawn moves to the end) or `rand` (only new ids do)."""
    draws = DistanceDraws(values, cumulative, seed, padding)
    ids = list(lines)
    num_new = 0
    trace = []
    for _ in range(num_ids):
        distance = draws.draw(num_new)
        if distance == 0:
            ids.append(ids.pop(0))
            num_new += 1
            trace.append(ids[-1])
        elif moves:
            ids.append(ids.pop(len(ids) - distance))
            trace.append(ids[-1])
        else:
            trace.append(ids[len(ids) - distance])
    return trace
