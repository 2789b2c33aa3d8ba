"""Who is training: the recorder through which a training step learns which pooled vectors were looked up.

A training step that owns its GradientTape opens a recorder. While it is open, every lookup hands its pooled
vectors to the recorder, which makes them leaves of the tape; the step asks the tape for their gradients and
gives those back to the engine. Without a recorder nothing is watched and nothing can be updated, so
evaluation, prediction and a user's own tape leave tables alone.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import tensorflow as tf

from tfdlrm.native.scope import native_kernels

if TYPE_CHECKING:
    from tfdlrm.embeddings.placement.base import Residual
    from tfdlrm.embeddings.tables import EmbeddingTables


class Recorded(NamedTuple):
    """One lookup of one id group: its tables, what the placement needs for the update, and the tape's leaf."""

    tables: EmbeddingTables
    residual: Residual
    leaf: tf.Tensor


class LookupRecorder:
    """The lookups of one training step, in order.

    Example:
        >>> with tf.GradientTape() as tape, record_lookups(tape) as recorder:
        ...     loss = loss_fn(labels, model(features, training=True))
        >>> dense, pooled = tape.gradient(loss, [model.trainable_variables, recorder.leaves])
        >>> recorder.update(pooled, learning_rate=0.1)
    """

    def __init__(self, tape: tf.GradientTape, *, stateless: bool = False):
        self._tape = tape
        self.entries: list[Recorded] = []
        # whether the step keeps state in tensors: then counts of id policies are given to it and not to their variable
        self.stateless = stateless
        self.policy_counts: list[tuple[tf.Variable, tf.Tensor]] = []

    @property
    def leaves(self) -> list[tf.Tensor]:
        return [entry.leaf for entry in self.entries]

    def record(
        self, tables: EmbeddingTables, residual: Residual, pooled: tf.Tensor, anchor: tf.Variable | None = None
    ) -> tf.Tensor:
        """Makes pooled vectors a leaf of the tape.

        Args:
            tables: of the lookup.
            residual: of the lookup.
            pooled: its vectors.
            anchor: of the tables, where a tape may be asked for their gradients as Keras weights; those are empty.
        """
        leaf = tf.stop_gradient(pooled)
        self._tape.watch(leaf)
        self.entries.append(Recorded(tables, residual, leaf))
        return leaf if anchor is None else tf.identity_n([leaf, anchor])[0]

    def by_tables(self, gradients: list[tf.Tensor | None]) -> list[tuple[EmbeddingTables, list]]:
        """Pairs (residual, gradient) grouped by the tables they belong to; unused lookups are dropped."""
        if len(gradients) != len(self.entries):
            raise ValueError(
                f"LookupRecorder: {len(gradients)} gradients for {len(self.entries)} recorded lookups. "
                "Pass tape.gradient(loss, recorder.leaves) as it is."
            )
        groups: dict[int, tuple[EmbeddingTables, list]] = {}
        for entry, gradient in zip(self.entries, gradients, strict=True):
            pairs = groups.setdefault(id(entry.tables), (entry.tables, []))[1]
            if gradient is not None:
                pairs.append((entry.residual, tf.convert_to_tensor(gradient)))
        return list(groups.values())

    def update(self, gradients: list[tf.Tensor | None], learning_rate: float | tf.Tensor | None = None) -> None:
        """Updates all tables once each, for a training loop of one's own.

        Args:
            gradients: one a leaf, `[num_bags, D]`, None where the loss does not depend on it.
            learning_rate: for tables whose optimizer has no learning rate of its own.
        """
        for tables, pairs in self.by_tables(gradients):
            tables.update(pairs, learning_rate=learning_rate)


_active = threading.local()


def current_recorder() -> LookupRecorder | None:
    """The innermost open recorder of this thread (each replica of a mirrored strategy has its own thread)."""
    stack = getattr(_active, "stack", None)
    return stack[-1] if stack else None


@contextlib.contextmanager
def record_lookups(tape: tf.GradientTape, *, native: bool = True, stateless: bool = False) -> Iterator[LookupRecorder]:
    """Opens a recorder for the lookups made in its body.

    Args:
        tape: whose leaves the pooled vectors become.
        native: whether the body may use the native kernels, which XLA cannot compile.
        stateless: the body runs in a `keras.StatelessScope` and changes no variable.
    """
    stack = _active.__dict__.setdefault("stack", [])
    recorder = LookupRecorder(tape, stateless=stateless)
    stack.append(recorder)
    try:
        with native_kernels(native):
            yield recorder
    finally:
        stack.pop()
