"""LRU stack distances of a stream of ids, all at once.

The distance of an access is the number of different ids since the last access to its id, that id included; 0 for the
first access to an id. A list that is searched for every id, as the reference has it, takes a time of n * m.
"""

from __future__ import annotations

import numpy as np

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
