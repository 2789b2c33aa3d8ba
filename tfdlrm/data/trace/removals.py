"""Taking items out of a list by their place, many at a time: what makes LRU traces fast without a tree.

Step t takes the picks[t]-th of the items still there. Which item of the first list that is follows for blocks of steps
at once. Let a block know which places of the list before it its steps take, and the block after it the same. The second
block's places become places of the first one's list by adding the number of items taken before them: the merge of two
sorted lists. So blocks of 1, 2, 4, ... steps are joined, all pairs of a size in one operation.
"""

from __future__ import annotations

import numpy as np

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
