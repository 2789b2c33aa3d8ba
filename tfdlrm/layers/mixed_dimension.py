"""Mixed-dimension embeddings: narrower vectors for larger tables (Ginart et al. 2019, arXiv 1909.11810).

Popular ids of small tables need capacity more than the long tail of large ones, so a table of n rows gets a width
that falls with n, and a bias-free projection up to the common width D.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tfdlrm.checks import quoted
from tfdlrm.config import FeatureConfig, MixedDimensionConfig, TableConfig


def mixed_dimensions(
    vocabulary_sizes: Sequence[int], alpha: float, embedding_dim: int, round_to_power_of_two: bool
) -> list[int]:
    """Widths of tables by the power rule, exactly as the reference's solver gives them.

    With the sizes sorted, n_0 the smallest: `lambda = D n_0^alpha`, `d_i = round(max(1, lambda n_i^-alpha))` and
    d_0 = D; optionally each becomes `2^round(log2 d)`. Halves round to the even neighbour.

    Args:
        vocabulary_sizes: rows of each table, in any order.
        alpha: temperature, 0 or more; 0 gives every table D.
        embedding_dim: D, the common width.
        round_to_power_of_two: also round each width to a power of two. A D that is none itself may be exceeded.

    Returns:
        One width a table, in the order given.

    Raises:
        ValueError: a size or D is below 1, or alpha is below 0.

    Example:
        >>> mixed_dimensions([60, 7, 210, 33], alpha=0.3, embedding_dim=16, round_to_power_of_two=True)
        [8, 16, 8, 8]
    """
    if alpha < 0 or embedding_dim < 1 or any(size < 1 for size in vocabulary_sizes):
        raise ValueError(
            f"mixed_dimensions: vocabulary_sizes={list(vocabulary_sizes)}, alpha={alpha}, "
            f"embedding_dim={embedding_dim}. Give sizes and width of 1 or more and an alpha of 0 or more."
        )
    if not vocabulary_sizes:
        return []
    # float32 like the reference: a width that falls on a half must fall on the same side
    rows = np.asarray(vocabulary_sizes, np.float32)
    exponent = np.float32(alpha)
    scale = np.float32(embedding_dim) * rows.min() ** exponent
    widths = np.rint(np.maximum(scale * rows**-exponent, np.float32(1)))
    widths[np.argmin(rows)] = embedding_dim
    if round_to_power_of_two:
        widths = 2.0 ** np.rint(np.log2(widths))
    return [int(width) for width in widths]


def with_mixed_dimensions(
    features: Sequence[FeatureConfig], config: MixedDimensionConfig | None, embedding_dim: int
) -> tuple[FeatureConfig, ...]:
    """Features whose tables have the widths of `mixed_dimensions`, projected to the common width.

    The widths are solved over all tables; a table of V > threshold rows gets `embedding_dim=d, output_dim=D`. Left as
    they are: tables up to the threshold, tables whose d is D, and tables that already have an `output_dim` or are
    stored as quotient and remainder.

    Args:
        features: each with its `TableConfig`; features that share a table share its width.
        config: the rule, or None to change nothing.
        embedding_dim: D.

    Raises:
        ValueError: a feature names its table instead of carrying it; a width was rounded up beyond D.

    Example:
        >>> item = TableConfig(name="item", vocabulary_size=10_000, embedding_dim=16)
        >>> kind = TableConfig(name="kind", vocabulary_size=10, embedding_dim=16)
        >>> features = [FeatureConfig(name="item", table=item), FeatureConfig(name="kind", table=kind)]
        >>> [f.table.embedding_dim for f in with_mixed_dimensions(features, MixedDimensionConfig(), 16)]
        [2, 16]
    """
    if config is None:
        return tuple(features)
    tables: dict[str, TableConfig] = {}
    for feature in features:
        if not isinstance(feature.table, TableConfig):
            raise ValueError(
                f"feature {quoted(feature.name)}: table={quoted(feature.table)} is a name. Give the TableConfig itself "
                "(DLRMConfig.resolved_features does)."
            )
        tables[feature.table.name] = feature.table
    widths = mixed_dimensions(
        [table.vocabulary_size for table in tables.values()],
        config.alpha,
        embedding_dim,
        config.round_to_power_of_two,
    )
    changed = {
        table.name: _narrowed(table, width, config.threshold, embedding_dim)
        for table, width in zip(tables.values(), widths, strict=True)
    }
    return tuple(replace(feature, table=changed[feature.table_name]) for feature in features)


def _narrowed(table: TableConfig, width: int, threshold: int, embedding_dim: int) -> TableConfig:
    kept = table.vocabulary_size <= threshold or table.output_dim is not None or table.is_split
    if kept or width == embedding_dim:
        return table
    if width > embedding_dim:
        raise ValueError(
            f"table {quoted(table.name)}: mixed dimension rounds its width up to {width}, beyond "
            f"embedding_dim={embedding_dim}. Make embedding_dim a power of two, or set round_to_power_of_two=False."
        )
    return replace(table, embedding_dim=width, output_dim=embedding_dim)
