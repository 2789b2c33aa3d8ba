"""Rows worth keeping: those of ids that occur often enough in a dataset. The rest read as zeros.

The reference's inference code prunes in the same way: a map from ids to rows, and nothing for an id without one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tfdlrm.data.dataset import Dataset
from tfdlrm.models.dlrm import DLRM

_BATCH_SIZE = 65536


def frequent_rows(model: DLRM, dataset: Dataset, at_least: int) -> dict[str, np.ndarray]:
    """Which rows to keep.

    Args:
        model: whose tables they are. Quotient-remainder tables keep all: each of their rows serves many ids.
        dataset: what to count on, usually the training part.
        at_least: occurrences of an id, 1 or more.

    Returns:
        Table -> bool `[V]`.

    Raises:
        ValueError: at_least is below 1.

    Example:
        >>> export(model, "exports/clicks", options=ExportOptions(kept=frequent_rows(model, splits.train, 2)))
    """
    if at_least < 1:
        raise ValueError(f"at_least={at_least} prunes nothing. Give 1 or more.")
    features: dict[str, Any] = {f.name: f for f in model.embeddings.features if f.table.quotient_remainder is None}
    counts = {f.table.name: np.zeros(f.table.vocabulary_size, np.int64) for f in features.values()}
    for inputs, _ in dataset.batches(_BATCH_SIZE):
        for name, feature in features.items():
            value = inputs[name]
            ids = value[0] if isinstance(value, tuple) else value
            flat = ids.flat_values if isinstance(ids, tf.RaggedTensor) else tf.reshape(ids, [-1])
            rows = _rows(flat, feature).numpy()
            count = counts[feature.table.name]
            count += np.bincount(rows, minlength=len(count))
    return {table: count >= at_least for table, count in counts.items()}


def _rows(ids: tf.Tensor, feature: Any) -> tf.Tensor:
    """Rows of the table, by the feature's policy for ids."""
    from tfdlrm.embeddings.ids import Bags, apply_policy

    size = feature.table.vocabulary_size
    bags, _ = apply_policy(Bags(ids, None, None, 1), feature.id_policy, size, feature.name, feature.table.name)
    return bags.ids
