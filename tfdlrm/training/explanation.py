"""Explanations of single rows: what each column adds to a row's logit, by occlusion against the training mean.

The contribution of a column is logit(row) - logit(row with the column at its mean of the training rows). The mean of a
dense column is that of its transformed numbers; that of a categorical one is the mean of its pooled vectors, so that no
id stands for all others. Contributions of columns that work together overlap, and do not add up to the logit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tfdlrm.data.columns import Columns
from tfdlrm.data.dataset import InMemoryDataset
from tfdlrm.models.dlrm import DLRM
from tfdlrm.native.scope import native_kernels
from tfdlrm.schema import FeatureSpec

_BATCH_SIZE = 1024


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Contributions of the columns to the logits of N rows.

    Args:
        columns: names of F columns: dense ones, then categorical ones.
        contributions: float32 [N, F]; of several labels [N, labels, F].
        logits: float32 [N]; of several labels [N, labels].
        mean_logit: of a row whose every column is at its mean; of several labels [labels].
    """

    columns: tuple[str, ...]
    contributions: np.ndarray
    logits: np.ndarray
    mean_logit: np.ndarray

    def top(self, row: int, count: int = 5, label: int = 0) -> list[tuple[str, float]]:
        """The columns that move a row most: (name, contribution), the largest first, whatever its sign.

        Args:
            row: number of the row.
            count: of columns.
            label: number of the label.

        Raises:
            ValueError: there is no such row.
        """
        if not 0 <= row < len(self.contributions):
            raise ValueError(f"Explanation: row={row} is not one of the {len(self.contributions)} rows, from 0.")
        found = self.contributions[row] if self.contributions.ndim == 2 else self.contributions[row, label]
        order = np.argsort(-np.abs(found), kind="stable")[:count]
        return [(self.columns[place], float(found[place])) for place in order]


class Explainer:
    """Explains batches of encoded rows.

    Args:
        model: a DLRM or DLRMDCNv2, trained.
        spec: its columns.
        background: training rows, see `training.background`; only the mean of each column is used.

    Example:
        >>> explainer = Explainer(model, spec, background)
        >>> explainer.contributions(features).shape  # rows, labels, columns
        (32, 1, 39)
    """

    def __init__(self, model: DLRM, spec: FeatureSpec, background: Columns) -> None:
        self._model = model
        self.columns = spec.input_names
        rows = InMemoryDataset(spec, background).batches(_BATCH_SIZE)
        form = rows.element_spec[0]
        pooled = tf.function(self._pooled, input_signature=[form], autograph=False)
        self._mean_dense = background.dense.mean(axis=0, dtype=np.float64).astype(np.float32)
        self._mean_pooled: np.ndarray | None = None
        if spec.categorical:
            sums = sum(pooled(features).numpy().astype(np.float64).sum(axis=0) for features, _ in rows)
            self._mean_pooled = np.asarray(sums / background.num_rows, np.float32)  # [F, D]
        self._form = form
        self._run = tf.function(self._contributions, input_signature=[form], autograph=False)

    def contributions(self, features: Any) -> np.ndarray:
        """float32 [B, labels, F], in the order of `columns`.

        Args:
            features: of a batch, see `data.Dataset`.
        """
        return np.moveaxis(self._run(features).numpy(), 0, 2)

    def mean_logit(self) -> np.ndarray:
        """float32 [labels]: of a row whose every column is at its mean."""
        with native_kernels():
            dense = tf.constant(self._mean_dense[None])
            pooled = None if self._mean_pooled is None else tf.constant(self._mean_pooled[None])
            return tf.cast(self._logits(dense, pooled), tf.float32).numpy()[0]

    def _pooled(self, features: Any) -> tf.Tensor:
        with native_kernels():
            ids = {feature.name: features[feature.name] for feature in self._model.config.features}
            return tf.cast(self._model.embeddings(ids, training=False), tf.float32)

    def _logits(self, dense: tf.Tensor, pooled: tf.Tensor | None) -> tf.Tensor:
        model = self._model
        x = None if model.bottom_mlp is None else model.bottom_mlp(dense, training=False)
        e = None if pooled is None else tf.cast(pooled, model.compute_dtype)
        return tf.cast(model.logits_of(x, e, training=False), tf.float32)

    def _contributions(self, features: Any) -> tf.Tensor:
        """float32 [F, B, labels]."""
        num_dense = len(self._mean_dense)
        pooled = None if self._mean_pooled is None else self._pooled(features)
        dense = features["dense"] if num_dense else tf.zeros([tf.shape(pooled)[0], 0])
        with native_kernels():
            whole = self._logits(dense, pooled)

            def without(column: tf.Tensor) -> tf.Tensor:
                """One graph for all columns: which of them is at its mean is a number."""
                own = tf.range(num_dense) == column
                d = tf.where(own[None], self._mean_dense[None], dense) if num_dense else dense
                e = pooled
                if e is not None:
                    own = tf.range(self._mean_pooled.shape[0]) == column - num_dense  # type: ignore[union-attr]
                    e = tf.where(own[None, :, None], self._mean_pooled[None], e)  # type: ignore[index]
                return whole - self._logits(d, e)

            return tf.map_fn(without, tf.range(len(self.columns)), fn_output_signature=tf.float32)
