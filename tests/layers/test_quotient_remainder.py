"""How the two vectors of quotient-remainder are combined, against the oracle; the split is the engine's."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tests import reference as oracle
from tfdlrm.layers.quotient_remainder import combine


@pytest.mark.parametrize("operation", ["mult", "add", "concat"])
def test_combination_and_its_gradient(operation: str) -> None:
    rng = np.random.default_rng(0)
    vectors = [rng.normal(size=(3, 4)).astype(np.float32) for _ in range(2)]
    tensors = [tf.constant(vector) for vector in vectors]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        combined = combine(operation, *tensors)
    np.testing.assert_allclose(combined.numpy(), oracle.combine(operation, *vectors), rtol=1e-6)
    upstream = rng.normal(size=combined.shape).astype(np.float32)
    found = tape.gradient(combined, tensors, output_gradients=tf.constant(upstream))
    for gradient, expected in zip(found, oracle.combine_backward(upstream, operation, *vectors), strict=True):
        np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-6)


def test_an_unknown_operation_is_refused() -> None:
    with pytest.raises(ValueError, match=r"operation='max' is unknown\. Use one of 'mult', 'add' and 'concat'"):
        combine("max", tf.ones([1, 2]), tf.ones([1, 2]))
