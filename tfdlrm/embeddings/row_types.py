"""Rows in fewer bytes than float32: bfloat16 and float16 for training, int8 for inference.

Half-precision rows are computed on in float32 and stored with stochastic rounding: up with a probability equal to the
part that is cut off. A row of bfloat16 has 8 bits; rounded to the nearest, an update of less than 1/512 of a value
would never move it, while stochastic rounding moves it right on average. The random bits are a function of (seed,
step, row, column), so a run repeats.

int8 rows are those of the reference's inference (uint8 data, then the row's scale and minimum as float32):
value = data * scale + minimum, scale = (maximum - minimum) / 255.
"""

from __future__ import annotations

from typing import Literal, get_args

import tensorflow as tf

RowDtype = Literal["float32", "bfloat16", "float16", "int8"]
ROW_DTYPES: tuple[str, ...] = get_args(RowDtype)
_STORED = {"float32": tf.float32, "bfloat16": tf.bfloat16, "float16": tf.float16, "int8": tf.uint8}
_INT8_TAIL = 8  # bytes: scale and minimum
_MASK = {"bfloat16": 0xFFFF, "float16": 0x1FFF}
_LARGEST_FLOAT16 = 65504.0


def stored_dtype(dtype: str) -> tf.DType:
    """What the variable holds."""
    return _STORED[dtype]


def stored_width(dtype: str, width: int) -> int:
    """Elements of the variable a row."""
    return width + _INT8_TAIL if dtype == "int8" else width


def row_bytes(dtype: str, width: int) -> int:
    """Bytes a row."""
    return stored_width(dtype, width) * stored_dtype(dtype).size


def widen(stored: tf.Tensor, dtype: str) -> tf.Tensor:
    """Stored rows -> float32 `[N, D]`."""
    if dtype == "float32":
        return stored
    if dtype != "int8":
        return tf.cast(stored, tf.float32)
    width = stored.shape[-1] - _INT8_TAIL
    tail = tf.bitcast(tf.reshape(stored[:, width:], [-1, 2, 4]), tf.float32)  # [N, 2]
    return tf.cast(stored[:, :width], tf.float32) * tail[:, :1] + tail[:, 1:]


def narrow(values: tf.Tensor, dtype: str) -> tf.Tensor:
    """float32 `[N, D]` -> stored rows, rounded to the nearest."""
    if dtype == "float32":
        return values
    if dtype != "int8":
        return tf.cast(values, stored_dtype(dtype))
    low = tf.reduce_min(values, axis=1, keepdims=True)
    span = tf.reduce_max(values, axis=1, keepdims=True) - low
    # a row of one value has no span; the reference divides by a tiny number instead of 0
    data = tf.round((values - low) * (255.0 / (span + 1e-8)))
    tail = tf.bitcast(tf.concat([span / 255.0, low], axis=1), tf.uint8)  # [N, 2, 4]
    return tf.concat([tf.cast(data, tf.uint8), tf.reshape(tail, [-1, _INT8_TAIL])], axis=1)


def round_stochastically(values: tf.Tensor, dtype: str, seed: int, step: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """float32 `[N, D]` -> bfloat16 or float16, up or down by the random bits of (seed, step, row, column).

    Never to infinity. The kernels do the same (`native/src/rows.inc`), bit for bit.
    """
    columns = tf.range(values.shape[1], dtype=tf.int64)
    random = _random_bits(_mix(seed, step), rows, columns)
    bits = tf.bitcast(values, tf.uint32)
    mask = tf.constant(_MASK[dtype], tf.uint32)
    cut = tf.bitwise.invert(mask)
    rounded = tf.bitwise.bitwise_and(bits + tf.bitwise.bitwise_and(random, mask), cut)
    up = tf.bitcast(rounded, tf.float32)
    down = tf.bitcast(tf.bitwise.bitwise_and(bits, cut), tf.float32)
    if dtype == "bfloat16":
        result = tf.where(tf.math.is_finite(up), up, down)
    else:
        size = tf.abs(values)
        # below 2^-14 float16 has multiples of 2^-24
        scaled = size * 2.0**24
        whole = tf.floor(scaled)
        extra = (scaled - whole) * 65536.0 > tf.cast(
            tf.bitwise.bitwise_and(random, tf.constant(0xFFFF, tf.uint32)), tf.float32
        )
        subnormal = tf.sign(values) * (whole + tf.cast(extra, tf.float32)) * 2.0**-24
        normal = tf.where(tf.abs(up) >= 65536.0, down, up)
        result = tf.where(size < 2.0**-14, subnormal, tf.clip_by_value(normal, -_LARGEST_FLOAT16, _LARGEST_FLOAT16))
    return tf.cast(tf.where(tf.math.is_finite(values), result, values), stored_dtype(dtype))


def _u64(value: int) -> tf.Tensor:
    return tf.constant(value, tf.uint64)


def _shifted(x: tf.Tensor, bits: int) -> tf.Tensor:
    return tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, tf.fill(tf.shape(x), _u64(bits))))


def _mix(seed: int, step: tf.Tensor) -> tf.Tensor:
    start = (seed * 0x9E3779B97F4A7C15) % 2**64
    x = _u64(start) + tf.cast(step, tf.uint64)
    x = _shifted(x, 30) * _u64(0xBF58476D1CE4E5B9)
    x = _shifted(x, 27) * _u64(0x94D049BB133111EB)
    return _shifted(x, 31)


def _random_bits(seed: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    by_row = tf.cast(rows, tf.uint64)[:, tf.newaxis] * _u64(0x9E3779B97F4A7C15)
    by_column = tf.cast(columns, tf.uint64)[tf.newaxis, :] * _u64(0xC2B2AE3D27D4EB4F)
    shape = tf.broadcast_dynamic_shape(tf.shape(by_row), tf.shape(by_column))
    x = tf.bitwise.bitwise_xor(tf.broadcast_to(by_row, shape), tf.broadcast_to(by_column, shape))
    x = tf.bitwise.bitwise_xor(x, tf.fill(shape, seed))
    x = _shifted(x, 30) * _u64(0xBF58476D1CE4E5B9)
    x = _shifted(x, 27) * _u64(0x94D049BB133111EB)
    return tf.cast(tf.bitwise.right_shift(x, tf.fill(shape, _u64(32))), tf.uint32)
