"""Where each implementation of DLRM puts the outputs of the dot interaction, and how to move between them.

The first kernel of a top MLP has one row an interaction output, so weights trained elsewhere fit here once these rows
are permuted. Vectors are numbered as here: 0 is the dense vector x, 1 .. F the features in schema order.

    tfdlrm      x, pairs i > j row-major: (1,0) (2,0) (2,1) (3,0) ...     facebookresearch/dlrm: the same
    torchrec    x, pairs i < j row-major: (0,1) (0,2) ... (1,2) ...       torchrec.models.dlrm.InteractionArch
    nvidia      pairs i > j row-major, x                                  NVIDIA distributed-embeddings, examples/dlrm
    tfrs        x, pairs i > j row-major of [e_1 .. e_F, x]               TFRS experimental.models.Ranking
    keras_rs    pairs i > j row-major of [x, e_1 .. e_F], no x            keras_rs.layers.DotInteraction by itself

`interact_itself` adds (i, i) at the end of row i; torchrec and NVIDIA have no such option.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from tfdlrm.checks import quoted

Layout = Literal["tfdlrm", "torchrec", "nvidia", "tfrs", "keras_rs"]

# ("dense", k): component k of x; ("pair", i, j), i >= j: their dot product
Column = tuple[str, int] | tuple[str, int, int]


def interaction_columns(
    layout: Layout,
    num_features: int,
    embedding_dim: int,
    *,
    interact_itself: bool = False,
    feature_order: Sequence[int] | None = None,
) -> list[Column]:
    """What stands in each column of a layout's interaction output.

    Args:
        layout: one of those above.
        num_features: F, without the dense vector.
        embedding_dim: D.
        interact_itself: whether (i, i) pairs are in.
        feature_order: the features, 1 .. F, in the order in which the other implementation has them; None for schema
            order. TFRS sorts a dict of embeddings by key, as strings: "1", "10", "2".

    Raises:
        ValueError: an unknown layout, an order that is no permutation of 1 .. F, or `interact_itself` where the
            layout has no such option.

    Example:
        >>> interaction_columns("tfdlrm", num_features=2, embedding_dim=1)
        [('dense', 0), ('pair', 1, 0), ('pair', 2, 0), ('pair', 2, 1)]
    """
    if layout not in get_args(Layout):
        raise ValueError(f"layout {quoted(layout)} is unknown. Use one of: {', '.join(get_args(Layout))}.")
    if interact_itself and layout in ("torchrec", "nvidia"):
        raise ValueError(f"layout {quoted(layout)}: interact_itself=True is not an option there. Use False.")
    features = list(range(1, num_features + 1) if feature_order is None else feature_order)
    if sorted(features) != list(range(1, num_features + 1)):
        raise ValueError(
            f"layout {quoted(layout)}: feature_order={features} is not an order of the features 1 .. {num_features}."
        )
    vectors = [*features, 0] if layout == "tfrs" else [0, *features]
    if layout == "torchrec":
        positions = [(i, j) for i in range(len(vectors)) for j in range(i + 1, len(vectors))]
    else:
        positions = [(i, j) for i in range(len(vectors)) for j in range(i + int(interact_itself))]
    named = [(vectors[i], vectors[j]) for i, j in positions]
    pairs: list[Column] = [("pair", max(pair), min(pair)) for pair in named]
    dense: list[Column] = [("dense", k) for k in range(embedding_dim)]
    return {"nvidia": [*pairs, *dense], "keras_rs": pairs}.get(layout, [*dense, *pairs])


def column_permutation(
    source: Layout,
    target: Layout,
    num_features: int,
    embedding_dim: int,
    *,
    interact_itself: bool = False,
    source_order: Sequence[int] | None = None,
    target_order: Sequence[int] | None = None,
) -> np.ndarray:
    """Positions p such that `target_output = source_output[:, p]` and `target_kernel = source_kernel[p]`.

    Args:
        source: layout that the numbers have.
        target: layout that they shall have.
        num_features: F, without the dense vector.
        embedding_dim: D.
        interact_itself: whether (i, i) pairs are in.
        source_order: the features in the source's order; see `interaction_columns`.
        target_order: the features in the target's order.

    Returns:
        int64 `[width of the target]`; a bijection unless the target has no dense part ("keras_rs").

    Raises:
        ValueError: as `interaction_columns`; or the target has the dense vector and the source does not.

    Example:
        >>> column_permutation("torchrec", "tfdlrm", num_features=3, embedding_dim=1).tolist()
        [0, 1, 2, 4, 3, 5, 6]
    """
    columns = {
        column: position
        for position, column in enumerate(
            interaction_columns(
                source,
                num_features,
                embedding_dim,
                interact_itself=interact_itself,
                feature_order=source_order,
            )
        )
    }
    wanted = interaction_columns(
        target, num_features, embedding_dim, interact_itself=interact_itself, feature_order=target_order
    )
    if wanted and not all(column in columns for column in wanted):
        raise ValueError(
            f"layout {quoted(source)} has no dense part and {quoted(target)} has. Concatenate the "
            "dense vector in front of it "
            "first and take the source as 'tfdlrm'."
        )
    return np.array([columns[column] for column in wanted], np.int64)
