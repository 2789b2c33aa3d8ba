"""Rows worth keeping: those of ids that occur often enough in a dataset. The rest read as zeros.

The reference's inference code prunes in the same way: a map from ids to rows, and nothing for an id without one.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfdlrm.config import FeatureConfig, TableConfig
from tfdlrm.data.dataset import Dataset
from tfdlrm.embeddings.ids import Bags, apply_policy
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
    features: dict[str, FeatureConfig] = {}
    counts: dict[str, np.ndarray] = {}
    for feature in model.embeddings.features:
        table = feature.table
        if isinstance(table, TableConfig) and not table.is_split:
            features[feature.name] = feature
            counts.setdefault(table.name, np.zeros(table.vocabulary_size, np.int64))
    for inputs, _ in dataset.batches(_BATCH_SIZE):
        for name, feature in features.items():
            value = inputs[name]
            ids = value[0] if isinstance(value, tuple) else value
            flat = ids.flat_values if isinstance(ids, tf.RaggedTensor) else tf.reshape(ids, [-1])
            rows = _rows(flat, feature).numpy()
            count = counts[feature.table_name]
            count += np.bincount(rows, minlength=len(count))
    return {table: count >= at_least for table, count in counts.items()}


def _rows(ids: tf.Tensor, feature: FeatureConfig) -> tf.Tensor:
    """Rows of the table, by the feature's policy for ids."""
    table = feature.table
    assert isinstance(table, TableConfig)
    bags = Bags(ids, None, None, 1)
    return apply_policy(bags, feature.id_policy, table.vocabulary_size, feature.name, table.name)[0].ids
