"""TraceProfile: what a stream of ids looks like to a cache, in the reference's form."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfdlrm.array_files import read_array, read_arrays
from tfdlrm.checks import quoted
from tfdlrm.files import atomic_path

# Groups of so many ranks are compared with each other directly; ranks and counts then fit a byte.
_DIRECT_BITS = 7
_DIRECT_GROUPS = 4096  # compared at a time: half a megabyte, which stays in the second-level cache
_COUNT_SHIFT = 32


def check_ids(ids: np.ndarray) -> np.ndarray:
    """int64 [n].

    Raises:
        ValueError: not one dimension, no integers, or one is negative.
    """
    ids = np.asarray(ids)
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise ValueError(f"a trace of dtype {ids.dtype} and shape {ids.shape} is no stream of ids. Give integers [n].")
    if len(ids) and ((ids.dtype == np.uint64 and int(ids.max()) >= 2**63) or int(ids.min()) < 0):
        raise ValueError(f"a trace has ids from {ids.min()} to {ids.max()}. Give ids in [0, 2**63).")
    return ids.astype(np.int64, copy=False)


def previous_accesses(ids: np.ndarray) -> np.ndarray:
    """int64 [n], the place of the last access to the same id before this one, or -1.

    Args:
        ids: int64 [n], none negative.
    """
    num_ids = len(ids)
    place_bits = max(num_ids - 1, 0).bit_length()
    if int(ids.max(initial=0)).bit_length() + place_bits <= 63:
        # an id and its place in one number: sorting numbers is faster than sorting places by their ids
        keys = np.sort((ids << place_bits) | np.arange(num_ids))
        places, ids = keys & ((1 << place_bits) - 1), keys >> place_bits
    else:
        places = np.argsort(ids, kind="stable")
        ids = ids[places]
    same = ids[1:] == ids[:-1]
    previous = np.full(num_ids, -1, np.int64)
    previous[places[1:][same]] = places[:-1][same]
    return previous


def stack_distances(ids: np.ndarray) -> np.ndarray:
    """int64 [n], the distance of each access.

    With p the place of the last access to the same id (-1 if there is none), the accesses s <= t with p(s) <= p(t) are
    all s <= p(t), which are p(t) + 1, and after them the first ones to each different id, which the distance counts.

    Args:
        ids: integers [n], none negative.

    Raises:
        ValueError: something else was given, or more than 2**31 ids.

    Example:
        >>> stack_distances(np.array([5, 5, 7, 5, 8, 7])).tolist()
        [0, 1, 0, 2, 0, 3]
    """
    ids = check_ids(ids)
    if len(ids) >= 2**31:
        raise ValueError(f"a trace of {len(ids)} ids is too long. Profile a part of fewer than 2**31.")
    previous = previous_accesses(ids)
    is_first = previous < 0
    repeats = np.flatnonzero(~is_first)
    before = previous[repeats]
    # ranks of the places before, among themselves: a permutation
    is_before = np.zeros(len(ids), bool)
    is_before[before] = True
    ranks = (np.cumsum(is_before) - 1)[before]
    distances = np.zeros(len(ids), np.int64)
    distances[repeats] = np.cumsum(is_first)[repeats] + count_smaller_before(ranks) - before
    return distances


def count_smaller_before(ranks: np.ndarray) -> np.ndarray:
    """For each item of a permutation, how many smaller ones stand before it.

    The items are sorted by one bit after another, from the highest on. Among those whose higher bits are equal, an item
    with the bit set is larger than those without, so that it counts the ones before it. As it is a permutation, the
    groups are [0, 2**b), [2**b, 2 * 2**b) and so on, and no search is needed.

    Args:
        ranks: int64 [m], a permutation of [0, m).

    Returns:
        int64 [m].
    """
    num_ranks = len(ranks)
    # count and rank in one number
    items = ranks
    for bit in range(max(num_ranks - 1, 0).bit_length() - 1, _DIRECT_BITS - 1, -1):
        size = 1 << bit
        is_one = (items & size) != 0
        one_places = np.flatnonzero(is_one)
        zeros = items[~is_one]
        order = np.arange(len(one_places))
        # place in the whole, less the ones and the zeros of groups before, less the ones of this group
        smaller = one_places - order - (order >> bit << bit)
        ones = items[one_places] + (smaller << _COUNT_SHIFT)
        items = _side_by_side(zeros, ones, size)
    counts = _count_directly(items & ((1 << _COUNT_SHIFT) - 1))
    counts += items >> _COUNT_SHIFT
    by_rank = np.empty(num_ranks, np.int64)
    by_rank[items & ((1 << _COUNT_SHIFT) - 1)] = counts
    return by_rank[ranks]


def _side_by_side(zeros: np.ndarray, ones: np.ndarray, size: int) -> np.ndarray:
    """Groups of `size` zeros and `size` ones by turns; the last group may have fewer."""
    whole = len(ones) // size
    items = np.empty(len(zeros) + len(ones), np.int64)
    pairs = items[: 2 * whole * size].reshape(whole, 2, size)
    pairs[:, 0] = zeros[: whole * size].reshape(whole, size)
    pairs[:, 1] = ones[: whole * size].reshape(whole, size)
    rest = items[2 * whole * size :]
    num_zeros = len(zeros) - whole * size
    rest[:num_zeros] = zeros[whole * size :]
    rest[num_zeros:] = ones[whole * size :]
    return items


def _count_directly(ranks: np.ndarray) -> np.ndarray:
    """`count_smaller_before` within each group of ranks that have all but the lowest bits in common."""
    size = 1 << _DIRECT_BITS
    num_groups = -(-len(ranks) // size)
    # ranks behind the last are larger than all, and counted by none
    padded = np.concatenate([ranks, np.arange(len(ranks), num_groups * size)]).astype(np.uint8)
    padded &= size - 1
    groups = padded.reshape(num_groups, size)
    counts = np.empty((num_groups, size), np.int64)
    for start in range(0, num_groups, _DIRECT_GROUPS):
        # one column a group: then all groups are compared in one operation
        columns = np.ascontiguousarray(groups[start : start + _DIRECT_GROUPS].T)
        found = np.zeros(columns.shape, np.uint8)
        for place in range(size - 1):
            found[place + 1 :] += (columns[place + 1 :] > columns[place]).view(np.uint8)
        counts[start : start + _DIRECT_GROUPS] = found.T
    return counts.reshape(-1)[: len(ranks)]


def first_accesses(ids: np.ndarray) -> np.ndarray:
    """int64 [unique], each id once, in the order of first accesses."""
    ids = check_ids(ids)
    return ids[previous_accesses(ids) < 0]


def lru_order(ids: np.ndarray) -> np.ndarray:
    """int64 [unique], each id once, in the order of last accesses: the one to be evicted first stands first."""
    ids = check_ids(ids)
    return first_accesses(ids[::-1])[::-1]


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


BINARY_SUFFIX = ".bin"


def load_ids(path: str | os.PathLike[str]) -> np.ndarray:
    """int64 [n]: the ids of a file.

    Args:
        path: `.npy`; `.bin`, 8 bytes an id, as the reference's binary traces have them; anything else is text, with
            commas, blanks or new lines between ids.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it holds something else, or nothing.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{file}: there is no such file (a trace is expected). Give .npy, .bin or text.")
    try:
        if file.suffix == ".npy":
            ids = read_array(file)
        elif file.suffix == BINARY_SUFFIX:
            ids = np.fromfile(file, np.uint64)
        else:
            ids = parse_numbers(file.read_text(encoding="utf-8"), np.int64)
        ids = check_ids(ids)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    if not len(ids):
        raise ValueError(f"{file}: the trace is empty. Give one with at least one id.")
    return ids


