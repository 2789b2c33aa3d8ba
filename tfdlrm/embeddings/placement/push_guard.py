"""Each push is applied once, also where a step is done again, and pushes of one server one after the other."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import tensorflow as tf
from tensorflow.python.ops import resource_variable_ops

from tfdlrm.config.parameter_server import MAX_STALENESS

GUARD_SLOTS = MAX_STALENESS
"""Blocks whose last push is remembered: no two that are unfinished at a time share a slot."""


class PushNumber(NamedTuple):
    """Which push: int64 scalars, the block of training steps and the step in it. A block below 0 is always applied."""

    block: tf.Tensor
    step: tf.Tensor


UNNUMBERED = (-1, 0)


class PushGuard(tf.Module):
    """Remembers, on one device, the last push of each recent block."""

    def __init__(self, name: str, device: str):
        super().__init__(name=name)
        self._device = device
        with tf.init_scope(), tf.device(device):
            self._last = resource_variable_ops.ResourceVariable(
                initial_value=lambda: tf.fill([GUARD_SLOTS, 2], tf.constant(-1, tf.int64)),
                shape=[GUARD_SLOTS, 2],
                dtype=tf.int64,
                trainable=False,
                name=f"{name}_last_push",
            )
            self._mutex = tf.raw_ops.MutexV2(container="", shared_name=f"{name}_{id(self)}_mutex")

    @contextlib.contextmanager
    def once(self, number: PushNumber) -> Iterator[tf.Tensor]:
        """Holds the server's lock and tells whether this push is new; every op of the body runs on the server."""
        with tf.device(self._device):
            lock = tf.raw_ops.MutexLock(mutex=self._mutex)
            done: list[tf.Operation] = []
            graph = tf.compat.v1.get_default_graph()
            before = set() if tf.executing_eagerly() else {op.name for op in graph.get_operations()}
            with tf.control_dependencies([lock] if not tf.executing_eagerly() else []):
                slot = tf.reshape(tf.maximum(number.block, 0) % GUARD_SLOTS, [1])
                last_block, last_step = tf.unstack(tf.gather(self._last, slot)[0])
                newer = (number.block > last_block) | ((number.block == last_block) & (number.step > last_step))
                fresh = newer | (number.block < 0)
                known = tf.stack([number.block, number.step])[tf.newaxis]
                # an unnumbered push leaves no trace
                keep = tf.where(newer, known, tf.stack([last_block, last_step])[tf.newaxis])
                tf.raw_ops.ResourceScatterUpdate(resource=self._last.handle, indices=slot, updates=keep)
                yield fresh
            if not tf.executing_eagerly():
                done = [op for op in graph.get_operations() if op.name not in before and op is not lock.op]
            with tf.control_dependencies(done):
                tf.raw_ops.ConsumeMutexLock(mutex_lock=lock)
