"""The highest rate of queries that a scorer holds, by bisection. Pure: what a probe does is the caller's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

STEP = 1.4


class Probed(Protocol):
    """What a probe found: `serving_load.LoadResult`."""

    @property
    def passes(self) -> bool:
        """Whether the rate was held."""
        ...


@dataclass(frozen=True, kw_only=True)
class Search:
    """Probes in the order they were made, and the highest rate that passed; None where none did."""

    probes: tuple[tuple[float, Probed], ...]

    @property
    def best(self) -> tuple[float, Probed] | None:
        return max((each for each in self.probes if each[1].passes), key=lambda each: each[0], default=None)


def highest_passing_rate(
    probe: Callable[[float], Probed], *, first: float, tolerance: float = 0.05, most_probes: int = 9
) -> Search:
    """Goes up or down in steps until one rate passes and one does not, then halves the ratio between the two.

    Args:
        probe: rate -> what happened.
        first: rate to begin with.
        tolerance: stop where the lowest that failed is within this share of the highest that passed.
        most_probes: stop after so many.

    Raises:
        ValueError: a rate or a limit is not positive.
    """
    if first <= 0 or tolerance <= 0 or most_probes < 1:
        raise ValueError(f"first={first}, tolerance={tolerance}, most_probes={most_probes} must be positive.")
    probes: list[tuple[float, Probed]] = []
    low, high, rate = 0.0, float("inf"), first
    while len(probes) < most_probes and not (low and high <= low * (1 + tolerance)):
        found = probe(rate)
        probes.append((rate, found))
        if found.passes:
            low = max(low, rate)
        else:
            high = min(high, rate)
        rate = next_rate(low, high)
    return Search(probes=tuple(probes))


def next_rate(low: float, high: float) -> float:
    """Where to probe: the geometric middle, or a step beyond the one that is known."""
    if not low:
        return high / STEP
    return low * STEP if high == float("inf") else (low * high) ** 0.5
