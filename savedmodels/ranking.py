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

from savedmodels.dot_ranking import DotRanking
from savedmodels.names import DENSE
from tfdlrm.layers import ConcatInteraction, DotInteraction
from tfdlrm.models.dcnv2 import CrossInteraction
from tfdlrm.models.dlrm import DLRM

Features = dict[str, Any]
Products = Callable[[tf.Tensor, tf.Tensor], list[tf.Tensor]]


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
        # the dense vector is vector 0, the features follow
        order = [DENSE] if model.config.num_dense else []
        order += [feature.name for feature in model.config.features]
        unknown = sorted(set(candidate_inputs) - set(order))
        if unknown:
            raise ValueError(f"candidate features {unknown} are not of the model, which has {order}.")
        self.model = model
        self.of_candidates = frozenset(candidate_inputs)
        self.of_user = frozenset(order) - self.of_candidates
        if not self.of_candidates or not self.of_user:
            raise ValueError(
                f"candidate features {sorted(self.of_candidates)} leave {sorted(self.of_user)} to the user. Give each "
                "side at least one feature."
            )
        self._user = [place for place, name in enumerate(order) if name in self.of_user]
        self._candidate = [place for place, name in enumerate(order) if name in self.of_candidates]
        interaction = model.interaction
        if isinstance(interaction, DotInteraction):
            self._products: Products = DotRanking(model, self._user, self._candidate)
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
        if DENSE in inputs and self.model.bottom_mlp is not None:
            parts.append(self.model.bottom_mlp(inputs[DENSE], training=False)[:, tf.newaxis, :])
        features = {name: value for name, value in inputs.items() if name != DENSE}
        if features:
            parts.append(self.model.embeddings.pooled(features))
        return parts[0] if len(parts) == 1 else tf.concat(parts, axis=1)

    def _kernels(self) -> list[tf.Tensor]:
        return [tf.convert_to_tensor(mlp.dense_layers[0].kernel) for mlp in self.model.top_mlps]

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


def _split_product(
    kernel: tf.Tensor, shared: tf.Tensor, own: tf.Tensor, user: Sequence[int], candidate: Sequence[int]
) -> tf.Tensor:
    """`joined @ kernel`, `[N, units]`, where joined has all vectors of a row side by side."""
    width = own.shape[-1]

    def rows(places: Sequence[int]) -> np.ndarray:
        return np.concatenate([np.arange(place * width, (place + 1) * width) for place in places])

    once = tf.matmul(tf.reshape(shared, [1, -1]), tf.gather(kernel, rows(user)))
    return tf.matmul(tf.reshape(own, [-1, len(candidate) * width]), tf.gather(kernel, rows(candidate))) + once
