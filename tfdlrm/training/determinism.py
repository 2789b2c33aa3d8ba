"""Reproducible runs: seeds, and TensorFlow's deterministic ops."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf
from tensorflow.python.framework import config as tensorflow_config


@contextlib.contextmanager
def reproducible(*, seed: int, deterministic: bool) -> Iterator[None]:
    """Seeds Python, NumPy and TensorFlow; `deterministic` also makes every op's result depend on its inputs alone.

    Deterministic ops cost speed (`benchmarks/deterministic_mode.py` measures how much): `tf.data` runs maps in one
    thread, and an op that has no deterministic form raises. What was in force before is put back at the end.

    Args:
        seed: of the run.
        deterministic: whether to ask for deterministic ops.

    Example:
        >>> with reproducible(seed=1, deterministic=True):
        ...     model.fit(batches)
    """
    keras.utils.set_random_seed(seed)
    before = tensorflow_config.is_op_determinism_enabled()
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    try:
        yield
    finally:
        if deterministic and not before:
            tensorflow_config.disable_op_determinism()
