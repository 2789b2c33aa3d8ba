"""ConcatInteraction and ProjectedDotInteraction: forms of the input, torchrec's order, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfdlrm.layers import ConcatInteraction, ProjectedDotInteraction


def test_concat_in_order_and_padded() -> None:
    x, e = tf.constant([[1.0, 2.0]]), tf.constant([[[3.0, 4.0], [5.0, 6.0]]])
    for inputs in ([x, e], [x, *tf.unstack(e, axis=1)], [x, tf.unstack(e, axis=1)]):
        assert ConcatInteraction()(inputs).numpy().tolist() == [[1, 2, 3, 4, 5, 6]]
    assert ConcatInteraction(padding=4)([x, e]).numpy().tolist() == [[1, 2, 3, 4, 5, 6, 0, 0]]


def test_concat_of_different_widths() -> None:
    parts = [tf.constant([[1.0]]), tf.constant([[2.0, 3.0]])]
    assert ConcatInteraction()(parts).numpy().tolist() == [[1, 2, 3]]


def test_projected_dot_reshapes_the_second_branch_as_torchrec_does() -> None:
    """With the branches replaced by known vectors: y [1, 2, 2], z [1, 2, 3], reshaped and not transposed."""
    layer = ProjectedDotInteraction([4], [6])
    x, e = tf.constant([[1.0, 2.0]]), tf.zeros([1, 1, 2])
    layer.build([x.shape, e.shape])
    for branch, values in ((layer.branch1, [1, 2, 3, 4]), (layer.branch2, [1, 2, 3, 4, 5, 6])):
        kernel, bias = branch.trainable_weights
        kernel.assign(tf.zeros_like(kernel))
        bias.assign(values)
    y, z = np.array([[1, 2], [3, 4]]), np.array([[1, 2, 3], [4, 5, 6]])
    assert layer([x, e]).numpy().tolist() == [[1, 2, *(y @ z).ravel().tolist()]]


def test_branches_must_end_in_multiples_of_the_width() -> None:
    layer = ProjectedDotInteraction([8], [6], name="p")
    with pytest.raises(ValueError, match=r"layer 'p': branch2 ends in 6 units, not a multiple .* width 4"):
        layer.build([(None, 4), (None, 3, 4)])


@pytest.mark.parametrize("layer", [ConcatInteraction, lambda **k: ProjectedDotInteraction([4], [4], **k)])
def test_padding_must_be_a_multiple(layer: type) -> None:
    with pytest.raises(ValueError, match="layer 'p': padding=0 is not a multiple"):
        layer(padding=0, name="p")
