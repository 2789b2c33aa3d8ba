"""TraceProfile: what a stream of ids looks like to a cache, in the reference's form."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfdlrm.array_files import read_arrays
from tfdlrm.checks import quoted
from tfdlrm.data.atomic_files import atomic_path
from tfdlrm.data.trace.files import format_numbers, parse_numbers
from tfdlrm.data.trace.stack_distance import check_ids, first_accesses, stack_distances

ARRAYS_SUFFIX = ".npz"


@dataclass(frozen=True, kw_only=True)
class TraceProfile:
    """The different ids of a trace and the distribution of its stack distances.

    Args:
        lines: int64 [unique], the different ids in the order of first accesses.
        distances: int64 [k], the distances that occur, ascending; the first is 0, that of first accesses.
        cumulative: float64 [k], the fraction of accesses with a distance up to each.

    Raises:
        ValueError: the arrays cannot be those of a trace.
    """

    lines: np.ndarray
    distances: np.ndarray
    cumulative: np.ndarray

    def __post_init__(self) -> None:
        if not len(self.lines) or not len(self.distances) or len(self.distances) != len(self.cumulative):
            raise ValueError(
                f"TraceProfile: {len(self.lines)} lines, {len(self.distances)} distances and {len(self.cumulative)} "
                "cumulative fractions. Give at least one line, and as many fractions as distances."
            )
        if self.distances[0] != 0 or (np.diff(self.distances) <= 0).any() or self.distances[-1] > len(self.lines):
            raise ValueError(
                f"TraceProfile: distances from {self.distances[0]} to {self.distances[-1]} for "
                f"{len(self.lines)} lines. "
                "They must begin with 0, ascend, and not be above the number of lines."
            )
        if not self.cumulative[0] > 0 or (np.diff(self.cumulative) < 0).any() or abs(self.cumulative[-1] - 1) > 1e-6:
            raise ValueError(
                f"TraceProfile: cumulative fractions from {self.cumulative[0]} to {self.cumulative[-1]}. "
                "They must be above 0, never fall, and end with 1."
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes `.npz`, or the reference's text: a line of each array, with commas."""
        file = Path(path)
        with atomic_path(file) as partial, partial.open("wb") as stream:
            if file.suffix == ARRAYS_SUFFIX:
                np.savez(stream, lines=self.lines, distances=self.distances, cumulative=self.cumulative)
            else:
                for numbers in (self.lines, self.distances, self.cumulative):
                    stream.write(format_numbers(numbers).encode() + b"\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TraceProfile:
        """Reads what `save` or the reference wrote.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is no profile; the file is named.
        """
        file = Path(path)
        if not file.is_file():
            raise FileNotFoundError(f"{file}: there is no such file (a profile is expected). Make it: trace profile.")
        try:
            if file.suffix == ARRAYS_SUFFIX:
                arrays = read_arrays(file)
                missing = [name for name in ("lines", "distances", "cumulative") if name not in arrays]
                if missing:
                    raise ValueError(f"no array {quoted(missing[0])}. Give a file that trace profile wrote.")
                return cls(**{name: arrays[name] for name in ("lines", "distances", "cumulative")})
            texts = file.read_text(encoding="utf-8").splitlines()
            if len(texts) != 3:
                raise ValueError(f"{len(texts)} lines of text. A profile has three: ids, distances and fractions.")
            return cls(
                lines=parse_numbers(texts[0], np.int64),
                distances=parse_numbers(texts[1], np.int64),
                cumulative=parse_numbers(texts[2], np.float64),
            )
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error


def profile_trace(ids: np.ndarray, *, line_size: int = 1, padding: bool = False) -> TraceProfile:
    """The profile of a stream of ids, with the reference's numbers.

    Args:
        ids: integers [n], none negative.
        line_size: ids that share a cache line; distances are those of lines, id // line_size.
        padding: counts further first accesses, as many as an id has accesses on average (n / the largest distance): a
            generated trace then comes to all its ids sooner.

    Raises:
        ValueError: not a stream of ids, or an empty one.

    Example:
        >>> profile = profile_trace(np.array([5, 5, 7, 5, 8, 7]))
        >>> profile.lines.tolist(), profile.distances.tolist(), profile.cumulative.round(2).tolist()
        ([5, 7, 8], [0, 1, 2, 3], [0.5, 0.67, 0.83, 1.0])
    """
    if line_size < 1:
        raise ValueError(f"profile_trace: line_size={line_size} is too small. Give 1 or more.")
    lines = check_ids(ids) // line_size
    if not len(lines):
        raise ValueError("profile_trace: the trace is empty. Give one with at least one id.")
    counts = np.bincount(stack_distances(lines))
    if padding and len(counts) > 1:
        counts[0] += -(-len(lines) // (len(counts) - 1))
    distances = np.flatnonzero(counts)
    return TraceProfile(
        lines=first_accesses(lines),
        distances=distances,
        # fraction by fraction, as the reference adds them: the same last bits
        cumulative=np.cumsum(counts[distances] / counts.sum()),
    )
