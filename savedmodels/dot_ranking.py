"""One user and many candidates: the top MLPs' first product after a dot interaction; see `savedmodels.ranking`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfdlrm.layers import DotInteraction
from tfdlrm.layers.pair_products import pair_indices
from tfdlrm.models.dlrm import DLRM

Pairs = Sequence[tuple[int, int]]


class DotRanking(tf.Module):
    """Callable: `(shared [s, D], own [N, c, D])` -> the first product of each top MLP, `[N, H]`.

    The rows of the MLPs' kernels are kept once more, in the order in which they are needed: picking them out at each
    request took a twentieth of it.

    Args:
        model: built, with a `DotInteraction`.
        user: places of the user's vectors among all, ascending; vector 0 is the dense one, where there is one.
        candidate: the others.
    """

    def __init__(self, model: DLRM, user: Sequence[int], candidate: Sequence[int]):
        super().__init__(name="dot_ranking")
        interaction = model.interaction
        assert isinstance(interaction, DotInteraction)
        itself = interaction.interact_itself
        i, j = pair_indices(len(user) + len(candidate), itself)
        head = model.config.embedding_dim if interaction.concat_dense else 0
        row = {pair: head + place for place, pair in enumerate(zip(i.tolist(), j.tolist(), strict=True))}
        self._num_user, self._num_own = len(user), len(candidate)
        self._among_user = _pairs(len(user), itself)
        self._among_own = _pairs(len(candidate), itself)
        self._head_is_user, self._head_is_own = bool(head) and 0 in user, bool(head) and 0 in candidate
        chosen = {
            "user": [*range(head if self._head_is_user else 0), *(row[user[a], user[b]] for a, b in self._among_user)],
            "own": [row[candidate[a], candidate[b]] for a, b in self._among_own],
            "crossing": [row[max(c, u), min(c, u)] for c in candidate for u in user],
            "head": list(range(head if self._head_is_own else 0)),
        }
        self._kernels = [
            {
                part: tf.Variable(kernel[np.array(rows, np.int64)], trainable=False, name=f"ranking_{part}")
                for part, rows in chosen.items()
            }
            for kernel in (np.asarray(mlp.dense_layers[0].kernel) for mlp in model.top_mlps)
        ]

    def __call__(self, shared: tf.Tensor, own: tf.Tensor) -> list[tf.Tensor]:
        width = own.shape[-1]
        once = _pick(tf.matmul(shared, shared, transpose_b=True)[tf.newaxis], self._among_user)
        if self._head_is_user:
            once = tf.concat([shared[:1], once], axis=1)
        left = tf.reshape(own, [-1, self._num_own * width])
        if self._among_own:
            left = tf.concat([left, _pick(tf.matmul(own, own, transpose_b=True), self._among_own)], axis=1)
        return [self._product(kernels, shared, once, left) for kernels in self._kernels]

    def _product(
        self, kernels: dict[str, tf.Variable], shared: tf.Tensor, once: tf.Tensor, left: tf.Tensor
    ) -> tf.Tensor:
        width, units = shared.shape[-1], kernels["crossing"].shape[1]
        # M: [c, D, H] = S^t [D, s] times the kernel rows of the pairs with each of the candidate's vectors
        rows = tf.reshape(kernels["crossing"], [self._num_own, self._num_user, units])
        mixed = tf.matmul(tf.tile(shared[tf.newaxis], [self._num_own, 1, 1]), rows, transpose_a=True)
        right = [tf.reshape(mixed, [self._num_own * width, units])]
        if self._head_is_own:
            first = right.pop()
            right += [first[:width] + kernels["head"], first[width:]]
        if self._among_own:
            right.append(tf.convert_to_tensor(kernels["own"]))
        product = tf.matmul(left, tf.concat(right, axis=0))
        return product + tf.matmul(once, kernels["user"]) if once.shape[1] else product


def _pairs(count: int, itself: bool) -> list[tuple[int, int]]:
    i, j = pair_indices(count, itself)
    return list(zip(i.tolist(), j.tolist(), strict=True))


def _pick(products: tf.Tensor, pairs: Pairs) -> tf.Tensor:
    """`[N, n, n]` -> `[N, pairs]`."""
    size = products.shape[1]
    places = np.array([a * size + b for a, b in pairs], np.int32)
    return tf.gather(tf.reshape(products, [-1, size * size]), places, axis=1)
