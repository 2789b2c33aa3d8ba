"""One array of rows on one device, never read or written whole."""

from __future__ import annotations

import tensorflow as tf
from tensorflow.python.ops import resource_variable_ops

from tfdlrm.native import loader


class RowArray(tf.Module):
    """A `[num_rows, width]` float32 variable with row access only.

    Every access is a gather or a scatter on the variable's handle. A dense read, after the first scatter, copies
    the whole array (docs/decisions/0002), so there is no method for one.

    Args:
        name: of the variable.
        num_rows: V.
        width: D, or a slot's width.
    """

    def __init__(self, name: str, num_rows: int, width: int):
        super().__init__(name=name.replace("/", "_"))
        self.num_rows = num_rows
        self.width = width
        with tf.init_scope():
            # not tf.Variable: this one is not mirrored, whatever the strategy's scope. Empty() gives memory that is
            # touched only when rows are written; the rows are written in blocks right after.
            self.variable = resource_variable_ops.ResourceVariable(
                initial_value=lambda: tf.raw_ops.Empty(shape=[num_rows, width], dtype=tf.float32, init=False),
                shape=[num_rows, width],
                dtype=tf.float32,
                trainable=False,
                name=name.replace("/", "_"),
            )
            ops = loader.library()
            if ops is not None:
                # fewer page faults and misses of the address cache at random rows
                ops.tfdlrm_advise_huge_pages(table=self.variable.handle)

    def gather(self, ids: tf.Tensor) -> tf.Tensor:
        """Rows `[N, width]` of `ids` `[N]`."""
        return tf.gather(self.variable, ids)

    def scatter_update(self, ids: tf.Tensor, values: tf.Tensor) -> None:
        """Overwrites rows; ids must be unique."""
        tf.raw_ops.ResourceScatterUpdate(resource=self.variable.handle, indices=ids, updates=values)

    def scatter_sub(self, ids: tf.Tensor, values: tf.Tensor) -> None:
        """Subtracts from rows; ids must be unique."""
        tf.raw_ops.ResourceScatterSub(resource=self.variable.handle, indices=ids, updates=values)

    def read(self, start: int, stop: int) -> tf.Tensor:
        """Rows `[start, stop)`; costs their size."""
        return self.gather(tf.range(start, stop, dtype=tf.int64))

    def write(self, start: int, values: tf.Tensor) -> None:
        """Overwrites rows from `start` on."""
        self.scatter_update(tf.range(start, start + values.shape[0], dtype=tf.int64), values)
