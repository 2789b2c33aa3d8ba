"""Dot products of all pairs of a sample's vectors: as stock TensorFlow ops, and faster for training.

Shapes: N vectors a sample, D their width, P pairs: i > j, row-major: (1, 0), (2, 0), (2, 1), (3, 0), ...;
with `interact_itself` i >= j.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf


def pair_indices(num_vectors: int, interact_itself: bool) -> tuple[np.ndarray, np.ndarray]:
    """(i, j) of each pair, in order: two int32 arrays `[P]`."""
    i, j = np.tril_indices(num_vectors, 0 if interact_itself else -1)
    return i.astype(np.int32), j.astype(np.int32)


def num_pairs(num_vectors: int, interact_itself: bool) -> int:
    """P: N (N - 1) / 2, and N more with `interact_itself`."""
    return num_vectors * (num_vectors + (1 if interact_itself else -1)) // 2


def pair_products(rows: tf.Tensor, head: tf.Tensor, interact_itself: bool, width: int) -> tf.Tensor:
    """`concat(head, pairs, zeros)`, with ops that any TensorFlow runs and differentiates.

    Args:
        rows: `[B, N, D]`.
        head: `[B, H]`, copied to the front; H may be 0.
        interact_itself: whether a vector is also paired with itself.
        width: of the output, H + P or more; the rest is zeros.

    Returns:
        `[B, width]`.
    """
    num_vectors = rows.shape[1]
    products = tf.matmul(rows, rows, transpose_b=True)  # [B, N, N]
    return _pick(products, head, *pair_indices(num_vectors, interact_itself), width=width)


def compiled_pair_products(rows: tf.Tensor, head: tf.Tensor, interact_itself: bool, width: int) -> tf.Tensor:
    """`pair_products` for training: the same forward pass, and a gradient in one matrix product.

    With S `[N, N]` the symmetric matrix of the pairs' gradients (the diagonal doubled), d rows = S rows: no scatter
    and one product, where differentiating op by op costs a scatter, two products and an addition. The two steps that
    only move numbers, picking the pairs out of `[N, N]` and spreading their gradients over it, are compiled by XLA:
    TensorFlow's gather of single columns is many times slower. The products are not: TensorFlow's are the faster.

    XLA compiles once for each batch size that it meets. First-order gradients only.

    Args and returns are those of `pair_products`.
    """
    return _compiled(rows.shape[1], head.shape[1], interact_itself, width)(rows, head)


@functools.cache
def _compiled(
    num_vectors: int, head_width: int, interact_itself: bool, width: int
) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    i, j = pair_indices(num_vectors, interact_itself)
    num = len(i)
    # [N, N]: which pair's gradient stands there; `num`, the zero behind the last pair, where there is none
    source = np.full((num_vectors, num_vectors), num, np.int32)
    source[i, j] = source[j, i] = np.arange(num)

    @tf.function(jit_compile=True, autograph=False, reduce_retracing=True)
    def pick(products: tf.Tensor, head: tf.Tensor) -> tf.Tensor:
        return _pick(products, head, i, j, width=width)

    @tf.function(jit_compile=True, autograph=False, reduce_retracing=True)
    def spread(upstream: tf.Tensor) -> tf.Tensor:
        padded = tf.pad(upstream[:, head_width : head_width + num], [[0, 0], [0, 1]])
        matrix = tf.reshape(tf.gather(padded, source.ravel(), axis=1), [-1, num_vectors, num_vectors])
        # z_ii = t_i . t_i has t_i twice
        return matrix * (1 + np.eye(num_vectors)).astype(matrix.dtype.as_numpy_dtype) if interact_itself else matrix

    @tf.custom_gradient
    def products_of_pairs(rows: tf.Tensor, head: tf.Tensor):  # type: ignore[no-untyped-def]
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return tf.matmul(spread(upstream), rows), upstream[:, :head_width]

        return pick(tf.matmul(rows, rows, transpose_b=True), head), gradient

    return products_of_pairs


def _pick(products: tf.Tensor, head: tf.Tensor, i: np.ndarray, j: np.ndarray, *, width: int) -> tf.Tensor:
    num_vectors = products.shape[1]
    flat = tf.reshape(products, [-1, num_vectors * num_vectors])
    parts = [head] if head.shape[1] else []
    parts.append(tf.gather(flat, i * num_vectors + j, axis=1))
    missing = width - head.shape[1] - len(i)
    if missing:
        parts.append(tf.zeros([tf.shape(flat)[0], missing], flat.dtype))
    return tf.concat(parts, axis=1) if len(parts) > 1 else parts[0]
