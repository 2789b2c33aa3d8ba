"""MLPerf's multi-hot rows for DLRM-DCNv2: every one-hot id of Criteo becomes a bag of fixed length.

MLPerf keeps a table of V x h ids drawn once; here the ids of a bag are a function of (seed, table, id), so that
nothing is kept: the same id has the same bag in every row, process and run.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfdlrm.data.splitmix import below, key, mix


def multi_hot(ids: np.ndarray, hotness: int, vocabulary_size: int, *, table: int, seed: int = 0) -> np.ndarray:
    """The bags of one-hot ids.

    The first id of a bag is the original one; the others are uniform in [0, V), each drawn for itself, so that an id
    may be twice in a bag.

    Args:
        ids: integer [n], in [0, V).
        hotness: h, ids a bag.
        vocabulary_size: V.
        table: number of the table; tables draw independently.
        seed: of all tables.

    Returns:
        [n, h], dtype of `ids`.

    Raises:
        ValueError: a size is below 1, ids are not integers, or one is outside [0, V).

    Example:
        >>> bags = multi_hot(np.array([7, 1, 7]), 3, 100, table=0)
        >>> bags.shape, bags[:, 0].tolist(), bool((bags[0] == bags[2]).all())
        ((3, 3), [7, 1, 7], True)
    """
    if hotness < 1 or vocabulary_size < 1:
        raise ValueError(
            f"multi_hot: table {table} has hotness={hotness} and vocabulary_size={vocabulary_size}. "
            "Give 1 or more of each."
        )
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise ValueError(
            f"multi_hot: ids of table {table} have dtype {ids.dtype} and shape {ids.shape}. Give integers [n]."
        )
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < vocabulary_size:
        raise ValueError(
            f"multi_hot: ids of table {table} are from {ids.min()} to {ids.max()}, not within [0, {vocabulary_size}). "
            "Take them modulo the table's rows, or give its right size."
        )
    bags = np.empty((len(ids), hotness), ids.dtype)
    bags[:, 0] = ids
    state = mix(ids.astype(np.uint64) ^ key(seed, table))
    for place in range(1, hotness):
        bags[:, place] = below(mix(state + np.uint64(place)), vocabulary_size)
    return bags


def multi_hot_columns(
    ids: np.ndarray, hotness: Sequence[int], vocabulary_sizes: Sequence[int], *, seed: int = 0
) -> np.ndarray:
    """The bags of all tables side by side, as `Columns.ids` holds them.

    Args:
        ids: integer [n, tables].
        hotness, vocabulary_sizes: of each table.
        seed: of all tables.

    Returns:
        [n, sum of hotness], dtype of `ids`.

    Raises:
        ValueError: numbers of tables differ; see also `multi_hot`.
    """
    if not ids.ndim == 2 or not ids.shape[1] == len(hotness) == len(vocabulary_sizes):
        raise ValueError(
            f"multi_hot_columns: ids have shape {ids.shape} for {len(hotness)} hotness and {len(vocabulary_sizes)} "
            "vocabulary_sizes. Give a column, a hotness and a size for each table."
        )
    shapes = enumerate(zip(hotness, vocabulary_sizes, strict=True))
    bags = [multi_hot(ids[:, table], h, size, table=table, seed=seed) for table, (h, size) in shapes]
    return np.concatenate(bags, axis=1)
