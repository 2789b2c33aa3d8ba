"""Streams of ids that have the stack distances of a profile: the reference's two generators.

With one seed they give the reference's very ids: its random numbers come from NumPy's legacy generator, one a step, and
its comparisons are made here in the same floating point.
"""

from __future__ import annotations

import numpy as np

from tfdlrm.data.trace.profile import TraceProfile

# Blocks of so many steps are joined step by step, which NumPy does for many blocks at a time.
_DIRECT_STEPS = 64


def removed_items(picks: np.ndarray) -> np.ndarray:
    """Which of the items 0, 1, 2, ... each step takes.

    Args:
        picks: int64 [n], none negative: step t takes the picks[t]-th (from 0) of the items still there.

    Returns:
        int64 [n], all different.

    Example:
        >>> removed_items(np.array([2, 0, 1, 1])).tolist()  # 0 1 [2] 3 4, [0] 1 3 4, 1 [3] 4, 1 [4]
        [2, 0, 3, 4]
    """
    num_steps = len(picks)
    size = min(_DIRECT_STEPS, 1 << max(num_steps - 1, 0).bit_length())
    num_blocks = 1 << max(-(-num_steps // size) - 1, 0).bit_length()
    padded = np.zeros(num_blocks * size, np.int64)  # steps behind the last change nothing before them
    padded[:num_steps] = picks
    items = _join_directly(padded.reshape(num_blocks, size))
    # sorted by item in each block, with the step behind: joining merges sorted lists
    step_bits = (num_blocks * size - 1).bit_length()
    steps = np.arange(num_blocks * size).reshape(num_blocks, size)
    joined = np.sort((items << step_bits) | steps, axis=1)
    while len(joined) > 1:
        joined = _join_pairs(joined, step_bits)
    taken = np.empty(num_blocks * size, np.int64)
    taken[joined[0] & ((1 << step_bits) - 1)] = joined[0] >> step_bits
    return taken[:num_steps]


def _join_directly(picks: np.ndarray) -> np.ndarray:
    """Places in the list before each block, [blocks, size]."""
    # one column a block: then all blocks take a step in one operation
    columns = np.ascontiguousarray(picks.T)
    items = columns.copy()
    for step in range(len(columns) - 2, -1, -1):
        # what later steps took, seen before this step took its item
        later = items[step + 1 :]
        later += later >= columns[step]
    return items.T


def _join_pairs(blocks: np.ndarray, step_bits: int) -> np.ndarray:
    """Blocks 2k and 2k + 1 as one, [blocks / 2, 2 * size]."""
    size = blocks.shape[1]
    num_pairs = len(blocks) // 2
    first, second = blocks[0::2], blocks[1::2]
    # item k of the first block has so many items before it that are still there
    remaining = (first >> step_bits) - np.arange(size)
    wanted = second >> step_bits
    # one search for all pairs: each has a range of numbers of its own
    stride = max(int(remaining[:, -1].max()), int(wanted[:, -1].max())) + 1
    ranges = np.arange(num_pairs)[:, None]
    found = np.searchsorted((remaining + ranges * stride).reshape(-1), (wanted + ranges * stride).reshape(-1), "right")
    num_before = found.reshape(num_pairs, size) - ranges * size
    joined = np.empty(2 * num_pairs * size, np.int64)
    places = (num_before + np.arange(size) + ranges * 2 * size).reshape(-1)
    is_first = np.ones(len(joined), bool)
    is_first[places] = False
    joined[places] = (second + (num_before << step_bits)).reshape(-1)
    joined[is_first] = first.reshape(-1)
    return joined.reshape(num_pairs, 2 * size)


# Steps whose number of new ids is found together; adapted to how soon it settles.
_MIN_STEPS, _MAX_STEPS = 2**8, 2**17
_SOON, _LATE = 6, 24  # rounds

# Steps that are taken out of the list of ids together: 2**16 keep to the second-level cache, and a copy of a long list
# should not be made for few of them.
_LIST_STEPS = 2**16
_MAX_LIST_STEPS = 2**20


def generate_lru(profile: TraceProfile, num_ids: int, *, seed: int = 0, padding: bool = False) -> np.ndarray:
    """A stream whose stack distances follow the profile.

    Each step draws a distance d. d = 0 takes the id at the front of the list of ids: at first the one that the original
    trace saw next, and once all were taken the one not seen for the longest time; otherwise the d-th from the end.
    The id moves to the end. Until as many ids were taken as the largest distance, larger ones are not drawn.

    Args:
        profile: of a trace.
        num_ids: n.
        seed: of the draws.
        padding: no distance is 0 once as many ids were taken as the largest distance.

    Returns:
        int64 [n], ids of `profile.lines`.

    Raises:
        ValueError: num_ids is below 1.

    Example:
        >>> profile = profile_trace(np.array([5, 5, 7, 5, 8, 7]))
        >>> generate_lru(profile, 3, seed=1)[0].item()
        5
    """
    distances, _ = _draw_distances(profile, num_ids, seed, padding)
    ids = np.empty(num_ids, np.int64)
    lines = profile.lines.astype(np.int64)
    num_lines = len(lines)
    num_steps = _LIST_STEPS
    while num_steps < _MAX_LIST_STEPS and num_steps < num_lines // 8:
        num_steps *= 2
    for start in range(0, num_ids, num_steps):
        part = distances[start : start + num_steps]
        # The list holds the ids, and behind them one place for every step to come: a step takes an item out and puts
        # it at its own place. There are always num_lines items before the first empty place.
        items = removed_items(np.where(part == 0, 0, num_lines - part))
        ids[start : start + len(part)] = taken = _ids_of_items(lines, items)
        stays = np.ones(num_lines + len(part), bool)
        stays[items] = False
        lines = np.concatenate([lines, taken])[stays]
    return ids


def _ids_of_items(lines: np.ndarray, items: np.ndarray) -> np.ndarray:
    """The ids of items, of which those behind the list are what an earlier step put there."""
    # the step whose item this one's is, at last one that took it from the list
    source = np.where(items >= len(lines), items - len(lines), np.arange(len(items)))
    while True:
        further = source[source]
        if np.array_equal(further, source):
            return lines[items[source]]
        source = further


def generate_rand(profile: TraceProfile, num_ids: int, *, seed: int = 0, padding: bool = False) -> np.ndarray:
    """As `generate_lru`, but only new ids move to the end of the list; an id seen before stays at its place.

    Popular places are then drawn again and again, which is faster and farther from a real trace.

    Args:
        profile, num_ids, seed, padding: see `generate_lru`.

    Returns:
        int64 [n], ids of `profile.lines`.
    """
    distances, num_new = _draw_distances(profile, num_ids, seed, padding)
    # the list after i new ids is the first one turned by i
    places = (num_new - distances) % len(profile.lines)
    return profile.lines.astype(np.int64)[places]


def _draw_distances(profile: TraceProfile, num_ids: int, seed: int, padding: bool) -> tuple[np.ndarray, np.ndarray]:
    """int64 [n] distances, and how many before each were 0."""
    if num_ids < 1:
        raise ValueError(f"num_ids={num_ids} is too small. Give 1 or more.")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed={seed} is out of range for NumPy's legacy generator. Give a number in [0, 2**32).")
    uniform = np.random.RandomState(seed).random_sample(num_ids)
    num_new = np.empty(num_ids, np.int64)
    start, seen, size = 0, 0, _MIN_STEPS
    while start < num_ids:
        part = slice(start, start + size)
        draws = uniform[part]
        before = np.full(len(draws), seen)
        rounds = 0
        # Whether a step takes a new id depends on how many were taken before it. With a guess of that the first step is
        # right, and every round makes at least one more right.
        while True:
            quantiles = _quantiles(profile, draws, before, padding)
            is_new = quantiles <= profile.cumulative[0]
            counted = seen + np.cumsum(is_new) - is_new
            rounds += 1
            if np.array_equal(counted, before):
                break
            before = counted
        uniform[part], num_new[part] = quantiles, before
        seen = int(before[-1] + is_new[-1])
        start += len(draws)
        if rounds <= _SOON:
            size = min(2 * size, _MAX_STEPS)
        elif rounds > _LATE:
            size = max(size // 2, _MIN_STEPS)
    # the last fraction may be a rounding error below 1
    picks = np.minimum(np.searchsorted(profile.cumulative, uniform), len(profile.distances) - 1)
    return profile.distances[picks], num_new


def _quantiles(profile: TraceProfile, draws: np.ndarray, before: np.ndarray, padding: bool) -> np.ndarray:
    """Draws, uniform in [0, 1), as quantiles of the distances that are possible.

    Args:
        draws: [n].
        before: [n], new ids before each step; never falls.
    """
    first = profile.cumulative[0]
    largest = profile.distances[-1]
    quantiles = (1.0 - first) * draws + first if padding else draws.copy()
    num_bounded = int(np.searchsorted(before, largest))
    if num_bounded:
        low, high = int(before[0]), int(before[num_bounded - 1])
        # the fraction of distances that are not above the number of new ids so far
        possible = profile.cumulative[np.searchsorted(profile.distances, np.arange(low, high + 1), "right") - 1]
        quantiles[:num_bounded] = draws[:num_bounded] * possible[before[:num_bounded] - low]
    return quantiles
