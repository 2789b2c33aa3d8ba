"""A check inside of an export: stops the request with a message made when it is needed."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf


def refuse_where(wrong: tf.Tensor, message: Callable[[], list[tf.Tensor | str]], value: tf.Tensor) -> tf.Tensor:
    """Passes a value on, or stops with InvalidArgument.

    Args:
        wrong: bool, any shape; one true element stops.
        message: gives the pieces of the message; traced into the branch that stops.
        value: what is passed on.
    """

    def stop() -> tf.Tensor:
        with tf.control_dependencies([tf.debugging.Assert(False, [tf.strings.join(message())])]):
            return tf.constant(False)

    with tf.control_dependencies([tf.cond(tf.reduce_any(wrong), stop, lambda: tf.constant(True))]):
        return tf.identity(value)
