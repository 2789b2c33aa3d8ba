"""From exceptions to codes and messages."""

from __future__ import annotations

import pytest
import tensorflow as tf

from savedmodels.server.errors import TENSORFLOW_CODES, from_exception, graph_message
from savedmodels.wire.arrays import InputError


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (
            tf.errors.InvalidArgumentError(None, None, "x is bad\n\t [[{{node a/b}}]] [Op:f]"),
            "INVALID_ARGUMENT",
            "x is bad",
        ),
        (
            tf.errors.InvalidArgumentError(None, None, "no Example [[{{function_node __f_1}}{{node Parse/b}}]]"),
            "INVALID_ARGUMENT",
            "no Example",
        ),
        (tf.errors.ResourceExhaustedError(None, None, "too big"), "RESOURCE_EXHAUSTED", "too big"),
        (InputError("input 'x'"), "INVALID_ARGUMENT", "input 'x'"),
        (tf.errors.InternalError(None, None, "secret"), "INTERNAL", "The model failed on this request"),
        (KeyError("secret"), "INTERNAL", "The model failed on this request"),
    ],
)
def test_one_table_from_exceptions_to_codes(error, code, message):
    served = from_exception(error)
    assert served.code == code
    assert served.message.startswith(message)
    assert "node" not in served.message


def test_every_error_of_the_table_is_tensorflows():
    assert all(issubclass(getattr(tf.errors, name), tf.errors.OpError) for name in TENSORFLOW_CODES)


def test_an_assertion_is_told_without_the_graph_around_it():
    @tf.function
    def check(x):
        with tf.control_dependencies([tf.debugging.assert_less(x, 3, message="column 'x': it's too large.")]):
            return tf.identity(x)

    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        check(tf.constant(5))
    assert graph_message(caught.value) == "column 'x': it's too large."
