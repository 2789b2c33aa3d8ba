"""Scores of many candidates for one user, where whatever depends on the user alone is computed once.

With S the user's vectors `[s, D]`, E the candidates' `[N, c, D]` and K the kernel of the top MLP's first layer, whose
rows belong to the dense vector and to pairs of vectors, the first product of DLRM (arXiv 1906.00091) falls apart:

    x K_head + sum over pairs z_ij K_ij
      = S's own share, [1, H]                                  once
      + sum_c E_nc (sum_s S_s (x) K_cs)  = E_n M,  M [c D, H]    M once, then one product of width c D a candidate
      + sum over pairs of the candidate's own vectors           c (c - 1) / 2 columns a candidate

where full rows take (s + c) (s + c - 1) / 2 columns. What follows the first product is the same for both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from savedmodels.inputs import DENSE
from tfdlrm.layers import ConcatInteraction, DotInteraction
from tfdlrm.layers.pair_products import pair_indices
from tfdlrm.models.dcnv2 import CrossInteraction
from tfdlrm.models.dlrm import DLRM

Features = dict[str, Any]


class Ranker:
    """Logits of candidates.

    Args:
        model: built.
        candidate_inputs: features of the candidates, and "dense" where the dense numbers are theirs; all others are
            the user's.

    Raises:
        ValueError: an unknown feature, or none is left for one of the two sides.
    """

    def __init__(self, model: DLRM, candidate_inputs: Sequence[str]):
        names = [feature.name for feature in model.config.features]
        unknown = sorted(set(candidate_inputs) - {DENSE, *names})
        if unknown:
            raise ValueError(f"candidate features {unknown} are not of the model, which has {[DENSE, *names]}.")
        self.model = model
        self.of_candidates = frozenset(candidate_inputs)
        self.of_user = frozenset({DENSE, *names}) - self.of_candidates
        if not self.of_candidates or not self.of_user:
            raise ValueError(
                f"candidate features {sorted(self.of_candidates)} leave {sorted(self.of_user)} to the user. Give each "
                "side at least one feature."
            )
        # the dense vector is vector 0, the features follow
        order = [DENSE, *names]
        self._user = [place for place, name in enumerate(order) if name in self.of_user]
        self._candidate = [place for place, name in enumerate(order) if name in self.of_candidates]
        interaction = model.interaction
        if isinstance(interaction, DotInteraction):
            self._products: Callable[[tf.Tensor, tf.Tensor], list[tf.Tensor]] = self._dot_products
        elif isinstance(interaction, ConcatInteraction):
            self._products = self._concat_products
        elif isinstance(interaction, CrossInteraction):
            self._products = self._cross_products
        else:
            raise ValueError(f"interaction {type(interaction).__name__}: ranking by parts is not known for it.")

    def logits(self, user: Features, candidates: Features) -> tf.Tensor:
        """`[N, tasks]`.

        Args:
            user: encoded inputs of one row.
            candidates: encoded inputs of N rows.
        """
        shared = self._vectors(user)  # [1, s, D]
        own = self._vectors(candidates)  # [N, c, D]
        products = self._products(shared[0], own)
        heads = zip(self.model.top_mlps, products, strict=True)
        logits = [mlp.from_first_product(product) for mlp, product in heads]
        return tf.cast(logits[0] if len(logits) == 1 else tf.concat(logits, axis=1), tf.float32)

    def _vectors(self, inputs: Features) -> tf.Tensor:
        parts = []
        if DENSE in inputs:
            parts.append(self.model.bottom_mlp(inputs[DENSE], training=False)[:, tf.newaxis, :])
        features = {name: value for name, value in inputs.items() if name != DENSE}
        if features:
            parts.append(self.model.embeddings.pooled(features))
        return parts[0] if len(parts) == 1 else tf.concat(parts, axis=1)

    def _kernels(self) -> list[tf.Tensor]:
        return [tf.convert_to_tensor(mlp.dense_layers[0].kernel) for mlp in self.model.top_mlps]

    def _dot_products(self, shared: tf.Tensor, own: tf.Tensor) -> list[tf.Tensor]:
        interaction = self.model.interaction
        width = own.shape[-1]
        user, candidate = self._user, self._candidate
        total = len(user) + len(candidate)
        i, j = pair_indices(total, interaction.interact_itself)
        head = width if interaction.concat_dense else 0
        row = {pair: head + place for place, pair in enumerate(zip(i.tolist(), j.tolist(), strict=True))}
        among_users = [(a, b) for a, u in enumerate(user) for b, v in enumerate(user) if (u, v) in row]
        among_own = [(a, b) for a, u in enumerate(candidate) for b, v in enumerate(candidate) if (u, v) in row]
        crossing = [[row[max(c, u), min(c, u)] for u in user] for c in candidate]
        user_pairs = _pick(tf.matmul(shared, shared, transpose_b=True)[tf.newaxis], among_users)  # [1, pairs]
        own_pairs = _pick(tf.matmul(own, own, transpose_b=True), among_own) if among_own else None
        flat = tf.reshape(own, [-1, len(candidate) * width])
        products = []
        for kernel in self._kernels():
            units = kernel.shape[1]
            once = tf.zeros([1, units], kernel.dtype)
            if among_users:
                once += tf.matmul(user_pairs, tf.gather(kernel, [row[user[a], user[b]] for a, b in among_users]))
            if head and 0 in user:
                once += tf.matmul(shared[:1], kernel[:head])
            # M: [c, D, H] = S^t [D, s] times the kernel rows of the pairs with each of the candidate's vectors
            rows = tf.reshape(tf.gather(kernel, np.ravel(crossing)), [len(candidate), len(user), units])
            mixed = tf.matmul(tf.tile(shared[tf.newaxis], [len(candidate), 1, 1]), rows, transpose_a=True)
            if head and 0 in candidate:
                mixed = tf.concat([mixed[:1] + kernel[tf.newaxis, :head], mixed[1:]], axis=0)
            left, right = flat, tf.reshape(mixed, [len(candidate) * width, units])
            if own_pairs is not None:
                own_rows = tf.gather(kernel, [row[candidate[a], candidate[b]] for a, b in among_own])
                left, right = tf.concat([left, own_pairs], axis=1), tf.concat([right, own_rows], axis=0)
            products.append(tf.matmul(left, right) + once)
        return products

    def _concat_products(self, shared: tf.Tensor, own: tf.Tensor) -> list[tf.Tensor]:
        return [_split_product(kernel, shared, own, self._user, self._candidate) for kernel in self._kernels()]

    def _cross_products(self, shared: tf.Tensor, own: tf.Tensor) -> list[tf.Tensor]:
        interaction = self.model.interaction
        num_rows = tf.shape(own)[0]
        tiled = tf.tile(shared[tf.newaxis], [num_rows, 1, 1])
        order = np.argsort([*self._user, *self._candidate])
        joined = tf.gather(tf.concat([tiled, own], axis=1), order, axis=1)
        x0 = tf.reshape(joined, [num_rows, len(order) * own.shape[-1]])
        # only the first layer's input has a part that is the user's alone
        kernel = tf.convert_to_tensor(interaction.first_kernel())
        x = interaction.rest(x0, _split_product(kernel, shared, own, self._user, self._candidate))
        return [tf.matmul(x, kernel) for kernel in self._kernels()]


def _pick(products: tf.Tensor, pairs: Sequence[tuple[int, int]]) -> tf.Tensor:
    """`[N, n, n]` -> `[N, pairs]`."""
    size = products.shape[1]
    return tf.gather(tf.reshape(products, [-1, size * size]), [a * size + b for a, b in pairs], axis=1)


def _split_product(
    kernel: tf.Tensor, shared: tf.Tensor, own: tf.Tensor, user: Sequence[int], candidate: Sequence[int]
) -> tf.Tensor:
    """`joined @ kernel`, `[N, units]`, where joined has all vectors of a row side by side."""
    width = own.shape[-1]

    def rows(places: Sequence[int]) -> np.ndarray:
        return np.concatenate([np.arange(place * width, (place + 1) * width) for place in places])

    once = tf.matmul(tf.reshape(shared, [1, -1]), tf.gather(kernel, rows(user)))
    return tf.matmul(tf.reshape(own, [-1, len(candidate) * width]), tf.gather(kernel, rows(candidate))) + once
