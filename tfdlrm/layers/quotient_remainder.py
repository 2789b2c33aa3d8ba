"""The quotient-remainder trick: two small tables in place of a large one (Shi et al. 2019, arXiv 1909.02107).

Id i of a table of n rows, with c collisions, reads row `i // c` of a quotient table of ceil(n / c) rows and row
`i mod c` of a remainder table of c rows. Both are pooled over the bag first and combined after that, so each id
still has its own pair of rows, and n rows become ceil(n / c) + c.
"""

from __future__ import annotations

from typing import Any

import keras

from tfdlrm.checks import quoted


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
    raise ValueError(
        f"quotient-remainder: operation={quoted(operation)} is unknown. Use one of 'mult', 'add' and 'concat'."
    )
