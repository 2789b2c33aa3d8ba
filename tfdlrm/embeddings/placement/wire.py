"""Many small tensors as one vector of 32-bit words, so that each step sends one message a server and direction."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


def to_words(tensor: tf.Tensor) -> tf.Tensor:
    """Any number of 4- or 8-byte values -> int32 `[n]`, bit by bit."""
    words = tensor if tensor.dtype == tf.int32 else tf.bitcast(tensor, tf.int32)
    return tf.reshape(words, [-1])


def from_words(words: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Inverse of `to_words`, flat."""
    if dtype == tf.int32:
        return words
    if dtype.size == 8:
        words = tf.reshape(words, [-1, 2])
    return tf.bitcast(words, dtype)


def floats_to_words(values: tf.Tensor, wire_dtype: str) -> tf.Tensor:
    """Float32 values of any shape -> int32 words; bfloat16 halves them and rounds to 8 bits of precision."""
    if wire_dtype == "float32":
        return to_words(values)
    narrow = tf.cast(tf.reshape(values, [-1]), tf.bfloat16)
    odd = tf.size(narrow) % 2
    narrow = tf.pad(narrow, [[0, odd]])
    return tf.bitcast(tf.reshape(narrow, [-1, 2]), tf.int32)


def floats_from_words(words: tf.Tensor, count: tf.Tensor, wire_dtype: str) -> tf.Tensor:
    """Inverse of `floats_to_words`: float32 `[count]`."""
    if wire_dtype == "float32":
        return tf.bitcast(words, tf.float32)
    return tf.cast(tf.reshape(tf.bitcast(words, tf.bfloat16), [-1])[:count], tf.float32)


def num_float_words(count: tf.Tensor, wire_dtype: str) -> tf.Tensor:
    """Words that `count` floats take."""
    return count if wire_dtype == "float32" else (count + 1) // 2


class Reader:
    """Takes words off the front of a message, in order."""

    def __init__(self, words: tf.Tensor):
        self._words = words
        self._position: tf.Tensor | int = 0

    def take(self, count: tf.Tensor | int) -> tf.Tensor:
        start = self._position
        self._position = start + count
        return self._words[start : start + count]

    def values(self, dtype: tf.DType, count: int) -> tf.Tensor:
        """`count` values, a static number."""
        words = self.take(count * dtype.size // 4)
        return from_words(tf.ensure_shape(words, [count * dtype.size // 4]), dtype)

    def scalar(self, dtype: tf.DType) -> tf.Tensor:
        return self.values(dtype, 1)[0]

    def floats(self, count: tf.Tensor, wire_dtype: str) -> tf.Tensor:
        return floats_from_words(self.take(num_float_words(count, wire_dtype)), count, wire_dtype)


def message(parts: Sequence[tf.Tensor]) -> tf.Tensor:
    """Words one after the other."""
    return tf.concat(list(parts), axis=0)
