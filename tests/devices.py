"""Two devices on one machine, for what must be the same on one and on several."""

from __future__ import annotations

import tensorflow as tf


def two_devices() -> tf.distribute.MirroredStrategy:
    """A mirrored strategy over the two logical CPUs that `conftest.py` sets up.

    Gradients are summed on one device: the default on CPUs, collective operations, keeps its keys for the life of the
    process, and a second strategy with other shapes then fails with "Shape mismatch in the collective instance".
    """
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], tf.distribute.ReductionToOneDevice())
