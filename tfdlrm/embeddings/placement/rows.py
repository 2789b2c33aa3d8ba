"""One array of rows on one device, never read or written whole."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf
from tensorflow.python.ops import resource_variable_ops

from tfdlrm.embeddings import row_types
from tfdlrm.native import loader

_SMALLER = "Check vocabulary_size, compress the table (quotient_remainder), or cut it over parameter servers."
MOST_ROWS = 2**31 - 1  # TensorFlow makes no larger dimension of a variable


class RowArray(tf.Module):
    """A `[num_rows, width]` variable with row access only; values go in and come out as float32.

    Every access is a gather or a scatter on the variable's handle. A dense read, after the first scatter, copies
    the whole array (docs/decisions/0002), so there is no method for one.

    Args:
        name: of the variable.
        num_rows: V.
        width: D, or a slot's width.
        dtype: how rows are stored; see `row_types`.
        seed: of stochastic rounding.

    Raises:
        ValueError: there are more than `MOST_ROWS`, or more than the memory holds.
    """

    def __init__(self, name: str, num_rows: int, width: int, dtype: str = "float32", seed: int = 0):
        super().__init__(name=name.replace("/", "_"))
        if num_rows > MOST_ROWS:
            raise ValueError(
                f"{name}: {num_rows:,} rows; an array of one process has at most {MOST_ROWS:,}. {_SMALLER}"
            )
        self.num_rows = num_rows
        self.width = width
        self.dtype = dtype
        self.seed = seed
        shape, stored = [num_rows, row_types.stored_width(dtype, width)], row_types.stored_dtype(dtype)
        with tf.init_scope(), _memory_errors(name, shape, stored):
            # not tf.Variable: this one is not mirrored, whatever the strategy's scope. Empty() gives memory that is
            # touched only when rows are written; the rows are written in blocks right after.
            self.variable = resource_variable_ops.ResourceVariable(
                initial_value=lambda: tf.raw_ops.Empty(shape=shape, dtype=stored, init=False),
                shape=shape,
                dtype=stored,
                trainable=False,
                name=name.replace("/", "_"),
            )
            ops = loader.library()
            if ops is not None:
                # fewer page faults and misses of the address cache at random rows
                ops.tfdlrm_advise_huge_pages(table=self.variable.handle)

    @property
    def row_bytes(self) -> int:
        """Bytes a row."""
        return row_types.row_bytes(self.dtype, self.width)

    def gather(self, ids: tf.Tensor) -> tf.Tensor:
        """Rows `[N, width]` of `ids` `[N]`."""
        return row_types.widen(tf.gather(self.variable, ids), self.dtype)

    def scatter_update(self, ids: tf.Tensor, values: tf.Tensor) -> None:
        """Overwrites rows, rounded to the nearest; ids must be unique."""
        self._scatter(ids, row_types.narrow(values, self.dtype))

    def scatter_rounded(self, ids: tf.Tensor, values: tf.Tensor, step: tf.Tensor) -> None:
        """Overwrites rows of a training step, rounded stochastically where they are not float32; ids must be unique."""
        if self.dtype == "float32":
            self._scatter(ids, values)
        else:
            rows = self.rounding_rows(ids)
            self._scatter(ids, row_types.round_stochastically(values, self.dtype, self.seed, step, rows))

    def rounding_rows(self, ids: tf.Tensor) -> tf.Tensor:
        """The numbers of rows that the random bits of their rounding follow from."""
        return ids

    def _scatter(self, ids: tf.Tensor, stored: tf.Tensor) -> None:
        tf.raw_ops.ResourceScatterUpdate(resource=self.variable.handle, indices=ids, updates=stored)

    def scatter_sub(self, ids: tf.Tensor, values: tf.Tensor) -> None:
        """Subtracts from float32 rows; ids must be unique."""
        tf.raw_ops.ResourceScatterSub(resource=self.variable.handle, indices=ids, updates=values)

    def read(self, start: int, stop: int) -> tf.Tensor:
        """Rows `[start, stop)`; costs their size."""
        return self.gather(tf.range(start, stop, dtype=tf.int64))

    def write(self, start: int, values: tf.Tensor) -> None:
        """Overwrites rows from `start` on."""
        self.scatter_update(tf.range(start, start + values.shape[0], dtype=tf.int64), values)


@contextlib.contextmanager
def _memory_errors(name: str, shape: list[int], stored: tf.DType) -> Iterator[None]:
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        size = shape[0] * shape[1] * stored.size
        raise ValueError(
            f"{name}: {shape[0]:,} rows of {size / 2**30:,.1f} GiB are more than the memory holds. {_SMALLER}"
        ) from error
