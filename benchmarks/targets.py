"""A number that was aimed at, and whether it was reached. Pure computation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Target:
    """One line of a report that ends in "met" or "not met", or says why it cannot be judged.

    Args:
        name: What is aimed at.
        value: What was measured; None where there is no number.
        at_least, at_most: The limit; one of them.
        unit: Follows the numbers.
        unknown_because: Why the value says nothing, such as a disturbed machine or a peer that is not installed.

    Raises:
        ValueError: Not exactly one limit.
    """

    name: str
    value: float | None
    at_least: float | None = None
    at_most: float | None = None
    unit: str = "×"
    unknown_because: str = ""

    def __post_init__(self) -> None:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError(f"target {self.name!r}: give at_least or at_most, one of them")

    @property
    def is_met(self) -> bool | None:
        """None where it cannot be judged."""
        if self.value is None or self.unknown_because:
            return None
        if self.at_least is not None:
            return self.value >= self.at_least
        assert self.at_most is not None
        return self.value <= self.at_most

    def __str__(self) -> str:
        limit = f">= {self.at_least:g}" if self.at_least is not None else f"<= {self.at_most:g}"
        met = self.is_met
        if met is None:
            return f"{self.name} {limit}{self.unit}: not judged ({self.unknown_because or 'no result'})"
        # A value that rounds to its limit must not look as if it had reached it.
        return f"{self.name} {limit}{self.unit}: {self.value:.3f}{self.unit}, {'met' if met else 'NOT met'}"
