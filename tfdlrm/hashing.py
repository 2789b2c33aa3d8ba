"""Stable hashing of strings and arbitrary int64 ids into `[0, buckets)`.

The same value gives the same bucket in every process, on every machine, in training and in an exported
SavedModel (only stock TensorFlow ops), so hashed tables need no vocabulary file.
"""

from __future__ import annotations

import tensorflow as tf

# multipliers and shifts of splitmix64's finalizer (Steele, Lea, Flood 2014), a bijection of 64-bit integers
_FIRST_MULTIPLIER = 0xBF58476D1CE4E5B9
_SECOND_MULTIPLIER = 0x94D049BB133111EB
_INCREMENT = 0x9E3779B97F4A7C15


def _xor_shift(x: tf.Tensor, bits: int) -> tf.Tensor:
    return tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, tf.constant(bits, tf.uint64)))


def hash_to_buckets(values: tf.Tensor, buckets: int) -> tf.Tensor:
    """Hashes values into `[0, buckets)`.

    Args:
        values: any shape; string (FarmHash fingerprint64 of the bytes) or an integer dtype (splitmix64 of the
            value as int64).
        buckets: number of buckets, at least 1.

    Returns:
        int64, the shape of `values`.

    Raises:
        TypeError: values are neither strings nor integers.

    Example:
        >>> hash_to_buckets(tf.constant([7, -1, 2**62], tf.int64), 10).dtype
        tf.int64
    """
    values = tf.convert_to_tensor(values)
    if values.dtype == tf.string:
        return tf.strings.to_hash_bucket_fast(values, buckets)
    if not values.dtype.is_integer:
        raise TypeError(f"hash_to_buckets: values have dtype {values.dtype.name}. Pass strings or integers.")
    # a cast keeps the bits, and converters to other formats know it, as they do not know tf.bitcast
    x = tf.cast(tf.cast(values, tf.int64), tf.uint64) + tf.constant(_INCREMENT, tf.uint64)
    x = _xor_shift(x, 30) * tf.constant(_FIRST_MULTIPLIER, tf.uint64)
    x = _xor_shift(x, 27) * tf.constant(_SECOND_MULTIPLIER, tf.uint64)
    x = _xor_shift(x, 31)
    return tf.cast(tf.math.floormod(x, tf.constant(buckets, tf.uint64)), tf.int64)