def save_ids(path: str | os.PathLike[str], ids: np.ndarray) -> None:
    """Writes ids, in the form the suffix says (see `load_ids`); text is one line with commas, as the reference's."""
    file, ids = Path(path), check_ids(ids)
    with atomic_path(file) as partial, partial.open("wb") as stream:
        if file.suffix == ".npy":
            np.save(stream, ids)
        elif file.suffix == BINARY_SUFFIX:
            stream.write(ids.astype(np.uint64).tobytes())
        else:
            stream.write(format_numbers(ids).encode())


def parse_numbers(text: str, dtype: type[np.generic]) -> np.ndarray:
    """Numbers with commas or white space between them.

    Raises:
        ValueError: there is something else.
    """
    text = text.replace(",", " ").strip()
    if not text:
        return np.empty(0, dtype)
    with warnings.catch_warnings():
        # NumPy says by a warning that it stopped early
        warnings.simplefilter("error")
        try:
            return np.fromstring(text, dtype, sep=" ")
        except (DeprecationWarning, ValueError) as error:
            raise ValueError(
                "there is something that is no number. Give numbers with commas or white space between them."
            ) from error


def format_numbers(numbers: np.ndarray) -> str:
    """`1, 2, 3`: with as many digits as it takes to read the same numbers back."""
    return ", ".join(map(repr, numbers.tolist()))
