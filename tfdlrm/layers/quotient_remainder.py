"""The quotient-remainder trick: two small tables in place of a large one (Shi et al. 2019, arXiv 1909.02107).

Id i of a table of n rows, with c collisions, reads row `i // c` of a quotient table of ceil(n / c) rows and row
`i mod c` of a remainder table of c rows. Both are pooled over the bag first and combined after that, so each id
still has its own pair of rows, and n rows become ceil(n / c) + c.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np


def quotient_remainder_rows(vocabulary_size: int, collisions: int) -> tuple[int, int]:
    """Rows of the quotient and of the remainder table: `(ceil(n / c), c)`.

    Example:
        >>> quotient_remainder_rows(210, 4)
        (53, 4)
    """
    return -(-vocabulary_size // collisions), collisions


def split_ids(ids: Any, collisions: int) -> tuple[Any, Any]:
    """Ids to (quotient, remainder), by integer division: a float division would merge ids above 2^24.

    Args:
        ids: integer array or tensor of any shape, ids of 0 or more.
        collisions: c.

    Raises:
        ValueError: the ids are not integers.

    Example:
        >>> split_ids(np.array([0, 5, 11]), 4)
        (array([0, 1, 2]), array([0, 1, 3]))
    """
    if not np.issubdtype(np.dtype(keras.backend.standardize_dtype(ids.dtype)), np.integer):
        raise ValueError(f"split_ids: ids of dtype {ids.dtype} are not integers. Cast them to int32 or int64.")
    return ids // collisions, ids % collisions


def combine(operation: str, quotient_vector: Any, remainder_vector: Any) -> Any:
    """The pooled vectors of both tables as one.

    Args:
        operation: "mult", "add" or "concat".
        quotient_vector: `[..., D]` float, pooled over the bag.
        remainder_vector: `[..., D]` float, pooled over the bag.

    Returns:
        `[..., D]`, or `[..., 2 D]` for "concat" (the quotient's half first).

    Raises:
        ValueError: the operation is unknown.

    Example:
        >>> combine("mult", tf.constant([[2.0, 3.0]]), tf.constant([[5.0, 7.0]])).numpy().tolist()
        [[10.0, 21.0]]
    """
    if operation == "mult":
        return quotient_vector * remainder_vector
    if operation == "add":
        return quotient_vector + remainder_vector
    if operation == "concat":
        return keras.ops.concatenate([quotient_vector, remainder_vector], axis=-1)
    raise ValueError(f"quotient-remainder: operation={operation!r} is unknown. Use one of 'mult', 'add' and 'concat'.")
