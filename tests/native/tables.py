"""Variables for the kernels, and what a lookup should give, in float64."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from tensorflow.python.ops import resource_variable_ops

from tfdlrm.native.embedding import BagIds


def variable(values: np.ndarray, dtype: tf.DType = tf.float32) -> resource_variable_ops.ResourceVariable:
    """A table as the engine holds it."""
    return resource_variable_ops.ResourceVariable(tf.cast(tf.constant(values), dtype), trainable=False)


def fixed(ids: np.ndarray, dtype: tf.DType = tf.int64, weights: np.ndarray | None = None) -> BagIds:
    """Bags of equal length: ids `[columns, B, H]`, feature by feature."""
    flat = np.empty(0) if weights is None else weights.reshape(-1)
    return BagIds(tf.constant(ids.reshape(-1), dtype), tf.zeros([0], tf.int64), tf.constant(flat, tf.float32))


def ragged(bags: list[list[int]], dtype: tf.DType = tf.int64, weights: list[list[float]] | None = None) -> BagIds:
    """Bags `[columns * B]` of any length, feature by feature."""
    lengths = np.cumsum([0, *map(len, bags)])
    ids = tf.constant([i for bag in bags for i in bag], dtype)
    flat = [w for bag in weights or [] for w in bag]
    return BagIds(ids, tf.constant(lengths, tf.int64), tf.constant(flat, tf.float32))


def coefficients(weights: np.ndarray, combiner: str) -> np.ndarray:
    """What each row of one bag is multiplied by."""
    if combiner == "sum" or not len(weights):
        return weights
    total = weights.sum() if combiner == "mean" else np.sqrt((weights**2).sum())
    return weights / total if total else np.zeros_like(weights)


def pooled(table: np.ndarray, bags: list[list[int]], combiner: str, weights: list[list[float]] | None) -> np.ndarray:
    """One vector a bag, `[bags, D]`."""
    out = np.zeros((len(bags), table.shape[1]))
    for number, bag in enumerate(bags):
        own = np.ones(len(bag)) if weights is None else np.asarray(weights[number], np.float64)
        out[number] = coefficients(own, combiner) @ table.astype(np.float64)[bag] if bag else 0.0
    return out
